"""HTML and Markdown rendering of the package's Jinja templates."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from pneumo.common.text import code_span, escape_markdown, escape_prose


def render(template: str, **values: Any) -> str:  # noqa: ANN401 (templates accept any type)
    """Render a template of `reporting/templates`; markup in values is escaped, and a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("pneumo.reporting"),
        autoescape=select_autoescape(["html"]),
        finalize=_escape_markdown if template.endswith(".md") else _escape_controls,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    environment.filters["code"] = lambda value: Markup(code_span(str(value)))
    return environment.get_template(template).render(**values)


def encode_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an image as JPEG for an HTML page."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _escape_markdown(value: Any) -> Any:  # noqa: ANN401 (templates accept any type)
    return escape_markdown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _escape_controls(value: Any) -> Any:  # noqa: ANN401 (templates accept any type)
    return type(value)(escape_prose(value)) if isinstance(value, (str, Markup)) else value
