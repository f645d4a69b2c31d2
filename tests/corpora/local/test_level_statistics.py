"""The table of level statistics, on signals with known values."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from makermark.corpora.local.level_statistics import bandwidth_hz, measure_systems
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
