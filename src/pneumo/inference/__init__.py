"""Checkpoints and exported networks in use: predictor, backends, inputs and outputs."""
