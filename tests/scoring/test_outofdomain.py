"""Known against unknown systems: the polarity of every detector, and every figure against a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from makermark.scoring import Evidence, choose_on_dev, open_set
from makermark.scoring.detectors import DETECTORS, Speech, knn, mahalanobis, nsd
from makermark.scoring.outofdomain import detect

SEEN = np.array(["a", "b", "c"])


def figures(scores, known, correct=None, systems=None, samples=0):
    known = np.asarray(known, bool)
    correct = known if correct is None else np.asarray(correct, bool)
    systems = np.where(known, "a", "x") if systems is None else systems
    return detect(np.asarray(scores, float), known, correct, systems, bootstrap_samples=samples, seed=0)


def speech(*, seed=0, each=20):
    """Utterances of three training systems and of one elsewhere, and a classifier that points at the centres."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(5)[:4]  # the fourth is unknown
    systems = np.repeat([*SEEN, "new"], each)
    vectors = np.repeat(centres, each, axis=0) + 0.7 * rng.normal(size=(4 * each, 5))
    return Speech(vectors, vectors @ centres[:3].T / 2, systems)


def known_part(whole):
    known = whole.systems != "new"
    return Speech(whole.vectors[known], whole.logits[known], whole.systems[known])


@pytest.mark.parametrize("name", DETECTORS)
def test_a_higher_score_means_known(name):
    """A detector read upside down would give an AUROC near 0 here."""
    train, judged = known_part(speech(seed=1)), speech(seed=2)
    scores = DETECTORS[name](train, judged)
    assert scores.shape == (80,)
    assert roc_auc_score(judged.systems != "new", scores) > 0.9


@pytest.mark.parametrize("name", DETECTORS)
def test_the_true_systems_of_the_judged_decide_nothing(name):
    train, judged = known_part(speech(seed=1)), speech(seed=2)
    blind = Speech(judged.vectors, judged.logits, np.full(80, "?"))
    np.testing.assert_array_equal(DETECTORS[name](train, judged), DETECTORS[name](train, blind))


def test_mahalanobis_is_scipys_distance_with_the_shrunk_covariance_of_scikit_learn():
    train, judged = known_part(speech(seed=1)), speech(seed=2)
    means = np.stack([train.vectors[train.systems == name].mean(0) for name in SEEN])
    deviations = np.concatenate(
        [train.vectors[train.systems == n] - m for n, m in zip(SEEN, means, strict=True)]
    )
    shrunk, _ = ledoit_wolf(deviations, assume_centered=True)
    distances = cdist(judged.vectors, means, "mahalanobis", VI=np.linalg.inv(shrunk))
    np.testing.assert_allclose(mahalanobis(train, judged), -(distances.min(axis=1) ** 2), rtol=1e-8)


def test_mahalanobis_needs_no_more_utterances_than_dimensions():
    rng = np.random.default_rng(0)
    train = Speech(rng.normal(size=(6, 50)), np.zeros((6, 3)), np.repeat(SEEN, 2))
    scores = mahalanobis(
        train, Speech(np.vstack([train.vectors[:1], 9 * train.vectors[:1]]), np.zeros((2, 3)), SEEN)
    )
    assert scores[0] > scores[1] > -np.inf


def test_knn_is_the_tenth_nearest_by_brute_force():
    train, judged = known_part(speech(seed=1)), speech(seed=2)
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (judged.vectors, train.vectors))
    distances = np.sort(np.linalg.norm(one[:, None] - other[None], axis=2), axis=1)
    np.testing.assert_allclose(knn(train, judged), -distances[:, 9], atol=1e-6)


def test_nsd_is_energy_times_mean_guided_similarity():
    train, judged = known_part(speech(seed=1)), speech(seed=2)
    energies = [np.log(np.exp(s.logits).sum(1)) for s in (train, judged)]
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (judged.vectors, train.vectors))
    expected = energies[1] * ((one @ other.T) * energies[0]).mean(1)
    np.testing.assert_allclose(nsd(train, judged), expected)


def test_worked_by_hand():
    found = figures([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 1, 0, 1, 0, 0], correct=[1, 0, 0, 1, 0, 0])
    assert found.auroc_percent == pytest.approx(100 * 8 / 9)
    assert found.fpr95_percent == pytest.approx(100 / 3)  # all three known accepted at 0.6, and one unknown
    assert found.eer_percent == pytest.approx(100 / 3)
    assert found.oscr_percent == pytest.approx(100 * (1 / 3 + 2 / 3 + 2 / 3) / 3)
    assert found.eerc_percent == pytest.approx(
        100 / 3
    )  # at 0.6: one of three known is misnamed, 1 of 3 accepted


