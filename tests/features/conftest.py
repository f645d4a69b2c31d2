"""Fixtures: a small encoder, front ends, and a small corpus."""

import pandas as pd
import pytest
import soundfile
from speechlike import SETTINGS, row, voice

from encoders_support import save_model
from makermark import features
from makermark.foundation.manifest import Manifest


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A small wav2vec 2.0 model with layer norm, like XLS-R."""
    return str(save_model(tmp_path_factory.mktemp("models"), "layer"))


@pytest.fixture(scope="session")
def make_front_end(encoder_folder):
    def make(name="fbank", **changes):
        return features.build(name, **{"model": encoder_folder, **SETTINGS[name], **changes})

    return make


@pytest.fixture
def corpus(tmp_path):
    """11 utterances of 0.6 to 2.1 s in a folder with spaces and non-ASCII letters in its name."""
    root = tmp_path / "Stimmen größer — 声"
    root.mkdir()
    rows = []
    for number in range(11):
        path = root / f"ü {number}.{'flac' if number % 2 else 'wav'}"
        soundfile.write(path, voice(0.6 + 0.15 * number, seed=number), 16000, subtype="PCM_16")
        rows.append(row(path))
    return Manifest("test", root, pd.DataFrame(rows))
