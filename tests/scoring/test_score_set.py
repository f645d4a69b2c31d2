import json
import subprocess
import sys

import numpy as np
import pytest
from brute_force import Trials, eer_percent, min_dcf
from drawn_sets import sets
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from makermark.errors import ScoringError
from makermark.scoring import as_metrics, score_set

PLAIN = {"bootstrap_samples": 0, "seed": 0}


def clouds(utterances, systems, *, dim=8, spread=1.0, seed=0):
    """Vectors around one centre per system, the systems' names, and a stratum for each utterance."""
    rng = np.random.default_rng(seed)
    system = rng.integers(0, systems, utterances)
    vectors = rng.normal(size=(systems, dim))[system] + spread * rng.normal(size=(utterances, dim))
    names = np.array([f"system-{number}" for number in system])
    return vectors.astype(np.float32), names, rng.choice(["seen", "unseen"], utterances)


@settings(deadline=None, max_examples=200)
@given(sets(), st.sampled_from([2, 5, 2048]))
def test_every_eer_equals_brute_force(given_set, sample_utterances):
    vectors, systems, strata = given_set
    scores = score_set(vectors, systems, strata, **PLAIN, sample_utterances=sample_utterances)
    trials = Trials(vectors, systems, strata)
    parts = [(scores, None), *((scores.strata[name], t) for t, name in enumerate(trials.strata))]
    assert len(scores.strata) == len(trials.strata)
    for part, which in parts:
        micro, by_system = trials.micro(which), trials.by_system(which)
        assert (part.eer_micro_percent is None) == (micro is None)
        assert {s.system for s in part.per_system if s.eer_percent is not None} == set(by_system)
        assert part.target_trials == (trials.is_target & trials.inside(which)).sum()
        assert part.nontarget_trials == (~trials.is_target & trials.inside(which)).sum()
        assert part.macro_systems == len(by_system)
        for system in part.per_system:
            if system.eer_percent is not None:
                assert system.eer_percent == pytest.approx(by_system[system.system], abs=1e-9)
        if micro is not None:
            assert part.eer_micro_percent == pytest.approx(micro, abs=1e-9)
            assert part.eer_macro_percent == pytest.approx(np.mean(list(by_system.values())), abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(sets(), st.sampled_from([2, 5, 2048]), st.sampled_from([0.01, 0.05, 0.5, 0.9]))
def test_auc_and_cost_are_exact_in_small_sets_and_within_their_bounds_in_larger(
    given_set, sample_utterances, p_target
):
    vectors, systems, strata = given_set
    scores = score_set(
        vectors, systems, strata, **PLAIN, p_target=p_target, sample_utterances=sample_utterances
    )
    trials = Trials(vectors, systems, strata)
    for part, which in [(scores, None), *((scores.strata[name], t) for t, name in enumerate(trials.strata))]:
        if part.auc is None:
            continue
        is_target, values = trials.is_target[trials.inside(which)], trials.scores[trials.inside(which)]
        auc, cost = roc_auc_score(is_target, values), min_dcf(is_target, values, p_target)
        if len(vectors) <= sample_utterances:
            assert part.auc_error_bound == part.min_dcf_error_bound == 0
        assert abs(part.auc - auc) <= part.auc_error_bound + 1e-12
        assert -1e-12 <= part.min_dcf - cost <= part.min_dcf_error_bound + 1e-12


def test_worked_by_hand():
    """Utterances at 0, 50 (system A), 80 and 150 degrees (B). Cosines, highest first:
    30 degrees (non-target), 50 (A), 70 (B), 80, 100, 150 (non-targets).

    Accepting one after the other, false accepts go to 1/4 and stay there while misses fall from 1 by
    1/2 to 0: they cross at 1/4, for all trials and, with one target each, for A and for B.
    A target beats 3 of 4 non-targets: AUC 3/4. Any false accept costs 0.95 / 4 or more, while accepting
    nothing costs 0.05: the least cost is that of accepting nothing, 1 after division by 0.05.
    """
    angles = np.deg2rad([0, 50, 80, 150])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = score_set(vectors, np.array(["A", "A", "B", "B"]), **PLAIN)
    assert (scores.utterances, scores.systems, scores.target_trials, scores.nontarget_trials) == (4, 2, 2, 4)
    assert scores.eer_micro_percent == pytest.approx(25)
    assert [(s.eer_percent, s.target_trials, s.nontarget_trials) for s in scores.per_system] == [
        (25, 1, 4)
    ] * 2
    assert scores.auc == pytest.approx(0.75)
    assert scores.min_dcf == pytest.approx(1)
    assert np.cos(np.deg2rad(80)) <= scores.eer_threshold <= np.cos(np.deg2rad(50)) + 1e-6


def test_perfect_vectors_have_no_errors_and_opposite_ones_more_than_half():
    systems = np.array(["A", "A", "B", "B"])
    perfect = score_set(np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]]), systems, **PLAIN)
    assert (perfect.eer_micro_percent, perfect.eer_macro_percent, perfect.auc, perfect.min_dcf) == (
        0,
        0,
        1,
        0,
    )
    opposite = score_set(np.array([[1, 0], [-1, 0], [1, 0.1], [-1, -0.1]]), systems, **PLAIN)
    assert opposite.eer_micro_percent > 50
    assert opposite.auc < 0.5


