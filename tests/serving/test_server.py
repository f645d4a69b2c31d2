"""A real server on a socket: slow and large requests, parallel requests, shutdown."""

import http.client
import json
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from serving_support import make_app, running_server

from makermark.serving import server

BODY = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%s\r\n--x--\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
HEAD = b"POST /api/trace HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def address(world, tmp_path_factory):
    gallery = tmp_path_factory.mktemp("server") / "gallery.arrow"
    with running_server(make_app(world[0], gallery)) as address:
        yield address


def post(address, content, timeout=300):
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    connection.request("POST", "/api/trace", BODY % content, FORM)
    response = connection.getresponse()
    return response.status, response.read()


def post_in_parallel(address, content, count):
    responses = []
    threads = [
        threading.Thread(target=lambda: responses.append(post(address, content))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads, responses


def exchange(address, *parts, pause=0.0):
    """Send these bytes; return the bytes received and the seconds until the server closed the connection."""
    start = time.monotonic()
    with socket.create_connection(address, timeout=120) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received, time.monotonic() - start


def test_server_answers_fifty_parallel_requests(world, address):
    threads, responses = post_in_parallel(address, world[1]["slow"][0].read_bytes(), 50)
    for thread in threads:
        thread.join()
    assert [status for status, _ in responses] == [200] * 50
    traces = [json.loads(body) for _, body in responses]
    assert len({trace["conclusion"] for trace in traces}) == 1
    np.testing.assert_allclose(
        [trace["candidates"][0]["cosine"] for trace in traces],
        traces[0]["candidates"][0]["cosine"],
        rtol=1e-3,
    )


def test_server_rejects_a_gigabyte_before_it_is_sent(address):
    response, seconds = exchange(address, HEAD + b"Content-Length: 1073741824\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 413 ")
    assert response.endswith(
        b'{"error":"The request body has 1073741824 bytes; the limit is 1048576 bytes."}'
    )
    assert b"connection: close" in response
    assert seconds < 5


def test_server_gives_up_on_a_body_that_does_not_arrive(address):
    response, seconds = exchange(address, HEAD + b"Content-Length: 1000\r\n\r\n", b"--x\r\n")
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"The request body did not arrive within 1 s." in response
    assert b"connection: close" in response
    assert seconds < 10


@pytest.mark.parametrize("parts", [(), (b"GET / HT",), (HEALTH, b"GET /")])
def test_server_closes_a_connection_with_an_incomplete_request_head(address, monkeypatch, parts):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.5)
    start = time.monotonic()
    with suppress(ConnectionResetError):
        exchange(address, *parts, pause=0.3)
    assert 0.4 < time.monotonic() - start < 10


def test_server_closes_a_connection_that_sends_its_request_head_byte_by_byte(address, monkeypatch):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.5)
    start = time.monotonic()
    with suppress(ConnectionResetError, BrokenPipeError):
        exchange(address, *(bytes([byte]) for byte in HEALTH), pause=0.1)
    assert 0.4 < time.monotonic() - start < 3


def test_head_timeout_does_not_interrupt_a_request_in_progress(world, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.3)
    content = BODY % world[1]["slow"][0].read_bytes()
    head = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(content)
    with running_server(make_app(world[0], tmp_path / "g.arrow", body_timeout_s=20.0)) as address:
        response, _ = exchange(address, head, content[:100], content[100:], pause=0.8)
    assert response.startswith(b"HTTP/1.1 200 ")


def test_server_closes_a_connection_whose_client_does_not_read(monkeypatch):
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.5)
    ended = threading.Event()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(OSError):
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"0" * (1 << 20), "more_body": True})
        return ended.set()

    with running_server(app) as address, socket.create_connection(address) as connection:
        connection.sendall(HEALTH)
        assert ended.wait(120)
        received = 0
        with suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
    assert received < 64 << 20


def test_server_rejects_a_long_request_head(address):
    response, _ = exchange(address, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 30_000)
    assert response.startswith(b"HTTP/1.1 4")


def test_server_completes_requests_in_progress_when_it_stops(world, tmp_path):
    with running_server(make_app(world[0], tmp_path / "g.arrow", threads=1)) as address:
        threads, responses = post_in_parallel(address, world[1]["slow"][0].read_bytes(), 4)
        time.sleep(0.3)  # the requests have arrived
    for thread in threads:
        thread.join()
    assert [status for status, _ in responses] == [200] * 4


def test_is_loopback_accepts_only_addresses_of_this_machine():
    assert all(map(server.is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(server.is_loopback, ("0.0.0.0", "192.168.1.2", "::", "example.org")))
