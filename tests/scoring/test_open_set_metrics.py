"""Open-set detection: the polarity of every detector, and every metric against a reference."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from makermark.foundation.embeddings import EmbeddingTable
from makermark.scoring.detectors import DETECTORS, DetectorInput, knn, mahalanobis, nsd
from makermark.scoring.evaluation import choose_detector_on_dev, evaluate_open_set
from makermark.scoring.open_set_metrics import OpenSetTrials, compute_open_set_metrics
from makermark.scoring.pairs.intervals import quantile_levels

SEEN = np.array(["a", "b", "c"])


def compute_metrics(scores, known, correct=None, systems=None, samples=0, seed=0):
    """Compute the open-set metrics; by default every known utterance is correctly identified."""
    known = np.asarray(known, bool)
    correct = known if correct is None else np.asarray(correct, bool)
    systems = np.where(known, "a", "x") if systems is None else systems
    trials = OpenSetTrials(np.asarray(scores, float), known, correct)
    return compute_open_set_metrics(trials, systems, bootstrap_samples=samples, seed=seed)


def make_utterances(*, seed=0, per_system=20):
    """Return utterances of three training systems and an unknown one, with the logits of a classifier."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(5)[:4]  # the fourth is unknown
    systems = np.repeat([*SEEN, "new"], per_system)
    embeddings = np.repeat(centres, per_system, axis=0) + 0.7 * rng.normal(size=(4 * per_system, 5))
    return DetectorInput(embeddings, embeddings @ centres[:3].T / 2, systems)


def select_known(whole):
    """Return the utterances of the training systems."""
    known = whole.systems != "new"
    return DetectorInput(whole.embeddings[known], whole.logits[known], whole.systems[known])


@pytest.mark.parametrize("name", DETECTORS)
def test_higher_detector_score_means_known(name):
    """A detector with the inverse polarity has an AUROC near 0 here."""
    train, evaluated = select_known(make_utterances(seed=1)), make_utterances(seed=2)
    scores = DETECTORS[name](train, evaluated)
    assert scores.shape == (80,)
    assert roc_auc_score(evaluated.systems != "new", scores) > 0.9


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_ignores_the_true_systems_of_evaluated_utterances(name):
    train, evaluated = select_known(make_utterances(seed=1)), make_utterances(seed=2)
    blind = DetectorInput(evaluated.embeddings, evaluated.logits, np.full(80, "?"))
    np.testing.assert_array_equal(DETECTORS[name](train, evaluated), DETECTORS[name](train, blind))


def test_mahalanobis_equals_scipy_with_the_shrunk_covariance():
    train, evaluated = select_known(make_utterances(seed=1)), make_utterances(seed=2)
    means = np.stack([train.embeddings[train.systems == name].mean(0) for name in SEEN])
    deviations = np.concatenate(
        [train.embeddings[train.systems == n] - m for n, m in zip(SEEN, means, strict=True)]
    )
    shrunk, _ = ledoit_wolf(deviations, assume_centered=True)
    distances = cdist(evaluated.embeddings, means, "mahalanobis", VI=np.linalg.inv(shrunk))
    np.testing.assert_allclose(mahalanobis(train, evaluated), -(distances.min(axis=1) ** 2), rtol=1e-8)


def test_mahalanobis_works_with_fewer_utterances_than_dimensions():
    rng = np.random.default_rng(0)
    train = DetectorInput(rng.normal(size=(6, 50)), np.zeros((6, 3)), np.repeat(SEEN, 2))
    scores = mahalanobis(
        train,
        DetectorInput(np.vstack([train.embeddings[:1], 9 * train.embeddings[:1]]), np.zeros((2, 3)), SEEN),
    )
    assert scores[0] > scores[1] > -np.inf


def test_knn_is_the_distance_to_the_tenth_nearest_neighbour():
    train, evaluated = select_known(make_utterances(seed=1)), make_utterances(seed=2)
    one, other = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (evaluated.embeddings, train.embeddings)
    )
    distances = np.sort(np.linalg.norm(one[:, None] - other[None], axis=2), axis=1)
    np.testing.assert_allclose(knn(train, evaluated), -distances[:, 9], atol=1e-6)


