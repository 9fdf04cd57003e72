"""The web application: prediction for uploaded images, which are never stored."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from PIL import Image
from scipy.special import expit, logit
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pneumo.common.text import format_probability
from pneumo.errors import DataError, PneumoError
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import read_input
from pneumo.inference.prediction import NOTICE, PredictedBatch, describe_prediction
from pneumo.inference.predictor import Predictor
from pneumo.inference.serve.connections import BusyError, TooLargeError, Upload, Uploads
from pneumo.reporting.rendering import render

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import Explainer

MAX_BYTES = 64_000_000  # of an uploaded image; the largest image of the study has 3 MB
_MAX_TOTAL_BYTES = 192_000_000  # of all uploads that are incomplete or waiting
MAX_WAITING = 4  # images, in addition to the one that is being processed
_RETRY_AFTER = "3"  # seconds; an image takes about one
_CONTENT_TYPE = "application/octet-stream"  # cross-origin pages need a CORS preflight to send it, which fails here
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app(model: Predictor, explainer: Explainer | None, hosts: Sequence[str]) -> Starlette:
    """Build the application; `hosts` are the accepted Host headers, and `*` accepts any."""
    handlers = _Handlers(model, explainer)
    return Starlette(
        routes=[Route("/", handlers.page), Route("/predict", handlers.predict, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


class _Handlers:
    def __init__(self, model: Predictor, explainer: Explainer | None) -> None:
        self.model, self.explainer = model, explainer
        self.limiter = CapacityLimiter(1)
        self.uploads = Uploads(MAX_BYTES, _MAX_TOTAL_BYTES)
        self.html = _render(model.rules, explainer.subject if explainer else None)
        self.headers = {**_HEADERS, "Content-Security-Policy": _policy(self.html)}

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return HTMLResponse(self.html, headers=self.headers)

    async def predict(self, request: Request) -> Response:
        """Predict the image in the body; errors are predicates, as in `read_radiograph`."""
        if request.headers.get("Content-Type") != _CONTENT_TYPE:
            return _error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"must be sent as {_CONTENT_TYPE}.")
        try:
            async with self.uploads.receive(request) as upload:
                content = await self._predict_in_turn(request, upload)
        except TooLargeError:
            reason = f"is larger than {MAX_BYTES / 1e6:.0f} MB, the maximum."
            return _error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        except BusyError:
            reason = "cannot be processed now because other images are waiting. Try again in a few seconds."
            return _error_response(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": _RETRY_AFTER})
        except PneumoError as error:
            return _error_response(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # no client receives it
        return JSONResponse(content, headers=_HEADERS)

    async def _predict_in_turn(self, request: Request, upload: Upload) -> dict[str, Any]:
        limiter = self.limiter
        if limiter.available_tokens == 0 and limiter.statistics().tasks_waiting >= MAX_WAITING:
            raise BusyError
        async with limiter:
            if await request.is_disconnected():
                raise ClientDisconnect
            return await to_thread.run_sync(self._predict, upload)

    def _predict(self, upload: Upload) -> dict[str, Any]:
        # A local variable would keep the content alive in the traceback of an error.
        image = read_input(upload.pop_content(), self.model.rules, keep_preview=True)
        if image.preview is None:
            raise DataError(image.error)
        (prediction,) = self.model.predict_images([image])
        explanations = self.explainer.explain(PredictedBatch([prediction], [image])) if self.explainer else []
        return {
            **describe_prediction(prediction),
            "shown": {name: format_probability(value) for name, value in prediction.probability.items()},
            "remarks": prediction.remarks,
            "film": _png_url(image.preview),  # key of earlier versions
            "map": _png_url(Image.fromarray(explanations[0].overlay)) if explanations else None,
        }


def _error_response(status: HTTPStatus, reason: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return JSONResponse({"error": reason}, status, headers={**_HEADERS, **headers})


def _render(rules: Rules, subject: str | None) -> str:
    positive, band = rules.positive_class, None
    if positive is not None and rules.margin is not None:
        band = [float(expit(logit(rules.threshold) + sign * rules.margin)) for sign in (-1, 1)]
    return render(
        "serve.html",
        title="Chest X-ray prediction",
        rules=rules,
        notice=NOTICE,
        subject=subject,
        settings={
            "content_type": _CONTENT_TYPE,
            "max_bytes": MAX_BYTES,
            "bars": [positive] if positive is not None else rules.classes,
            "threshold": rules.threshold if positive is not None else None,
            "band": band,
        },
    )


def _policy(html: str) -> str:
    """Build a Content-Security-Policy for the page's inline style and script, data URLs and requests to this server."""

    def source_hash(tag: str) -> str:
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"

    return (
        f"default-src 'none'; style-src {source_hash('style')}; script-src {source_hash('script')}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _png_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)  # fast; size matters little on the local machine
    return f"data:image/png;base64,{_base64(stream.getvalue())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
