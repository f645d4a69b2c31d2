"""AASIST: graph attention over bands and times of a raw waveform (Jung et al., ICASSP 2022).

Legend of axes: B batch, T samples, F bands, C channels. Images are (B, C, F, T') in memory order B, F, T', C
(channels last), which on processors takes three fifths of the time. The price: there torch sums a batch's statistics
in one float32, and the variance in the first block comes out 1 % low at 32 crops of 2 s, in training and afterwards
alike.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.backbones.base import Backbone, as_float
from makermark.backbones.graph import SpectroTemporalGraph
from makermark.backbones.initial import take_weights
from makermark.backbones.rawnet import ResidualBlock, band_passes
from makermark.errors import ParamsError

SAMPLE_RATE_HZ = 16000
POOLED = 3  # bands and samples that share a place in the image; and times, after each block
NARROW, WIDE = 2, 4  # blocks of `narrow_filters` and, behind them, of `wide_filters`


class Aasist(Backbone):
    """Sinc filters -> magnitudes, pooled 3 x 3 -> six residual blocks -> graphs of bands and times -> `dim`.

    The filters are fixed: `sinc_filters` of `sinc_length` samples. Every block divides the times by three, so that
    there is a node for 2187 samples (137 ms), and one for three filters: the largest magnitude of each channel at
    that time, or in that band. Widths of nodes and shares kept by the poolings: SpectroTemporalGraph. `initial`
    is empty or a file of `makermark convert aasist`, whose weights `begin` takes.

    As in the published implementation, nothing is normalised before a block's first convolution; that one holds
    normalisations for it all the same, whose output it drops.
    """

    front_end = "waveform"
    capturable = True
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
            _demand(width >= 1, name, width, "1 or more")
        for name, share in {
            "kept_bands": kept_bands,
            "kept_times": kept_times,
            "kept_mixed": kept_mixed,
        }.items():
            _demand(0 < share <= 1, name, share, "above 0 and at most 1")
        _demand(sinc_filters >= POOLED, "sinc_filters", sinc_filters, f"{POOLED} or more")
        _demand(sinc_length >= 1 and sinc_length % 2 == 1, "sinc_length", sinc_length, "odd")
        self._initial = initial
        # What the filters leave, T - sinc_length + 1, must be one time still after all poolings.
        self.min_frames = sinc_length - 1 + POOLED ** (1 + NARROW + WIDE)
        filters = band_passes(sinc_filters, sinc_length, sample_rate_hz=SAMPLE_RATE_HZ)
        self.register_buffer("filters", filters, persistent=False)
        self.image_norm = nn.BatchNorm2d(1)
        outputs = [narrow_filters] * NARROW + [wide_filters] * WIDE
        inputs = [1, *outputs[:-1]]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(i, o, normalised=False, pooled=POOLED)
                for i, o in zip(inputs, outputs, strict=True)
            )
        )
        self.graph = SpectroTemporalGraph(
            spectral_nodes=sinc_filters // POOLED,
            channels=wide_filters,
            wide=wide_nodes,
            narrow=narrow_nodes,
            kept_bands=kept_bands,
            kept_times=kept_times,
            kept_mixed=kept_mixed,
        )
        self.drop = nn.Dropout(0.5)
        self.embedding = nn.Linear(self.graph.out_width, dim)

    def begin(self) -> None:
        if self._initial:
            take_weights(self, Path(self._initial), but="embedding.")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms (B, T, 1) as (B, dim), not normalised.

        With `lengths` (B,), in samples, there is one pass per length: how many nodes a graph has and how many its
        poolings keep depend on the length, which no mask over a padded batch would reproduce. Raises ValueError for
        an utterance below `min_frames`, and for lengths in training mode.
        """
        self.refuse_lengths(features, lengths, name="aasist")
        if lengths is not None:
            return self.by_length(features, lengths)
        with torch.autocast(features.device.type, enabled=False):  # 8 bits of a waveform are too few
            images = F.selu_(self.image_norm(self._magnitudes(as_float(features))))
        images = self.blocks(images.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2))
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.drop(self.readout(images.float())))
        return embeddings

    def readout(self, images: Tensor) -> Tensor:
        """(B, 5 narrow_nodes) of the images (B, C, F, T') that the last block gives."""
        magnitudes = images.abs()
        out: Tensor = self.graph(
            magnitudes.amax(dim=3).transpose(1, 2), magnitudes.amax(dim=2).transpose(1, 2)
        )
        return out

    def _magnitudes(self, waveforms: Tensor) -> Tensor:
        """(B, 1, F, T'): of the filtered waveforms (B, T, 1), the largest of three filters at three samples."""
        bands = F.conv1d(waveforms.transpose(1, 2), self.filters)
        return F.max_pool2d(bands.abs_().unsqueeze(1), POOLED)


def _demand(holds: bool, name: str, value: float, wanted: str) -> None:
    if not holds:
        raise ParamsError(f"backbone aasist: {name} is {value}; it is {wanted}")
