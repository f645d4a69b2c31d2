import warnings

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from makermark.errors import ScoringError
from makermark.probing import umap_map

SETTINGS = {"seed": 0, "neighbours": 15, "min_dist": 0.1}


def vectors_of(count, *, dim=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_groups_stay_together():
    groups = np.repeat(np.arange(4), 30)
    vectors = (4 * vectors_of(4))[groups] + 0.3 * vectors_of(120, seed=1)
    places = umap_map(vectors, **SETTINGS)
    nearest = NearestNeighbors(n_neighbors=6).fit(places).kneighbors(return_distance=False)
    assert (groups[nearest] == groups[:, None]).mean() > 0.99


def test_only_the_direction_of_a_vector_matters():
    vectors = vectors_of(60)
    near = umap_map(vectors, **SETTINGS)
    np.testing.assert_allclose(near, umap_map(4 * vectors, **SETTINGS), atol=1e-3)


def test_the_same_seed_gives_the_same_map():
    vectors = vectors_of(60)
    np.testing.assert_array_equal(umap_map(vectors, **SETTINGS), umap_map(vectors, **SETTINGS))
    assert (umap_map(vectors, **SETTINGS) != umap_map(vectors, **{**SETTINGS, "seed": 1})).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 15, 16])
def test_few_vectors_get_places_without_a_warning(count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        places = umap_map(vectors_of(count), **SETTINGS)
    assert places.shape == (count, 2)
    assert places.dtype == np.float32
    assert np.isfinite(places).all()


def test_equal_vectors_get_finite_places():
    assert np.isfinite(umap_map(np.repeat(vectors_of(3), 20, axis=0), **SETTINGS)).all()


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_a_vector_without_a_direction_is_refused(value):
    vectors = vectors_of(20)
    vectors[7] = value
    with pytest.raises(ScoringError, match="vector 7 is zero or not finite"):
        umap_map(vectors, **SETTINGS)
