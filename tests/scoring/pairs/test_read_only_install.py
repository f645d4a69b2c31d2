"""Numba's cache is optional: a container's package and home may be read-only, and a disk full."""

import subprocess
import sys

import pytest

NO_CACHE = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
import os; os.environ.pop("NUMBA_CACHE_DIR", None)
"""
SCORE = """
import numpy as np
from makermark.scoring.pairs import score_all_pairs
embeddings = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
print(score_all_pairs(embeddings, np.repeat(list("abc"), 8), bootstrap_samples=0, seed=0).eer_micro_percent)
"""
IMPORT_UMAP = "from makermark.reporting.probe_plots import _import_umap; print(_import_umap().__name__)"
FULL_DISK = """
import numba.core.caching as caching
def save(self, key, data): raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save = save
caching.IndexDataCacheFile.load = lambda self, key: None
"""


@pytest.mark.parametrize(("setup", "code"), [(NO_CACHE, SCORE), (FULL_DISK, SCORE), (NO_CACHE, IMPORT_UMAP)])
def test_without_a_place_for_numbas_cache_results_are_the_same(setup, code, tmp_path):
    def output(text):
        run = [sys.executable, "-c", text]
        result = subprocess.run(run, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert output(setup + code) == output(code) != ""
