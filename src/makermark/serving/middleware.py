"""ASGI middleware: security headers, host and origin checks, rate limit, body limits, response timeout.

Every middleware answers a rejected request with one line of JSON, `{"error": ...}`. The terms `scope`, `receive` and
`send` are those of ASGI 3 (https://asgi.readthedocs.io).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from throttled import MemoryStore, RateLimiterType, Throttled, per_min

WRITE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
RETRY_AFTER_S = 2
MAX_TRACKED_CLIENTS = 10_000
SECURITY_HEADERS = {
    # Scripts: the page's own files only. Inline styles and data: URLs: the report, shown in a frame without scripts.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "media-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}


def reject(status: int, error: str, *, retry_after_s: int | None = None) -> JSONResponse:
    """Return the response to a rejected request, with a Retry-After header where `retry_after_s` is given."""
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return JSONResponse({"error": error}, status, headers)


class SecurityHeaders:
    """Middleware that adds SECURITY_HEADERS to every response and forbids caching unless the response allows it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HostCheck:
    """Middleware that rejects a Host header outside `hosts`, as a defence against DNS rebinding.

    The check is starlette's TrustedHostMiddleware; this class only words the rejection as JSON with status 421.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, list(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not await self._is_allowed(scope, receive):
            host = Headers(scope=scope).get("host", "")
            message = "is not allowed. `makermark serve --allow-host NAME` allows a name."
            app = reject(421, f"Host header {host[:80]!r} {message}")
        await app(scope, receive, send)

    async def _is_allowed(self, scope: Scope, receive: Receive) -> bool:
        is_allowed = False

        async def accept(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal is_allowed
            is_allowed = True

        async def discard(message: Message) -> None:
            pass

        await TrustedHostMiddleware(accept, self._hosts, www_redirect=False)(scope, receive, discard)
        return is_allowed


class SameOriginCheck:
    """Middleware that rejects a POST, PUT, PATCH or DELETE that a page of another site sent (403).

    starlette has no such check: its CORS middleware lets a simple form request of another site through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if _is_write(scope) and not _is_same_origin(scope):
            app = reject(403, "The request was sent by a page of another site.")
        await app(scope, receive, send)


def _is_same_origin(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    return origin.partition("://")[2].lower() == headers.get("host", "").lower()


class RateLimit:
    """Middleware that limits the write requests of one client; further ones are answered with 429.

    A client may send `burst` requests at once and `per_minute` requests a minute in the long run (generic cell rate
    algorithm, equivalent to a token bucket). Only the MAX_TRACKED_CLIENTS most recent clients are remembered.
    """

    def __init__(self, app: ASGIApp, *, per_minute: float, burst: int) -> None:
        self._app = app
        self._limiter = Throttled(
            using=RateLimiterType.GCRA.value,
            quota=per_min(round(per_minute), burst),
            store=MemoryStore(options={"MAX_SIZE": MAX_TRACKED_CLIENTS}),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if _is_write(scope) and (wait_s := self.wait_s(client_key(scope))):
            message = f"Too many requests from this client. Retry in {wait_s} s."
            app = reject(429, message, retry_after_s=wait_s)
        await app(scope, receive, send)

    def wait_s(self, client: str) -> int:
        """Count a request of `client`; return 0 if it is allowed, else the seconds until the next one is."""
        result = self._limiter.limit(client)
        return math.ceil(result.state.retry_after) if result.limited else 0


def _is_write(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in WRITE_METHODS


def client_key(scope: Scope) -> str:
    """Return the IPv4 address of the client, or the first 64 bits of its IPv6 address: one customer has all of them."""
    host = str((scope.get("client") or ("", 0))[0]) or "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(int(address) >> 64) if isinstance(address, IPv6Address) else host


class BodyRejectedError(HTTPException):
    """A request body that is too large or too slow. FastAPI passes this exception on to its handlers."""


class BodyLimits:
    """Middleware that limits the size and the arrival time of request bodies.

    - max_bytes: size of one body (413); the announced Content-Length is checked first, then the bytes are counted
    - max_total_bytes: size of all bodies in progress (503)
    - timeout_s: time until a body has arrived (408)

    An error response sent before the body has arrived closes the connection.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_total_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes, self._max_total_bytes, self._timeout_s = max_bytes, max_total_bytes, timeout_s
        self._total_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        deadline = time.monotonic() + self._timeout_s
        body_bytes, is_complete = 0, False

        async def receive_limited() -> Message:
            nonlocal body_bytes, is_complete
            if is_complete:
                return await receive()  # returns when the client disconnects
            message = await self._receive_before(deadline, receive)
            if message["type"] == "http.request":
                is_complete = not message.get("more_body", False)
                count = len(message.get("body", b""))
                body_bytes += count
                self._total_bytes += count
                self._check_sizes(body_bytes)
            return message

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400 and not is_complete:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_bytes:
            return await reject(413, self._too_large(length))(scope, receive, send_closing)
        try:
            await self._app(scope, receive_limited, send_closing)
        finally:
            self._total_bytes -= body_bytes

    async def _receive_before(self, deadline: float, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await receive()
        except TimeoutError:
            raise BodyRejectedError(
                408, f"The request body did not arrive within {self._timeout_s:g} s."
            ) from None

    def _check_sizes(self, body_bytes: int) -> None:
        if body_bytes > self._max_bytes:
            raise BodyRejectedError(413, self._too_large(f"at least {body_bytes}"))
        if self._total_bytes > self._max_total_bytes:
            raise BodyRejectedError(
                503,
                f"Server busy: the uploads in progress exceed {self._max_total_bytes} bytes. "
                f"Retry in {RETRY_AFTER_S} s.",
                {"Retry-After": str(RETRY_AFTER_S)},
            )

    def _too_large(self, size: str) -> str:
        return f"The request body has {size} bytes; the limit is {self._max_bytes} bytes."


class ResponseTimeout:
    """Middleware that answers with 503 where the application needs longer than `timeout_s`."""

    def __init__(self, app: ASGIApp, *, timeout_s: float) -> None:
        self._app, self._timeout_s = app, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_started = False

        async def send_marked(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s):
                await self._app(scope, receive, send_marked)
        except TimeoutError:
            if is_started:
                raise
            error = f"Server busy: no response within {self._timeout_s:g} s. Retry in {RETRY_AFTER_S} s."
            await reject(503, error, retry_after_s=RETRY_AFTER_S)(scope, receive, send)
