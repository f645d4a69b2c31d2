"""Feature caches in memory."""

import numpy as np

from makermark.features.cache import FeatureCache
from makermark.features.shard import Shard


def cache_of(lengths, *, dtype=np.float16, width=3):
    """A cache in memory, of two shards, with a number of its own in every place."""
    shards = []
    for number, part in enumerate(np.array_split(np.asarray(lengths, dtype=np.int32), 2)):
        values = np.arange(part.sum() * width, dtype=dtype).reshape(-1, width)
        names = [f"{number}-{place}" for place in range(len(part))]
        shards.append(
            Shard(
                path=None,
                identity="",
                checksum=0,
                quarantine=[],
                utterance_ids=names,
                frames=part,
                values=values,
            )
        )
    return FeatureCache(shards, {})
