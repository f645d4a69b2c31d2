"""Closed-set identification, against scikit-learn and worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import NearestCentroid

from makermark.scoring.open_set_metrics import (
    COSINE_SCALE,
    centroid_logits,
    compute_identification_metrics,
    system_centroids,
)

SYSTEMS = np.array(["a", "b", "c"])


def test_identification_metrics_worked_by_hand():
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
    metrics = compute_identification_metrics(logits, SYSTEMS, np.array(["a", "b", "b", "unknown"]))
    assert metrics.utterances == 3
    assert metrics.systems == 2
    assert metrics.accuracy_percent == pytest.approx(100 * 2 / 3)
    assert metrics.balanced_accuracy_percent == pytest.approx(100 * (1 + 1 / 2) / 2)
    assert metrics.macro_f1_percent == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_identification_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth, logits = SYSTEMS[rng.integers(0, 3, 200)], rng.normal(size=(200, 3))
    predicted, metrics = SYSTEMS[logits.argmax(1)], compute_identification_metrics(logits, SYSTEMS, truth)
    assert metrics.accuracy_percent == pytest.approx(100 * accuracy_score(truth, predicted))
    assert metrics.balanced_accuracy_percent == pytest.approx(100 * balanced_accuracy_score(truth, predicted))
    assert metrics.macro_f1_percent == pytest.approx(100 * f1_score(truth, predicted, average="macro"))


def test_identification_without_known_utterances_is_none():
    assert compute_identification_metrics(np.zeros((2, 3)), SYSTEMS, np.array(["x", "y"])) is None


def test_centroid_logits_choose_the_nearest_centroid_on_the_sphere():
    rng = np.random.default_rng(1)
    systems = np.repeat(SYSTEMS, 20)
    embeddings = np.repeat(rng.normal(size=(3, 5)), 20, axis=0) + 0.8 * rng.normal(size=(60, 5))
    names, centroids = system_centroids(embeddings, systems)
    normalised = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = np.stack([normalised[systems == name].mean(0) for name in names])
    np.testing.assert_allclose(centroids, means / np.linalg.norm(means, axis=1, keepdims=True))
    reference = NearestCentroid().fit(centroids, names)
    logits = centroid_logits(3 * embeddings, centroids)
    np.testing.assert_array_equal(names[logits.argmax(1)], reference.predict(normalised))
    assert np.abs(logits).max() <= COSINE_SCALE
