"""Metrics over all pairs, against brute force and worked by hand."""

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

from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs import metrics_to_json, score_all_pairs

PLAIN = {"bootstrap_samples": 0, "seed": 0}


def clouds(utterances, systems, *, dim=8, spread=1.0, seed=0):
    """Return embeddings around one centre per system, the system names, and a stratum for every utterance."""
    rng = np.random.default_rng(seed)
    system = rng.integers(0, systems, utterances)
    embeddings = rng.normal(size=(systems, dim))[system] + spread * rng.normal(size=(utterances, dim))
    names = np.array([f"system-{number}" for number in system])
    return embeddings.astype(np.float32), names, rng.choice(["seen", "unseen"], utterances)


@settings(deadline=None, max_examples=200)
@given(sets(), st.sampled_from([2, 5, 2048]))
def test_every_eer_equals_brute_force(drawn_set, sample_utterances):
    embeddings, systems, strata = drawn_set
    scores = score_all_pairs(embeddings, systems, strata, **PLAIN, sample_utterances=sample_utterances)
    trials = Trials(embeddings, systems, strata)
    parts = [(scores, None), *((scores.strata[name], t) for t, name in enumerate(trials.strata))]
    assert len(scores.strata) == len(trials.strata)
    for part, stratum in parts:
        micro, by_system = trials.micro(stratum), trials.by_system(stratum)
        assert (part.eer_micro_percent is None) == (micro is None)
        assert {s.system for s in part.per_system if s.eer_percent is not None} == set(by_system)
        assert part.target_trials == (trials.is_target & trials.inside(stratum)).sum()
        assert part.nontarget_trials == (~trials.is_target & trials.inside(stratum)).sum()
        assert part.macro_systems == len(by_system)
        for system in part.per_system:
            if system.eer_percent is not None:
                assert system.eer_percent == pytest.approx(by_system[system.system], abs=1e-9)
        if micro is not None:
            assert part.eer_micro_percent == pytest.approx(micro, abs=1e-9)
            assert part.eer_macro_percent == pytest.approx(np.mean(list(by_system.values())), abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(sets(), st.sampled_from([2, 5, 2048]), st.sampled_from([0.01, 0.05, 0.5, 0.9]))
def test_auc_and_min_dcf_are_exact_in_small_sets_and_within_bounds_in_large_ones(
    drawn_set, sample_utterances, p_target
):
    embeddings, systems, strata = drawn_set
    scores = score_all_pairs(
        embeddings, systems, strata, **PLAIN, p_target=p_target, sample_utterances=sample_utterances
    )
    trials = Trials(embeddings, systems, strata)
    for part, stratum in [
        (scores, None),
        *((scores.strata[name], t) for t, name in enumerate(trials.strata)),
    ]:
        if part.auc is None:
            continue
        is_target, values = trials.is_target[trials.inside(stratum)], trials.scores[trials.inside(stratum)]
        auc, cost = roc_auc_score(is_target, values), min_dcf(is_target, values, p_target)
        if len(embeddings) <= sample_utterances:
            assert part.auc_error_bound == part.min_dcf_error_bound == 0
        assert abs(part.auc - auc) <= part.auc_error_bound + 1e-12
        assert -1e-12 <= part.min_dcf - cost <= part.min_dcf_error_bound + 1e-12


def test_metrics_worked_by_hand():
    """Utterances lie at 0 and 50 degrees (system A) and at 80 and 150 degrees (system B).

    The pairs by falling cosine are 30 degrees (non-target), 50 (A), 70 (B), 80, 100 and 150 (non-targets). If they are
    accepted in this order, the false-accept rate rises to 1/4 and stays there while the miss rate falls from 1 to 0 in
    steps of 1/2. The EER is 1/4, for all trials and, with one target trial, for A and for B. A target scores above 3 of
    4 non-targets: AUC 3/4. Every false accept costs at least 0.95 / 4. Accepting nothing costs 0.05, which is the
    minimum: 1 after division by 0.05.
    """
    angles = np.deg2rad([0, 50, 80, 150])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = score_all_pairs(embeddings, np.array(["A", "A", "B", "B"]), **PLAIN)
    assert (scores.utterances, scores.systems, scores.target_trials, scores.nontarget_trials) == (4, 2, 2, 4)
    assert scores.eer_micro_percent == pytest.approx(25)
    assert [(s.eer_percent, s.target_trials, s.nontarget_trials) for s in scores.per_system] == [
        (25, 1, 4)
    ] * 2
    assert scores.auc == pytest.approx(0.75)
    assert scores.min_dcf == pytest.approx(1)
    assert np.cos(np.deg2rad(80)) <= scores.eer_threshold <= np.cos(np.deg2rad(50)) + 1e-6


def test_perfect_embeddings_have_no_errors_and_opposite_ones_more_than_half():
    systems = np.array(["A", "A", "B", "B"])
    perfect = score_all_pairs(np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]]), systems, **PLAIN)
    assert (perfect.eer_micro_percent, perfect.eer_macro_percent, perfect.auc, perfect.min_dcf) == (
        0,
        0,
        1,
        0,
    )
    opposite = score_all_pairs(np.array([[1, 0], [-1, 0], [1, 0.1], [-1, -0.1]]), systems, **PLAIN)
    assert opposite.eer_micro_percent > 50
    assert opposite.auc < 0.5


