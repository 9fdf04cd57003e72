"""Visual style of all figures: colours, sizes, and how figures become files and TensorBoard images."""

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
from pneumo.runs.results import Results, count_tested, name_run

# Okabe and Ito's colours, which the colour-blind tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#B8B8B8"
DARK = "#555555"  # of words that explain
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
    "svg.hashsalt": "pneumo",  # the same figure is the same file
    "text.parse_math": False,  # names of files and classes may hold dollars
}
WIDE = 8.6  # inches
_DPI = {"png": 150, "svg": 72}  # of an SVG the dots of films only, which else would outweigh the rest
Files = dict[str, dict[str, bytes]]


def class_colours(count: int) -> list[str]:
    """Give the classes' colours, the first class's first; of two, that of the positive one leads in all figures."""
    return [COLOURS[1], COLOURS[0], *COLOURS[2:count]]


def tested(results: Results) -> str:
    """Say how many images were tested."""
    return f"{count_tested(results):,} test images"


def single(results: Results) -> tuple[Figure, Axes]:
    """Return a figure of one panel, headed by the run and the number of its test images.

    Small figures stay readable in TensorBoard. Margins are given, since computing them takes as long as drawing.
    """
    figure = Figure(figsize=(3.6, 3.6))
    figure.subplots_adjust(left=0.18, right=0.96, bottom=0.14, top=0.86)
    title = name_run(results)
    size = min(11, 380 / len(title))  # so that it fits, nearly
    figure.suptitle(f"{title}\n{tested(results)}", y=0.98, fontsize=size, weight="bold")
    return figure, figure.add_subplot()


def head(figure: Figure, words: str, line: int = 0) -> None:
    """Put words above the panels of a wide figure: its heading, or, in further lines, what it shows."""
    below, style = (0.16 + 0.17 * line, {"fontsize": 9, "color": DARK}) if line else (0.1, {"fontsize": 12})
    figure.text(0.15 / WIDE, 1 - below / figure.get_figheight(), words, va="top", **style)


def save(figures: Mapping[str, Figure], folder: Path) -> Files:
    """Write each figure as PNG and SVG, and return the files' content by suffix and name."""
    rendered = {suffix: encode(figures, suffix) for suffix in _DPI}
    for suffix, files in rendered.items():
        for name, content in files.items():
            with atomic_path(folder / f"{name}.{suffix}") as path:
                path.write_bytes(content)
    return rendered


def encode(figures: Mapping[str, Figure], suffix: str) -> dict[str, bytes]:
    """Encode figures as png or svg."""
    with rc_context(STYLE):
        return {name: _encode(figure, suffix) for name, figure in figures.items()}


def escape_text(figure: Figure) -> None:
    """Escape control characters of a figure's text, which XML cannot hold, and show it without formulas.

    Tick labels are excepted, as they are made when they are drawn.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_text(escape_prose(text.get_text()))


def _encode(figure: Figure, suffix: str) -> bytes:
    """Draw once; Figure.savefig draws twice, lest something be cut off, which nothing here is."""
    stream = io.BytesIO()
    escape_text(figure)
    figure.set_dpi(_DPI[suffix])
    if suffix == "png":
        how = {"compress_level": 3}  # of films in half the time, a twentieth larger
        FigureCanvasAgg(figure).print_png(stream, pil_kwargs=how)  # type: ignore[no-untyped-call] # has no types
    else:
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return stream.getvalue()


def write_images(folder: Path, images: Mapping[str, bytes]) -> None:
    """Put images in the place of those that TensorBoard shows for a folder.

    PNG files come by their tags.
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
