"""Embeddings of whole utterances by a backbone.

Legend of axes: N utterances, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from makermark.features.cache import FeatureBatch, FeatureCache
from makermark.foundation.arrays import Float32Array, IntArray
from makermark.foundation.device import autocast
from makermark.models.backbones import Backbone


def embed(
    backbone: Backbone,
    batches: Iterable[FeatureBatch],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
) -> Float32Array:
    """Return the embeddings (N, D) of all utterances in `batches`, not normalised, in the order of `positions`.

    The positions of all batches together are 0 .. N - 1. The backbone masks the padding, so that an embedding does
    not depend on the batch. Raises ValueError if there is no batch.
    """
    backbone.to(device).eval()
    positions, embedded = [], []
    with torch.inference_mode(), autocast(device, precision):
        for batch in batches:
            padded = bool((batch.lengths != batch.features.shape[1]).any())
            lengths = torch.from_numpy(batch.lengths).to(device) if padded else None
            output: Tensor = backbone(torch.from_numpy(batch.features).to(device), lengths)
            embedded.append(output.float().cpu().numpy())
            positions.append(batch.positions)
    if not embedded:
        raise ValueError("no utterances to embed")
    unordered = np.concatenate(embedded)
    embeddings = np.empty_like(unordered)
    embeddings[np.concatenate(positions)] = unordered
    return embeddings


def embed_rows(
    backbone: Backbone,
    cache: FeatureCache,
    rows: IntArray,
    *,
    batch_frames: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
) -> Float32Array:
    """Return the embeddings (N, D) of the utterances at `rows` (N,) of `cache`, not normalised, in that order.

    Utterances of similar length share a batch of at most `batch_frames` frames, padding included. An utterance
    shorter than `backbone.min_frames` is repeated up to that length.
    """
    batches = cache.length_batches(rows, max_frames=batch_frames, min_frames=backbone.min_frames)
    return embed(backbone, batches, device=device, precision=precision)
