"""A small tracer of vowels to serve, and a real server in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from makermark.serving.application import build_application
from makermark.serving.server import bind_socket, build_server
from makermark.serving.service import TracingService
from makermark.tracing import Tracer
from tests_support import VOICES
from tracer_support import make_world

LIMITS = {
    "hosts": ["testserver", "127.0.0.1"], "threads": 2, "queue_capacity": 64, "max_seconds": 5.0,
    "max_bytes": 1 << 20, "max_total_bytes": 1 << 24, "per_minute": 6000, "burst": 1000, "body_timeout_s": 1.0,
    "response_timeout_s": 60.0, "changeable": True,
}  # fmt: skip


def make_models(folder: Path) -> dict[str, list[Path]]:
    """Write a model of slow and middle vowels with its tracer to `folder`/models; return the clips per system."""
    world = make_world(folder)
    return {name: world.of(name) for name in VOICES}


@cache
def load_tracer(models: Path) -> Tracer:
    return Tracer.load(models, device="cpu")


def make_app(models: Path, gallery: Path, **limits):
    """Return an application with LIMITS, some of them replaced."""
    limits = LIMITS | limits
    service = TracingService(load_tracer(models), gallery, corpus=None, max_seconds=limits["max_seconds"])
    return build_application(service, **limits)


@contextmanager
def running_server(app) -> Iterator[tuple[str, int]]:
    """Run a real uvicorn server with `app` in a thread; yield its address, then shut it down gracefully."""
    listener = bind_socket("127.0.0.1", 0)
    server = build_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 300
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()
