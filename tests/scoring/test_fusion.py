"""Fusion of models: concatenation, weights fitted on dev, and projections."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from makermark.foundation.embeddings import l2_normalise
from makermark.scoring.fusion import concatenate, fit_fusion_weights, project
from makermark.scoring.pairs import score_all_pairs

SYSTEMS = np.repeat(np.array(["a", "b", "c", "d"]), 15)


def clouds(spread, *, dim=6, seed=0):
    """Return embeddings around one centre per system; a wider spread makes the systems harder to separate."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(4, dim))
    return np.repeat(centres, 15, axis=0) + spread * rng.normal(size=(60, dim))


def eer(embeddings):
    return score_all_pairs(
        embeddings.astype(np.float32), SYSTEMS, bootstrap_samples=0, seed=0
    ).eer_micro_percent


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=4), st.integers(0, 2**32 - 1))
def test_cosine_of_a_concatenation_is_the_weighted_mean_of_cosines(weights, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(5, 2 + number)) for number in range(len(weights))]
    fused = l2_normalise(concatenate(parts, weights))
    expected = sum(
        w * (l2_normalise(p) @ l2_normalise(p).T) for w, p in zip(weights, parts, strict=True)
    ) / sum(weights)
    np.testing.assert_allclose(fused @ fused.T, expected, atol=1e-12)


def test_concatenation_does_not_depend_on_the_scale_of_a_model():
    one, other = clouds(0.5), clouds(0.5, seed=1)
    first, second = concatenate([one, other]), concatenate([1000 * one, other])
    np.testing.assert_allclose(first, second)


def test_model_with_weight_0_adds_zeros_and_equal_weights_are_the_default():
    one, other = clouds(0.5), clouds(0.5, seed=1)
    fused = concatenate([one, other], [0, 4])
    np.testing.assert_array_equal(fused[:, :6], 0)
    np.testing.assert_allclose(fused[:, 6:], 2 * l2_normalise(other))
    np.testing.assert_array_equal(concatenate([one, other]), concatenate([one, other], [1.0, 1.0]))


def test_fusion_weight_of_noise_is_small():
    noise = np.random.default_rng(5).normal(size=(60, 6))
    weights = fit_fusion_weights([clouds(0.3), noise], SYSTEMS, max_utterances=1000, seed=0)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] < 0.15


def test_fusion_of_complementary_models_beats_both():
    parts = [clouds(1.0, seed=2), clouds(1.0, seed=3)]
    weights = fit_fusion_weights(parts, SYSTEMS, max_utterances=1000, seed=0)
    assert eer(concatenate(parts, weights)) < min(map(eer, parts))


def test_fusion_weights_equal_logistic_regression_if_none_is_negative():
    parts = [clouds(0.8, seed=2), clouds(1.2, seed=3)]
    weights = fit_fusion_weights(parts, SYSTEMS, max_utterances=1000, seed=0)
    first, second = np.triu_indices(60, k=1)
    cosines = np.stack([(l2_normalise(p) @ l2_normalise(p).T)[first, second] for p in parts], axis=1)
    reference = LogisticRegression(C=1e9, class_weight="balanced", tol=1e-8)
    reference.fit(cosines, SYSTEMS[first] == SYSTEMS[second])
    expected = reference.coef_[0] / reference.coef_[0].sum()
    np.testing.assert_allclose(weights, expected, atol=1e-3)


def test_fusion_weights_are_not_negative_and_depend_on_the_seed_only():
    backwards = -clouds(0.3)
    backwards[::2] *= -1  # half of the pairs of one system point in opposite directions
    parts = [clouds(0.3), backwards]
    first, again = (fit_fusion_weights(parts, SYSTEMS, max_utterances=20, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first >= 0).all()


def test_fusion_weights_use_at_most_max_utterances_drawn_by_the_seed():
    """The weights of a draw of 20 utterances are those of these 20 alone."""
    parts = [clouds(0.8, seed=2), clouds(1.2, seed=3)]
    drawn = np.random.default_rng(7).permutation(60)[:20]
    expected = fit_fusion_weights([part[drawn] for part in parts], SYSTEMS[drawn], max_utterances=20, seed=0)
    weights = fit_fusion_weights(parts, SYSTEMS, max_utterances=20, seed=7)
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    assert np.abs(weights - fit_fusion_weights(parts, SYSTEMS, max_utterances=20, seed=8)).max() > 1e-3


def test_fusion_weights_are_equal_if_no_model_gets_one():
    """Utterances of one system point in opposite directions in every model: the best weights are all negative."""
    embeddings = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    weights = fit_fusion_weights([embeddings] * 3, np.array(list("aabb")), max_utterances=9, seed=0)
    np.testing.assert_allclose(weights, 1 / 3)


def test_fusion_weights_of_systems_of_one_utterance_each_raise():
    with pytest.raises(ValueError, match="need target and non-target trials"):
        fit_fusion_weights([clouds(1)[:4]], np.array(list("abcd")), max_utterances=10, seed=0)


def test_lda_equals_scikit_learn_and_lowers_the_eer():
    embeddings = np.concatenate([clouds(0.3), 5 * np.random.default_rng(0).normal(size=(60, 20))], axis=1)
    projected = project(embeddings, fitted_on=embeddings, labels=SYSTEMS, projection="lda", dim=50)
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(embeddings, SYSTEMS)
    expected = reference.transform(embeddings)
    expected -= expected.mean(axis=0)  # around the mean of the fitted set
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), rtol=1e-6, atol=1e-9)
    assert projected.shape == (60, 3)
    two = project(embeddings[:7], fitted_on=embeddings, labels=SYSTEMS, projection="lda", dim=2)
    np.testing.assert_allclose(two, projected[:7, :2])
    flat = embeddings[:, :2]
    assert project(flat, fitted_on=flat, labels=SYSTEMS, projection="lda", dim=50).shape == (60, 2)
    assert eer(projected) < eer(embeddings)


def test_pca_returns_dim_dimensions_and_none_returns_its_input():
    embeddings = clouds(0.3)
    projected = project(embeddings[:9], fitted_on=embeddings, labels=SYSTEMS, projection="pca", dim=2)
    centred = embeddings - embeddings.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]  # of the largest variance
    np.testing.assert_allclose(np.abs(projected), np.abs(centred[:9] @ directions.T), atol=1e-9)
    for fitted_on in (embeddings, embeddings[:4]):
        every = project(embeddings, fitted_on=fitted_on, labels=SYSTEMS, projection="pca", dim=99)
        assert every.shape == (60, min(fitted_on.shape))
    same = project(embeddings, fitted_on=embeddings, labels=SYSTEMS, projection="none", dim=2)
    assert same is embeddings


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_invalid_fusion_weights_raise(weights):
    with pytest.raises(ValueError, match="weights"):
        concatenate([clouds(1), clouds(1)], weights)


def test_fusion_weights_of_one_system_raise():
    with pytest.raises(ValueError, match="two or more systems"):
        fit_fusion_weights([clouds(1)], np.repeat("a", 60), max_utterances=10, seed=0)


def test_unknown_projection_raises():
    with pytest.raises(ValueError, match="unknown projection 'ica'; choose one of"):
        project(clouds(1), fitted_on=clouds(1), labels=SYSTEMS, projection="ica", dim=2)
