"""Fusion: the cosine of fused vectors is the weighted mean of cosines; weights found on dev favour who tells more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from makermark.scoring import score_set
from makermark.scoring.fusion import concatenate, learn_weights, project, unit

SYSTEMS = np.repeat(np.array(["a", "b", "c", "d"]), 15)


def clouds(spread, *, dim=6, seed=0):
    """Vectors around one centre per system: the wider the spread, the less they tell."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, dim))
    return np.repeat(centres, 15, axis=0) + spread * rng.normal(size=(60, dim))


def eer(vectors):
    return score_set(vectors.astype(np.float32), SYSTEMS, bootstrap_samples=0, seed=0).eer_micro_percent


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=4), st.integers(0, 2**32 - 1))
def test_the_cosine_of_a_concatenation_is_the_weighted_mean_of_cosines(weights, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(5, 2 + number)) for number in range(len(weights))]
    fused = unit(concatenate(parts, weights))
    expected = sum(w * (unit(p) @ unit(p).T) for w, p in zip(weights, parts, strict=True)) / sum(weights)
    np.testing.assert_allclose(fused @ fused.T, expected, atol=1e-12)


def test_the_scale_of_a_system_does_not_give_it_a_louder_voice():
    one, other = clouds(0.5), clouds(0.5, seed=1)
    first, second = concatenate([one, other]), concatenate([1000 * one, other])
    np.testing.assert_allclose(first, second)


def test_a_system_that_knows_nothing_gets_next_to_no_weight():
    noise = np.random.default_rng(5).normal(size=(60, 6))
    weights = learn_weights([clouds(0.3), noise], SYSTEMS, max_utterances=1000, seed=0)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] < 0.15


def test_fusing_two_halves_of_the_truth_beats_both():
    parts = [clouds(1.0, seed=2), clouds(1.0, seed=3)]
    weights = learn_weights(parts, SYSTEMS, max_utterances=1000, seed=0)
    assert eer(concatenate(parts, weights)) < min(map(eer, parts))


def test_weights_are_those_of_scikit_learns_logistic_regression_where_none_is_below_0():
    parts = [clouds(0.8, seed=2), clouds(1.2, seed=3)]
    weights = learn_weights(parts, SYSTEMS, max_utterances=1000, seed=0)
    first, second = np.triu_indices(60, k=1)
    cosines = np.stack([(unit(p) @ unit(p).T)[first, second] for p in parts], axis=1)
    reference = LogisticRegression(C=1e9, class_weight="balanced", tol=1e-8)
    reference.fit(cosines, SYSTEMS[first] == SYSTEMS[second])
    expected = reference.coef_[0] / reference.coef_[0].sum()
    np.testing.assert_allclose(weights, expected, atol=1e-3)


def test_no_weight_falls_below_0_and_the_seed_decides_the_draw():
    backwards = -clouds(0.3)
    backwards[::2] *= -1  # pairs of one system point apart as often as not
    parts = [clouds(0.3), backwards]
    first, again = (learn_weights(parts, SYSTEMS, max_utterances=20, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first >= 0).all()


def test_lda_is_scikit_learns_and_separates_better_than_what_it_was_given():
    vectors = np.concatenate([clouds(0.3), 5 * np.random.default_rng(0).normal(size=(60, 20))], axis=1)
    found = project(vectors, fitted_on=vectors, labels=SYSTEMS, projection="lda", dim=50)
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(vectors, SYSTEMS)
    expected = reference.transform(vectors)
    expected -= expected.mean(axis=0)  # around the mean of what it was fitted on
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-6, atol=1e-9)
    assert found.shape == (60, 3)
    assert eer(found) < eer(vectors)


def test_pca_keeps_as_many_dimensions_as_asked_and_none_leaves_the_vectors():
    vectors = clouds(0.3)
    assert project(vectors, fitted_on=vectors, labels=SYSTEMS, projection="pca", dim=2).shape == (60, 2)
    same = project(vectors, fitted_on=vectors, labels=SYSTEMS, projection="none", dim=2)
    assert same is vectors


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        concatenate([clouds(1), clouds(1)], weights)


def test_dev_of_one_system_teaches_nothing():
    with pytest.raises(ValueError, match="two or more systems"):
        learn_weights([clouds(1)], np.repeat("a", 60), max_utterances=10, seed=0)
