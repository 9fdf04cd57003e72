"""Head warm-up of fine-tuning: the head is fitted before the backbone moves."""

import copy
import logging

import numpy as np
import torch

from pneumo.common.terminal import track
from pneumo.data.batches import join_single
from pneumo.data.datamodule import ChestXrayDataModule
from pneumo.data.index import indices_of
from pneumo.models.backbones import trains_on_one_image
from pneumo.models.classifier import Classifier
from pneumo.models.fine_tuning import fit_head
from pneumo.training.finite_values import require_finite_features

_log = logging.getLogger(__name__)


def warm_up_head(datamodule: ChestXrayDataModule, classifier: Classifier, device: torch.device, balance: bool) -> None:
    """Fit the head to the features that the backbone computes in training mode; see `fit_head`.

    The feature cache is of no use here: batch normalization uses other statistics outside of training.

    Args:
        datamodule: Its images are in shuffled batches, as in training, but not augmented.
        classifier: Its backbone stays as it is, stored statistics included.
        device: Where to compute.
        balance: Give each class the same weight in all.

    Raises:
        DataError: An image cannot be decoded.
    """
    images = datamodule.splits["train"]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(datamodule.seed)).tolist()
    places = indices_of([images[i] for i in order], datamodule.radiographs)
    backbone = copy.deepcopy(classifier.train().backbone).to(device)
    features = []
    blocks = datamodule.image_blocks(places, datamodule.batch_size)
    if len(places) % datamodule.batch_size == 1 and not trains_on_one_image(backbone, classifier.image_size):
        blocks = join_single(blocks)
    with torch.inference_mode(), track("Warming up the head", len(places)) as advance:
        for block in blocks:
            features.append(backbone(block.to(device)).float().cpu().numpy())
            require_finite_features(features[-1], str(classifier.hparams["architecture"]))
            advance(sum(map(len, features)))
    label = np.array([images[i].label for i in order])
    fit_head(classifier.head, np.concatenate(features), label, balance)
    _log.info("the head begins as a logistic regression on the features of %d training images", len(images))
