"""A checkpoint in use: predictor, backends, inputs and outputs."""
