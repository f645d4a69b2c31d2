"""A linear map of statistics over time of a filter bank.

Axes: B batch, T frames, F bands, S statistics. Streams are (B, F, T).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from makermark.models.backbones.base import (
    FILTER_BANKS,
    Backbone,
    Setting,
    check_front_end,
    frame_mask,
)

VARIANCE_OFFSET = 1e-5  # keeps the gradient of a standard deviation finite


class SpectralStatistics(Backbone):
    """Statistics over time of the bands and of their differences, and one linear layer.

    The log energies x of a clip, minus their mean over all bands and frames, which removes the gain, and each band
    normalised by its mean and variance over the training frames, give the statistics

    - mean and standard deviation of x: the long-term average spectrum and how much each band varies;
    - standard deviation of the first and second differences of x over time: how smoothly frames follow one another;
    - mean and standard deviation of the second differences of x over the bands: the fine structure of the spectrum.

    Each statistic is normalised over the training crops; a linear layer with batch normalisation after it gives the
    embedding. Without hidden layers there is little to overfit: systems that are not in training are told apart better
    than by the deep backbones (docs/generalisation.md). It is an x-vector (Snyder et al. 2018) whose frame-level layers
    are fixed differences.
    """

    front_end = "linear-fbank"
    supports_cuda_graph = True
    first_layer = "streams"
    min_frames = 3  # second differences need three

    def __init__(self, *, dim: int, width: int, front_end: str) -> None:
        super().__init__()
        self.front_end_name(front_end=front_end)
        self.bands_norm = nn.BatchNorm1d(width, affine=False)
        self.streams = Streams()
        curved = max(width - 2, 0)
        self.statistics_norm = nn.BatchNorm1d(4 * width + 2 * curved)
        self.embedding = nn.Linear(4 * width + 2 * curved, dim)
        self.embedding_norm = nn.BatchNorm1d(dim)

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the setting `front_end`. Raises ParamsError if it is unknown."""
        return check_front_end(settings, FILTER_BANKS, name="spectral-statistics")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed log energies (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, padding does not change the result. Raises ValueError for lengths in training
        mode, and for an utterance shorter than `min_frames`.
        """
        self.check_lengths(features, lengths, name="spectral-statistics")
        with torch.autocast(features.device.type, enabled=False):
            x = features.float()
            gain, _ = mean_and_deviation(x.mean(dim=2, keepdim=True).transpose(1, 2), lengths)  # (B, 1)
            bands = self.bands_norm((x - gain[..., None]).transpose(1, 2))
            level, change, curvature, shape = self.streams(bands)
            mean, deviation = mean_and_deviation(level, lengths)
            shape_mean, shape_deviation = mean_and_deviation(shape, lengths)
            _, changes = mean_and_deviation(change, None if lengths is None else lengths - 1)
            _, curvatures = mean_and_deviation(curvature, None if lengths is None else lengths - 2)
            statistics = torch.cat(
                [mean, deviation, changes, curvatures, shape_mean, shape_deviation], dim=1
            )  # (B, S)
            embeddings: Tensor = self.embedding_norm(self.embedding(self.statistics_norm(statistics)))
        return embeddings


class Streams(nn.Module):
    """The bands (B, F, T), their first and second differences over time, and their second differences over bands."""

    def forward(self, bands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        change = bands.diff(dim=2)
        return bands, change, change.diff(dim=2), bands.diff(n=2, dim=1)


def mean_and_deviation(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, F) of x (B, F, T) over each utterance's own frames."""
    if lengths is None:
        mean = x.mean(dim=2)
        variance = (x - mean[..., None]).square().mean(dim=2)  # faster on a CPU than torch.var_mean
        return mean, (variance + VARIANCE_OFFSET).sqrt()
    padding = ~frame_mask(lengths, x.shape[2])[:, None]
    count = lengths[:, None]
    mean = x.masked_fill(padding, 0).sum(dim=2) / count
    variance = (x - mean[..., None]).masked_fill(padding, 0).square().sum(dim=2) / count
    return mean, (variance + VARIANCE_OFFSET).sqrt()
