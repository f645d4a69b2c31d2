"""A cache and others of the same utterances degraded, as one.

Legend of axes: N utterances, K caches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from makermark.features.cache import FeatureCache, Rows


def with_copies(
    clean: FeatureCache, copies: Sequence[FeatureCache], utterance_ids: Sequence[str]
) -> tuple[FeatureCache, Rows]:
    """All features together, and in them the rows (K N,) of the utterances: clean, then as each copy has them.

    Raises FeatureCacheError for an utterance that a cache lacks.
    """
    caches = [clean, *copies]
    starts = np.cumsum([0, *(len(cache.utterance_ids) for cache in caches[:-1])])
    rows = [start + cache.rows_of(utterance_ids) for start, cache in zip(starts, caches, strict=True)]
    return clean.beside(copies), np.concatenate(rows)
