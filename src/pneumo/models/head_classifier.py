"""A classifier whose frozen backbone is replaced by cached features."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from pneumo.models.classifier import Batch, Classifier


class HeadClassifier(Classifier):
    """A classifier with a frozen backbone, whose head can take many optimizer steps a batch.

    Lightning spends more time on a step than a head on cached features does, so there it is given many at once.
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Take all of a batch's steps but the last, and compute the loss of that."""
        *earlier, last = split(batch, self.batch_size or len(batch["label"]))
        if earlier:
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, Optimizer)
            for part in earlier:
                optimizer.zero_grad()
                logits = self(part["input"])
                self._keep("train", part, logits)
                torch.autograd.backward(self._loss(logits, part["label"], "train"))
                optimizer.step()
        return super().training_step(last, batch_idx)


def split(batch: Batch, size: int) -> list[Batch]:
    """Split a batch into smaller ones of `size` images; the last may have fewer."""
    if size >= len(batch["label"]):
        return [batch]
    parts = zip(*(torch.split(tensor, size) for tensor in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]