def test_equal_vectors_tell_nothing():
    scores = score_set(np.ones((70, 3)), np.array(["A", "B"] * 35), bootstrap_samples=20, seed=0)
    assert scores.eer_micro_percent == pytest.approx(50)
    assert scores.auc == pytest.approx(0.5)
    assert scores.eer_micro_ci95_percent == pytest.approx((50, 50))


def test_cosines_agree_with_float64():
    vectors, systems, _ = clouds(300, 6, dim=50)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    i, j = np.triu_indices(300, 1)
    expected = eer_percent(systems[i] == systems[j], np.sum(unit[i] * unit[j], axis=1))
    assert score_set(vectors, systems, **PLAIN).eer_micro_percent == pytest.approx(expected, abs=1e-2)


def test_a_large_system_is_cut_and_counted_once():
    """1,300 utterances of one system are more than a chunk holds; the sample sees 1 utterance in 9."""
    rng = np.random.default_rng(3)
    systems = np.array(["big"] * 1300 + ["small"] * 200)
    vectors = rng.normal(size=(1500, 6)) + (systems == "big")[:, None]
    scores = score_set(vectors, systems, **PLAIN, sample_utterances=160)
    trials = Trials(vectors, systems)
    assert scores.target_trials + scores.nontarget_trials == 1500 * 1499 // 2
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.auc == pytest.approx(roc_auc_score(trials.is_target, trials.scores), abs=1e-5)
    assert 0 < scores.auc_error_bound < 1e-3
    assert 0 < scores.min_dcf_error_bound < 1e-2


@pytest.mark.parametrize("squeeze", [1e-1, 1e-3])
def test_scores_crowded_near_one_are_still_told_apart(squeeze):
    """An untrained network gives cosines that all begin with 0.99."""
    vectors, systems, _ = clouds(700, 5)
    crowded = 1 + squeeze * vectors
    scores = score_set(crowded, systems, **PLAIN, sample_utterances=300)
    trials = Trials(crowded, systems)
    assert trials.scores.min() > 0.9
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.auc_error_bound < 1e-3


def test_neither_row_order_nor_threads_matter():
    vectors, systems, strata = clouds(900, 7)
    settings = {"bootstrap_samples": 50, "seed": 1, "sample_utterances": 200}
    once = score_set(vectors, systems, strata, **settings, threads=1)
    order = np.random.default_rng(0).permutation(900)
    for threads in (1, 2, 5):
        again = score_set(vectors[order], systems[order], strata[order], **settings, threads=threads)
        assert as_metrics(again) == as_metrics(once)
        assert again.per_system == once.per_system
        np.testing.assert_array_equal(again.det.threshold, once.det.threshold)


