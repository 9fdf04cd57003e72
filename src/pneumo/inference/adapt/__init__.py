"""Local adaptation: temperature, intercept and threshold of a checkpoint, fitted to images of another site."""
