"""The HTTP server: uvicorn, with connections that do not wait for ever for a client."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from makermark.errors import ServingError

HEAD_SECONDS = 10.0  # until a request's head is there, whole
TAKE_SECONDS = 30.0  # until a client takes what is sent to it
IDLE_SECONDS = 15  # between requests
SHUTDOWN_SECONDS = 20  # what is being served may go on for so long once the server is told to end
CONNECTIONS = 256
HEAD_BYTES = 16 * 1024

log = logging.getLogger(__name__)


class Patient(H11Protocol):
    """A connection that is closed when its client takes too long to ask, or to take the answer."""

    _asking: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked()
        elif self._asking is None:
            self._asking = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self._taking or self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asked()
        self._taken()
        super().connection_lost(exc)

    def _asked(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _taken(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _give_up(self) -> None:
        self._asking = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def server(app: ASGIApp) -> uvicorn.Server:
    """uvicorn with `app`, one process, logging nothing of what clients send."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket on that address; port 0 takes any that is free. Raises ServingError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(CONNECTIONS)  # who connects before all is ready waits
    except OSError as error:
        found.close()
        taken = error.errno == errno.EADDRINUSE
        remedy = (
            "another program listens there: choose another --port"
            if taken
            else "choose another --host or --port"
        )
        raise ServingError(f"{host}:{port}: {error.strerror or error}; {remedy}") from error
    return found


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what is being answered then is brought to its end."""
    server(app).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
