"""Shortcuts: each property on signals with known values, and prediction of systems that differ in one property."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import firwin, lfilter

from makermark.foundation.errors import CorpusError
from makermark.scoring.probes.shortcuts import (
    PROPERTIES,
    bandwidth_hz,
    eta_squared,
    leading_silence_s,
    level_dbfs,
    measure_shortcuts,
    predict_systems,
)

SAMPLE_RATE_HZ = 16000


def noise(seconds, rng, rate_hz=SAMPLE_RATE_HZ, level=0.1):
    return (level * rng.standard_normal(int(seconds * rate_hz))).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("cutoff_hz", [2000, 4000, 7000])
def test_bandwidth_is_the_cutoff_of_a_filter(rng, cutoff_hz):
    filtered = lfilter(firwin(1001, cutoff_hz, fs=SAMPLE_RATE_HZ), 1.0, noise(2, rng)).astype(np.float32)
    assert bandwidth_hz(filtered, SAMPLE_RATE_HZ) == pytest.approx(cutoff_hz, abs=150)


def test_bandwidth_at_a_higher_sample_rate(rng):
    assert bandwidth_hz(noise(1, rng, rate_hz=48000), 48000) == pytest.approx(24000, abs=100)


def test_level_of_a_sine_ignores_pauses():
    sine = (0.5 * np.sin(2 * np.pi * 200 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)).astype(np.float32)
    paused = np.concatenate([sine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)])
    assert level_dbfs(sine, SAMPLE_RATE_HZ) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert level_dbfs(paused, SAMPLE_RATE_HZ) == pytest.approx(level_dbfs(sine, SAMPLE_RATE_HZ), abs=0.01)


def test_leading_silence_ends_at_the_first_speech_frame(rng):
    quiet = noise(0.25, rng, level=1e-5)
    assert leading_silence_s(np.concatenate([quiet, noise(1, rng)]), SAMPLE_RATE_HZ) == pytest.approx(
        0.25, abs=0.011
    )
    assert leading_silence_s(noise(1, rng), SAMPLE_RATE_HZ) == 0


def test_properties_of_very_short_audio_are_finite(rng):
    values = [prop.measure(noise(0.004, rng), SAMPLE_RATE_HZ) for prop in PROPERTIES.values()]
    assert np.isfinite(values).all()


def test_eta_squared_is_the_share_of_variance_between_systems():
    systems = np.array(["a", "a", "b", "b"])
    assert eta_squared(np.array([1.0, 1.0, 3.0, 3.0]), systems) == 1
    assert eta_squared(np.array([1.0, 3.0, 1.0, 3.0]), systems) == 0
    assert eta_squared(np.array([0.0, 2.0, 2.0, 4.0]), systems) == pytest.approx(0.5)  # means 1, 3; 4 of 8
    assert eta_squared(np.ones(4), systems) == 0


def test_only_different_properties_predict_above_chance(rng):
    """Two levels separate four systems into halves; a bimodal property with equal means has no eta but predicts."""
    systems = np.repeat(["a", "b", "c", "d"], 100)
    table = rng.standard_normal((400, len(PROPERTIES)))
    table[:, 0] = np.where(np.isin(systems, ["a", "b"]), 16000, 24000)
    table[:, 1] = np.where(systems == "a", rng.choice([-9, 9], 400), rng.standard_normal(400))
    results = list(predict_systems(table, systems, seed=0).values())
    assert results[0]["balanced_accuracy_percent"] == pytest.approx(50, abs=1)
    assert results[1]["eta_squared"] < 0.05
    assert results[1]["balanced_accuracy_percent"] > 40
    for result in results[2:5]:
        assert result["balanced_accuracy_percent"] == pytest.approx(25, abs=7)
        assert result["eta_squared"] < 0.05
    assert results[5]["balanced_accuracy_percent"] > 60


@pytest.fixture
def corpus(tmp_path, rng):
    """Two systems that differ in the sample rate only, three unusable files, and a system with three files."""
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
def test_sample_rate_that_depends_on_the_system_predicts_it(corpus):
    rows, root = corpus
    results = measure_shortcuts(rows, root, per_system=50, seed=0, workers=2)
    assert (results["files"], results["unusable_files"], results["systems"], results["chance_percent"]) == (
        26,
        3,
        2,
        50,
    )
    assert results["properties"]["sample_rate_hz"]["balanced_accuracy_percent"] == 100
    assert results["properties"]["sample_rate_hz"]["eta_squared"] == pytest.approx(1)
    assert results["properties"]["level_dbfs"]["balanced_accuracy_percent"] < 90
    assert results["medians"]["high"]["sample_rate_hz"] == 22050
    assert "rare" in results["medians"]
    assert [reason.split(": ", 1)[1].split(":")[0].split(",")[0] for reason in results["unusable"]] == [
        "missing", "empty", "not audio"
    ]  # fmt: skip


def test_drawn_files_depend_on_the_seed_and_not_on_the_row_order(corpus):
    rows, root = corpus
    first = measure_shortcuts(rows, root, per_system=12, seed=3, workers=1)
    second = measure_shortcuts(rows.iloc[::-1], root, per_system=12, seed=3, workers=2)
    assert first == second
    assert first["files"] + first["unusable_files"] == 12 + 12 + 3


def test_folder_without_usable_audio_raises(corpus, tmp_path):
    rows, _ = corpus
    with pytest.raises(CorpusError, match=r"none of 25 files can be used .* is no such file"):
        measure_shortcuts(rows, tmp_path / "elsewhere", per_system=11, seed=0, workers=1)
    with pytest.raises(CorpusError, match="fewer than two systems have 10 usable files"):
        measure_shortcuts(rows, corpus[1], per_system=3, seed=0, workers=1)
