"""The web server: the command `pneumo serve`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.common.terminal import print_line, warn
from pneumo.common.text import install_hint
from pneumo.errors import ConfigError
from pneumo.inference.backend import as_flag
from pneumo.inference.prediction import NOTICE
from pneumo.inference.predictor import Predictor, load_predictor, warn_uncalibrated

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import Explainer


def run_serve(checkpoint: Path, host: str, port: int, browse: bool, device: str) -> None:
    """Serve the prediction page until Ctrl-C.

    Raises:
        ConfigError: The address is unavailable, `checkpoint` is not a network, or the server is not installed.
        HardwareError: The device is not available.
    """
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise ConfigError(
            f"pneumo serve needs starlette and uvicorn, which are not installed. Run {install_hint('serve')}."
        )
    with _listen(host, port) as listener:
        model = load_predictor(checkpoint, device, None, as_flag)
        warn_uncalibrated(model.rules)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
        if _local_names(host) is None:
            warn(
                f"--host {host} makes the page reachable from other machines, without a password or encryption. Use it "
                "only in a trusted network."
            )
        print_line(f"Serving {checkpoint} at {address} until Ctrl-C. {NOTICE}")
        if browse:
            webbrowser.open(address)  # the socket already listens, so the browser waits
        _serve(model, host, listener)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is out of range: it must be between 0 and 65535, where 0 is any free port.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python appends the address
        raise ConfigError(
            f"The page cannot be served at --host {host} --port {port} ({reason}). Use another port, such as "
            f"--port {port + 1 if 0 < port < 65535 else 8000} or --port 0 for any free one, and --host 127.0.0.1 or an "
            "address of this machine."
        ) from error


def _local_names(host: str) -> list[str] | None:
    """Return the host names of a page that only this machine can reach; None if others can."""
    if host == "localhost":
        return ["localhost", "127.0.0.1"]
    try:
        if not ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:  # a host name
        return None
    # Starlette compares the text before the first colon, which is "[" for [::1]:8000.
    return ["localhost", "[" if ":" in host else host]


def _open_explainer(model: Predictor) -> Explainer | None:
    from pneumo.inference.explain.overlays import Explainer  # imports Matplotlib

    try:
        return Explainer(model.network)
    except ConfigError as error:
        warn(f"Serving without saliency maps: {error}")
        return None


def _serve(model: Predictor, host: str, listener: socket.socket) -> None:
    import uvicorn

    from pneumo.inference.serve.app import make_app
    from pneumo.inference.serve.connections import LimitedProtocol, RepeatFilter, connection_limit

    connections = connection_limit()
    logging.getLogger("asyncio").addFilter(RepeatFilter())
    app = make_app(model, _open_explainer(model), _local_names(host) or ["*"])
    config = uvicorn.Config(
        app,
        loop="asyncio",  # LimitedProtocol needs this loop, even if uvloop is installed
        http=LimitedProtocol,
        limit_concurrency=connections + 1,
        backlog=connections,
        access_log=False,
        log_level="error",  # clients can cause any number of warnings
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
        uvicorn.Server(config).run(sockets=[listener])
