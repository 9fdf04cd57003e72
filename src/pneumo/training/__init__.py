"""One run: build, fit, calibrate, test, record."""
