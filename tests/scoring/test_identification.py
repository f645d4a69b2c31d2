"""Closed-set identification: against scikit-learn, and worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import NearestCentroid

from makermark.scoring.identification import COSINE_SCALE, centroid_logits, centroids, identify

SYSTEMS = np.array(["a", "b", "c"])


def test_worked_by_hand():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
    found = identify(logits, SYSTEMS, np.array(["a", "b", "b", "elsewhere"]))
    assert found.utterances == 3
    assert found.systems == 2
    assert found.accuracy_percent == pytest.approx(100 * 2 / 3)
    assert found.balanced_accuracy_percent == pytest.approx(100 * (1 + 1 / 2) / 2)
    assert found.macro_f1_percent == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_it_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, logits = SYSTEMS[rng.integers(0, 3, 200)], rng.normal(size=(200, 3))
    said, found = SYSTEMS[logits.argmax(1)], identify(logits, SYSTEMS, truth)
    assert found.accuracy_percent == pytest.approx(100 * accuracy_score(truth, said))
    assert found.balanced_accuracy_percent == pytest.approx(100 * balanced_accuracy_score(truth, said))
    assert found.macro_f1_percent == pytest.approx(100 * f1_score(truth, said, average="macro"))


def test_no_known_utterance_gives_nothing():
    assert identify(np.zeros((2, 3)), SYSTEMS, np.array(["x", "y"])) is None


def test_the_nearest_centroid_is_scikit_learns_on_the_sphere():
    rng = np.random.default_rng(1)
    systems = np.repeat(SYSTEMS, 20)
    vectors = np.repeat(rng.normal(size=(3, 5)), 20, axis=0) + 0.8 * rng.normal(size=(60, 5))
    names, directions = centroids(vectors, systems)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([unit[systems == name].mean(0) for name in names])
    np.testing.assert_allclose(directions, means / np.linalg.norm(means, axis=1, keepdims=True))
    reference = NearestCentroid().fit(directions, names)
    logits = centroid_logits(3 * vectors, directions)
    np.testing.assert_array_equal(names[logits.argmax(1)], reference.predict(unit))
    assert np.abs(logits).max() <= COSINE_SCALE
