"""The web application: images arrive in request bodies and are never stored."""

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

from pneumo.errors import DataError, PneumoError
from pneumo.inference.backend import Rules
from pneumo.inference.inputs import read_input
from pneumo.inference.prediction import NOTICE, PredictedBatch, describe_prediction, format_probability
from pneumo.inference.predictor import Predictor
from pneumo.inference.serve.connections import CrowdedError, TooLargeError, Upload, Uploads
from pneumo.reporting.rendering import render

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import Explainer

MOST_BYTES = 64_000_000  # of a film; the largest of the study's has 3 million
_MOST_BYTES_TOGETHER = 192_000_000  # of all films that are under way or wait
MOST_WAITING = 4  # films, apart from the one that is answered
_RETRY_AFTER = "3"  # seconds; a film takes about one
_KIND = "application/octet-stream"  # which another site's page cannot send without leave, which it does not get
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def make_app(model: Predictor, explainer: Explainer | None, hosts: Sequence[str]) -> Starlette:
    """Build the application; `hosts` are names by which the page may be asked for, and `*` is any."""
    served = _Served(model, explainer)
    return Starlette(
        routes=[Route("/", served.page), Route("/predict", served.predict, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


class _Served:
    def __init__(self, model: Predictor, explainer: Explainer | None) -> None:
        self.model, self.explainer = model, explainer
        self.one_at_a_time = CapacityLimiter(1)
        self.uploads = Uploads(MOST_BYTES, _MOST_BYTES_TOGETHER)
        self.html = _render(model.rules, explainer.subject if explainer else None)
        self.headers = {**_HEADERS, "Content-Security-Policy": _policy(self.html)}

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return HTMLResponse(self.html, headers=self.headers)

    async def predict(self, request: Request) -> Response:
        """Return the prediction for the film that the body is; errors are predicates, as those of `read_radiograph`."""
        if request.headers.get("Content-Type") != _KIND:
            return _refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"must be sent as {_KIND}.")
        try:
            async with self.uploads.receive(request) as upload:
                told = await self._answer_in_turn(request, upload)
        except TooLargeError:
            reason = f"is larger than {MOST_BYTES / 1e6:.0f} MB, which are the most that is read."
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
        except CrowdedError:
            reason = "cannot be read now, since other films wait already: try again in a few seconds."
            return _refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason, {"Retry-After": _RETRY_AFTER})
        except PneumoError as error:
            return _refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # to nobody
        return JSONResponse(told, headers=_HEADERS)

    async def _answer_in_turn(self, request: Request, upload: Upload) -> dict[str, Any]:
        turn = self.one_at_a_time
        if turn.available_tokens == 0 and turn.statistics().tasks_waiting >= MOST_WAITING:
            raise CrowdedError
        async with turn:
            if await request.is_disconnected():
                raise ClientDisconnect
            return await to_thread.run_sync(self._answer, upload)

    def _answer(self, upload: Upload) -> dict[str, Any]:
        # The content has no name here, where an error's traceback would keep it.
        film = read_input(upload.take(), self.model.rules, show=True)
        if film.shown is None:
            raise DataError(film.error)
        (prediction,) = self.model.predict_images([film])
        explained = self.explainer.explain(PredictedBatch([prediction], [film])) if self.explainer else []
        return {
            **describe_prediction(prediction),
            "shown": {name: format_probability(share) for name, share in prediction.probability.items()},
            "remarks": prediction.remarks,
            "film": _png(film.shown),
            "map": _png(Image.fromarray(explained[0].overlay)) if explained else None,
        }


def _refuse(status: HTTPStatus, reason: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return JSONResponse({"error": reason}, status, headers={**_HEADERS, **headers})


def _render(rules: Rules, subject: str | None) -> str:
    positive, band = rules.positive_class, None
    if positive is not None and rules.margin is not None:
        band = [float(expit(logit(rules.threshold) + side * rules.margin)) for side in (-1, 1)]
    return render(
        "serve.html",
        title="Chest radiograph",
        rules=rules,
        notice=NOTICE,
        subject=subject,
        settings={
            "kind": _KIND,
            "most": MOST_BYTES,
            "bars": [positive] if positive is not None else rules.classes,
            "threshold": rules.threshold if positive is not None else None,
            "band": band,
        },
    )


def _policy(html: str) -> str:
    """Allow the page its own style and script, pictures in answers, and questions to this server: nothing else."""

    def own(tag: str) -> str:
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"

    return (
        f"default-src 'none'; style-src {own('style')}; script-src {own('script')}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)  # it goes no farther than this machine's browser
    return f"data:image/png;base64,{_base64(stream.getvalue())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
