"""Rate limit, limits of request bodies, display names of uploads: worked by hand, and with generated input."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makermark.serving import middleware
from makermark.serving.middleware import BodyLimits, BodyRejectedError, RateLimit, client_key
from makermark.serving.service import display_name


@pytest.fixture
def clock(monkeypatch):
    """A clock that the rate limiter reads; set `clock.now` to move it."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now)
    return Clock


def wait_times(limit, clock, client, times):
    """The waiting times of requests that `client` sends at these times, in seconds after 1000 s."""
    waits = []
    for seconds in times:
        clock.now = 1000.0 + seconds
        waits.append(limit.wait_s(client))
    return waits


def test_rate_limit_worked_by_hand(clock):
    limit = RateLimit(None, per_minute=60, burst=2)
    assert wait_times(limit, clock, "a", (0.0, 0.0, 0.0, 0.5, 1.0, 1.0)) == [0, 0, 1, 1, 0, 1]
    assert limit.wait_s("b") == 0
    assert wait_times(limit, clock, "a", (100.0, 100.0, 100.0)) == [0, 0, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_rate_limit_passes_at_most_the_burst_and_the_refill(clock, gaps):
    limit, clock.now, passed = RateLimit(None, per_minute=120, burst=5), 1000.0, 0
    for gap in gaps:
        clock.now += gap
        passed += limit.wait_s("a") == 0
    assert passed <= 5 + 2 * (clock.now - 1000.0) + 1e-6


def test_rate_limit_forgets_the_oldest_clients(clock, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_TRACKED_CLIENTS", 100)
    limit = RateLimit(None, per_minute=1, burst=1)
    for number in range(110):
        limit.wait_s(str(number))
    assert limit.wait_s("109") > 0
    assert limit.wait_s("0") == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::1", client_key({"client": ("2001:db8:1:2:ffff::9", 1)})),
        ("a socket", "a socket"),
    ],
)
def test_client_key_is_an_address_or_an_ipv6_network(address, key):
    assert client_key({"client": (address, 5000)}) == key


@given(st.text(max_size=400))
def test_display_name_is_one_plain_name(name):
    shown = display_name(name)
    assert 0 < len(shown) <= 120
    assert shown.strip() == shown
    assert not set(shown) & set("/\\\n\r\t\x00")


def send_body(limits, chunks, *, app=None, headers=()):
    """Send a body in chunks; return what the application received, and the messages of the response."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks[:-1]]
    messages += [{"type": "http.request", "body": chunk} for chunk in chunks[-1:]]
    received, sent = [], []

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    async def read_body(scope, receive, send):
        while True:
            message = await receive()
            received.append(message["body"])
            if not message.get("more_body"):
                break
        if app is not None:
            await app()

    limits._app = read_body
    asyncio.run(limits({"type": "http", "headers": list(headers)}, receive, send))
    return received, sent


def body_limits(**changes):
    return BodyLimits(None, **({"max_bytes": 10, "max_total_bytes": 15, "timeout_s": 5.0} | changes))


def test_bytes_of_a_body_are_released_whatever_its_end_is():
    """Each body alone fits into 15 bytes in progress; ten of them would not, if any kept its bytes."""
    limits = body_limits()

    async def fail():
        raise RuntimeError("the application")

    for _ in range(10):
        assert send_body(limits, [b"12345", b"6789"])[0] == [b"12345", b"6789"]
        with pytest.raises(RuntimeError, match="the application"):
            send_body(limits, [b"123456789"], app=fail)
        with pytest.raises(BodyRejectedError) as rejected:
            send_body(limits, [b"123456", b"78901"])
        assert rejected.value.status_code == 413
    assert limits._total_bytes == 0


def test_bodies_in_progress_share_the_total():
    """A body of 8 bytes waits in the application; another of 8 exceeds 15 together, one of 7 does not."""
    limits = body_limits()

    async def one_more(body):
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            return messages.pop(0)

        async def read(scope, receive, send):
            await receive()

        limits._app = read
        await limits({"type": "http", "headers": []}, receive, None)

    async def while_waiting():
        await one_more(b"1234567")
        with pytest.raises(BodyRejectedError) as rejected:
            await one_more(b"12345678")
        assert rejected.value.status_code == 503
        assert rejected.value.headers == {"Retry-After": "2"}
        await one_more(b"1234567")

    send_body(limits, [b"12345678"], app=while_waiting)
    assert limits._total_bytes == 0


@pytest.mark.parametrize(("announced", "status"), [(b"10", None), (b"11", 413), (b"x", None)])
def test_announced_size_is_checked_before_the_body_is_read(announced, status):
    received, sent = send_body(body_limits(), [b"1"], headers=[(b"content-length", announced)])
    assert received == ([] if status else [b"1"])
    assert [message.get("status") for message in sent[:1]] == ([status] if status else [])


def test_body_that_does_not_arrive_in_time_is_rejected():
    limits = body_limits(timeout_s=0.05)

    async def never():
        await asyncio.sleep(60)

    async def read(scope, receive, send):
        await receive()

    limits._app = read
    with pytest.raises(BodyRejectedError) as rejected:
        asyncio.run(limits({"type": "http", "headers": []}, never, None))
    assert rejected.value.status_code == 408


def test_display_name_worked_by_hand():
    assert display_name("../../etc/passwd") == "passwd"
    assert display_name("C:\\clips\\a.wav") == "a.wav"
    assert display_name("a\u202eb.wav") == "ab.wav"
    assert display_name("..") == display_name("") == display_name("/") == "clip"