def test_equal_embeddings_have_an_eer_of_one_half():
    scores = score_all_pairs(np.ones((70, 3)), np.array(["A", "B"] * 35), bootstrap_samples=20, seed=0)
    assert scores.eer_micro_percent == pytest.approx(50)
    assert scores.auc == pytest.approx(0.5)
    assert scores.eer_micro_ci95_percent == pytest.approx((50, 50))


def test_cosines_agree_with_float64():
    embeddings, systems, _ = clouds(300, 6, dim=50)
    normalised = embeddings.astype(np.float64) / np.linalg.norm(
        embeddings.astype(np.float64), axis=1, keepdims=True
    )
    i, j = np.triu_indices(300, 1)
    expected = eer_percent(systems[i] == systems[j], np.sum(normalised[i] * normalised[j], axis=1))
    assert score_all_pairs(embeddings, systems, **PLAIN).eer_micro_percent == pytest.approx(
        expected, abs=1e-2
    )


def test_large_system_is_cut_into_chunks_and_counted_once():
    """1,300 utterances of one system are more than a chunk holds. The sample has 1 utterance in 9."""
    rng = np.random.default_rng(3)
    systems = np.array(["big"] * 1300 + ["small"] * 200)
    embeddings = rng.normal(size=(1500, 6)) + (systems == "big")[:, None]
    scores = score_all_pairs(embeddings, systems, **PLAIN, sample_utterances=160)
    trials = Trials(embeddings, systems)
    assert scores.target_trials + scores.nontarget_trials == 1500 * 1499 // 2
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.auc == pytest.approx(roc_auc_score(trials.is_target, trials.scores), abs=1e-5)
    assert 0 < scores.auc_error_bound < 1e-3
    assert 0 < scores.min_dcf_error_bound < 1e-2


@pytest.mark.parametrize("squeeze", [1e-1, 1e-3])
def test_scores_crowded_near_one_are_resolved(squeeze):
    """The cosines of an untrained network all begin with 0.99."""
    embeddings, systems, _ = clouds(700, 5)
    crowded = 1 + squeeze * embeddings
    scores = score_all_pairs(crowded, systems, **PLAIN, sample_utterances=300)
    trials = Trials(crowded, systems)
    assert trials.scores.min() > 0.9
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.auc_error_bound < 1e-3


def test_metrics_do_not_depend_on_row_order_or_threads():
    embeddings, systems, strata = clouds(900, 7)
    settings = {"bootstrap_samples": 50, "seed": 1, "sample_utterances": 200}
    once = score_all_pairs(embeddings, systems, strata, **settings, threads=1)
    order = np.random.default_rng(0).permutation(900)
    for threads in (1, 2, 5):
        again = score_all_pairs(embeddings[order], systems[order], strata[order], **settings, threads=threads)
        assert metrics_to_json(again) == metrics_to_json(once)
        assert again.per_system == once.per_system
        np.testing.assert_array_equal(again.det.threshold, once.det.threshold)


