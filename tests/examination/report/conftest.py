"""Fixtures: a small tracer, and the report data of one clip."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from makermark.examination.report import collect_report_data
from makermark.tracing import Tracer
from tests_support import VOICES, speak
from tracer_support import make_world


class World(NamedTuple):
    folder: Path
    tracer: Tracer
    files: dict[str, list[Path]]
    long: Path  # two systems in turn


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    small_world = make_world(folder)
    files = {system: small_world.of(system) for system in VOICES}
    rng = np.random.default_rng(3)
    soundfile.write(folder / "long.flac", np.concatenate([speak("slow", rng), speak("middle", rng)]), 16000)
    return World(folder, Tracer.load(folder / "models", device="cpu"), files, folder / "long.flac")


@pytest.fixture(scope="session")
def report_data(world):
    return collect_report_data(world.tracer, world.long, corpus=world.folder / "corpus")
