"""Style of all figures, and their export to PNG, SVG and TensorBoard."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pneumo.common.files import atomic_path
from pneumo.common.text import escape_prose
from pneumo.runs.results import Results, count_test_images, run_title

# The colour-blind safe palette of Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#B8B8B8"
DARK = "#555555"  # of secondary text
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "svg.hashsalt": "pneumo",  # makes SVG files reproducible
    "text.parse_math": False,  # names of files and classes may contain dollar signs
}
WIDE = 8.6  # inches
_DPI = {"png": 150, "svg": 72}  # in an SVG it applies only to images, which would otherwise dominate the file size
Files = dict[str, dict[str, bytes]]


def class_colours(count: int) -> list[str]:
    """Return the colours of the classes in their order; the positive class of two has the main colour, blue.

    Colours repeat after six classes.
    """
    order = (COLOURS[1], COLOURS[0], *COLOURS[2:])
    return [order[index % len(order)] for index in range(count)]


def test_size(results: Results) -> str:
    """Return the number of test images as text."""
    return f"{count_test_images(results):,} test images"


def single_panel(results: Results) -> tuple[Figure, Axes]:
    """Return a figure with one panel, titled with the run and the number of its test images.

    The figure is small to stay readable in TensorBoard. Margins are fixed because computing a layout takes as long as
    drawing.
    """
    figure = Figure(figsize=(3.6, 3.6))
    figure.subplots_adjust(left=0.18, right=0.96, bottom=0.14, top=0.86)
    title = run_title(results)
    size = min(11, 380 / len(title))  # shrinks long titles to about the figure's width
    figure.suptitle(f"{title}\n{test_size(results)}", y=0.98, fontsize=size, weight="bold")
    return figure, figure.add_subplot()


def add_title(figure: Figure, text: str, line: int = 0) -> None:
    """Add a line of text above the panels of a wide figure: line 0 is the title, further lines are subtitles."""
    below, style = (0.16 + 0.17 * line, {"fontsize": 9, "color": DARK}) if line else (0.1, {"fontsize": 12})
    figure.text(0.15 / WIDE, 1 - below / figure.get_figheight(), text, va="top", **style)


def save(figures: Mapping[str, Figure], folder: Path) -> Files:
    """Write each figure as PNG and SVG; return the encoded figures by suffix and name."""
    rendered = {suffix: encode(figures, suffix) for suffix in _DPI}
    for suffix, files in rendered.items():
        for name, content in files.items():
            with atomic_path(folder / f"{name}.{suffix}") as path:
                path.write_bytes(content)
    return rendered


def encode(figures: Mapping[str, Figure], suffix: str) -> dict[str, bytes]:
    """Encode figures as PNG or SVG."""
    with rc_context(STYLE):
        return {name: _encode(figure, suffix) for name, figure in figures.items()}


def escape_text(figure: Figure) -> None:
    """Escape control characters in a figure's text, which XML does not allow, and disable math text.

    Tick labels are not escaped: matplotlib creates them while drawing.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_text(escape_prose(text.get_text()))


def _encode(figure: Figure, suffix: str) -> bytes:
    """Encode a figure with a single draw; `Figure.savefig` draws twice to fit the contents."""
    stream = io.BytesIO()
    escape_text(figure)
    figure.set_dpi(_DPI[suffix])
    if suffix == "png":
        options = {"compress_level": 3}  # halves the time for images; files are 5 % larger
        FigureCanvasAgg(figure).print_png(stream, pil_kwargs=options)  # type: ignore[no-untyped-call] # has no types
    else:
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return stream.getvalue()


def write_images(folder: Path, images: Mapping[str, bytes]) -> None:
    """Replace the TensorBoard event files of a folder by one with the given images (PNG files by tag)."""
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder))
    for tag, png in images.items():
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summarise_image(tag, png)))
    writer.flush()  # raises errors of the writer's thread
    writer.close()


def summarise_image(tag: str, png: bytes) -> Summary:
    """Build the TensorBoard image summary of a PNG file, without encoding it again."""
    width, height = Image.open(io.BytesIO(png)).size
    image = Summary.Image(encoded_image_string=png, height=height, width=width, colorspace=4)  # RGBA
    return Summary(value=[Summary.Value(tag=tag, image=image)])
