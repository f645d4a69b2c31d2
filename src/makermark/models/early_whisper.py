"""First layers of a Whisper encoder, as a baseline that was not trained on synthetic speech.

The package pipecat-ai (BSD 2-Clause) holds smart-turn 3.2, the encoder of Whisper-tiny (Radford et al. 2023) fine-tuned
to detect the end of a speaker's turn, as an ONNX file with weights of 8 bit. Only this file is read; the package's code
is not run. The last layers of a recogniser discard how speech was made; the first ones do not.

Axes: N utterances, W windows, T samples, F frames of 20 ms, H hidden size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from makermark.features.encoders.base import HOP_SAMPLES, SAMPLE_RATE_HZ
from makermark.features.encoders.whisper import N_FFT, compute_log_mels, mel_filters
from makermark.foundation import audio
from makermark.foundation.arrays import Float32Array
from makermark.foundation.errors import EncoderError

PACKAGE = "pipecat"
WEIGHTS = "audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"
INSTALL = "pip install --no-deps -r requirements-local.txt"

BANDS = 80
WINDOW_SAMPLES = 8 * SAMPLE_RATE_HZ
SMALLEST_VARIANCE = 1e-7
# The normalised states of layer 1 after its self-attention, and of layer 2 at its input.
STATES = ("layer_norm_1", "layer_norm_2")
HIDDEN_SIZE = 384  # H
EMBEDDING_DIM = 2 * len(STATES) * HIDDEN_SIZE

# Field numbers in the protocol buffers of ONNX
GRAPH_OF_MODEL, OUTPUT_OF_GRAPH, NAME_OF_VALUE = 7, 12, 1
LENGTH_DELIMITED = 2


def find_weights() -> Path:
    """Return the path of the weights in the installed package. Raises EncoderError if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders)), WEIGHTS) if folders else None
    if path is None or not path.exists():
        raise EncoderError(f"baseline whisper-early: the package pipecat-ai is not installed; {INSTALL}")
    return path


def load_session(path: Path) -> Any:
    """Load the encoder with STATES as outputs beside its own. Raises EncoderError for a file that has none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(with_outputs(path.read_bytes(), STATES), options)
    except Exception as error:  # ONNX Runtime raises errors of many kinds
        raise EncoderError(f"{path}: not the Whisper encoder of pipecat-ai; {INSTALL}") from error


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Return a serialised ONNX model whose graph gives the values `names` too.

    A parser of protocol buffers merges messages that follow one another. The model is therefore followed by a second
    one, which has nothing but these outputs.
    """
    outputs = [_field(OUTPUT_OF_GRAPH, _field(NAME_OF_VALUE, name.encode())) for name in names]
    return model + b"".join(_field(GRAPH_OF_MODEL, output) for output in outputs)


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer; number below 16 and content below 128 bytes, so that both take one byte."""
    return bytes([number << 3 | LENGTH_DELIMITED, len(content)]) + content


def early_embeddings(session: Any, files: Sequence[Path]) -> Float32Array:
    """Return the embedding (N, EMBEDDING_DIM) of each audio file: mean and standard deviation over time of STATES.

    Raises AudioError as `audio.read` does.
    """
    filters, window = mel_filters(BANDS), torch.hann_window(N_FFT)
    embeddings = np.empty((len(files), EMBEDDING_DIM), dtype=np.float32)
    for row, file in enumerate(files):
        windows, frames = cut_windows(torch.from_numpy(audio.read(file, sample_rate_hz=SAMPLE_RATE_HZ)))
        log_mels = compute_log_mels(windows, filters, window)
        states = session.run(list(STATES), {"input_features": log_mels.numpy()})  # (W, 400, H) each
        embeddings[row] = np.concatenate([pool(state, frames) for state in states])
    return embeddings


def cut_windows(waveform: Tensor) -> tuple[Tensor, list[int]]:
    """Return windows (W, WINDOW_SAMPLES) of a waveform (T,) of mean 0 and variance 1, and the frames of speech in them.

    The last window has zeros before the speech, as in the encoder's training: its speech is in its last frames.
    """
    centred = waveform - waveform.mean()
    normalised = centred / (centred.square().mean() + SMALLEST_VARIANCE).sqrt()
    parts = torch.split(normalised, WINDOW_SAMPLES)
    windows = torch.stack([F.pad(part, (WINDOW_SAMPLES - len(part), 0)) for part in parts])
    return windows, [-(-len(part) // HOP_SAMPLES) for part in parts]


def pool(state: Float32Array, frames: Sequence[int]) -> Float32Array:
    """Return mean and standard deviation (2 H,) over the last `frames` (W,) of each window of a state (W, F, H)."""
    speech = np.concatenate([part[-count:] for part, count in zip(state, frames, strict=True)])
    return np.concatenate([speech.mean(axis=0), speech.std(axis=0)])
