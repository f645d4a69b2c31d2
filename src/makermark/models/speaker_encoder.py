"""The speaker encoder of the package resemblyzer, as a baseline that was not trained on synthetic speech.

Three LSTM layers trained with GE2E (Wan et al. 2018) on recordings of real people, with non-negative embeddings of 256
dimensions. Only the file of weights is read, without unpickling; the package's code is not run.

Axes: N utterances, W windows, T samples, F bands.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from makermark.foundation import audio
from makermark.foundation.arrays import Float32Array
from makermark.foundation.errors import EncoderError

PACKAGE = "resemblyzer"
WEIGHTS = "pretrained.pt"
INSTALL = "pip install --no-deps -r requirements-local.txt"

SAMPLE_RATE_HZ = 16000
HOP_SAMPLES = 160
BANDS, EMBEDDING_DIM = 40, 256
WINDOW_FRAMES = 160  # 1.6 s
STEP_FRAMES = 77  # 1.3 windows per second
MIN_COVERAGE = 0.75  # of the last window by speech, unless it is the only one
MIN_RMS = 10 ** (-30 / 20)  # quieter speech is amplified to this level; full scale is 1
BATCH_UTTERANCES = 64


class SpeakerEncoder(nn.Module):
    """Windows of mel power (W, WINDOW_FRAMES, BANDS) -> embeddings of length 1 (W, EMBEDDING_DIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, EMBEDDING_DIM, num_layers=3, batch_first=True)
        self.linear = nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM)

    def forward(self, windows: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(windows)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


def find_weights() -> Path:
    """Return the path of the weights in the installed package. Raises EncoderError if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).with_name(WEIGHTS) if spec and spec.origin else None
    if path is None or not path.exists():
        raise EncoderError(f"baseline {PACKAGE}: the package {PACKAGE} is not installed; {INSTALL}")
    return path


def load_speaker_encoder(path: Path) -> SpeakerEncoder:
    """Load the encoder in evaluation mode. Raises EncoderError for a file without its weights."""
    network = SpeakerEncoder()
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (OSError, RuntimeError, KeyError, TypeError, UnpicklingError) as error:
        raise EncoderError(f"{path}: not the weights of the speaker encoder; {INSTALL}") from error
    return network.eval()


def speaker_embeddings(
    network: SpeakerEncoder, files: Sequence[Path], *, device: torch.device
) -> Float32Array:
    """Return the embedding (N, EMBEDDING_DIM) of each audio file: the mean over its windows, scaled to length 1.

    Silence is not removed, since pauses are characteristic of a system. Raises AudioError as `audio.read` does.
    """
    network.to(device)
    embeddings = np.empty((len(files), EMBEDDING_DIM), dtype=np.float32)
    with torch.inference_mode():
        for first in range(0, len(files), BATCH_UTTERANCES):
            batch = slice(first, first + BATCH_UTTERANCES)
            waveforms = [audio.read(file, sample_rate_hz=SAMPLE_RATE_HZ) for file in files[batch]]
            windows = [mel_windows(torch.from_numpy(waveform)) for waveform in waveforms]
            outputs = network(torch.cat(windows).to(device)).cpu().split([len(w) for w in windows])
            means = torch.stack([output.mean(dim=0) for output in outputs])
            embeddings[batch] = F.normalize(means, dim=1).numpy()
    return embeddings


def mel_windows(waveform: Tensor) -> Tensor:
    """Return windows (W, WINDOW_FRAMES, BANDS) of the mel power of a waveform (T,), amplified to at least MIN_RMS."""
    rms = waveform.square().mean().sqrt()
    if 0 < rms < MIN_RMS:
        waveform = waveform * (MIN_RMS / rms)
    starts = _window_starts(len(waveform))
    covered = (starts[-1] + WINDOW_FRAMES) * HOP_SAMPLES
    padded = F.pad(waveform, (0, max(0, covered - len(waveform))))
    power = _mel_power()(padded)  # (BANDS, frames)
    return torch.stack([power[:, start : start + WINDOW_FRAMES].T for start in starts])


@cache
def _mel_power() -> MelSpectrogram:
    return MelSpectrogram(
        SAMPLE_RATE_HZ,
        n_fft=400,
        hop_length=HOP_SAMPLES,
        n_mels=BANDS,
        mel_scale="slaney",
        norm="slaney",
        pad_mode="constant",
    )


def _window_starts(samples: int) -> list[int]:
    """Return the first frame of each window of a waveform."""
    frames = -(-(samples + 1) // HOP_SAMPLES)
    starts = list(range(0, max(1, frames - WINDOW_FRAMES + STEP_FRAMES + 1), STEP_FRAMES))
    covered_samples = samples - starts[-1] * HOP_SAMPLES
    if len(starts) > 1 and covered_samples < MIN_COVERAGE * WINDOW_FRAMES * HOP_SAMPLES:
        return starts[:-1]
    return starts
