"""The command `pneumo serve`."""

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
from pneumo.inference.predictor import Predictor, load_predictor, warn_untested

if TYPE_CHECKING:
    from pneumo.inference.explain.overlays import Explainer


def run_serve(checkpoint: Path, host: str, port: int, browse: bool, device: str) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ConfigError: The address cannot be had, there is no network in `checkpoint`, or the server is not installed.
        HardwareError: The device is not there.
    """
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise ConfigError(f"The page needs starlette and uvicorn, which are not installed: {install_hint('serve')}.")
    with _listen(host, port) as listening:
        model = load_predictor(checkpoint, device, None, as_flag)
        warn_untested(model.rules)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
        if _names(host) is None:
            warn(
                f"--host {host} lets others reach the page, and there is no password and no encryption: use it in a "
                "network that you trust."
            )
        print_line(f"{checkpoint} answers at {address} until Ctrl-C. {NOTICE}")
        if browse:
            webbrowser.open(address)  # the socket listens already: the browser waits
        _serve(model, host, listening)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} must be from 1 to 65535, or 0 for any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # what Python adds repeats the address
        raise ConfigError(
            f"The page cannot be served at --host {host} --port {port} ({reason}): take another port, such as "
            f"--port {port + 1 if 0 < port < 65535 else 8000}, or --port 0 for any that is free; and as host 127.0.0.1 "
            "or an address of this machine."
        ) from error


def _names(host: str) -> list[str] | None:
    """Return the names of a page that no other machine reaches; None if others reach it."""
    if host == "localhost":
        return ["localhost", "127.0.0.1"]
    try:
        if not ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:  # a name
        return None
    return ["localhost", "[" if ":" in host else host]  # Starlette takes what is before the first colon: [::1]:8000


def _open_explainer(model: Predictor) -> Explainer | None:
    from pneumo.inference.explain.overlays import Explainer  # imports Matplotlib

    try:
        return Explainer(model.network)
    except ConfigError as error:
        warn(f"There will be no maps: {error}")
        return None


def _serve(model: Predictor, host: str, listening: socket.socket) -> None:
    import uvicorn

    from pneumo.inference.serve.app import make_app
    from pneumo.inference.serve.connections import LimitedProtocol, Seldom, count_connections

    connections = count_connections()
    logging.getLogger("asyncio").addFilter(Seldom())
    app = make_app(model, _open_explainer(model), _names(host) or ["*"])
    config = uvicorn.Config(
        app,
        loop="asyncio",  # whichever loops and protocols are installed: the limits below are those of these
        http=LimitedProtocol,
        limit_concurrency=connections + 1,
        backlog=connections,
        access_log=False,
        log_level="error",  # a client may cause any number of warnings
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it has ended
        uvicorn.Server(config).run(sockets=[listening])
