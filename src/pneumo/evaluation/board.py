"""Figures for TensorBoard's IMAGES tab, without a need for PyTorch."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def write_images(folder: Path, images: Mapping[str, bytes]) -> None:
    """Put images in the place of those that TensorBoard shows for a folder.

    Args:
        folder: TensorBoard calls a run by its name.
        images: PNG files by their tags.
    """
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder))
    for tag, png in images.items():
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summarise_image(tag, png)))
    writer.flush()  # which raises what the thread of the writer has met
    writer.close()


def summarise_image(tag: str, png: bytes) -> Summary:
    """Give what event files hold of a PNG file: the file as it is."""
    width, height = Image.open(io.BytesIO(png)).size
    image = Summary.Image(encoded_image_string=png, height=height, width=width, colorspace=4)  # RGBA
    return Summary(value=[Summary.Value(tag=tag, image=image)])
