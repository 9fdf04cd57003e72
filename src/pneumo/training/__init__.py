"""Training run: build, fit, calibrate, test and write results."""
