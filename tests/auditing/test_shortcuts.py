"""Plain properties of audio: each measured on signals made for it, and what they tell of systems that differ in one."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import firwin, lfilter

from makermark.auditing.shortcuts import (
    PROPERTIES,
    bandwidth_hz,
    eta_squared,
    leading_silence_s,
    level_dbfs,
    predict,
    shortcuts,
)
from makermark.errors import CorpusError

RATE = 16000


def noise(seconds, rng, rate_hz=RATE, level=0.1):
    return (level * rng.standard_normal(int(seconds * rate_hz))).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("cutoff_hz", [2000, 4000, 7000])
def test_bandwidth_is_where_a_filter_ends(rng, cutoff_hz):
    filtered = lfilter(firwin(1001, cutoff_hz, fs=RATE), 1.0, noise(2, rng)).astype(np.float32)
    assert bandwidth_hz(filtered, RATE) == pytest.approx(cutoff_hz, abs=150)


def test_bandwidth_of_a_higher_rate_is_measured_there(rng):
    assert bandwidth_hz(noise(1, rng, rate_hz=48000), 48000) == pytest.approx(24000, abs=100)


def test_level_is_that_of_a_sine_pauses_do_not_count():
    sine = (0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)
    paused = np.concatenate([sine, np.zeros(2 * RATE, np.float32)])
    assert level_dbfs(sine, RATE) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert level_dbfs(paused, RATE) == pytest.approx(level_dbfs(sine, RATE), abs=0.01)


def test_leading_silence_lasts_until_the_first_sound(rng):
    quiet = noise(0.25, rng, level=1e-5)
    assert leading_silence_s(np.concatenate([quiet, noise(1, rng)]), RATE) == pytest.approx(0.25, abs=0.011)
    assert leading_silence_s(noise(1, rng), RATE) == 0


def test_a_few_samples_are_measured_too(rng):
    values = [known.measure(noise(0.004, rng), RATE) for known in PROPERTIES.values()]
    assert np.isfinite(values).all()


def test_eta_squared_is_the_share_between_systems():
    systems = np.array(["a", "a", "b", "b"])
    assert eta_squared(np.array([1.0, 1.0, 3.0, 3.0]), systems) == 1
    assert eta_squared(np.array([1.0, 3.0, 1.0, 3.0]), systems) == 0
    assert eta_squared(np.array([0.0, 2.0, 2.0, 4.0]), systems) == pytest.approx(0.5)  # means 1, 3; 4 of 8
    assert eta_squared(np.ones(4), systems) == 0


def test_only_what_differs_predicts_and_the_rest_is_chance(rng):
    """Two levels tell half of four systems; a property with two modes of one mean has no eta, yet tells."""
    systems = np.repeat(["a", "b", "c", "d"], 100)
    table = rng.standard_normal((400, len(PROPERTIES)))
    table[:, 0] = np.where(np.isin(systems, ["a", "b"]), 16000, 24000)
    table[:, 1] = np.where(systems == "a", rng.choice([-9, 9], 400), rng.standard_normal(400))
    told = list(predict(table, systems, seed=0).values())
    assert told[0]["balanced_accuracy_percent"] == pytest.approx(50, abs=1)
    assert told[1]["eta_squared"] < 0.05
    assert told[1]["balanced_accuracy_percent"] > 40
    for each in told[2:5]:
        assert each["balanced_accuracy_percent"] == pytest.approx(25, abs=7)
        assert each["eta_squared"] < 0.05
    assert told[5]["balanced_accuracy_percent"] > 60


@pytest.fixture
def corpus(tmp_path, rng):
    """Two systems that differ in their sample rate only, three files that cannot be used, and a system of three."""
    rows = []
    for system, rate_hz, count in (("low", 16000, 14), ("high", 22050, 12), ("rare", 16000, 3)):
        for number in range(count):
            path = f"{system}-{number}.wav"
            soundfile.write(tmp_path / path, noise(rng.uniform(0.3, 0.6), rng, rate_hz), rate_hz)
            rows.append({"path": path, "system": system})
    (tmp_path / "low-0.wav").write_bytes(b"")
    (tmp_path / "low-1.wav").write_text("no audio")
    (tmp_path / "high-0.wav").unlink()
    return pd.DataFrame(rows), tmp_path


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_rate_that_goes_with_the_system_is_told(corpus):
    rows, root = corpus
    told = shortcuts(rows, root, per_system=50, seed=0, workers=2)
    assert (told["files"], told["unusable_files"], told["systems"], told["chance_percent"]) == (26, 3, 2, 50)
    assert told["properties"]["sample_rate_hz"]["balanced_accuracy_percent"] == 100
    assert told["properties"]["sample_rate_hz"]["eta_squared"] == pytest.approx(1)
    assert told["properties"]["level_dbfs"]["balanced_accuracy_percent"] < 90
    assert told["medians"]["high"]["sample_rate_hz"] == 22050
    assert "rare" in told["medians"]
    assert [reason.split(": ", 1)[1].split(":")[0].split(",")[0] for reason in told["unusable"]] == [
        "missing", "empty", "not audio"
    ]  # fmt: skip


def test_the_seed_decides_which_files_are_heard_whatever_the_order_of_rows(corpus):
    rows, root = corpus
    first = shortcuts(rows, root, per_system=12, seed=3, workers=1)
    again = shortcuts(rows.iloc[::-1], root, per_system=12, seed=3, workers=2)
    assert first == again
    assert first["files"] + first["unusable_files"] == 12 + 12 + 3


def test_a_folder_without_the_audio_is_named(corpus, tmp_path):
    rows, _ = corpus
    with pytest.raises(CorpusError, match=r"no file of 25 can be used .* is no such file"):
        shortcuts(rows, tmp_path / "elsewhere", per_system=11, seed=0, workers=1)
    with pytest.raises(CorpusError, match="fewer than two systems have 10 usable files"):
        shortcuts(rows, corpus[1], per_system=3, seed=0, workers=1)
