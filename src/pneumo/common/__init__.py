"""Shared by all packages: atomic files, the array cache, hardware, progress and text."""

__version__ = "0.1.0"
