"""The table of what was left of the systems measures what it says."""

import numpy as np
import pytest
import soundfile as sf

from makermark.corpora.local.measure import bandwidth_hz, measure
from makermark.corpora.rows import GIVEN, Manifest


@pytest.mark.parametrize("highest_hz", [3000, 5000, 7000])
def test_the_bandwidth_of_band_limited_noise_is_its_limit(highest_hz):
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(64000))
    spectrum[np.fft.rfftfreq(64000, 1 / 16000) > highest_hz] = 0
    assert bandwidth_hz(np.fft.irfft(spectrum)) == pytest.approx(highest_hz, abs=250)


def test_a_system_of_constant_level_is_measured_at_that_level(tmp_path):
    import pandas as pd

    for name, seconds in (("a", 2.0), ("b", 4.0)):
        time = np.arange(int(seconds * 16000)) / 16000
        sf.write(tmp_path / f"{name}.flac", 0.1 * np.sin(2 * np.pi * 440 * time), 16000)
    rows = pd.DataFrame({name: ["x", "x"] for name in GIVEN.names}).assign(path=["a.flac", "b.flac"])
    table = measure(Manifest(corpus="local", root=tmp_path, rows=rows))
    assert table.loc["x", "utterances"] == 2
    assert table.loc["x", "length s"] == 3.0
    assert table.loc["x", "level dBFS"] == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.06)
    assert table.loc["x", "spread dB"] == 0.0
