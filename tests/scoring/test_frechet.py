"""Frechet distances, against SciPy's matrix root and by hand, also for singular covariances and small sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group
from sklearn.covariance import LedoitWolf

from makermark.foundation.errors import ScoringError
from makermark.scoring.frechet import (
    frechet_distance,
    frechet_distances_between_labels,
    frechet_distances_between_sets,
    halves_distance,
)

seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.3, 1.0, "ledoit-wolf"])


def cloud(count, dim, *, seed):
    """Return embeddings around a centre, with another variance in every direction."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + 2 * rng.normal(size=dim)


def by_sqrtm(a, b, shrinkage=0.0):
    """Return the distance by its formula, with SciPy's root of the product of the covariances."""

    def covariance(x):
        plain = np.cov(x, rowvar=False)
        share = LedoitWolf().fit(x).shrinkage_ if shrinkage == "ledoit-wolf" else shrinkage
        return (1 - share) * plain + share * np.trace(plain) / len(plain) * np.eye(len(plain))

    one, other = covariance(a), covariance(b)
    root = sqrtm(one @ other).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(one + other - 2 * root)


@given(seeds, st.integers(2, 8), shares)
def test_frechet_distance_equals_its_formula_with_scipys_matrix_root(seed, dim, shrinkage):
    a, b = cloud(60, dim, seed=seed), cloud(45, dim, seed=[seed, 1])
    expected = by_sqrtm(a, b, shrinkage)
    assert frechet_distance(a, b, shrinkage=shrinkage) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_frechet_distance_worked_by_hand_in_one_dimension():
    """The means are 2 and 7, the deviations 1 and 3: 5^2 + (1 - 3)^2 = 29."""
    one, other = np.array([[1.0], [2.0], [3.0]]), np.array([[4.0], [7.0], [10.0]])
    assert frechet_distance(one, other, shrinkage=0) == pytest.approx(29)


def test_full_shrinkage_compares_the_mean_variance_only():
    """Variances 4 and 0 become 2 and 2; the other set has 1 and 1: only the deviations sqrt(2) and 1 differ."""
    line = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    square = np.array([[1.0, -1.0], [2.0, 0.0], [3.0, 1.0]])
    assert frechet_distance(line, square, shrinkage=1) == pytest.approx(2 * (np.sqrt(2) - 1) ** 2)


@given(seeds, shares)
def test_frechet_distance_is_symmetric_and_invariant_to_shift_rotation_and_order(seed, shrinkage):
    a, b = cloud(30, 4, seed=seed), cloud(20, 4, seed=[seed, 1])
    distance = frechet_distance(a, b, shrinkage=shrinkage)
    same = pytest.approx(distance, rel=1e-8, abs=1e-8)
    rotation = ortho_group.rvs(4, random_state=seed)
    rng = np.random.default_rng(seed)
    assert frechet_distance(b, a, shrinkage=shrinkage) == same
    assert frechet_distance(a + 5, b + 5, shrinkage=shrinkage) == same
    assert frechet_distance(a @ rotation, b @ rotation, shrinkage=shrinkage) == same
    assert frechet_distance(rng.permutation(a), b, shrinkage=shrinkage) == same
    assert frechet_distance(3 * a, 3 * b, shrinkage=shrinkage) == pytest.approx(9 * distance, rel=1e-8)


@given(seeds, shares)
def test_frechet_distance_of_a_shifted_copy_is_the_squared_shift(seed, shrinkage):
    a = cloud(12, 6, seed=seed)
    scale = np.square(a).sum()
    assert frechet_distance(a, a, shrinkage=shrinkage) == pytest.approx(0, abs=1e-12 * scale)
    shift = np.arange(6.0)
    assert frechet_distance(a, a + shift, shrinkage=shrinkage) == pytest.approx(55, abs=1e-11 * scale)


def test_frechet_distance_is_exact_for_singular_covariances():
    """The sets lie on a line and on a plane in 40 dimensions, rotated: flat directions add nothing."""
    rng = np.random.default_rng(0)
    a, b = np.zeros((30, 40)), np.zeros((30, 40))
    a[:, 0], b[:, 0], b[:, 1] = rng.normal(size=30), 2 * rng.normal(size=30), rng.normal(size=30)
    rotation = ortho_group.rvs(40, random_state=0)
    spread = np.cov(a[:, :2], rowvar=False), np.cov(b[:, :2], rowvar=False)
    root = np.sqrt(spread[0][0, 0] * spread[1][0, 0])  # of the only common direction
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(spread[0] + spread[1]) - 2 * root
    assert frechet_distance(a @ rotation, b @ rotation, shrinkage=0) == pytest.approx(expected, rel=1e-6)
    same = np.tile(a[:1], (5, 1))
    for shrinkage in (0, 0.5, "ledoit-wolf"):
        assert frechet_distance(same, same + 1, shrinkage=shrinkage) == pytest.approx(40)


