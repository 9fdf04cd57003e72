"""Metrics of predictions: definitions, confidence intervals, significance tests, calibration, operating points."""