def test_float16_embeddings_score_as_float32():
    embeddings, systems, _ = clouds(60, 4)
    half = embeddings.astype(np.float16)
    assert metrics_to_json(score_all_pairs(half, systems, **PLAIN)) == metrics_to_json(
        score_all_pairs(half.astype(np.float32), systems, **PLAIN)
    )


def test_metrics_do_not_depend_on_the_norm_of_embeddings():
    embeddings, systems, _ = clouds(60, 4)
    scaled = embeddings * np.float32(2) ** np.arange(-30, 30)[:, None].astype(np.float32)
    assert metrics_to_json(score_all_pairs(scaled, systems, **PLAIN)) == metrics_to_json(
        score_all_pairs(embeddings, systems, **PLAIN)
    )


def test_det_points_are_error_rates_at_their_thresholds_and_reach_both_tails():
    embeddings, systems, _ = clouds(500, 6)
    det = score_all_pairs(embeddings, systems, **PLAIN).det
    trials = Trials(embeddings, systems)
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
    embeddings, systems, _ = clouds(500, 6)
    scores = score_all_pairs(embeddings, systems, **PLAIN)
    trials = Trials(embeddings, systems)
    edges = scores.histogram.edges
    assert np.all(np.diff(edges) > 0)
    assert 50 < len(edges) <= 101
    for counts, kind in (
        (scores.histogram.targets, trials.is_target),
        (scores.histogram.nontargets, ~trials.is_target),
    ):
        np.testing.assert_array_equal(counts, np.histogram(trials.scores[kind].astype(np.float64), edges)[0])


def test_metrics_are_plain_json_with_nulls_for_a_stratum_without_targets():
    embeddings = np.array([[1, 0], [1, 0.1], [0, 1], [0.2, 1], [1, 1]])
    systems, strata = np.array(list("AABBC")), np.array(["x", "x", "x", "y", "y"])
    metrics = metrics_to_json(score_all_pairs(embeddings, systems, strata, bootstrap_samples=30, seed=0))
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
def test_embeddings_that_are_not_finite_raise(value):
    embeddings, systems, _ = clouds(20, 3)
    embeddings[7, 2] = value
    with pytest.raises(ScoringError, match=rf"row 7 \(system '{systems[7]}'\) holds NaN or infinity"):
        score_all_pairs(embeddings, systems, **PLAIN)


