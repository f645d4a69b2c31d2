"""A small tracer of tones to serve, and a real server in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from makermark.serving import Desk, application
from makermark.serving.listening import bound, server
from makermark.tracing import Tracer
from tests_support import VIBRATO_HZ
from tracer_support import make_world

LIMITS = {
    "hosts": ["testserver", "127.0.0.1"], "threads": 2, "waiting": 64, "max_seconds": 5.0, "max_bytes": 1 << 20,
    "max_bytes_at_once": 1 << 24, "per_minute": 6000, "burst": 1000, "body_seconds": 1.0, "answer_seconds": 60.0,
    "changeable": True,
}  # fmt: skip


def make_models(folder: Path) -> dict[str, list[Path]]:
    """A model of slow and middle tones with its tracer in `folder`/models; the files of every system, fast ones too."""
    world = make_world(folder)
    return {name: world.of(name) for name in VIBRATO_HZ}


@cache
def tracer_of(models: Path) -> Tracer:
    return Tracer.load(models, device="cpu")


def app_of(models: Path, gallery: Path, **limits):
    """An application with LIMITS, some of them replaced."""
    chosen = LIMITS | limits
    desk = Desk(tracer_of(models), gallery, corpus=None, max_seconds=chosen["max_seconds"])
    return application(desk, **chosen)


@contextmanager
def running(app) -> Iterator[tuple[str, int]]:
    """A real uvicorn with `app` in a thread, at this address; it ends gracefully."""
    listener = bound("127.0.0.1", 0)
    serving = server(app)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
    thread.start()
    until = time.monotonic() + 30
    while not serving.started and time.monotonic() < until:
        time.sleep(0.02)
    try:
        yield listener.getsockname()
    finally:
        serving.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
