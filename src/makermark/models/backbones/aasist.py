"""AASIST: graph attention over bands and times of a raw waveform (Jung et al., ICASSP 2022).

Axes: B batch, T samples, T' times, F bands, C channels. Images are (B, C, F, T') in channels-last memory format, which
takes three fifths of the time on a CPU. The price: on a CPU torch then sums a batch's statistics in a single float32,
and the variance in the first block comes out 1 % low for 32 crops of 2 s, both in training and in evaluation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from makermark.foundation.errors import CheckpointError, ParamsError
from makermark.models.backbones.aasist_layers import ResidualBlock, SpectroTemporalGraph
from makermark.models.backbones.base import Backbone, apply_per_length, to_float

SAMPLE_RATE_HZ = 16000
POOL_SIZE = 3  # bands and samples per position of the first image; times per position after each block
NARROW_BLOCKS, WIDE_BLOCKS = 2, 4  # blocks of `narrow_filters`, followed by blocks of `wide_filters`


class Aasist(Backbone):
    """Sinc filters -> magnitudes, max pooled 3 x 3 -> six residual blocks -> graphs of bands and times -> `dim`.

    `sinc_filters` fixed filters of `sinc_length` samples. Every block divides the number of times by three. A node of
    the temporal graph covers 2187 samples (137 ms), a node of the spectral graph three filters; a node holds the
    largest magnitude of each channel. For `wide_nodes`, `narrow_nodes` and the `kept_*` ratios see
    `SpectroTemporalGraph`. `initial` is empty or a file written by `makermark convert aasist`, whose weights
    `load_pretrained` loads.

    As in the published implementation, the input of a block's first convolution is not normalised; the published
    network has weights for that normalisation but drops its output.
    """

    front_end = "waveform"
    supports_cuda_graph = True
    filters: Tensor

    def __init__(
        self,
        *,
        dim: int,
        sinc_filters: int,
        sinc_length: int,
        narrow_filters: int,
        wide_filters: int,
        wide_nodes: int,
        narrow_nodes: int,
        kept_bands: float,
        kept_times: float,
        kept_mixed: float,
        initial: str,
    ) -> None:
        super().__init__()
        widths = {"narrow_filters": narrow_filters, "wide_filters": wide_filters}
        widths |= {"wide_nodes": wide_nodes, "narrow_nodes": narrow_nodes}
        for name, width in widths.items():
            _require(width >= 1, name, width, "1 or more")
        ratios = {"kept_bands": kept_bands, "kept_times": kept_times, "kept_mixed": kept_mixed}
        for name, ratio in ratios.items():
            _require(0 < ratio <= 1, name, ratio, "above 0 and at most 1")
        _require(sinc_filters >= POOL_SIZE, "sinc_filters", sinc_filters, f"{POOL_SIZE} or more")
        _require(sinc_length >= 1 and sinc_length % 2 == 1, "sinc_length", sinc_length, "odd")
        self._initial = initial
        # The T - sinc_length + 1 filtered samples must leave one time after all poolings.
        self.min_frames = sinc_length - 1 + POOL_SIZE ** (1 + NARROW_BLOCKS + WIDE_BLOCKS)
        filters = build_sinc_filters(sinc_filters, sinc_length, sample_rate_hz=SAMPLE_RATE_HZ)
        self.register_buffer("filters", filters, persistent=False)
        self.image_norm = nn.BatchNorm2d(1)
        outputs = [narrow_filters] * NARROW_BLOCKS + [wide_filters] * WIDE_BLOCKS
        inputs = [1, *outputs[:-1]]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(i, o, normalised=False, pooled=POOL_SIZE)
                for i, o in zip(inputs, outputs, strict=True)
            )
        )
        self.graph = SpectroTemporalGraph(
            spectral_nodes=sinc_filters // POOL_SIZE,
            channels=wide_filters,
            wide=wide_nodes,
            narrow=narrow_nodes,
            kept_bands=kept_bands,
            kept_times=kept_times,
            kept_mixed=kept_mixed,
        )
        self.drop = nn.Dropout(0.5)
        self.embedding = nn.Linear(self.graph.out_width, dim)

    def load_pretrained(self) -> None:
        if self._initial:
            load_pretrained_weights(self, Path(self._initial), exclude="embedding.")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms (B, T, 1) as (B, dim), not normalised.

        With `lengths` (B,), in samples, there is one pass per distinct length: the numbers of nodes and of pooled
        nodes depend on the length, which a mask over a padded batch would not reproduce. Raises ValueError for an
        utterance shorter than `min_frames`, and for lengths in training mode.
        """
        self.check_lengths(features, lengths, name="aasist")
        if lengths is not None:
            return apply_per_length(self, features, lengths)
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has too few bits for a waveform
            images = F.selu_(self.image_norm(self._magnitudes(to_float(features))))
        images = self.blocks(images.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2))
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.drop(self.readout(images.float())))
        return embeddings

    def readout(self, images: Tensor) -> Tensor:
        """Map the output (B, C, F, T') of the last block to (B, 5 narrow_nodes)."""
        magnitudes = images.abs()
        out: Tensor = self.graph(
            magnitudes.amax(dim=3).transpose(1, 2), magnitudes.amax(dim=2).transpose(1, 2)
        )
        return out

    def _magnitudes(self, waveforms: Tensor) -> Tensor:
        """Filter waveforms (B, T, 1), take magnitudes, and max pool over 3 filters x 3 samples: (B, 1, F, T')."""
        bands = F.conv1d(waveforms.transpose(1, 2), self.filters)
        return F.max_pool2d(bands.abs_().unsqueeze(1), POOL_SIZE)


