"""A linear map of statistics over time of a filter bank.

Axes: B batch, T frames, F bands, S statistics. Streams are (B, F, T).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.base import (
    CHANGES,
    FILTER_BANKS,
    Backbone,
    Setting,
    check_front_end,
    frame_mask,
)

VARIANCE_OFFSET = 1e-5  # keeps the gradient of a standard deviation finite


class SpectralStatistics(Backbone):
    """Statistics over time of the bands and of their differences, and one linear layer.

    Frames count whose mean log energy is within `active_range_db` of the loudest frame's (0: all frames): a pause has
    the noise of the recording rather than speech of the system. The log energies x of a clip, minus their mean over
    all bands and these frames, which removes the gain, and each band normalised by its mean and variance over the
    training frames, give the statistics

    - mean and standard deviation of x: the long-term average spectrum and how much each band varies;
    - standard deviation of the first and second differences of x over time: how smoothly frames follow one another;
    - mean and standard deviation of the second differences of x over the bands: the fine structure of the spectrum.

    Front end `linear-fbank-changes` adds the mean of the changes of short windows within a frame: what a vocoder does
    to phases. Their standard deviations improve known systems only, and harm others (docs/generalisation.md).

    Each statistic is normalised over the training crops; a linear layer with batch normalisation after it gives the
    embedding. Without hidden layers there is little to overfit: systems that are not in training are told apart better
    than by the deep backbones (docs/generalisation.md). It is an x-vector (Snyder et al. 2018) whose frame-level layers
    are fixed differences. Raises ParamsError for a negative `active_range_db`.
    """

    front_end = CHANGES
    supports_cuda_graph = True
    first_layer = "streams"
    frame_selection = "active_frames"
    min_frames = 3  # second differences need three

    def __init__(self, *, dim: int, width: int, bands: int, front_end: str, active_range_db: float) -> None:
        super().__init__()
        self.front_end_name(front_end=front_end)
        self.active_frames = ActiveFrames(active_range_db)
        self.bands, changes = bands, width - bands
        self.bands_norm = nn.BatchNorm1d(bands, affine=False)
        self.changes_norm = nn.BatchNorm1d(changes, affine=False) if changes else None
        self.streams = Streams()
        statistics = 4 * bands + 2 * max(bands - 2, 0) + changes
        self.statistics_norm = nn.BatchNorm1d(statistics)
        self.embedding = nn.Linear(statistics, dim)
        self.embedding_norm = nn.BatchNorm1d(dim)

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the setting `front_end`. Raises ParamsError if it is unknown."""
        return check_front_end(settings, (*FILTER_BANKS, CHANGES), name="spectral-statistics")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features (B, T, F + changes) as (B, dim), not normalised: F log energies, then changes, if any.

        With `lengths` (B,), in frames, finite padding does not change the result. Raises ValueError for lengths in
        training mode, and for an utterance shorter than `min_frames`.
        """
        self.check_lengths(features, lengths, name="spectral-statistics")
        with torch.autocast(features.device.type, enabled=False):
            x = features[..., : self.bands].float()
            active = self.active_frames(x, lengths)
            gain, _ = mean_and_deviation(x.mean(dim=2, keepdim=True).transpose(1, 2), active)  # (B, 1)
            bands = self.bands_norm((x - gain[..., None]).transpose(1, 2))
            level, change, curvature, shape = self.streams(bands)
            both = active[:, 1:] & active[:, :-1]  # frames of a first difference
            mean, deviation = mean_and_deviation(level, active)
            shape_mean, shape_deviation = mean_and_deviation(shape, active)
            _, changes = mean_and_deviation(change, both)
            _, curvatures = mean_and_deviation(curvature, both[:, 1:] & both[:, :-1])
            parts = [mean, deviation, changes, curvatures, shape_mean, shape_deviation]
            if self.changes_norm is not None:
                within = self.changes_norm(features[..., self.bands :].float().transpose(1, 2))
                parts.append(mean_and_deviation(within, active)[0])
            statistics = self.statistics_norm(torch.cat(parts, dim=1))  # (B, S)
            embeddings: Tensor = self.embedding_norm(self.embedding(statistics))
        return embeddings


class ActiveFrames(nn.Module):
    """The mask (B, T) bool of the frames of log energies (B, T, F) that are within a range in dB of the loudest.

    0: all frames. Padding is never active. Raises ParamsError for a negative range.
    """

    def __init__(self, range_db: float) -> None:
        super().__init__()
        if not range_db >= 0:
            raise ParamsError(
                f"backbone spectral-statistics: active_range_db is {range_db!r}; it must be a range in dB, or 0 "
                "for all frames"
            )
        self.range = range_db / 10 * math.log(10)  # of the natural logarithm of power, as the features

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        energy = x.mean(dim=2)
        valid = torch.ones_like(energy, dtype=torch.bool)
        if lengths is not None:
            valid = frame_mask(lengths, x.shape[1])
        if not self.range:
            return valid
        loudest = energy.masked_fill(~valid, -math.inf).amax(dim=1, keepdim=True)
        return valid & (energy >= loudest - self.range)


class Streams(nn.Module):
    """The bands (B, F, T), their first and second differences over time, and their second differences over bands."""

    def forward(self, bands: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        change = bands.diff(dim=2)
        return bands, change, change.diff(dim=2), bands.diff(n=2, dim=1)


def mean_and_deviation(x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, F) of x (B, F, T) over the frames of the mask `counted` (B, T) bool.

    Where no frame counts, the mean is 0, and the deviation that of a constant.
    """
    weight = counted[:, None].to(x.dtype)  # a product is faster on a CPU than masked_fill
    count = weight.sum(dim=2).clamp_min(1)
    mean = (x * weight).sum(dim=2) / count
    variance = ((x - mean[..., None]).square() * weight).sum(dim=2) / count
    return mean, (variance + VARIANCE_OFFSET).sqrt()