def test_float16_vectors_score_as_their_float32_values():
    vectors, systems, _ = clouds(60, 4)
    half = vectors.astype(np.float16)
    assert as_metrics(score_set(half, systems, **PLAIN)) == as_metrics(
        score_set(half.astype(np.float32), systems, **PLAIN)
    )


def test_length_of_vectors_does_not_matter():
    vectors, systems, _ = clouds(60, 4)
    scaled = vectors * np.float32(2) ** np.arange(-30, 30)[:, None].astype(np.float32)
    assert as_metrics(score_set(scaled, systems, **PLAIN)) == as_metrics(score_set(vectors, systems, **PLAIN))


def test_det_points_are_error_rates_at_their_thresholds_and_reach_both_tails():
    vectors, systems, _ = clouds(500, 6)
    det = score_set(vectors, systems, **PLAIN).det
    trials = Trials(vectors, systems)
    target, nontarget = trials.scores[trials.is_target], trials.scores[~trials.is_target]
    for threshold, miss, false_accept in zip(
        det.threshold, det.miss_rate, det.false_accept_rate, strict=True
    ):
        assert miss == pytest.approx(np.mean(target < threshold))
        assert false_accept == pytest.approx(np.mean(nontarget >= threshold))
    assert 200 < len(det.threshold) <= 400
    assert det.miss_rate[det.miss_rate > 0].min() < 5 / len(target)
    assert det.false_accept_rate[det.false_accept_rate > 0].min() < 20 / len(nontarget)


def test_histogram_counts_every_trial():
    vectors, systems, _ = clouds(500, 6)
    scores = score_set(vectors, systems, **PLAIN)
    trials = Trials(vectors, systems)
    edges = scores.histogram.edges
    assert np.all(np.diff(edges) > 0)
    assert 50 < len(edges) <= 101
    for counted, kind in (
        (scores.histogram.targets, trials.is_target),
        (scores.histogram.nontargets, ~trials.is_target),
    ):
        np.testing.assert_array_equal(counted, np.histogram(trials.scores[kind].astype(np.float64), edges)[0])


