"""Ensembles: the mean of the probabilities and OOD scores of several networks."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pneumo.models.fast_inference import InferenceModule
from pneumo.models.logits import calibrate_logits


class EnsembleModule(nn.Module):
    """The exportable module of an ensemble, which averages the outputs of its members.

    The members' probabilities are calibrated before they are averaged. The temperature and the intercept of an adapted
    ensemble change the log odds of the mean.
    """

    def __init__(self, members: Iterable[InferenceModule], temperature: float = 1.0, intercept: float = 0.0) -> None:
        """Combine modules, which share their weights with the ensemble."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.temperature, self.intercept = temperature, intercept
        self.scores_ood = all(member.scores_ood for member in self.members)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute probabilities (N, classes) and OOD scores (N,) of images (N, 1, S, S) uint8; see `combine`."""
        return self.combine([member(image) for member in self.members])

    def combine(self, scores: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Average the probabilities (N, classes) and OOD scores (N,) of each member.

        Scores are 0 unless all members have an OOD detector.
        """
        probability, ood_score = (torch.stack(values).mean(0) for values in zip(*scores, strict=True))
        if (self.temperature, self.intercept) != (1, 0):
            logits = probability.clamp_min(torch.finfo(probability.dtype).tiny).log()
            probability = torch.softmax(calibrate_logits(logits, self.temperature, self.intercept), dim=1)
        return probability, ood_score if self.scores_ood else torch.zeros_like(ood_score)