@settings(deadline=None, max_examples=60)
@given(sets(), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_any_value_that_is_not_finite_raises_with_its_row(drawn_set, data, value):
    embeddings, systems, strata = drawn_set
    row, column = (data.draw(st.integers(0, size - 1)) for size in embeddings.shape)
    embeddings[row, column] = value
    with pytest.raises(
        ScoringError, match=rf"1 of {len(embeddings)} embeddings .* row {row} .* holds NaN or infinity"
    ):
        score_all_pairs(embeddings, systems, strata, **PLAIN)


@settings(deadline=None, max_examples=60)
@given(sets(), st.sampled_from([2, 2048]))
def test_copies_of_every_utterance_score_as_brute_force(drawn_set, sample_utterances):
    """Every utterance has two copies, one under another system: pairs of cosine 1 of both kinds, and many ties."""
    embeddings, systems, _ = drawn_set
    other = np.where(systems == systems[0], systems[systems != systems[0]][0], systems[0])
    embeddings, systems = np.concatenate([embeddings] * 3), np.concatenate([systems, systems, other])
    scores = score_all_pairs(embeddings, systems, **PLAIN, sample_utterances=sample_utterances)
    trials = Trials(embeddings, systems)
    assert scores.eer_micro_percent == pytest.approx(trials.micro(), abs=1e-9)
    assert scores.eer_macro_percent == pytest.approx(np.mean(list(trials.by_system().values())), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(sets())
def test_metrics_do_not_depend_on_the_sign_of_zero(drawn_set):
    embeddings, systems, strata = drawn_set
    once = score_all_pairs(embeddings, systems, strata, **PLAIN)
    again = score_all_pairs(np.where(embeddings == 0, -embeddings, embeddings), systems, strata, **PLAIN)
    assert metrics_to_json(again) == metrics_to_json(once)


@settings(deadline=None, max_examples=60)
@given(sets())
def test_set_with_one_kind_of_trial_raises_and_stratum_has_no_eer(drawn_set):
    embeddings, systems, _ = drawn_set
    with pytest.raises(ScoringError, match="no non-target trial"):
        score_all_pairs(embeddings, np.full(len(embeddings), "a"), **PLAIN)
    with pytest.raises(ScoringError, match="no target trial"):
        score_all_pairs(embeddings, np.arange(len(embeddings)), **PLAIN)
    for name, part in score_all_pairs(embeddings, systems, systems, **PLAIN).strata.items():
        assert part.nontarget_trials == 0
        assert part.target_trials == np.sum(systems == name) * (np.sum(systems == name) - 1) // 2
        assert part.eer_micro_percent is part.eer_macro_percent is part.auc is part.det is None


def test_embedding_of_zeros_raises():
    embeddings, systems, _ = clouds(20, 3)
    embeddings[3] = 0
    with pytest.raises(ScoringError, match=r"1 of 20 embeddings have no direction: row 3 .* is all zeros"):
        score_all_pairs(embeddings, systems, **PLAIN)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ("AAAA", "no non-target trial: all 4 utterances are of system 'A'"),
        ("ABCD", "no target trial: 4 utterances, one per system"),
    ],
)
def test_set_without_both_kinds_of_trials_raises(systems, message):
    with pytest.raises(ScoringError, match=message):
        score_all_pairs(np.eye(4), np.array(list(systems)), **PLAIN)


def test_empty_set_raises():
    with pytest.raises(ScoringError, match="no target trial: 0 utterances"):
        score_all_pairs(np.empty((0, 5)), np.array([], dtype=str), **PLAIN)


def test_too_many_systems_raise():
    systems = np.arange(8000) // 2
    with pytest.raises(ScoringError, match=r"4000 systems .* score fewer systems"):
        score_all_pairs(np.ones((8000, 1)), systems, **PLAIN)


@pytest.mark.parametrize(
    ("embeddings", "strata"),
    [
        (np.ones((3, 2)), None),
        (np.ones(4), None),
        (np.ones((4, 0)), None),
        (np.ones((4, 2)), np.array(["x"])),
    ],
)
def test_shapes_that_do_not_match_raise_value_error(embeddings, strata):
    with pytest.raises(ValueError, match="embeddings"):
        score_all_pairs(embeddings, np.array(list("AABB")), strata, **PLAIN)


@pytest.mark.parametrize("p_target", [0, 1, -0.1, float("nan")])
def test_p_target_outside_0_to_1_raises_value_error(p_target):
    with pytest.raises(ValueError, match="p_target"):
        score_all_pairs(np.eye(4), np.array(list("AABB")), **PLAIN, p_target=p_target)


def test_memory_does_not_grow_with_the_number_of_pairs():
    """12,000 utterances have 72 million pairs: 275 MiB of float32 scores, or 550 MiB as a square matrix."""
    script = """
import resource
import numpy as np
from makermark.scoring.pairs import score_all_pairs
rng = np.random.default_rng(0)
systems = np.arange(12_000) % 12
embeddings = rng.normal(size=(12, 4))[systems] + rng.normal(size=(12_000, 4))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score_all_pairs(embeddings[:3000], systems[:3000], bootstrap_samples=10, seed=0, threads=2)
before = peak()
score_all_pairs(embeddings, systems, bootstrap_samples=10, seed=0, threads=2)
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    ru_maxrss_bytes = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    assert int(grown) * ru_maxrss_bytes < 100 * 2**20
