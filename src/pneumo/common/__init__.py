"""Utilities shared by all packages: atomic files, array cache, hardware, progress bars and text."""

__version__ = "0.1.0"  # not in `pneumo/__init__.py`, which imports classes from higher-level packages
SUBTYPES = ("bacterial", "viral")  # of pneumonia, in class order; used in the keys of results.json
