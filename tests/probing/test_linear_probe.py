import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from makermark.errors import ScoringError
from makermark.probing import linear_probe
from makermark.probing.linear import classes_of

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
    vectors = np.repeat(centres, per_class, axis=0) + spread * rng.normal(size=(classes * per_class, dim))
    labels = np.repeat([f"system {number}" for number in range(classes)], per_class)
    return vectors.astype(np.float32), labels


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("dim", [10, 200])
def test_it_reads_labels_about_as_well_as_logistic_regression(spread, dim):
    vectors, labels = clouds(spread=spread, dim=dim, per_class=200)
    result = linear_probe(vectors, labels, **SETTINGS)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (unit - unit.mean(axis=0)) / unit.std(axis=0)
    order = np.random.default_rng(1).permutation(len(labels))
    train, test = order[:1280], order[1280:]
    reference = LogisticRegression(max_iter=1000).fit(unit[train], labels[train])
    assert result.accuracy_percent == pytest.approx(100 * reference.score(unit[test], labels[test]), abs=7)


def test_vectors_without_a_trace_of_the_label_are_read_at_chance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 10)).astype(np.float32)
    labels = np.repeat(["a", "b", "c", "d"], 1000)
    result = linear_probe(vectors, labels, **SETTINGS)
    assert result.chance_percent == 25
    assert result.accuracy_percent == pytest.approx(25, abs=8)


def test_accuracies_are_those_of_its_confusion_matrix():
    vectors, labels = clouds(spread=1.5)
    result = linear_probe(vectors, labels, **SETTINGS)
    actual, said = (
        np.repeat(axis.ravel(), result.confusion.ravel()) for axis in np.indices(result.confusion.shape)
    )
    assert result.accuracy_percent == pytest.approx(100 * accuracy_score(actual, said))
    assert result.balanced_accuracy_percent == pytest.approx(100 * balanced_accuracy_score(actual, said))
    assert 0 < result.accuracy_percent < 100
    np.testing.assert_array_equal(confusion_matrix(actual, said), result.confusion)


def test_by_hand_two_clear_classes_of_ten_test_two_utterances_each():
    vectors = np.repeat(np.array([[1, 0], [0, 1]], dtype=np.float32), 10, axis=0)
    result = linear_probe(vectors, np.repeat(["a", "b"], 10), **SETTINGS)
    np.testing.assert_array_equal(result.confusion, [[2, 0], [0, 2]])
    assert (result.classes, result.per_class) == (("a", "b"), 10)
    assert (result.train_utterances, result.test_utterances) == (16, 4)
    assert result.accuracy_percent == result.balanced_accuracy_percent == 100


def test_rows_of_the_confusion_are_the_true_classes():
    """A class whose vectors are those of another is said to be the other, in its own row."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 5)).astype(np.float32) * 0.1
    vectors[100:] += [3, 0, 0, 0, 0]  # b and c lie together, a is apart
    result = linear_probe(vectors, np.repeat(["a", "b", "c"], 100), **SETTINGS)
    np.testing.assert_array_equal(result.confusion[0], [20, 0, 0])
    assert result.confusion[1:, 1:].sum() == 40
    np.testing.assert_array_equal(result.confusion.sum(axis=1), [20, 20, 20])


def test_classes_are_cut_to_the_smallest_that_is_large_enough():
    vectors, labels = clouds(spread=0.1, classes=4, per_class=100)
    keep = np.r_[0:100, 100:140, 200:225, 300:309]  # 100, 40, 25 and 9 utterances
    result = linear_probe(vectors[keep], labels[keep], **SETTINGS)
    assert result.classes == ("system 0", "system 1", "system 2")
    assert result.per_class == 25
    assert result.left_out == {"system 3": 9}
    assert result.train_utterances + result.test_utterances == 75


def test_classes_are_cut_to_the_given_size():
    vectors, labels = clouds(spread=0.1, classes=3, per_class=100)
    result = linear_probe(vectors, labels, **{**SETTINGS, "max_per_class": 30})
    assert (result.per_class, result.train_utterances, result.test_utterances) == (30, 72, 18)


def test_the_same_seed_gives_the_same_result_and_another_another():
    vectors, labels = clouds(spread=1.5)
    first, again = (linear_probe(vectors, labels, **SETTINGS) for _ in range(2))
    other = linear_probe(vectors, labels, **{**SETTINGS, "seed": 1})
    np.testing.assert_array_equal(first.confusion, again.confusion)
    assert (first.confusion != other.confusion).any()


def test_the_scale_of_vectors_does_not_matter():
    vectors, labels = clouds(spread=1.0)
    lengths = np.random.default_rng(0).uniform(0.01, 100, size=(len(vectors), 1)).astype(np.float32)
    result = linear_probe(vectors * lengths, labels, **SETTINGS)
    assert result.accuracy_percent == pytest.approx(
        linear_probe(vectors, labels, **SETTINGS).accuracy_percent, abs=2
    )


def test_one_class_is_refused():
    vectors, labels = clouds(spread=1.0, classes=1)
    with pytest.raises(ScoringError, match=r"two classes of at least 10 utterances, and there is 1 among 1"):
        linear_probe(vectors, labels, **SETTINGS)


def test_vectors_that_are_not_finite_are_refused_by_number():
    vectors, labels = clouds(spread=1.0)
    vectors[60, 3] = np.nan
    vectors[70, 1] = np.inf
    with pytest.raises(ScoringError, match=r"vector 60 \(label 'system 1'\).*1 others"):
        linear_probe(vectors, labels, **SETTINGS)


def test_labels_of_another_length_are_misuse():
    vectors, labels = clouds(spread=1.0)
    with pytest.raises(ValueError, match="labels"):
        linear_probe(vectors, labels[:-1], **SETTINGS)


def test_a_class_that_could_not_be_split_is_left_out_whatever_the_least_size():
    kept, left_out = classes_of(np.array(["a", "b", "b", "c", "c"]), min_per_class=1)
    assert (kept, left_out) == ({"b": 2, "c": 2}, {"a": 1})
