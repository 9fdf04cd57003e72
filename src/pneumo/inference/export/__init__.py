"""Trained networks as ONNX files and PyTorch programs."""
