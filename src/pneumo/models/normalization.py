"""Batch normalization of a single image in training."""

import torch
from torch import nn
from torch.func import functional_call


def trains_on_one_image(network: nn.Module, image_size: int) -> bool:
    """Return whether a network in training mode maps a batch of one image.

    Batch normalization needs more than one value per channel, so it fails on one image where the image has been reduced
    to one pixel. Only shapes are computed: no weight, stored statistic or random number changes.

    Args:
        network: Maps images (N, 1, H, W) uint8.
        image_size: H and W.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = network.training
    network.train()
    try:
        with torch.no_grad():
            image = torch.zeros(1, 1, image_size, image_size, dtype=torch.uint8, device="meta")
            functional_call(network, shapes, (image,))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    except (RuntimeError, NotImplementedError):  # an operation that has no shapes without values: training will show
        return True
    finally:
        network.train(training)
    return True
