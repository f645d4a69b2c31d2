"""The HTTP server: uvicorn with limits for slow clients."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import ip_address
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from makermark.foundation.errors import ServingError

HEAD_TIMEOUT_S = 10.0  # until a complete request head has arrived
WRITE_TIMEOUT_S = 30.0  # until a client has read what was sent to it
KEEP_ALIVE_S = 15  # between two requests
SHUTDOWN_S = 20  # for requests in progress when the server stops
MAX_CONNECTIONS = 256
MAX_HEAD_BYTES = 16 * 1024

Address = tuple[str, int]


class ConnectionTimeouts(asyncio.Protocol):
    """Protocol that forwards every event to uvicorn's protocol and aborts connections of slow clients.

    Written here because uvicorn has no setting for either timeout. It uses the interface of asyncio.Protocol only:
    `requests` is set by `track_requests`, which identifies a connection by the client address of the ASGI scope.
    """

    def __init__(self, protocol: asyncio.Protocol, connections: dict[Address, ConnectionTimeouts]) -> None:
        self._protocol, self._connections = protocol, connections
        self._timers: dict[str, asyncio.TimerHandle] = {}  # `head` and `write`, while they run
        self.requests = 0  # in progress on this connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._client: Address = transport.get_extra_info("peername")[:2]
        self._connections[self._client] = self
        self._protocol.connection_made(transport)
        self._start_timer("head", HEAD_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        self._protocol.data_received(data)
        if not self.requests:
            self._start_timer("head", HEAD_TIMEOUT_S)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()
        self._start_timer("write", WRITE_TIMEOUT_S)

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
        self._stop_timer("write")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.pop(self._client, None)
        self._stop_timer("head")
        self._stop_timer("write")
        self._protocol.connection_lost(exc)

    def start_request(self) -> None:
        """Note that a complete request head has arrived."""
        self.requests += 1
        self._stop_timer("head")

    def end_request(self) -> None:
        """Note that the application has handled a request."""
        self.requests -= 1

    def _start_timer(self, name: str, seconds: float) -> None:
        """Abort the connection after `seconds` unless the timer is stopped; a timer that runs is left alone."""
        if name not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[name] = loop.call_later(seconds, self._transport.abort)

    def _stop_timer(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()


def track_requests(app: ASGIApp, connections: dict[Address, ConnectionTimeouts]) -> ASGIApp:
    """Return `app`, wrapped so that the connection of each request knows when the request starts and ends."""

    async def tracked(scope: Scope, receive: Receive, send: Send) -> None:
        connection = connections.get(tuple(scope["client"])) if scope.get("client") else None
        if connection is None:
            return await app(scope, receive, send)
        connection.start_request()
        try:
            await app(scope, receive, send)
        finally:
            connection.end_request()

    return tracked


def build_server(app: ASGIApp) -> uvicorn.Server:
    """Return a uvicorn server for `app`: one process, no log of what clients send."""
    connections: dict[Address, ConnectionTimeouts] = {}

    def protocol(**arguments: Any) -> ConnectionTimeouts:
        return ConnectionTimeouts(H11Protocol(**arguments), connections)

    return uvicorn.Server(
        uvicorn.Config(
            track_requests(app, connections),
            http=protocol,  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            lifespan="on",
            loop="asyncio",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket on that address; port 0 takes a free port. Raises ServingError if binding fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(MAX_CONNECTIONS)  # clients that connect before the server is ready wait
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            remedy = "another program uses this port: choose another --port"
        else:
            remedy = "choose another --host or --port"
        raise ServingError(f"{host}:{port}: {error.strerror or error}; {remedy}") from error
    return listener


def run_server(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are completed."""
    build_server(app).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
