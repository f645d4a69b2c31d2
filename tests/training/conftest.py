"""The small corpus of vowels, through the real feature cache."""

import pytest

from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from tests_support import speech_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """(manifest, fbank cache) of 3 systems x 8 utterances in train and 4 in dev."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest, front_end = speech_corpus(folder)
    write_cache(
        manifest,
        front_end,
        folder / "features",
        shard_utterances=10,
        max_bad_fraction=0,
        min_seconds=0.1,
        max_seconds=10,
        workers=1,
    )
    return manifest, FeatureCache.open(folder / "features" / "fbank", front_end.parameters())