def _require(condition: bool, name: str, value: float, valid: str) -> None:
    if not condition:
        raise ParamsError(f"backbone aasist: {name} is {value}; it must be {valid}")


def build_sinc_filters(count: int, length: int, *, sample_rate_hz: int) -> Tensor:
    """Return adjacent band-pass filters (count, 1, length) from 0 Hz to half the sample rate.

    Band edges are evenly spaced on the mel scale, 2595 log10(1 + f / 700). The impulse response of an ideal band
    pass is the difference of two low passes, h(n) = 2 f2 sinc(2 f2 n) - 2 f1 sinc(2 f1 n), with edges f1 and f2 in
    cycles per sample and n = 0 in the middle (`length` is odd). It is multiplied by a Hamming window.
    """
    mels = np.linspace(0, 2595 * np.log10(1 + sample_rate_hz / 2 / 700), count + 1)
    edges = 2 * 700 * (10 ** (mels / 2595) - 1) / sample_rate_hz  # as a fraction of half the sample rate
    low_passes = edges[:, None] * np.sinc(edges[:, None] * (np.arange(length) - length // 2))
    filters = np.hamming(length) * np.diff(low_passes, axis=0)
    return torch.from_numpy(filters.astype(np.float32)).unsqueeze(1)


def load_pretrained_weights(network: nn.Module, path: Path, *, exclude: str) -> None:
    """Copy the weights of a safetensors file into `network`.

    Weights of the network whose name begins with `exclude` stay as they are; the file must hold all others and no
    more. On the meta device nothing is copied, only checked. Raises CheckpointError, before anything has changed,
    for a missing or damaged file, and for names or shapes that differ from the network's.
    """
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}); makermark convert writes such files"
        ) from error
    own = {name: weight for name, weight in network.state_dict().items() if not name.startswith(exclude)}
    mismatches = sorted(own.keys() ^ weights.keys()) or [n for n in own if own[n].shape != weights[n].shape]
    if mismatches:
        first = mismatches[0]
        shapes = [
            f"{list(side[first].shape)} in the {label}" if first in side else f"not in the {label}"
            for label, side in {"file": weights, "network": own}.items()
        ]
        raise CheckpointError(
            f"{path}: does not fit the settings of the backbone: {first} is {', '.join(shapes)}"
            f" (mismatches: {len(mismatches)}); set the sizes that the JSON file beside it names"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])
