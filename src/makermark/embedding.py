"""From cached features to one vector per utterance.

Legend of axes: N utterances, T frames, F bands, D dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from makermark.backbones import Backbone
from makermark.device import autocast
from makermark.features.cache import FeatureCache

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


def embed(
    backbone: Backbone,
    cache: FeatureCache,
    rows: Rows,
    *,
    batch_frames: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
) -> Vectors:
    """The embeddings (N, D) of whole utterances, not normalised, in the order of `rows` (N,).

    Utterances of similar length share a batch of at most `batch_frames` frames, padding included; the
    backbone masks what pads, so that the batch an utterance is in does not change its vector. One shorter than
    the backbone takes is repeated.
    """
    backbone.to(device).eval()
    place = {int(row): position for position, row in enumerate(rows)}
    vectors: Vectors | None = None
    with torch.inference_mode(), autocast(device, precision):
        for batch, features, lengths in cache.length_batches(
            rows, max_frames=batch_frames, min_frames=backbone.min_frames
        ):
            same = bool((lengths == features.shape[1]).all())
            given = None if same else torch.from_numpy(lengths.astype(np.int64)).to(device)
            out = backbone(torch.from_numpy(features).to(device), given).float().cpu().numpy()
            if vectors is None:
                vectors = np.empty((len(rows), out.shape[1]), dtype=np.float32)
            vectors[[place[int(row)] for row in batch]] = out
    if vectors is None:
        raise ValueError("no rows to embed")
    return vectors


def log_mel_statistics(cache: FeatureCache, rows: Rows) -> Vectors:
    """A baseline without a network: mean and standard deviation over time of each band, (N, 2 F)."""
    statistics = np.empty((len(rows), 2 * cache.width), dtype=np.float32)
    for position, row in enumerate(rows):
        bands = cache.whole(int(row)).astype(np.float32)  # (T, F)
        statistics[position] = np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
    return statistics


def standardise(vectors: Vectors, *, reference: Vectors) -> Vectors:
    """Shift and scale every dimension to mean 0 and deviation 1 on `reference` (the training set)."""
    deviation = reference.std(axis=0)
    scaled: Vectors = (vectors - reference.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return scaled
