"""The server around the application: its socket, its signals, its end."""

from __future__ import annotations

import logging
import signal
import socket
from typing import Any

import uvicorn

from core.errors import UserError
from core.storage import scratches
from serving.app import make_app
from serving.limits import Punctual
from serving.observing import log_in_json
from serving.options import Options
from serving.service import Service

log = logging.getLogger("serving")
KEEP_ALIVE = 75  # seconds that an idle connection stays: longer than those of load balancers


def serve(options: Options) -> None:
    """Serves until SIGTERM or SIGINT; what is queued then is drawn first, for `grace` seconds at most.

    Raises:
        UserError: the model cannot be served, or the port is taken.
        RuntimeError: the worker died again and again.
    """
    log_in_json()
    with scratches.temporary_folder("serve") as scratch, _bound(options) as bound:
        service = Service(options, scratch)
        server: uvicorn.Server

        def give_up() -> None:
            server.should_exit = True

        config = uvicorn.Config(
            make_app(service, give_up),
            http=Punctual.within(options.deadline),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(options.grace)),
        )
        server = uvicorn.Server(config)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has ended
            signal.signal(number, _noted)
        host, port = bound.getsockname()[:2]
        log.info("listening", extra={"facts": {"host": host, "port": port}})
        server.run(sockets=[bound])
    if service.failure is not None:
        raise service.failure


def _bound(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        bound = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"serve: cannot listen on {options.host} port {options.port}: {error.strerror}") from None
    # Connections inherit it. Without, an answer's body waits 40 ms for the client to acknowledge its head; asyncio
    # sets it where a socket names its protocol, which this one does not.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _noted(number: int, frame: Any) -> None:
    log.info("stopped", extra={"facts": {"signal": signal.Signals(number).name}})
