"""Small audio folders with their manifest rows."""

import pandas as pd
import pytest
import soundfile
from speechlike import SETTINGS, row, voice

from makermark import features
from makermark.corpora.rows import Manifest


@pytest.fixture(scope="session")
def make_front_end():
    return lambda name="fbank", **changes: features.build(name, **{**SETTINGS[name], **changes})


@pytest.fixture
def corpus(tmp_path):
    """A folder whose name has a space and letters outside ASCII, 11 utterances of 0.6 to 2.1 s."""
    root = tmp_path / "Stimmen größer — 声"
    root.mkdir()
    rows = []
    for number in range(11):
        path = root / f"ü {number}.{'flac' if number % 2 else 'wav'}"
        soundfile.write(path, voice(0.6 + 0.15 * number, seed=number), 16000, subtype="PCM_16")
        rows.append(row(path))
    return Manifest("test", root, pd.DataFrame(rows))
