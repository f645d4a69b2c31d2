"""The table of all systems: attributes, hashes, and statistics of signals with known values."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from makermark.corpora.local.system_table import bandwidth_hz, describe_systems, measure_systems
from makermark.foundation.manifest import INPUT_SCHEMA, Manifest


@pytest.mark.parametrize("highest_hz", [3000, 5000, 7000])
def test_bandwidth_of_band_limited_noise_is_its_limit(highest_hz):
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(64000))
    spectrum[np.fft.rfftfreq(64000, 1 / 16000) > highest_hz] = 0
    assert bandwidth_hz(np.fft.irfft(spectrum)) == pytest.approx(highest_hz, abs=250)


def test_level_of_a_sine_is_measured(tmp_path):
    for name, seconds in (("a", 2.0), ("b", 4.0)):
        time = np.arange(int(seconds * 16000)) / 16000
        sf.write(tmp_path / f"{name}.flac", 0.1 * np.sin(2 * np.pi * 440 * time), 16000)
    rows = pd.DataFrame({name: ["x", "x"] for name in INPUT_SCHEMA.names}).assign(path=["a.flac", "b.flac"])
    table = measure_systems(Manifest(corpus="local", root=tmp_path, rows=rows))
    assert table.loc["x", "utterances"] == 2
    assert table.loc["x", "length s"] == 3.0
    assert table.loc["x", "level dBFS"] == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.06)
    assert table.loc["x", "spread dB"] == 0.0


def test_systems_are_described_by_part_with_a_hash_of_their_files():
    rows = pd.DataFrame(
        [
            ("b+world", "test", "b", "world", "3"),
            ("a", "dev", "a", "own", "2"),
            ("a", "train", "a", "own", "1"),
            ("c", "dev", "c", "own", "4"),
        ],
        columns=["system", "split", "acoustic_model", "vocoder", "sha256"],
    ).assign(family="formant", licence="MIT")
    table = describe_systems(rows)
    assert list(table["part"].items()) == [("a", "train"), ("c", "dev"), ("b+world", "test")]
    assert table.loc["b+world", ["acoustic_model", "vocoder", "licence"]].tolist() == ["b", "world", "MIT"]
    assert table.loc["a", "hash"] == hashlib.sha256(b"12").hexdigest()[:12]  # whatever the order of the rows
    pd.testing.assert_frame_equal(describe_systems(rows[::-1]), table)
    changed = rows.assign(sha256=["3", "2", "1", "5"])
    assert (describe_systems(changed)["hash"] != table["hash"]).tolist() == [False, True, False]
