"""Linear probe, against scikit-learn and worked by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from makermark.foundation.errors import ScoringError
from makermark.scoring.probes.linear import linear_probe, select_classes

SETTINGS = {
    "epochs": 50,
    "learning_rate": 0.1,
    "batch_utterances": 32,
    "test_fraction": 0.2,
    "max_per_class": 300,
    "min_per_class": 10,
    "seed": 0,
}


def clouds(*, classes=8, per_class=50, dim=20, spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    embeddings = np.repeat(centres, per_class, axis=0) + spread * rng.normal(size=(classes * per_class, dim))
    labels = np.repeat([f"system {number}" for number in range(classes)], per_class)
    return embeddings.astype(np.float32), labels


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("dim", [10, 200])
def test_probe_is_about_as_accurate_as_logistic_regression(spread, dim):
    embeddings, labels = clouds(spread=spread, dim=dim, per_class=200)
    result = linear_probe(embeddings, labels, **SETTINGS)
    normalised = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    normalised = (normalised - normalised.mean(axis=0)) / normalised.std(axis=0)
    order = np.random.default_rng(1).permutation(len(labels))
    train, test = order[:1280], order[1280:]
    reference = LogisticRegression(max_iter=1000).fit(normalised[train], labels[train])
    assert result.accuracy_percent == pytest.approx(
        100 * reference.score(normalised[test], labels[test]), abs=7
    )


def test_probe_is_at_chance_for_random_embeddings():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(4000, 10)).astype(np.float32)
    labels = np.repeat(["a", "b", "c", "d"], 1000)
    result = linear_probe(embeddings, labels, **SETTINGS)
    assert result.chance_percent == 25
    assert result.accuracy_percent == pytest.approx(25, abs=8)


def test_accuracies_equal_those_of_the_confusion_matrix():
    embeddings, labels = clouds(spread=1.5)
    result = linear_probe(embeddings, labels, **SETTINGS)
    actual, predicted = (
        np.repeat(axis.ravel(), result.confusion.ravel()) for axis in np.indices(result.confusion.shape)
    )
    assert result.accuracy_percent == pytest.approx(100 * accuracy_score(actual, predicted))
    assert result.balanced_accuracy_percent == pytest.approx(100 * balanced_accuracy_score(actual, predicted))
    assert 0 < result.accuracy_percent < 100
    np.testing.assert_array_equal(confusion_matrix(actual, predicted), result.confusion)


def test_two_separate_classes_of_ten_worked_by_hand():
    embeddings = np.repeat(np.array([[1, 0], [0, 1]], dtype=np.float32), 10, axis=0)
    result = linear_probe(embeddings, np.repeat(["a", "b"], 10), **SETTINGS)
    np.testing.assert_array_equal(result.confusion, [[2, 0], [0, 2]])
    assert (result.classes, result.per_class) == (("a", "b"), 10)
    assert (result.train_utterances, result.test_utterances) == (16, 4)
    assert result.accuracy_percent == result.balanced_accuracy_percent == 100


def test_confusion_rows_are_the_true_classes():
    """A class with the embeddings of another class is predicted as that class, in its own row."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 5)).astype(np.float32) * 0.1
    embeddings[100:] += [3, 0, 0, 0, 0]  # b and c coincide, a is separate
    result = linear_probe(embeddings, np.repeat(["a", "b", "c"], 100), **SETTINGS)
    np.testing.assert_array_equal(result.confusion[0], [20, 0, 0])
    assert result.confusion[1:, 1:].sum() == 40
    np.testing.assert_array_equal(result.confusion.sum(axis=1), [20, 20, 20])


def test_classes_are_undersampled_to_the_smallest_large_enough_class():
    embeddings, labels = clouds(spread=0.1, classes=4, per_class=100)
    rows = np.r_[0:100, 100:140, 200:225, 300:309]  # 100, 40, 25 and 9 utterances
    result = linear_probe(embeddings[rows], labels[rows], **SETTINGS)
    assert result.classes == ("system 0", "system 1", "system 2")
    assert result.per_class == 25
    assert result.left_out == {"system 3": 9}
    assert result.train_utterances + result.test_utterances == 75


def test_classes_are_undersampled_to_max_per_class():
    embeddings, labels = clouds(spread=0.1, classes=3, per_class=100)
    result = linear_probe(embeddings, labels, **{**SETTINGS, "max_per_class": 30})
    assert (result.per_class, result.train_utterances, result.test_utterances) == (30, 72, 18)


def test_probe_depends_on_the_seed_only():
    embeddings, labels = clouds(spread=1.5)
    first, again = (linear_probe(embeddings, labels, **SETTINGS) for _ in range(2))
    other = linear_probe(embeddings, labels, **{**SETTINGS, "seed": 1})
    np.testing.assert_array_equal(first.confusion, again.confusion)
    assert (first.confusion != other.confusion).any()


def test_probe_does_not_depend_on_the_norm_of_embeddings():
    embeddings, labels = clouds(spread=1.0)
    lengths = np.random.default_rng(0).uniform(0.01, 100, size=(len(embeddings), 1)).astype(np.float32)
    result = linear_probe(embeddings * lengths, labels, **SETTINGS)
    assert result.accuracy_percent == pytest.approx(
        linear_probe(embeddings, labels, **SETTINGS).accuracy_percent, abs=2
    )


def test_one_class_raises():
    embeddings, labels = clouds(spread=1.0, classes=1)
    with pytest.raises(ScoringError, match=r"two classes of at least 10 utterances, but only 1 of 1"):
        linear_probe(embeddings, labels, **SETTINGS)


def test_embeddings_that_are_not_finite_raise_with_their_index():
    embeddings, labels = clouds(spread=1.0)
    embeddings[60, 3] = np.nan
    embeddings[70, 1] = np.inf
    with pytest.raises(ScoringError, match=r"embedding 60 \(label 'system 1'\) and 1 others"):
        linear_probe(embeddings, labels, **SETTINGS)


def test_labels_of_another_length_raise_value_error():
    embeddings, labels = clouds(spread=1.0)
    with pytest.raises(ValueError, match="labels"):
        linear_probe(embeddings, labels[:-1], **SETTINGS)


def test_class_of_one_utterance_is_always_left_out():
    sizes, left_out = select_classes(np.array(["a", "b", "b", "c", "c"]), min_per_class=1)
    assert (sizes, left_out) == ({"b": 2, "c": 2}, {"a": 1})