def test_frechet_distance_is_precise_far_from_the_origin():
    a, b = cloud(40, 5, seed=0), cloud(40, 5, seed=1)
    near = frechet_distance(a, b, shrinkage="ledoit-wolf")
    assert frechet_distance(a + 1e5, b + 1e5, shrinkage="ledoit-wolf") == pytest.approx(near, rel=1e-6)


def test_floor_is_above_zero_and_falls_with_the_number_of_embeddings():
    """The bias: the squared distance of two means of n embeddings is 2 Tr(S) / n, and the covariances add to it."""
    rng = np.random.default_rng(0)
    dim, floors = 10, {}
    for count in (100, 400, 1600):
        floors[count] = halves_distance(rng.normal(size=(count, dim)), shrinkage=0, halvings=20, seed=0)
        assert floors[count] > 2 * dim / (count / 2)
    assert floors[100] / floors[400] == pytest.approx(4, rel=0.3)
    assert floors[400] / floors[1600] == pytest.approx(4, rel=0.3)


def test_shrinkage_lowers_the_floor_of_fewer_embeddings_than_dimensions():
    embeddings = np.random.default_rng(0).normal(size=(40, 50))
    plain, shrunk = (
        halves_distance(embeddings, shrinkage=shrinkage, halvings=5, seed=0)
        for shrinkage in (0, "ledoit-wolf")
    )
    assert shrunk < plain / 4


def test_distances_between_labels_hold_every_pair_and_separate_near_from_far():
    embeddings = np.concatenate([cloud(40, 3, seed=0), cloud(40, 3, seed=0) + 0.1, cloud(20, 3, seed=1) + 50])
    labels = np.repeat(["zeta", "alpha", "far"], [40, 40, 20])
    order = np.random.default_rng(0).permutation(100)
    table = frechet_distances_between_labels(
        embeddings[order], labels[order], shrinkage="ledoit-wolf", halvings=3, seed=0
    )
    assert table.names == ["alpha", "far", "zeta"]
    assert table.counts == [40, 20, 40]
    np.testing.assert_array_equal(table.distances, table.distances.T)
    assert not table.distances.diagonal().any()
    expected = frechet_distance(
        embeddings[labels == "far"], embeddings[labels == "zeta"], shrinkage="ledoit-wolf"
    )
    assert table.distances[1, 2] == pytest.approx(expected)
    assert table.distances[0, 2] < table.floors[0] < table.distances[0, 1]


def test_sets_may_share_embeddings_and_a_tiny_set_has_no_floor():
    a = cloud(30, 3, seed=0)
    sets = {"test": a, "seen": a[:20], "unseen": a[20:23]}
    table = frechet_distances_between_sets(sets, shrinkage=0, halvings=2, seed=0)
    assert table.names == ["test", "seen", "unseen"]
    assert [floor is None for floor in table.floors] == [False, False, True]
    again = frechet_distances_between_sets(sets, shrinkage=0, halvings=2, seed=0)
    assert again.floors == table.floors


def test_invalid_sets_raise():
    a = cloud(10, 3, seed=0)
    with pytest.raises(ScoringError, match="set far has 1 embeddings; a covariance needs 2"):
        frechet_distances_between_labels(a, np.array(["near"] * 9 + ["far"]), shrinkage=0, halvings=1, seed=0)
    with pytest.raises(ScoringError, match="set b has embeddings that are not finite"):
        frechet_distance(a, np.where(a == a[2, 1], np.nan, a), shrinkage=0)
    with pytest.raises(ValueError, match="embeddings have 3 and 2 dimensions"):
        frechet_distance(a, a[:, :2], shrinkage=0)
    for wrong in (-0.1, 1.1, "oas", float("nan")):
        with pytest.raises(ValueError, match=r"shrinkage is .*; use a number from 0 to 1, or 'ledoit-wolf'"):
            frechet_distance(a, a, shrinkage=wrong)
    with pytest.raises(ValueError, match="10 embeddings, but 9 labels"):
        frechet_distances_between_labels(a, np.array(["x"] * 9), shrinkage=0, halvings=1, seed=0)
    with pytest.raises(ValueError, match="halvings is 0"):
        halves_distance(a, shrinkage=0, halvings=0, seed=0)
