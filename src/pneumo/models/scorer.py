"""A trained classifier made ready for use: images in, what a user is told out."""

import torch
from torch import Tensor, nn

from pneumo.models.classifier import Classifier
from pneumo.models.inference import fast_copy
from pneumo.models.levels import LevelMeans
from pneumo.models.outliers import Outliers


class Scorer(nn.Module):
    """All that a checkpoint answers to images, in one pass: probabilities, and how unlike the training images they are.

    It is a frozen copy with batch normalisations folded into convolutions, made of tensors alone, so that it can be
    exported. Probabilities are those of the test, up to rounding: after temperature and, where the checkpoint asks for
    it, the mean with the mirror image.
    """

    mean: Tensor
    scale: Tensor
    components: Tensor

    def __init__(self, classifier: Classifier) -> None:
        """Copy a classifier, which stays as it is."""
        super().__init__()
        self.levels = LevelMeans(fast_copy(classifier.backbone, classifier.image_size), classifier.image_size)
        self.head = nn.Linear(classifier.head.in_features, classifier.head.out_features)
        self.head.load_state_dict(classifier.head.state_dict())
        self.temperature, self.flip = classifier.temperature, classifier.flip_test
        self.outliers = classifier.outliers is not None
        for name, tensor in classifier.outliers._asdict().items() if classifier.outliers else ():
            self.register_buffer(name, tensor)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            image: (N, 1, S, S), uint8.

        Returns:
            Probabilities of the classes (N, classes), and how unlike they are (N,): more than 1 is too much. All are 0
            where the checkpoint has nothing to tell it by.
        """
        features, means = self.levels(image)
        logits = self.head(features)
        if self.flip:
            logits = (logits + self.head(self.levels.backbone(image.flip(3)))) / 2
        probability = torch.softmax(logits / self.temperature, dim=1)
        if not self.outliers:
            return probability, means.new_zeros(len(means))
        return probability, Outliers(self.mean, self.scale, self.components).score(means)
