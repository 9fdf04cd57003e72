"""Networks: architectures, pretrained weights, backbones, the LightningModule, checkpoints, OOD detection."""
