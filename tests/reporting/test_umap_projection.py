"""UMAP projection of embeddings."""

import warnings

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from makermark.foundation.errors import ScoringError
from makermark.reporting.probe_plots import project_umap

SETTINGS = {"seed": 0, "neighbours": 15, "min_dist": 0.1}


def make_embeddings(count, *, dim=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_projection_keeps_groups_together():
    groups = np.repeat(np.arange(4), 30)
    embeddings = (4 * make_embeddings(4))[groups] + 0.3 * make_embeddings(120, seed=1)
    points = project_umap(embeddings, **SETTINGS)
    nearest = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(return_distance=False)
    assert (groups[nearest] == groups[:, None]).mean() > 0.99


def test_projection_does_not_depend_on_the_norm_of_embeddings():
    embeddings = make_embeddings(60)
    near = project_umap(embeddings, **SETTINGS)
    np.testing.assert_allclose(near, project_umap(4 * embeddings, **SETTINGS), atol=1e-3)


def test_projection_depends_on_the_seed_only():
    embeddings = make_embeddings(60)
    np.testing.assert_array_equal(project_umap(embeddings, **SETTINGS), project_umap(embeddings, **SETTINGS))
    assert (project_umap(embeddings, **SETTINGS) != project_umap(embeddings, **{**SETTINGS, "seed": 1})).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 15, 16])
def test_few_embeddings_are_projected_without_a_warning(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = project_umap(make_embeddings(count), **SETTINGS)
    assert points.shape == (count, 2)
    assert points.dtype == np.float32
    assert np.isfinite(points).all()


def test_equal_embeddings_have_finite_points():
    assert np.isfinite(project_umap(np.repeat(make_embeddings(3), 20, axis=0), **SETTINGS)).all()


def test_machine_code_of_a_fit_comes_from_the_cache_or_goes_there():
    project_umap(make_embeddings(20), **SETTINGS)
    from umap import umap_, utils

    for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths, utils.fast_knn_indices):
        assert function.stats.cache_hits or function.stats.cache_misses, function


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_embedding_without_a_direction_raises(value):
    embeddings = make_embeddings(20)
    embeddings[7] = value
    with pytest.raises(ScoringError, match="embedding 7 and 0 others are zero or not finite"):
        project_umap(embeddings, **SETTINGS)
