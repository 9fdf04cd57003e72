"""Numbers from predictions: definitions, intervals, significance, calibration, operating points."""
