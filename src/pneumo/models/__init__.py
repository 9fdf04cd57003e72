"""Networks: architectures, weights, backbones and heads, the LightningModule, the OOD detector."""
