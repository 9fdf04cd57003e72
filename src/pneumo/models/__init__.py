"""Networks: any backbone with a new head, and the LightningModule that trains them."""
