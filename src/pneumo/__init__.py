"""pneumo trains, compares and explains chest X-ray pneumonia classifiers."""

__version__ = "0.1.0"