def test_metrics_are_plain_json_and_a_stratum_without_targets_has_nulls():
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.2, 1], [1, 1]])
    systems, strata = np.array(list("AABBC")), np.array(["x", "x", "x", "y", "y"])
    metrics = as_metrics(score_set(vectors, systems, strata, bootstrap_samples=30, seed=0))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["strata"]["x"]["eer_micro_percent"] == 0
    lone = metrics["strata"]["y"]
    assert (lone["utterances"], lone["systems"], lone["target_trials"], lone["nontarget_trials"]) == (
        2,
        2,
        0,
        1,
    )
    assert lone["eer_micro_percent"] is lone["eer_macro_percent"] is lone["auc"] is lone["min_dcf"] is None
    assert lone["eer_micro_ci95_percent"] is None
    assert set(lone) == set(metrics) - {"strata"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(value):
    vectors, systems, _ = clouds(20, 3)
    vectors[7, 2] = value
    with pytest.raises(ScoringError, match=rf"row 7 \(system '{systems[7]}'\) holds NaN or infinity"):
        score_set(vectors, systems, **PLAIN)


@settings(deadline=None, max_examples=60)
@given(sets(), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_number_that_is_not_finite_anywhere_is_refused_and_its_row_named(given_set, data, value):
    vectors, systems, strata = given_set
    row, column = (data.draw(st.integers(0, size - 1)) for size in vectors.shape)
    vectors[row, column] = value
    with pytest.raises(
        ScoringError, match=rf"1 of {len(vectors)} vectors .* row {row} .* holds NaN or infinity"
    ):
        score_set(vectors, systems, strata, **PLAIN)


@settings(deadline=None, max_examples=60)
@given(sets(), st.sampled_from([2, 2048]))
def test_copies_of_every_utterance_score_as_brute_force_has_it(given_set, sample_utterances):
    """Three of each, one of them under another system's name: pairs of cosine 1 of both kinds, ties everywhere."""
    vectors, systems, _ = given_set
    other = np.where(systems == systems[0], systems[systems != systems[0]][0], systems[0])
    vectors, systems = np.concatenate([vectors] * 3), np.concatenate([systems, systems, other])
    scores = score_set(vectors, systems, **PLAIN, sample_utterances=sample_utterances)
    trials = Trials(vectors, systems)
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.eer_macro_percent == pytest.approx(np.mean(list(trials.by_system().values())), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(sets())
def test_the_sign_of_a_zero_does_not_matter(given_set):
    vectors, systems, strata = given_set
    once = score_set(vectors, systems, strata, **PLAIN)
    again = score_set(np.where(vectors == 0, -vectors, vectors), systems, strata, **PLAIN)
    assert as_metrics(again) == as_metrics(once)


@settings(deadline=None, max_examples=60)
@given(sets())
def test_one_kind_of_trial_is_refused_and_a_stratum_of_one_kind_has_none(given_set):
    vectors, systems, _ = given_set
    with pytest.raises(ScoringError, match="no non-target trial"):
        score_set(vectors, np.full(len(vectors), "a"), **PLAIN)
    with pytest.raises(ScoringError, match="no target trial"):
        score_set(vectors, np.arange(len(vectors)), **PLAIN)
    for name, part in score_set(vectors, systems, systems, **PLAIN).strata.items():
        assert part.nontarget_trials == 0
        assert part.target_trials == np.sum(systems == name) * (np.sum(systems == name) - 1) // 2
        assert part.eer_micro_percent is part.eer_macro_percent is part.auc is part.det is None


def test_a_vector_of_zeros_is_refused():
    vectors, systems, _ = clouds(20, 3)
    vectors[3] = 0
    with pytest.raises(ScoringError, match=r"1 of 20 vectors have no direction: row 3 .* is all zeros"):
        score_set(vectors, systems, **PLAIN)


@pytest.mark.parametrize(
    ("systems", "says"),
    [
        ("AAAA", "no non-target trial: all 4 utterances are of system 'A'"),
        ("ABCD", "no target trial: 4 utterances, each of another system"),
    ],
)
def test_a_set_without_both_kinds_of_trials_is_refused(systems, says):
    with pytest.raises(ScoringError, match=says):
        score_set(np.eye(4), np.array(list(systems)), **PLAIN)


def test_an_empty_set_is_refused():
    with pytest.raises(ScoringError, match="no target trial: 0 utterances"):
        score_set(np.empty((0, 5)), np.array([], dtype=str), **PLAIN)


def test_too_many_systems_are_refused():
    systems = np.arange(8000) // 2
    with pytest.raises(ScoringError, match=r"4000 systems .* score fewer systems"):
        score_set(np.ones((8000, 1)), systems, **PLAIN)


@pytest.mark.parametrize(
    ("vectors", "strata"),
    [
        (np.ones((3, 2)), None),
        (np.ones(4), None),
        (np.ones((4, 0)), None),
        (np.ones((4, 2)), np.array(["x"])),
    ],
)
def test_shapes_that_do_not_fit_are_misuse(vectors, strata):
    with pytest.raises(ValueError, match="vectors"):
        score_set(vectors, np.array(list("AABB")), strata, **PLAIN)


@pytest.mark.parametrize("p_target", [0, 1, -0.1, float("nan")])
def test_a_target_probability_outside_0_to_1_is_misuse(p_target):
    with pytest.raises(ValueError, match="p_target"):
        score_set(np.eye(4), np.array(list("AABB")), **PLAIN, p_target=p_target)


def test_memory_does_not_grow_with_the_number_of_pairs():
    """12,000 utterances have 72 million pairs: 275 MiB of float32 scores, 550 as a square."""
    script = """
import resource
import numpy as np
from makermark.scoring import score_set
rng = np.random.default_rng(0)
systems = np.arange(12_000) % 12
vectors = rng.normal(size=(12, 4))[systems] + rng.normal(size=(12_000, 4))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score_set(vectors[:3000], systems[:3000], bootstrap_samples=10, seed=0, threads=2)
before = peak()
score_set(vectors, systems, bootstrap_samples=10, seed=0, threads=2)
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    assert int(grown) * unit < 100 * 2**20
