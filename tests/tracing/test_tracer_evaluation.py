"""Metrics of a tracer, worked by hand on decisions that are given."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from makermark.scoring.calibration import cllr, min_cllr
from makermark.scoring.pairs.intervals import quantile_levels
from makermark.tracing import evaluation
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.decision import FAMILY, LOG10, ONE_SYSTEM, TOO_LITTLE_SPEECH, UNKNOWN, Decisions
from makermark.tracing.evaluation import (
    WeightedPercent,
    bootstrap_over_systems,
    classify_outcomes,
    evaluate_bonafide,
    evaluate_clips,
    evaluate_comparison,
    evaluate_tracer,
    reliability_curves,
    system_trials,
    trial_metric,
    weighted_mean,
)


def clip_set(systems, *, families=None, sources=None, speech=None, angles=None, seconds=1.0):
    count = len(systems)
    angles = np.radians(angles if angles is not None else np.zeros(count))
    rows = pd.DataFrame(
        {
            "system": systems,
            "family": families or [""] * count,
            "seconds": seconds,
            "speech_seconds": speech or [0.5] * count,
            "sources": sources or [str(number) for number in range(count)],
        }
    )
    return ClipSet(rows, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def decisions(conclusions, names, *, llrs=None, posteriors=None, unknown=None):
    count = len(conclusions)
    return Decisions(
        llrs=np.zeros((count, 2)) if llrs is None else np.asarray(llrs, dtype=float),
        naming_scores=np.zeros((count, 2)),
        posteriors=np.zeros((count, 2)) if posteriors is None else np.asarray(posteriors),
        posterior_unknown=np.zeros(count) if unknown is None else np.asarray(unknown),
        in_set=np.zeros((count, 2), dtype=bool),
        conclusions=conclusions,
        names=names,
        reasons=[""] * count,
    )


def test_outcomes_worked_by_hand():
    """A family named for a system of that family is `family`; a system without one is its own family."""
    cases = [  # system, its family, conclusion, name, outcome
        ("a", "F", ONE_SYSTEM, "a", "correct"),
        ("a", "F", ONE_SYSTEM, "b", "wrong"),
        ("a", "F", FAMILY, "F", "family"),
        ("a", "F", FAMILY, "G", "wrong"),
        ("a", "F", FAMILY, "a", "wrong"),
        ("a", None, FAMILY, "a", "family"),
        ("a", "F", UNKNOWN, "", "unknown"),
        ("a", "F", TOO_LITTLE_SPEECH, "", "too_little"),
    ]
    systems, families, conclusions, names, outcomes = map(list, zip(*cases, strict=True))
    clips = clip_set(systems, families=families)
    assert classify_outcomes(decisions(conclusions, names), clips).tolist() == outcomes


# Evaluation of clips

KNOWN = ["a", "b", "c"]
LIMIT = 2.0  # of the LLRs, on both sides


def given_clips():
    """Return clips of three known and two unknown systems, and a tracer with random, fixed decisions on them.

    The amount of speech of a clip is unique and determines the decision.
    """
    rng = np.random.default_rng(6)
    systems = [name for name, count in zip("abcuv", (7, 6, 5, 6, 4), strict=True) for _ in range(count)]
    count = len(systems)
    clips = clip_set(
        systems, families=["F" if name in "ab" else "" for name in systems], speech=[0.5 + n for n in range(count)]
    )  # fmt: skip
    own = np.array(systems)[:, None] == np.array(KNOWN)
    llrs = rng.normal(scale=3.0, size=(count, 3)) + 4 * own
    posteriors = rng.dirichlet(np.ones(4), size=count)
    conclusions = rng.choice(
        [ONE_SYSTEM, FAMILY, UNKNOWN, TOO_LITTLE_SPEECH], size=count, p=[0.5, 0.2, 0.2, 0.1]
    )
    names = [
        {ONE_SYSTEM: KNOWN[number % 3], FAMILY: "F"}.get(conclusion, "")
        for number, conclusion in enumerate(conclusions)
    ]
    whole = Decisions(
        llrs=llrs,
        naming_scores=np.zeros((count, 3)),
        posteriors=posteriors[:, :3],
        posterior_unknown=posteriors[:, 3],
        in_set=rng.random((count, 3)) < 0.5,
        conclusions=conclusions.tolist(),
        names=names,
        reasons=[""] * count,
    )

    def decide(embeddings, speech):
        rows = (speech - 0.5).astype(int)
        assert len(embeddings) == len(rows)
        return Decisions(
            whole.llrs[rows], whole.naming_scores[rows], whole.posteriors[rows],
            whole.posterior_unknown[rows], whole.in_set[rows],
            *([values[row] for row in rows] for values in (whole.conclusions, whole.names, whole.reasons)),
        )  # fmt: skip

    tracer = SimpleNamespace(
        gallery=SimpleNamespace(systems=KNOWN),
        settings=SimpleNamespace(prior_known=0.7),
        calibration=SimpleNamespace(limit=lambda llrs: np.clip(llrs, -LIMIT, LIMIT)),
        decide=decide,
    )
    return tracer, clips


def percent(flags):
    return 100 * sum(flags) / len(flags)


def test_metrics_of_clips_equal_those_of_loops():
    tracer, clips = given_clips()
    metrics = evaluate_clips(tracer, clips, bootstrap_samples=30, seed=3)
    made = tracer.decide(clips.embeddings, clips.speech_seconds)
    systems = clips.systems.tolist()
    rows = range(len(systems))
    known = [row for row in rows if systems[row] in KNOWN]
    unknown = [row for row in rows if systems[row] not in KNOWN]
    assert (metrics["seen_clips"], metrics["unseen_clips"]) == (18, 10)
    assert (metrics["seen_systems"], metrics["unseen_systems"]) == (3, 2)
    assert metrics["median_speech_s"] == 14.0  # of 0.5, 1.5, ..., 27.5
    best = [KNOWN[int(np.argmax(made.llrs[row]))] for row in rows]
    assert metrics["identification_percent"] == pytest.approx(
        percent([best[row] == systems[row] for row in known])
    )
    covered = [made.in_set[row, KNOWN.index(systems[row])] for row in known]
    assert metrics["coverage_percent"] == pytest.approx(percent(covered))
    assert metrics["candidates_mean"] == pytest.approx(
        sum(made.in_set[row].sum() for row in known) / len(known)
    )
    trials = [
        (min(max(made.llrs[row, s], -LIMIT), LIMIT), systems[row] == KNOWN[s])
        for row in rows
        for s in range(3)
    ]
    limited, target = map(np.array, zip(*trials, strict=True))
    assert metrics["cllr"] == pytest.approx(cllr(limited, target))
    assert metrics["min_cllr"] == pytest.approx(min_cllr(limited, target))
    for group, among in (("seen", known), ("unseen", unknown)):
        kinds = [
            "too_little" if made.conclusions[row] == TOO_LITTLE_SPEECH
            else "unknown" if made.conclusions[row] == UNKNOWN
            else "correct" if made.conclusions[row] == ONE_SYSTEM and made.names[row] == systems[row]
            else "family" if made.conclusions[row] == FAMILY and systems[row] in "ab"
            else "wrong"
            for row in among
        ]  # fmt: skip
        for kind in ("correct", "family", "wrong", "unknown", "too_little"):
            assert metrics[f"{group}_{kind}_percent"] == pytest.approx(percent([k == kind for k in kinds]))
    assert len(set(kinds)) > 2
    tops = made.llrs.max(axis=1)
    above = [tops[one] > tops[other] for one in known for other in unknown]
    assert metrics["auroc_percent"] == pytest.approx(percent(above))
    accepted = sorted(tops[known])[0]  # 95 % of 18 clips are all of them
    assert metrics["fpr95_percent"] == pytest.approx(percent([tops[row] >= accepted for row in unknown]))
    for name in ("auroc_percent", "fpr95_percent", "identification_percent", "cllr"):
        low, high = metrics[f"{name}_ci95"]
        assert low < high
    again, other = (evaluate_clips(tracer, clips, bootstrap_samples=30, seed=seed) for seed in (3, 4))
    assert again == metrics
    assert all(other[f"{name}_ci95"] != metrics[f"{name}_ci95"] for name in ("auroc_percent", "cllr"))


def test_posterior_error_gives_known_and_unknown_systems_their_priors():
    """The mean over bins of |posterior - share of correct answers|, with `unknown` as an answer."""
    tracer, clips = given_clips()
    metrics = evaluate_clips(tracer, clips, bootstrap_samples=2, seed=0)
    made = tracer.decide(clips.embeddings, clips.speech_seconds)
    weight, predicted, hits = np.zeros(10), np.zeros(10), np.zeros(10)
    for row, system in enumerate(clips.systems):
        answers = [*made.posteriors[row], made.posterior_unknown[row]]
        top = int(np.argmax(answers))
        truth = KNOWN.index(system) if system in KNOWN else 3
        share = 0.7 / 18 if system in KNOWN else 0.3 / 10
        number = min(int(answers[top] * 10), 9)
        weight[number] += share
        predicted[number] += share * answers[top]
        hits[number] += share * (top == truth)
    assert metrics["posterior_error_percent"] == pytest.approx(100 * np.abs(predicted - hits).sum())


@pytest.mark.parametrize(("kept", "missing"), [("abc", "unseen"), ("uv", "seen")])
def test_metrics_that_the_clips_do_not_allow_are_none(kept, missing):
    tracer, clips = given_clips()
    part = clips.select(np.isin(clips.systems, list(kept)))
    metrics = evaluate_clips(tracer, part, bootstrap_samples=5, seed=0)
    assert metrics[f"{missing}_clips"] == metrics[f"{missing}_systems"] == 0
    names = ["auroc_percent", "fpr95_percent", "posterior_error_percent", f"{missing}_wrong_percent"]
    names += ["identification_percent", "candidates_mean", "cllr"] if missing == "seen" else []
    assert [metrics[name] for name in names] == [None] * len(names)
    assert (metrics["cllr"] is None) == (missing == "seen")


def test_tracer_is_evaluated_at_each_length_and_on_whole_utterances():
    tracer, clips = given_clips()
    seconds = np.array([WHOLE_UTTERANCE, 1.0, 2.5])[np.arange(len(clips.systems)) % 3]
    mixed = ClipSet(clips.rows.assign(seconds=seconds), clips.embeddings)
    metrics = evaluate_tracer(tracer, mixed, bootstrap_samples=4, seed=1)
    assert list(metrics) == ["1s", "2.5s", "whole"]
    for name, length in (("1s", 1.0), ("2.5s", 2.5), ("whole", WHOLE_UTTERANCE)):
        part = clips.select(seconds == length)
        assert metrics[name] == evaluate_clips(tracer, part, bootstrap_samples=4, seed=1)
    llrs, target = system_trials(tracer, mixed)
    part = clips.select(seconds == WHOLE_UTTERANCE)
    made = tracer.decide(part.embeddings, part.speech_seconds)
    expected = [
        (min(max(llr, -LIMIT), LIMIT), system == name)
        for system, row in zip(part.systems, made.llrs, strict=True)
        for name, llr in zip(KNOWN, row, strict=True)
    ]
    assert list(zip(llrs.tolist(), target.tolist(), strict=True)) == expected


def test_human_speech_is_counted_by_hand():
    """Of five clips, three are named and one has too little speech; three largest LLRs are above 0, one above LIMIT."""
    made = decisions(
        [ONE_SYSTEM, FAMILY, UNKNOWN, TOO_LITTLE_SPEECH, ONE_SYSTEM], ["a", "F", "", "", "b"],
        llrs=[[9.0, 1.0], [-1.0, 0.5], [-3.0, -0.5], [-9.0, 0.0], [0.25, 0.125]],
    )  # fmt: skip
    tracer = SimpleNamespace(
        calibration=SimpleNamespace(limit=lambda llrs: np.clip(llrs, -LIMIT, LIMIT)),
        decide=lambda embeddings, speech: made,
    )
    clips = clip_set(["people"] * 5, seconds=[1.0] * 5)
    results = evaluate_bonafide(tracer, clips)
    assert list(results) == ["1s", "whole"]
    assert results["1s"] == {
        "clips": 5, "named_percent": 60, "too_little_percent": 20, "ratio_above_1_percent": 60,
        "largest_log10_lr": pytest.approx(LIMIT / LOG10),
    }  # fmt: skip
    assert evaluate_bonafide(tracer, None) is None


# Comparison


def pair_metric(monkeypatch, clips, llr_of):
    """Return (Cllr of pairs as a function of clip weights, the metrics), and check which clip limits a pair."""
    captured = {}

    def no_intervals(metrics, systems, **settings):
        captured.update(metrics)
        return {name: metric(np.ones(len(systems))) for name, metric in metrics.items()}

    monkeypatch.setattr(evaluation, "bootstrap_over_systems", no_intervals)
    tracer = SimpleNamespace(pair_llrs=llr_of)
    metrics = evaluate_comparison(tracer, clips, bootstrap_samples=0, seed=0)
    return captured["cllr"], metrics["1s"]


SEVEN = ["a", "a", "a", "b", "b", "c", "c"]  # their LLRs are 4 x cosine - 1


def seven_clips():
    return clip_set(SEVEN, angles=[0, 20, 50, 90, 70, 150, 170])


def listed_cllr(clips, drawn):
    """Return the Cllr of the pairs of `seven_clips` in lists that hold each pair as often as it is drawn, or None."""
    hits, others = [], []
    for first, system in enumerate(SEVEN):
        for second in range(first + 1, len(SEVEN)):
            llr = 4 * float(clips.embeddings[first] @ clips.embeddings[second]) - 1
            if system == SEVEN[second]:
                hits += [math.log2(1 + math.exp(-llr))] * drawn[system]
            else:
                others += [math.log2(1 + math.exp(llr))] * (drawn[system] * drawn[SEVEN[second]])
    return (np.mean(hits) + np.mean(others)) / 2 if hits and others else None


def test_pairs_of_two_systems_are_drawn_with_both_and_pairs_of_one_with_it(monkeypatch):
    """With systems drawn 2, 1 and 0 times: a pair of the first system counts 2, one of the first two 2 x 1, and any
    with the third 0."""
    clips = seven_clips()
    metric, metrics = pair_metric(monkeypatch, clips, lambda cosines, speech: 4 * cosines - 1)
    assert (metrics["pairs"], metrics["same_system_pairs"]) == (21, 5)
    for drawn in (
        {"a": 1, "b": 1, "c": 1},
        {"a": 2, "b": 1, "c": 0},
        {"a": 0, "b": 2, "c": 3},
        {"a": 3, "b": 1, "c": 2},
    ):
        weights = np.array([float(drawn[system]) for system in SEVEN])
        assert metric(weights) == pytest.approx(listed_cllr(clips, drawn))


def test_interval_of_comparison_is_that_of_resampled_systems():
    """Three systems are drawn with replacement; a resample of one system has no pair of two systems."""
    clips = seven_clips()
    tracer = SimpleNamespace(pair_llrs=lambda cosines, speech: 4 * cosines - 1)
    metrics = evaluate_comparison(tracer, clips, bootstrap_samples=60, seed=8)["1s"]
    draws = np.random.default_rng(8).multinomial(3, np.full(3, 1 / 3), size=60)
    values = [listed_cllr(clips, dict(zip("abc", counts, strict=True))) for counts in draws.tolist()]
    assert None in values
    expected = np.quantile([value for value in values if value is not None], quantile_levels(3))
    assert metrics["cllr"] == pytest.approx(listed_cllr(clips, {"a": 1, "b": 1, "c": 1}))
    assert metrics["cllr_ci95"] == pytest.approx(expected)


def test_pairs_share_no_utterance_and_are_limited_by_the_shorter_clip(monkeypatch):
    clips = clip_set(
        ["a", "a", "a", "b"], sources=["x", "x", "y", "z"], speech=[0.9, 0.2, 0.5, 0.7], angles=[0, 5, 10, 90]
    )
    seen = []

    def llr_of(cosines, speech):
        seen.extend(zip(cosines.round(4).tolist(), speech.tolist(), strict=True))
        return cosines

    _, metrics = pair_metric(monkeypatch, clips, llr_of)
    pairs = [((0, 10), 0.5), ((0, 90), 0.7), ((5, 10), 0.2), ((5, 90), 0.2), ((10, 90), 0.5)]
    expected = [(round(math.cos(math.radians(b - a)), 4), speech) for (a, b), speech in pairs]
    assert [pair for cosine in seen for pair in cosine] == pytest.approx(
        [x for e in expected for x in e], abs=2e-4
    )
    assert (metrics["pairs"], metrics["same_system_pairs"]) == (5, 2)


# Weights and intervals


def test_weighted_metrics_worked_by_hand():
    flags, among = np.array([True, False, True, True]), np.array([True, True, True, False])
    weights = np.array([1.0, 2.0, 5.0, 7.0])
    assert WeightedPercent(flags, among)(weights) == pytest.approx(75)
    assert WeightedPercent(flags, among)(np.array([0.0, 0.0, 0.0, 7.0])) is None
    assert weighted_mean(np.array([1.0, 2.0, 3.0, 4.0]))(weights) == pytest.approx((1 + 4 + 15 + 28) / 15)


def test_trial_metric_gives_all_trials_of_a_clip_its_weight():
    llrs, target = (
        np.array([[2.0, -1.0], [0.5, 1.5], [-3.0, 0.2]]),
        np.array([[1, 0], [0, 1], [0, 0]], dtype=bool),
    )
    metric = trial_metric(cllr, llrs, target)
    repeated = np.repeat(np.arange(3), [2, 0, 3])
    assert metric(np.array([2.0, 0.0, 3.0])) == pytest.approx(
        cllr(llrs[repeated].ravel(), target[repeated].ravel())
    )
    assert metric(np.array([0.0, 0.0, 3.0])) is None


def test_reliability_gives_known_systems_their_prior(monkeypatch):
    """Three clips of known systems share 0.8, one of an unknown system has 0.2; `unknown` is an answer too."""
    clips = clip_set(["a", "a", "b", "u"])
    posteriors = [[0.75, 0.05], [0.02, 0.93], [0.3, 0.15], [0.05, 0.1]]
    decided = decisions([UNKNOWN] * 4, [""] * 4, posteriors=posteriors, unknown=[0.2, 0.05, 0.55, 0.85])
    tracer = SimpleNamespace(
        gallery=SimpleNamespace(systems=["a", "b"]),
        settings=SimpleNamespace(prior_known=0.8),
        decide=lambda embeddings, speech: decided,
    )
    (curve, interval) = reliability_curves(tracer, clips, bootstrap_samples=5, seed=0)["1 s"]
    assert curve.predicted == pytest.approx([0.55, 0.75, 0.85, 0.93])
    assert curve.observed == pytest.approx([0, 1, 1, 0])
    assert curve.weight == pytest.approx([0.8 / 3, 0.8 / 3, 0.2, 0.8 / 3])
    assert (curve.trials.tolist(), curve.hits.tolist()) == ([1, 1, 1, 1], [0, 1, 1, 0])
    assert np.isnan(interval).all()  # no bin has five systems


def test_reliability_interval_of_a_bin_is_that_of_its_systems():
    """Two clips of each of 40 systems in one bin; all clips of a system are right or none: as 40 throws of a coin."""
    names = [f"s{number:02d}" for number in range(40)]
    clips = clip_set([name for name in names for _ in range(2)] + ["u"])
    posteriors = np.zeros((81, 40))
    right = np.arange(80) // 2 % 2 == 0
    system = np.arange(80) // 2
    posteriors[np.arange(80), np.where(right, system, (system + 1) % 40)] = 0.65
    decided = decisions([UNKNOWN] * 81, [""] * 81, posteriors=posteriors, unknown=[0.35] * 80 + [1.0])
    tracer = SimpleNamespace(
        gallery=SimpleNamespace(systems=names),
        settings=SimpleNamespace(prior_known=0.5),
        decide=lambda embeddings, speech: decided,
    )
    bins, intervals = reliability_curves(tracer, clips, bootstrap_samples=2000, seed=0)["1 s"]
    assert (bins.trials.tolist(), bins.hits.tolist()) == ([80, 1], [40, 1])
    deviation = 50 / 40**0.5  # of a share of 50 % over 40 systems; over 80 clips it would be 5.6
    assert intervals[0] == pytest.approx([50 - 1.96 * deviation, 50 + 1.96 * deviation], abs=2)
    assert np.isnan(intervals[1]).all()


def test_metric_that_cannot_be_computed_is_none():
    def fails(weights):
        raise ValueError("no trial")

    systems = np.array(["a", "a", "b"])
    results = bootstrap_over_systems({"x": fails, "y": lambda weights: None}, systems, samples=3, seed=0)
    assert results == {"x": None, "x_ci95": None, "y": None, "y_ci95": None}


def test_metric_without_resampling_has_weights_of_one():
    results = bootstrap_over_systems(
        {"sum": lambda weights: float(weights.sum())}, np.array(["a", "a", "b"]), samples=0, seed=0
    )
    assert results["sum"] == 3.0


def test_interval_has_the_quantile_levels_of_the_systems_of_its_clips():
    """Ten systems are resampled. Three are among the clips of one percentage, one is among those of another."""
    systems = np.array([f"s{number}" for number in range(10)])
    flags = np.arange(10) % 2 == 0
    metrics = {
        "all": WeightedPercent(flags, np.full(10, True)),
        "mean": weighted_mean(np.arange(10.0)),
        "three": WeightedPercent(flags, np.arange(10) < 3),
        "one": WeightedPercent(flags, np.arange(10) == 0),
    }
    results = bootstrap_over_systems(metrics, systems, samples=500, seed=4)
    draws = np.random.default_rng(4).multinomial(10, np.full(10, 0.1), size=500)
    three = draws[draws[:, :3].sum(axis=1) > 0, :3]
    expected = {
        "all": np.quantile(10 * draws[:, ::2].sum(axis=1), quantile_levels(10)),
        "mean": np.quantile(draws @ np.arange(10.0) / 10, quantile_levels(10)),
        "three": np.quantile(100 * three[:, ::2].sum(axis=1) / three.sum(axis=1), quantile_levels(3)),
    }
    for name, interval in expected.items():
        assert results[f"{name}_ci95"] == pytest.approx(interval)
    assert results["one"] == 100.0
    assert results["one_ci95"] is None


def test_weighted_percent_multiplies_its_own_weights():
    flags, among = np.array([True, False, True]), np.array([True, True, False])
    metric = WeightedPercent(flags, among, np.array([3.0, 1.0, 9.0]))
    assert metric(np.array([1.0, 2.0, 5.0])) == pytest.approx(60)  # 3 of 3 + 2
