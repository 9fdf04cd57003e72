"""Sweeps: grid and search, their jobs, and resuming."""
