"""Shared by all packages: atomic files, the array cache, hardware, progress and text."""

__version__ = "0.1.0"  # here, not in `pneumo` itself, which names classes of packages above
SUBTYPES = ("bacterial", "viral")  # of pneumonia, in the order of their classes; part of the keys of results.json
