"""What every request passes before the application sees it: who asks, how often, how much, for how long.

Each refusal is one line of JSON, and closes the connection where a body is still to come. ASGI 3
(https://asgi.readthedocs.io): `scope`, `receive` and `send` are its terms.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
RETRY_SECONDS = 2
CLIENTS_REMEMBERED = 10_000
HEADERS = {
    # the page's own scripts; styles in line and data: for the report, which is shown inside it, without scripts
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


class Refused(HTTPException):
    """A request that is not served; its detail is one line."""


class Guard:
    """The application behind these checks.

    - hosts: names by which the server is addressed; others are refused, or a page elsewhere could have its own name
      point here and read the answers (DNS rebinding)
    - max_bytes: of a body; of all bodies that are on their way, `max_bytes_at_once`
    - per_minute: requests that change or compute something, of one client; `burst` of them may come at once
    - body_seconds, answer_seconds: until a body is there, and until the answer is
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Sequence[str],
        max_bytes: int,
        max_bytes_at_once: int,
        per_minute: float,
        burst: int,
        body_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._max_bytes, self._max_bytes_at_once, self._bytes = max_bytes, max_bytes_at_once, 0
        self._rate = Rate(per_minute=per_minute, burst=burst)
        self._body_seconds, self._answer_seconds = body_seconds, answer_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = _Exchange(self, receive, send)
        try:
            self._refuse(scope)
            async with asyncio.timeout(self._answer_seconds):
                await self._app(scope, exchange.receive, exchange.send)
        except Refused as refusal:
            await _say(refusal, scope, exchange)
        except TimeoutError:
            late = Refused(
                503, f"no answer within {self._answer_seconds:g} s", {"Retry-After": str(RETRY_SECONDS)}
            )
            await _say(late, scope, exchange)
        finally:
            self._bytes -= exchange.bytes

    def _refuse(self, scope: Scope) -> None:
        """Raise Refused for a request that says enough of itself to be turned away unread."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            raise Refused(421, f"host {host[:80]!r} is not served here")
        if scope["method"] not in CHANGING:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refused(403, "a request that another site's page sent is refused")
        if origin is None and site not in ("same-origin", "none"):
            raise Refused(403, "a request that another site's page sent is refused")
        if wait := self._rate.wait(_client(scope), time.monotonic()):
            raise Refused(429, f"too many requests; come back in {wait} s", {"Retry-After": str(wait)})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise Refused(413, f"{length} bytes; at most {self._max_bytes} are taken")

    def take(self, count: int, *, of: int) -> None:
        """Count bytes that arrived, the last of so many of one body; raises Refused where that body, or all together,
        are too large."""
        self._bytes += count
        if of > self._max_bytes:
            raise Refused(413, f"more than {self._max_bytes} bytes; so many are taken at most")
        if self._bytes > self._max_bytes_at_once:
            raise Refused(503, "too much is being sent at once", {"Retry-After": str(RETRY_SECONDS)})

    @property
    def body_seconds(self) -> float:
        return self._body_seconds


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, guard: Guard, receive: Receive, send: Send) -> None:
        self._guard, self._receive, self._send = guard, receive, send
        self._until = time.monotonic() + guard.body_seconds
        self.bytes, self.started, self._whole = 0, False, False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # waits for the client to go away
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._guard.body_seconds:g} s") from None
        if message["type"] == "http.request":
            self._whole = not message.get("more_body", False)
            count = len(message.get("body", b""))
            self.bytes += count
            self._guard.take(count, of=self.bytes)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
            if message["status"] >= 400 and not self._whole:
                headers["connection"] = "close"
        await self._send(message)


async def _say(refusal: Refused, scope: Scope, exchange: _Exchange) -> None:
    if exchange.started:
        raise refusal
    answer = JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
    await answer(scope, exchange.receive, exchange.send)


class Rate:
    """A bucket of `burst` requests for each client, filled again by `per_minute`; the longest unseen are forgotten."""

    def __init__(self, *, per_minute: float, burst: int) -> None:
        self._per_second, self._burst = per_minute / 60, burst
        self._left: OrderedDict[str, tuple[float, float]] = (
            OrderedDict()
        )  # requests, and when they were counted

    def wait(self, client: str, now: float) -> int:
        """Seconds, rounded up, until this client may ask again: 0, and one request is taken, where it may now."""
        left, then = self._left.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._per_second)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)
        if len(self._left) > CLIENTS_REMEMBERED:
            self._left.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) / self._per_second)


def _name(host: str) -> str:
    """A Host header without its port: `localhost`, `127.0.0.1`, `[::1]`."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()


def _client(scope: Scope) -> str:
    """Who asks: an IPv4 address, or the first 64 bits of an IPv6 address, which one customer has to himself."""
    host = str((scope.get("client") or ("", 0))[0])
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(int(address) >> 64) if isinstance(address, IPv6Address) else host