def test_perfect_scores_with_a_perfect_classifier():
    found = figures([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    assert (found.auroc_percent, found.aupr_known_percent, found.oscr_percent) == (100, 100, 100)
    assert (found.fpr95_percent, found.eer_percent, found.eerc_percent) == (0, 0, 0)


def test_a_detector_that_says_the_same_of_all_is_a_coin():
    found = figures([1.0, 1.0, 1.0, 1.0], [1, 0, 1, 0])
    assert (found.auroc_percent, found.eer_percent, found.fpr95_percent) == (50, 50, 100)


def test_misidentified_known_utterances_cost_oscr_and_eerc_but_not_auroc():
    right = figures([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    half = figures([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0], correct=[1, 0, 0, 0])
    assert half.auroc_percent == right.auroc_percent
    assert half.oscr_percent == pytest.approx(50)
    assert half.eerc_percent == pytest.approx(50)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40).filter(
        lambda rows: len({known for _, known in rows}) == 2
    )
)
def test_figures_agree_with_scikit_learn_ties_included(rows):
    scores, known = np.array([s for s, _ in rows], float), np.array([k for _, k in rows])
    found = figures(scores, known)
    assert found.auroc_percent == pytest.approx(100 * roc_auc_score(known, scores))
    assert found.aupr_known_percent == pytest.approx(100 * average_precision_score(known, scores))
    assert found.aupr_unknown_percent == pytest.approx(100 * average_precision_score(~known, -scores))
    fpr, tpr, _ = roc_curve(known, scores, drop_intermediate=False)
    assert found.fpr95_percent == pytest.approx(100 * fpr[tpr >= 0.95 - 1e-12][0])
    meeting = brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    assert found.eer_percent == pytest.approx(100 * meeting, abs=1e-6) or (np.diff(fpr) == 0).any()


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, and with none
def test_intervals_are_quantiles_over_systems_drawn_and_scored_one_draw_at_a_time(decimals):
    rng = np.random.default_rng(1)
    column = np.repeat(np.arange(9), rng.integers(3, 12, 9))
    known = column < 4
    scores = np.round(rng.normal(size=len(column)) + 0.7 * known, decimals)
    systems = np.array([f"s{i}" for i in column])
    found = detect(scores, known, known, systems, bootstrap_samples=60, seed=5)
    each = []
    for times in np.random.default_rng([5, 1]).multinomial(9, np.full(9, 1 / 9), size=60):
        drawn = np.repeat(np.arange(len(column)), times[column])  # every utterance as often as its system
        if known[drawn].any() and not known[drawn].all():
            one = detect(
                scores[drawn], known[drawn], known[drawn], systems[drawn], bootstrap_samples=0, seed=0
            )
            each.append((100 * roc_auc_score(known[drawn], scores[drawn]), one.fpr95_percent))
    expected = np.quantile(each, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.auroc_ci95_percent, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.fpr95_ci95_percent, expected[:, 1], rtol=1e-9)


def test_intervals_hold_the_figure_and_resample_systems_not_utterances():
    rng = np.random.default_rng(0)
    names = np.repeat([f"s{i}" for i in range(12)], 30)
    known = np.repeat(np.arange(12) < 6, 30)
    scores = known + np.repeat(rng.normal(0, 0.8, 12), 30) + rng.normal(0, 0.1, 360)  # a system moves as one
    found = figures(scores, known, systems=names, samples=400)
    low, high = found.auroc_ci95_percent
    assert low < found.auroc_percent < high
    assert high - low > 15  # 360 independent utterances would give about 6
    assert found == figures(scores, known, systems=names, samples=400)


def test_without_unknown_systems_nothing_is_claimed():
    found = figures([1.0, 2.0], [1, 1])
    assert found.auroc_percent is None
    assert found.eerc_percent is None


def evidence(whole, headed):
    return Evidence(whole.vectors, whole.systems, whole.logits if headed else None)


@pytest.mark.parametrize("headed", [True, False])
def test_an_open_set_is_identified_and_its_unknown_systems_found(headed):
    told, rates = open_set(
        evidence(known_part(speech(seed=1)), headed),
        evidence(speech(seed=2), headed),
        bootstrap_samples=20,
        seed=0,
    )
    assert set(told["identification"]) == ({"head", "centroid"} if headed else {"centroid"})
    assert told["identification"]["centroid"]["accuracy_percent"] > 90
    assert told["out_of_domain"]["logits"] == ("head" if headed else "centroid")
    assert told["out_of_domain"]["known_utterances"] == 60
    assert all(told["out_of_domain"][name]["auroc_percent"] > 85 for name in DETECTORS)
    assert list(rates) == list(DETECTORS)


def test_the_detector_is_chosen_on_dev_whatever_test_would_like():
    def told(best):
        return {
            "out_of_domain": {name: {"auroc_percent": 90.0 if name == best else 80.0} for name in DETECTORS}
        }

    dev, test = told("knn"), told("energy")
    choose_on_dev(dev, test)
    assert test["out_of_domain"]["chosen_on_dev"] == dev["out_of_domain"]["chosen_on_dev"] == "knn"
