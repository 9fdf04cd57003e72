"""Prediction with checkpoints and exported networks: predictor, backends, inputs and outputs."""