def test_nsd_is_energy_times_mean_guided_similarity():
    train, evaluated = select_known(make_utterances(seed=1)), make_utterances(seed=2)
    energies = [np.log(np.exp(s.logits).sum(1)) for s in (train, evaluated)]
    one, other = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (evaluated.embeddings, train.embeddings)
    )
    expected = energies[1] * ((one @ other.T) * energies[0]).mean(1)
    np.testing.assert_allclose(nsd(train, evaluated), expected)


def test_open_set_metrics_worked_by_hand():
    metrics = compute_metrics([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 0, 1, 0, 0], correct=[1, 0, 0, 1, 0, 0])
    assert metrics["auroc_percent"] == pytest.approx(100 * 8 / 9)
    assert metrics["fpr95_percent"] == pytest.approx(
        100 / 3
    )  # at 0.6, all three known and one unknown are accepted
    assert metrics["eer_percent"] == pytest.approx(100 / 3)
    assert metrics["oscr_percent"] == pytest.approx(100 * (1 / 3 + 2 / 3 + 2 / 3) / 3)
    assert metrics["eerc_percent"] == pytest.approx(
        100 / 3
    )  # at 0.6: one of three known is misidentified, one of three unknown accepted


def test_open_set_metrics_of_perfect_scores():
    metrics = compute_metrics([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    assert (metrics["auroc_percent"], metrics["aupr_known_percent"], metrics["oscr_percent"]) == (
        100,
        100,
        100,
    )
    assert (metrics["fpr95_percent"], metrics["eer_percent"], metrics["eerc_percent"]) == (0, 0, 0)


def test_open_set_metrics_of_a_constant_detector_are_chance():
    metrics = compute_metrics([1.0, 1.0, 1.0, 1.0], [1, 0, 1, 0])
    assert (metrics["auroc_percent"], metrics["eer_percent"], metrics["fpr95_percent"]) == (50, 50, 100)


def test_misidentified_utterances_lower_oscr_and_raise_eerc_but_not_auroc():
    right = compute_metrics([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    half = compute_metrics([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0], correct=[1, 0, 0, 0])
    assert half["auroc_percent"] == right["auroc_percent"]
    assert half["oscr_percent"] == pytest.approx(50)
    assert half["eerc_percent"] == pytest.approx(50)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40).filter(
        lambda rows: len({known for _, known in rows}) == 2
    )
)
def test_open_set_metrics_equal_scikit_learn_with_ties(rows):
    scores, known = np.array([s for s, _ in rows], float), np.array([k for _, k in rows])
    metrics = compute_metrics(scores, known)
    assert metrics["auroc_percent"] == pytest.approx(100 * roc_auc_score(known, scores))
    assert metrics["aupr_known_percent"] == pytest.approx(100 * average_precision_score(known, scores))
    assert metrics["aupr_unknown_percent"] == pytest.approx(100 * average_precision_score(~known, -scores))
    fpr, tpr, _ = roc_curve(known, scores, drop_intermediate=False)
    assert metrics["fpr95_percent"] == pytest.approx(100 * fpr[tpr >= 0.95 - 1e-12][0])
    meeting = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    assert metrics["eer_percent"] == pytest.approx(100 * meeting, abs=1e-6) or (np.diff(fpr) == 0).any()


@pytest.mark.parametrize("shift", [0.7, -3.0])  # of the known utterances: above, and all below
@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, and with none
def test_open_set_intervals_equal_quantiles_over_resamples_scored_one_by_one(decimals, shift):
    rng = np.random.default_rng(1)
    column = np.repeat(np.arange(9), rng.integers(3, 12, 9))
    known = column < 4
    scores = np.round(rng.normal(size=len(column)) + shift * known, decimals)
    systems = np.array([f"s{i}" for i in column])
    metrics = compute_metrics(scores, known, systems=systems, samples=60, seed=5)
    resampled = []
    for counts in np.random.default_rng([5, 1]).multinomial(9, np.full(9, 1 / 9), size=60):
        drawn = np.repeat(np.arange(len(column)), counts[column])  # every utterance as often as its system
        if known[drawn].any() and not known[drawn].all():
            resample = compute_metrics(scores[drawn], known[drawn])
            resampled.append((100 * roc_auc_score(known[drawn], scores[drawn]), resample["fpr95_percent"]))
    expected = np.quantile(resampled, quantile_levels(4), axis=0)  # 4 known, 5 unknown systems
    np.testing.assert_allclose(metrics["auroc_ci95_percent"], expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(metrics["fpr95_ci95_percent"], expected[:, 1], rtol=1e-9)


def test_open_set_intervals_resample_systems_not_utterances():
    """All utterances of a system shift together."""
    rng = np.random.default_rng(0)
    names = np.repeat([f"s{i}" for i in range(12)], 30)
    known = np.repeat(np.arange(12) < 6, 30)
    scores = known + np.repeat(rng.normal(0, 0.8, 12), 30) + rng.normal(0, 0.1, 360)
    metrics = compute_metrics(scores, known, systems=names, samples=400)
    low, high = metrics["auroc_ci95_percent"]
    assert low < metrics["auroc_percent"] < high
    assert high - low > 15  # 360 independent utterances would give about 6
    assert metrics == compute_metrics(scores, known, systems=names, samples=400)


@pytest.mark.parametrize("levels", range(1, 10))
def test_intervals_of_known_utterances_down_to_the_lowest_score(levels):
    """Every known system has each of the scores, the lowest too: 95 % of them are reached at the lowest score only."""
    known = np.repeat([True, False], 3 * levels)
    scores = np.where(known, np.tile(np.arange(levels), 6), levels - 1.0)
    systems = np.repeat(list("abcxyz"), levels)
    metrics = compute_metrics(scores, known, systems=systems, samples=30)
    assert metrics["fpr95_ci95_percent"] == pytest.approx([100, 100])
    assert metrics["auroc_ci95_percent"] == pytest.approx([100 / levels / 2] * 2)  # only ties count


def test_open_set_metrics_with_one_unknown_system_have_no_interval():
    systems = np.array(["a", "u", "b", "u"])
    metrics = compute_metrics([4.0, 3.0, 2.0, 1.0], [1, 0, 1, 0], systems=systems, samples=50)
    assert metrics["auroc_percent"] == 75
    assert (metrics["auroc_ci95_percent"], metrics["fpr95_ci95_percent"]) == (None, None)


def test_open_set_metrics_without_unknown_utterances_are_none():
    metrics = compute_metrics([1.0, 2.0], [1, 1])
    assert set(metrics.values()) == {None}


def make_set(whole, has_head):
    labels = pd.DataFrame({"system": whole.systems})
    return EmbeddingTable(labels, whole.embeddings, whole.logits if has_head else None, {})


@pytest.mark.parametrize("has_head", [True, False])
def test_open_set_evaluation_identifies_known_and_detects_unknown_systems(has_head):
    metrics, rates = evaluate_open_set(
        make_set(select_known(make_utterances(seed=1)), has_head),
        make_set(make_utterances(seed=2), has_head),
        bootstrap_samples=20,
        seed=0,
    )
    assert set(metrics["identification"]) == ({"head", "centroid"} if has_head else {"centroid"})
    assert metrics["identification"]["centroid"]["accuracy_percent"] > 90
    assert metrics["out_of_domain"]["logits"] == ("head" if has_head else "centroid")
    assert metrics["out_of_domain"]["known_utterances"] == 60
    assert all(metrics["out_of_domain"][name]["auroc_percent"] > 85 for name in DETECTORS)
    assert list(rates) == list(DETECTORS)


def test_detector_is_chosen_on_dev_and_not_on_test():
    def make_metrics(best):
        return {
            "out_of_domain": {name: {"auroc_percent": 90.0 if name == best else 80.0} for name in DETECTORS}
        }

    dev, test = make_metrics("knn"), make_metrics("energy")
    choose_detector_on_dev(dev, test)
    assert test["out_of_domain"]["chosen_on_dev"] == dev["out_of_domain"]["chosen_on_dev"] == "knn"
