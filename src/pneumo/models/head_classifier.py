"""Classifier for frozen backbones, with several optimizer steps per batch of cached features."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from pneumo.models.classifier import Batch, Classifier


class HeadClassifier(Classifier):
    """A classifier with a frozen backbone whose head is trained by several optimizer steps per batch.

    On cached features, Lightning's overhead per batch exceeds the time of a step, so each batch contains many steps.
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Run all optimizer steps of a batch but the last, and compute the cross-entropy loss of the last one."""
        *earlier, last = split(batch, self.batch_size or len(batch["label"]))
        if earlier:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, Optimizer)
            for part in earlier:
                optimizer.zero_grad()
                logits = self(part["input"])
                self._store_output("train", part, logits)
                torch.autograd.backward(self._loss(logits, part["label"], "train"))
                optimizer.step()
        return super().training_step(last, batch_idx)


def split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into smaller batches of `size` images; the last may be smaller."""
    if size >= len(batch["label"]):
        return [batch]
    parts = zip(*(torch.split(tensor, size) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]
