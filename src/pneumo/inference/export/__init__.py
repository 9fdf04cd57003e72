"""Export of trained networks to ONNX files and PyTorch programs."""
