"""The speaker encoder that the package resemblyzer brings, as a baseline trained by nobody here.

Three LSTM layers trained with GE2E (Wan et al. 2018) on recordings of real people: 256 numbers, none below
0, for who is speaking. Only the file of its weights is read, without unpickling; its code is not run.

Legend of axes: N utterances, W windows, T samples, F bands.
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
from numpy.typing import NDArray
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from makermark import audio
from makermark.errors import EncoderError

PACKAGE = "resemblyzer"
WEIGHTS = "pretrained.pt"
INSTALL = "pip install --no-deps -r requirements-local.txt"

SAMPLE_RATE_HZ = 16000
HOP = 160  # samples
BANDS, WIDTH = 40, 256
WINDOW = 160  # frames: 1.6 s
STEP = 77  # frames: 1.3 windows start in a second
LEAST_COVERED = 0.75  # of the last window, unless it is the only one
QUIETEST = 10 ** (-30 / 20)  # RMS that quieter speech is raised to, full scale 1
UTTERANCES = 64  # whose windows share a batch


class SpeakerEncoder(nn.Module):
    """Windows of mel power (W, WINDOW, BANDS) to vectors of length 1 (W, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, num_layers=3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, windows: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(windows)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


def weights_file() -> Path:
    """Where the installed package keeps its weights; raises EncoderError where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).with_name(WEIGHTS) if found and found.origin else None
    if path is None or not path.exists():
        raise EncoderError(f"baseline {PACKAGE}: the package {PACKAGE} is not installed; {INSTALL}")
    return path


def load_speaker_encoder(path: Path) -> SpeakerEncoder:
    """The encoder with the weights of `path`, for evaluation; raises EncoderError for another kind of file."""
    network = SpeakerEncoder()
    wanted = network.state_dict()
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        network.load_state_dict({name: state[name] for name in wanted})
    except (OSError, RuntimeError, KeyError, TypeError, UnpicklingError) as error:
        raise EncoderError(f"{path}: not the weights of the speaker encoder; {INSTALL}") from error
    return network.eval()


def speaker_vectors(
    network: SpeakerEncoder, files: Sequence[Path], *, device: torch.device
) -> NDArray[np.float32]:
    """(N, WIDTH), of each audio file the mean of its windows' vectors, at length 1.

    Silence is not cut out: how a system pauses is one of its marks. Raises AudioError as `audio.read` does.
    """
    network.to(device)
    vectors = np.empty((len(files), WIDTH), dtype=np.float32)
    with torch.inference_mode():
        for first in range(0, len(files), UTTERANCES):
            batch = slice(first, first + UTTERANCES)
            waveforms = [audio.read(file, sample_rate_hz=SAMPLE_RATE_HZ) for file in files[batch]]
            each = [windows_of(torch.from_numpy(waveform)) for waveform in waveforms]
            found = network(torch.cat(each).to(device)).cpu().split([len(windows) for windows in each])
            vectors[batch] = F.normalize(torch.stack([of.mean(dim=0) for of in found]), dim=1).numpy()
    return vectors


def windows_of(waveform: Tensor) -> Tensor:
    """(W, WINDOW, BANDS): the mel power of a waveform (T,), raised to QUIETEST where softer, cut into windows."""
    loudness = waveform.square().mean().sqrt()
    if 0 < loudness < QUIETEST:
        waveform = waveform * (QUIETEST / loudness)
    starts = _starts(len(waveform))
    covered = (starts[-1] + WINDOW) * HOP
    padded = F.pad(waveform, (0, max(0, covered - len(waveform))))
    power = _mel_power()(padded)  # (BANDS, frames)
    return torch.stack([power[:, start : start + WINDOW].T for start in starts])


@cache
def _mel_power() -> MelSpectrogram:
    return MelSpectrogram(
        SAMPLE_RATE_HZ,
        n_fft=400,
        hop_length=HOP,
        n_mels=BANDS,
        mel_scale="slaney",
        norm="slaney",
        pad_mode="constant",
    )


def _starts(samples: int) -> list[int]:
    """The first frame of each window of a waveform."""
    frames = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
    uncovered = samples - starts[-1] * HOP < LEAST_COVERED * WINDOW * HOP
    return starts[:-1] if uncovered and len(starts) > 1 else starts
