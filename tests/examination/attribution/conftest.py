"""Fixtures: a small model on vowels and its tracer."""

import pytest

from makermark.tracing import Tracer
from tracer_support import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tracer(world):
    return Tracer.load(world.folder / "models")
