"""The page and what answers it: a film comes in as the request's body, and nothing of it is kept."""

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
from pneumo.prediction.documents import describe
from pneumo.prediction.films import read_film
from pneumo.prediction.network import Network
from pneumo.prediction.predictions import NOTICE, answer_films, remarks, show_share
from pneumo.prediction.rules import Rules
from pneumo.render import render
from pneumo.serving.uploads import CrowdedError, TooLargeError, Upload, Uploads

if TYPE_CHECKING:
    from pneumo.prediction.explaining import Overlays

MOST_BYTES = 64_000_000  # of a film; the largest of the study's has 3 million
MOST_BYTES_TOGETHER = 192_000_000  # of all films that are under way or wait
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


def make_app(network: Network, overlays: Overlays | None, hosts: Sequence[str]) -> Starlette:
    """Make the application.

    Args:
        network: That answers.
        overlays: That draws maps, if any does.
        hosts: Names by which the page may be asked for; `*` is any.
    """
    served = _Served(network, overlays)
    return Starlette(
        routes=[Route("/", served.page), Route("/predict", served.predict, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


class _Served:
    def __init__(self, network: Network, overlays: Overlays | None) -> None:
        self.network, self.overlays = network, overlays
        self.one_at_a_time = CapacityLimiter(1)
        self.uploads = Uploads(MOST_BYTES, MOST_BYTES_TOGETHER)
        self.html = _render(network.rules, overlays)
        self.headers = {**_HEADERS, "Content-Security-Policy": _policy(self.html)}

    async def page(self, request: Request) -> Response:
        """Give the page."""
        return HTMLResponse(self.html, headers=self.headers)

    async def predict(self, request: Request) -> Response:
        """Answer to the film that the body is; errors are predicates, as those of `read_radiograph`."""
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
        """Answer to a film when those before it are answered.

        Raises:
            CrowdedError: Too many wait.
            ClientDisconnect: Nobody waits for the answer any more.
        """
        turn = self.one_at_a_time
        if turn.available_tokens == 0 and turn.statistics().tasks_waiting >= MOST_WAITING:
            raise CrowdedError
        async with turn:
            if await request.is_disconnected():
                raise ClientDisconnect
            return await to_thread.run_sync(self._answer, upload)

    def _answer(self, upload: Upload) -> dict[str, Any]:
        rules = self.network.rules
        film = read_film(upload.take(), rules, show=True)  # with no name here, where an error's traceback would keep it
        (answer,) = answer_films(self.network, [film])
        if answer is None or film.shown is None:
            raise DataError(film.error)
        drawn = self.overlays.draw([film]) if self.overlays else []
        return {
            **describe(answer, rules),
            "shown": dict(zip(rules.classes, map(show_share, answer.probabilities), strict=True)),
            "remarks": [*remarks(answer), *film.notes],
            "film": _png(film.shown),
            "map": _png(drawn[0].picture) if drawn else None,
        }


def _refuse(status: HTTPStatus, reason: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return JSONResponse({"error": reason}, status, headers={**_HEADERS, **headers})


def _render(rules: Rules, overlays: Overlays | None) -> str:
    two = len(rules.classes) == 2
    band = None
    if two and rules.margin is not None:
        band = [float(expit(logit(rules.threshold) + side * rules.margin)) for side in (-1, 1)]
    return render(
        "serve.html",
        title="Chest radiograph",
        rules=rules,
        notice=NOTICE,
        subject=overlays and overlays.subject,
        settings={
            "kind": _KIND,
            "most": MOST_BYTES,
            "bars": rules.classes[1:] if two else rules.classes,
            "threshold": rules.threshold if two else None,
            "band": band,
        },
    )


def _policy(html: str) -> str:
    """Allow the page its own style and script, pictures in answers, and questions to this server: nothing else."""

    def own(tag: str) -> str:
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {own('style')}; script-src {own('script')}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)  # it goes no farther than this machine's browser
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
