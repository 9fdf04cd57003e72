"""Images per second of a frozen backbone: pneumo's feature extractor, including its preparation, and eager loops.

    python benchmarks/backbone_pass.py            96 phantoms, four networks: two minutes on two cores
    PNEUMO_DATA_ROOT=FOLDER python benchmarks/backbone_pass.py --full

All variants read the same decoded images, so that only the network is compared. The eager loops use evaluation mode,
inference_mode and batches of 32, without a head. The full run uses all images for EfficientNet-Lite0 and 256 of them
for the other three networks.
"""

from functools import partial
from pathlib import Path

import harness
import plain
import torch

NETWORKS = ("timm/tf_efficientnet_lite0", "torchvision/resnext50_32x4d", "torchvision/googlenet", "torchvision/vgg16")
BATCH = 32


def images(root: Path, limit: int) -> torch.Tensor:
    """Decode up to `limit` images, evenly spaced in the data set, to the format of the image cache."""
    from pneumo.common.hardware import count_cores
    from pneumo.common.input_format import InputFormat
    from pneumo.data.image_cache import RadiographDataset, decoded_blocks
    from pneumo.data.index import index_radiographs

    radiographs = index_radiographs(root, ["NORMAL", "PNEUMONIA"])
    dataset = RadiographDataset(root, radiographs[:: max(1, len(radiographs) // limit)][:limit], InputFormat(224))
    return torch.cat([torch.from_numpy(block) for block in decoded_blocks(dataset, 0, BATCH, count_cores())])


def eager(name: str, root: Path, limit: int, channels_last: bool) -> float:
    """Measure the eager loop."""
    backbone, _ = plain.split_head(plain.network(name, 224))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    backbone.to(device).to(memory_format=layout)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (plain.MEAN, plain.STD))
    pixels = images(root, limit)

    def loop() -> int:
        features = []
        with torch.inference_mode():
            for batch in torch.split(pixels, BATCH):
                image = ((batch.to(device).float() / 255 - mean) / std).to(memory_format=layout)
                features.append(backbone(image).float().cpu())
        return len(torch.cat(features))

    return plain.images_per_second(loop)


def pneumo(name: str, root: Path, limit: int, compiled: bool) -> float:
    """Measure pneumo's feature extractor, including the folding of batch normalization and compilation."""
    from pneumo.common.hardware import choose_hardware, set_up_process
    from pneumo.models.backbones import build_backbone
    from pneumo.models.fast_inference import FeatureExtractor, default_batch_size

    torch.manual_seed(0)
    hardware = choose_hardware("auto", "auto", False)
    backbone, _ = build_backbone(name, None, None, 224, 2)
    device = torch.device(hardware.accelerator)
    pixels = images(root, limit)
    set_up_process(hardware)

    def loop() -> int:
        size = default_batch_size(device)
        extractor = FeatureExtractor(backbone, 224, device, size, compiled)
        return sum(len(block) for block in extractor.run(torch.split(pixels, size), 0, None))

    return plain.images_per_second(loop)


def main() -> None:
    """Measure all four networks."""
    settings = harness.parse(str(__doc__), rounds=2)
    total = sum(1 for _ in settings.root.glob("*/*/*"))
    for name in NETWORKS:
        limit = (total if "lite0" in name else 256) if settings.full else 96
        variants: dict[str, harness.Variant] = {
            "eager": partial(eager, name, settings.root, limit, False),
            "eager, channels last": partial(eager, name, settings.root, limit, True),
            "pneumo": partial(pneumo, name, settings.root, limit, False),
        }
        if settings.full and "lite0" in name:  # for 256 images, compiling takes longer than it saves
            variants["pneumo, compiled"] = partial(pneumo, name, settings.root, limit, True)
        rates = harness.alternate(variants, settings.rounds)
        harness.report(f"backbone_pass-{name.split('/')[1]}", settings, "images/s", rates, f"{limit:,} images")


if __name__ == "__main__":
    main()
