"""A real server: what only connections show."""

import http.client
import json
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from serving_support import app_of, running

from makermark.serving import listening

BODY = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%s\r\n--x--\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
HEAD = b"POST /api/trace HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"


@pytest.fixture(scope="module")
def address(world, tmp_path_factory):
    gallery = tmp_path_factory.mktemp("listening") / "gallery.arrow"
    with running(app_of(world[0], gallery)) as address:
        yield address


def post(address, content, timeout=60):
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    connection.request("POST", "/api/trace", BODY % content, FORM)
    answer = connection.getresponse()
    return answer.status, answer.read()


def raw(address, *parts, pause=0.0):
    """The answer to these bytes, as it came, and the seconds until the connection was closed."""
    start = time.monotonic()
    with socket.create_connection(address, timeout=20) as line:
        for part in parts:
            line.sendall(part)
            time.sleep(pause)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    return answer, time.monotonic() - start


def test_fifty_at_once_are_all_served(world, address):
    content, answers = world[1]["slow"][0].read_bytes(), []
    threads = [threading.Thread(target=lambda: answers.append(post(address, content))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 50
    told = [json.loads(body) for _, body in answers]
    assert len({each["verdict"] for each in told}) == 1
    np.testing.assert_allclose(
        [e["posterior_unknown"] for e in told], told[0]["posterior_unknown"], rtol=1e-3
    )


def test_a_gigabyte_is_refused_before_it_is_sent(address):
    answer, seconds = raw(address, HEAD + b"Content-Length: 1073741824\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error":"1073741824 bytes; at most 1048576 are taken"}')
    assert b"connection: close" in answer
    assert seconds < 5


def test_a_body_that_never_comes_is_given_up(address):
    answer, seconds = raw(address, HEAD + b"Content-Length: 1000\r\n\r\n", b"--x\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 1 s" in answer
    assert seconds < 10


def test_a_head_that_never_ends_is_given_up(address, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.5)
    for parts in ((), (b"GET / HT",), (b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET /")):
        start = time.monotonic()
        with suppress(ConnectionResetError):
            raw(address, *parts, pause=0.3)
        assert 0.4 < time.monotonic() - start < 10


def test_a_head_that_is_too_long_is_refused(address):
    answer, _ = raw(address, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 30_000)
    assert answer.startswith(b"HTTP/1.1 4")


def test_what_is_being_served_when_the_server_ends_is_answered(world, tmp_path):
    content, answers = world[1]["slow"][0].read_bytes(), []
    with running(app_of(world[0], tmp_path / "g.arrow", threads=1)) as address:
        threads = [threading.Thread(target=lambda: answers.append(post(address, content))) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # the requests are there
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 4


def test_loopback_is_told_from_the_rest():
    assert all(map(listening.is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(listening.is_loopback, ("0.0.0.0", "192.168.1.2", "::", "example.org")))
