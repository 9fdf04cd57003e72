"""A local web page that predicts one image at a time."""
