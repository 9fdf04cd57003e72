"""Shared by all packages: atomic files, the array cache, hardware, progress and text."""
