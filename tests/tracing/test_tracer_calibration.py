"""Calibration on dev, worked by hand on clips whose cosines are chosen."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from makermark.foundation.errors import CalibrationError
from makermark.scoring.calibration import fit_calibration
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.calibration import (
    SIMULATED_ENROLMENTS,
    ScoreCalibrator,
    calibrate_gallery,
    family_names,
    interpolate,
    measure_false_accepts,
    naming_scores,
    unknown_threshold,
)
from makermark.tracing.gallery import TRAINED, Gallery

NO_FAMILY = {"a": "", "b": "", "u": "", "v": ""}


def clip_set(entries, *, seconds=1.0, families=None):
    """Clips at angles in degrees in a plane: entries of (system, angle, speech in seconds, utterances)."""
    families = families or {}
    rows = pd.DataFrame(
        {
            "system": [entry[0] for entry in entries],
            "family": [families.get(entry[0], "") for entry in entries],
            "seconds": seconds,
            "speech_seconds": [entry[2] for entry in entries],
            "sources": ["\n".join(entry[3]) for entry in entries],
        }
    )
    angles = np.radians([entry[1] for entry in entries])
    return ClipSet(rows, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


def joined(*sets):
    return ClipSet(
        pd.concat([part.rows for part in sets], ignore_index=True),
        np.concatenate([part.embeddings for part in sets]),
    )


def gallery(families=None):
    """Training systems a at 0 degrees and b at 90 degrees, one clip each."""
    families = families or {}
    clips = pd.DataFrame(
        {
            "system": ["a", "b"],
            "family": [families.get("a", ""), families.get("b", "")],
            "origin": TRAINED,
            "clip": ["a", "b"],
        }
    )
    return Gallery(clips, np.eye(2, dtype=np.float32), "0" * 64)


def entries_of(system, angles, *, speech=0.5, first=0):
    return [
        (system, angle, speech, [f"{system}{number}"]) for number, angle in enumerate(angles, start=first)
    ]


def dev(seconds=1.0, speech=0.5, families=None):
    """Clips of a, b and the unseen system u at one length: 4, 3 and 5 of them."""
    entries = [
        *entries_of("a", [0, 10, 20, 50], speech=speech),
        *entries_of("b", [90, 80, 55], speech=speech),
        *entries_of("u", [45, 60, 30, 20, 200], speech=speech),
    ]
    return clip_set(entries, seconds=seconds, families=families)


def calibrator(clips=None, **changes):
    return ScoreCalibrator(clips or dev(), gallery(), **({"prior": 0.5, "seed": 0} | changes))


def cosine(degrees):
    return float(np.cos(np.radians(degrees)))


# Pairs


def test_disjoint_pairs_are_those_without_a_common_utterance():
    clips = clip_set([
        ("a", 0, 1.0, ["x", "y"]), ("a", 10, 1.0, ["y", "z"]), ("a", 20, 1.0, ["w"]), ("b", 90, 1.0, ["q", "x"]),
    ])  # fmt: skip
    first, second = clips.disjoint_pairs()
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 2), (1, 3), (2, 3)]
    cosines, same_system = clips.pair_trials()
    np.testing.assert_allclose(cosines, [cosine(20), cosine(10), cosine(80), cosine(70)], atol=1e-6)
    assert same_system.tolist() == [True, True, False, False]


def test_pair_calibration_excludes_clips_of_a_common_utterance():
    """Two clips of one utterance are similar whatever the system is; such a pair would make all LLRs too large."""
    repeated = [("a", 0, 0.5, ["a0"]), ("a", 0, 0.5, ["a0"]), ("b", 90, 0.5, ["b0"]), ("b", 90, 0.5, ["b0"])]
    clips = joined(dev(), clip_set(repeated))
    cosines, same = [], []
    rows = list(zip(clips.systems, clips.rows["sources"], clips.embeddings, strict=True))
    for number, (system, sources, embedding) in enumerate(rows):
        for other, other_sources, other_embedding in rows[number + 1 :]:
            if not set(sources.split("\n")) & set(other_sources.split("\n")):
                cosines.append(embedding @ other_embedding)
                same.append(system == other)
    expected = fit_calibration(np.array(cosines), np.array(same), prior=0.5)
    (fitted,) = calibrator(clips).pairs
    assert fitted == pytest.approx(expected, rel=1e-4)


def test_pair_llrs_use_the_calibration_of_the_amount_of_speech():
    clips = joined(dev(1.0, speech=1.0), dev(4.0, speech=4.0))
    clips.embeddings[12:] = clips.embeddings[12:][::-1]
    with_two_lengths = calibrator(clips)
    short, long = with_two_lengths.pairs
    assert short != long
    llrs = with_two_lengths.pair_llrs(np.array([0.5, 0.5, 0.5]), np.array([1.0, 2.0, 4.0]))
    ends = [short.offset + 0.5 * short.slope, long.offset + 0.5 * long.slope]
    np.testing.assert_allclose(llrs, [ends[0], sum(ends) / 2, ends[1]], rtol=1e-5)


@pytest.mark.parametrize("angles", [("a", "b"), ("a", "a")])
def test_pairs_of_one_kind_only_raise(angles):
    systems = angles
    clips = clip_set([(system, 10, 1.0, [str(number)]) for number, system in enumerate(systems)])
    with pytest.raises(CalibrationError, match="pairs of clips of one system and of two systems"):
        _ = calibrator(clips).pairs


# Systems


def test_training_calibration_uses_all_clips_against_all_training_systems():
    """Clips of the unseen system u are non-target trials of both a and b."""
    clips = dev()
    cosines = clips.embeddings @ np.eye(2)
    target = clips.systems[:, None] == np.array(["a", "b"])
    expected = fit_calibration(cosines.ravel(), target.ravel(), prior=0.3)
    assert calibrator(prior=0.3).training_systems == [pytest.approx(expected)]
    assert calibrator(prior=0.7).training_systems != [pytest.approx(expected)]


def dev_with_whole_utterances():
    """Whole utterances and a length of 1 s, cut from the same utterances, of a, b and the unseen u and v."""
    systems = {"a": [0, 10, 20, 50], "b": [90, 80, 60, 70], "u": [45, 60, 30, 20], "v": [180, 170, 200, 140]}
    entries = [entry for system, angles in systems.items() for entry in entries_of(system, angles)]
    return joined(clip_set(entries, seconds=WHOLE_UTTERANCE), clip_set(entries, seconds=1.0))


def enrolled_by_definition(clips, num_clips, *, seed):
    """Simulate the enrolments in loops over clips."""
    whole, cut = clips.of_length(WHOLE_UTTERANCE), clips.of_length(1.0)
    rng = np.random.default_rng([seed, num_clips])
    scores, targets = [], []
    for system in sorted(set(whole.systems) - {"a", "b"}):
        rows = [row for row, name in enumerate(whole.systems) if name == system]
        for _ in range(SIMULATED_ENROLMENTS):
            drawn = rng.choice(rows, size=max(1, min(num_clips, len(rows) // 2)), replace=False)
            mean = sum(whole.embeddings[row].astype(float) for row in drawn) / len(drawn)
            centroid = mean / np.sqrt((mean**2).sum())
            used = {whole.rows["sources"][row] for row in drawn}
            for row, name in enumerate(cut.systems):
                if cut.rows["sources"][row] not in used:
                    scores.append(cut.embeddings[row] @ centroid)
                    targets.append(name == system)
    return fit_calibration(np.array(scores), np.array(targets), prior=0.5)


@pytest.mark.parametrize("num_clips", [1, 2, 9])
@pytest.mark.parametrize("left_out", [[], ["u2", "u3", "v0", "v1", "v2", "v3"]])
def test_enrolled_calibration_equals_its_definition(num_clips, left_out):
    """The second dev has one unseen system with two utterances: each is enrolled and tested with the other."""
    clips = dev_with_whole_utterances()
    clips = clips.select(~np.isin(clips.rows["sources"], left_out))
    expected = enrolled_by_definition(clips, num_clips, seed=3)
    (fitted,) = calibrator(clips, seed=3).enrolled_systems(num_clips)
    assert fitted == pytest.approx(expected, rel=1e-4)


def test_enrolled_calibration_without_unseen_systems_is_that_of_training_systems():
    clips = dev_with_whole_utterances()
    seen = calibrator(clips.select(np.isin(clips.systems, ["a", "b"])))
    assert seen.enrolled_systems(2) == seen.training_systems


def test_enrolled_calibration_needs_two_utterances_of_a_system():
    """A system of one utterance cannot be enrolled and tested with different utterances."""
    clips = dev_with_whole_utterances()
    single = np.isin(clips.rows["sources"], ["u1", "u2", "u3"]) | (clips.systems == "v")
    one = calibrator(clips.select(~single))
    assert one.enrolled_systems(1) == one.training_systems


# The range of LLRs


def test_range_of_llrs_counts_the_target_clips_below_and_all_clips_above():
    """Dev has 12 clips, of which 7 are of training systems: no ratio below 1 to 8 and none above 13 to 1."""
    low, high = calibrator().llr_range
    assert np.exp(low) == pytest.approx(1 / 8)
    assert np.exp(high) == pytest.approx(13)


def test_range_of_llrs_is_that_of_the_length_with_the_fewest_clips():
    fewer = clip_set([*entries_of("a", [0, 20]), *entries_of("b", [90]), *entries_of("u", [45])], seconds=4.0)
    low, high = calibrator(joined(dev(), fewer)).llr_range
    assert (np.exp(-low), np.exp(high)) == (pytest.approx(4), pytest.approx(5))


def test_llrs_are_limited_to_the_range():
    fitted = calibrate_gallery(gallery(), calibrator(), false_accept_rate=0.2, coverage=0.5)
    limited = fitted.limit(np.array([-99.0, 0.5, 99.0]))
    np.testing.assert_allclose(limited, [np.log(1 / 8), 0.5, np.log(13)])


# Thresholds


def naming_by_definition(clips, centroids):
    """Naming scores (N, S) in loops; all systems are training systems and there is no human speech."""
    scores = []
    for embedding in clips.embeddings.astype(float):
        cosines = [float(embedding @ centroid) for centroid in centroids]
        rivals = [max(cosines[:i] + cosines[i + 1 :]) for i in range(len(cosines))]
        scores.append([own + 0.75 * (own - rival) for own, rival in zip(cosines, rivals, strict=True)])
    return np.array(scores)


def worked_thresholds(clips, *, families=None, known=None, rate, coverage=0.5):
    """Return (calibration, naming scores (N, S) of dev) for a gallery of a and b."""
    known = known or gallery(families)
    fitted = calibrate_gallery(
        known, ScoreCalibrator(clips, gallery(families), prior=0.5, seed=0),
        false_accept_rate=rate, coverage=coverage,
    )  # fmt: skip
    return fitted, naming_by_definition(clips, fitted.centroids)


def test_system_threshold_is_the_top_score_of_unknown_systems_that_the_rate_allows():
    """Of 5 clips of u, a rate of 0.2 lets one be named: the threshold is their second largest top score."""
    clips = dev()
    fitted, scores = worked_thresholds(clips, rate=0.2)
    top = np.sort(scores[clips.systems == "u"].max(axis=1))
    np.testing.assert_allclose(fitted.system_threshold, [[top[-2]] * 2])
    np.testing.assert_allclose(fitted.family_threshold, [[top[-2]] * 2])
    assert fitted.thresholds_from == "unseen"


def near_gallery():
    """Training systems a at 0 degrees, b at 90 and n, a neighbour of a, at 20."""
    clips = pd.DataFrame(
        {"system": ["a", "b", "n"], "family": "", "origin": TRAINED, "clip": ["a", "b", "n"]}
    )
    angles = np.radians([0, 90, 20])
    return Gallery(clips, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), "0" * 64)


def test_naming_score_worked_by_hand():
    """The cosine plus 0.75 of its lead over the nearest rival: b for a, and a or human speech for b."""
    cosines, human = np.array([[0.9, 0.5, 0.8], [0.2, 0.6, 0.7]]), np.array([0.1, 0.4])
    everything, without_last = np.array([True, True, True]), np.array([True, True, False])
    np.testing.assert_allclose(
        naming_scores(cosines, human, everything),
        [
            [0.9 + 0.75 * 0.1, 0.5 - 0.75 * 0.4, 0.8 - 0.75 * 0.1],
            [0.2 - 0.75 * 0.5, 0.6 - 0.75 * 0.1, 0.7 + 0.075],
        ],
    )
    np.testing.assert_allclose(  # the last system is enrolled, and no rival of the others
        naming_scores(cosines, human, without_last),
        [
            [0.9 + 0.75 * 0.4, 0.5 - 0.75 * 0.4, 0.8 - 0.75 * 0.1],
            [0.2 - 0.75 * 0.4, 0.6 + 0.75 * 0.2, 0.7 + 0.075],
        ],
    )


def test_naming_score_without_a_rival_uses_the_smallest_cosine():
    one = naming_scores(np.array([[0.5]]), np.array([-1.0]), np.array([True]))
    np.testing.assert_allclose(one, [[0.5 + 0.75 * 1.5]])
    left_out = naming_scores(np.array([[-np.inf, 0.5]]), np.array([-1.0]), np.array([True, True]))
    np.testing.assert_allclose(left_out, [[-np.inf, 0.5 + 0.75 * 1.5]])


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_a_clip_between_two_systems_needs_a_higher_cosine(rate):
    """n lies beside a. Unknown clips are named as often as the rate allows, and no more often."""
    clips = joined(dev(), clip_set(entries_of("n", [18, 22, 25])))
    known = near_gallery()
    fitted = calibrate_gallery(
        known, ScoreCalibrator(clips, known, prior=0.5, seed=0), false_accept_rate=rate, coverage=0.5
    )
    scores = naming_by_definition(clips, fitted.centroids)
    assert len(set(fitted.system_threshold[0])) == 1
    unknown = scores[clips.systems == "u"]
    assert (unknown.max(axis=1) > fitted.system_threshold[0, 0]).sum() == rate * 5
    exact, between = naming_by_definition(clip_set(entries_of("a", [90, 10])), fitted.centroids)
    assert exact.max() - between.max() > 1.75 * (1 - cosine(10))  # the lead is smaller as well


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_threshold_holds_for_unknown_systems_that_are_left_out(rate):
    """With many unknown systems, the largest share is taken that names no more clips of a left-out system."""
    rng = np.random.default_rng(5)
    systems = np.repeat([f"s{number:02}" for number in range(12)], 6)
    scores = np.repeat(rng.normal(size=12), 6) + 0.1 * rng.normal(size=72)  # clips of a system are alike
    expected = scores.max()
    for allowed in range(int(rate * 72) + 1):
        shares = []
        for name in sorted(set(systems)):
            others = np.sort(scores[systems != name])
            threshold = others[-1 - int(len(others) * allowed / 72 + 1e-9)]
            shares.append((scores[systems == name] > threshold).mean())
        if np.mean(shares) <= rate:
            expected = min(expected, np.sort(scores)[-1 - allowed])
    threshold = unknown_threshold(scores, systems, rate=rate)
    assert threshold == expected
    assert threshold >= np.sort(scores)[-1 - int(rate * 72)]


def test_threshold_of_few_unknown_systems_is_a_quantile():
    scores, systems = np.arange(18.0), np.repeat(list("abcdefghi"), 2)
    assert unknown_threshold(scores, systems, rate=0.12) == 15
    assert unknown_threshold(scores, systems, rate=0.0) == 17


def test_llr_of_a_known_system_is_fitted_to_the_excess_over_the_threshold():
    """Known clips with their own system in the gallery, and unknown ones, at the prior of the calibration."""
    clips = dev()
    fitted, _ = worked_thresholds(clips, rate=0.2)
    excess = naming_by_definition(clips, np.eye(2)).max(axis=1) - fitted.system_threshold[0, 0]
    expected = fit_calibration(excess, clips.systems != "u", prior=0.5)
    assert (fitted.known_offset[0], fitted.known_slope[0]) == pytest.approx(tuple(expected), rel=1e-4)
    llrs = fitted.known_llrs(np.array([0.0, 0.1, 1e6]), np.full(3, 0.5))
    top = np.log(13)  # the largest LLR that 12 clips support
    np.testing.assert_allclose(
        llrs, [expected.offset, expected.offset + 0.1 * expected.slope, top], rtol=1e-4
    )


def two_unseen(families):
    """u is of a's family, v of a family that the gallery lacks."""
    entries = [*entries_of("a", [0, 10, 20, 50]), *entries_of("b", [90, 80, 55])]
    entries += [*entries_of("u", [1, 2, 3, 4]), *entries_of("v", [40, 30, 200, 210])]
    return clip_set(entries, families=families)


def test_family_threshold_is_that_of_unknown_families():
    """u is close to a, which its family explains: only v, of another family, counts for naming a family."""
    families = {"a": "F", "b": "G", "u": "F", "v": "H"}
    clips = two_unseen(families)
    fitted, scores = worked_thresholds(clips, families=families, rate=0.25)
    of_v = np.sort(scores[clips.systems == "v"].max(axis=1))
    of_all = np.sort(scores[np.isin(clips.systems, ["u", "v"])].max(axis=1))
    np.testing.assert_allclose(fitted.family_threshold, [[of_v[-2]] * 2])
    np.testing.assert_allclose(fitted.system_threshold, [[of_all[-3]] * 2])
    assert fitted.system_threshold[0, 0] > fitted.family_threshold[0, 0]


def test_system_threshold_is_never_below_the_family_threshold():
    """Naming a system names its family: here unknown families come closer than the other unknown systems."""
    families = {"a": "F", "b": "G", "u": "H", "v": "F"}
    clips = two_unseen(families)  # u, of family H, is the close one
    fitted, scores = worked_thresholds(clips, families=families, rate=0.25)
    of_u = np.sort(scores[clips.systems == "u"].max(axis=1))
    of_both = np.sort(scores[np.isin(clips.systems, ["u", "v"])].max(axis=1))
    assert of_u[-2] > of_both[-3]
    np.testing.assert_allclose(fitted.family_threshold, [[of_u[-2]] * 2])
    np.testing.assert_allclose(fitted.system_threshold, [[of_u[-2]] * 2])


def test_without_unknown_families_both_thresholds_are_equal():
    families = {"a": "F", "b": "F", "u": "F", "v": "F"}
    fitted, _ = worked_thresholds(two_unseen(families), families=families, rate=0.25)
    np.testing.assert_array_equal(fitted.family_threshold, fitted.system_threshold)


def test_without_unseen_systems_each_system_is_left_out_in_turn():
    """Every clip counts, against the systems that did not make it."""
    clips = dev()
    seen = clips.select(clips.systems != "u")
    fitted, _ = worked_thresholds(seen, rate=0.15)
    cosines = seen.embeddings.astype(float)
    cosines = np.where(seen.systems == "a", cosines[:, 1], cosines[:, 0])
    others = cosines + 0.75 * (cosines + 1)  # the only other system has no rival: the smallest cosine
    np.testing.assert_allclose(fitted.system_threshold, [[np.sort(others)[-2]] * 2])
    assert fitted.thresholds_from == "left_out"


def test_margin_is_the_conformal_margin_of_known_systems():
    """Of 7 clips of a and b at 50 % coverage, the fourth smallest distance below the top LLR: ceil(8 * 0.5)."""
    clips = dev()
    fitted, _ = worked_thresholds(clips, rate=0.2, coverage=0.5)
    llrs = fitted.offset[0] + fitted.slope[0] * (clips.embeddings @ fitted.centroids.T)
    known = clips.systems != "u"
    own = np.where(clips.systems == "a", llrs[:, 0], llrs[:, 1])[known]
    distances = np.sort(llrs[known].max(axis=1) - own)
    assert distances[-1] > 0  # the clip of a at 50 degrees and the clip of b at 55 degrees
    np.testing.assert_allclose(fitted.margin, [distances[3]])
    fitted, _ = worked_thresholds(clips, rate=0.2, coverage=0.85)
    np.testing.assert_allclose(fitted.margin, [distances[6]])


def enrolled(known, *, name="neu"):
    """A gallery with one more system at 200 degrees."""
    angle = np.radians(200)
    embedding = np.array([[np.cos(angle), np.sin(angle)]] * 2, dtype=np.float32)
    return known.with_system(name, embedding, ["1.wav", "2.wav"])


def test_enrolment_does_not_change_the_thresholds_of_training_systems():
    clips = dev_with_whole_utterances()
    settings = {"false_accept_rate": 0.2, "coverage": 0.5}
    before = calibrate_gallery(gallery(), calibrator(clips), **settings)
    after = calibrate_gallery(enrolled(gallery()), calibrator(clips), **settings)
    assert after.systems == ["a", "b", "neu"]
    for name in ("known_offset", "known_slope"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    for name in ("system_threshold", "family_threshold", "offset", "slope"):
        np.testing.assert_array_equal(getattr(after, name)[:, :2], getattr(before, name))
    cut = clips.of_length(1.0)
    fit = calibrator(clips).enrolled_systems(2)[0]
    unknown = cut.embeddings[np.isin(cut.systems, ["u", "v"])].astype(float)
    own = unknown @ after.centroids[2]
    top = np.sort(own + 0.75 * (own - unknown.max(axis=1)))
    np.testing.assert_allclose(after.system_threshold[:, 2], [top[-2]])
    assert (after.offset[0, 2], after.slope[0, 2]) == fit


def test_clips_of_an_enrolled_system_of_dev_are_not_known_to_the_training_systems():
    """With u enrolled, the fit is that on a dev without u: u is neither a training system nor unknown."""
    settings = {"false_accept_rate": 0.2, "coverage": 0.5}
    unknown = clip_set(entries_of("v", [40, 65, 120]))
    u = enrolled(gallery(), name="u")
    without_u = dev().select(dev().systems != "u")
    after = calibrate_gallery(u, calibrator(joined(dev(), unknown)), **settings)
    expected = calibrate_gallery(gallery(), calibrator(joined(without_u, unknown)), **settings)
    assert expected.known_slope[0] > 0
    np.testing.assert_allclose(after.known_offset, expected.known_offset)
    np.testing.assert_allclose(after.known_slope, expected.known_slope)


def test_the_only_training_system_has_no_clip_to_compare_with_if_all_others_are_enrolled():
    settings = {"false_accept_rate": 0.2, "coverage": 0.5}
    only = Gallery(gallery().clips.iloc[:1], np.eye(2, dtype=np.float32)[:1], "0" * 64)
    clips = dev().select(dev().systems != "b")
    scores = ScoreCalibrator(clips, only, prior=0.5, seed=0)
    fitted = calibrate_gallery(enrolled(only, name="u"), scores, **settings)
    assert np.isfinite(fitted.known_offset).all()
    assert np.isfinite(fitted.known_slope).all()


def test_calibration_holds_the_gallery_and_the_llrs_of_its_fit():
    fitted = calibrate_gallery(gallery(), calibrator(), false_accept_rate=0.2, coverage=0.5)
    (fit,) = calibrator().training_systems
    cosines = np.array([[0.2, 0.7]])
    llrs = fitted.llrs(cosines, np.array([0.5]))
    np.testing.assert_allclose(llrs, fit.offset + fit.slope * cosines)
    np.testing.assert_allclose(fitted.centroids, np.eye(2))
    assert fitted.families == ["a", "b"]


# How well the clips of unknown systems determine a threshold


def false_accepts(scores, systems, *, rate):
    """Those of clips of unknown systems alone."""
    return measure_false_accepts(scores, systems, [np.ones(len(scores), dtype=bool)], rate=rate)


def test_uncertainty_of_the_false_accept_rate_agrees_with_simulation():
    rng = np.random.default_rng(0)
    estimate = false_accepts(rng.random(60), np.repeat(["a", "b", "c"], 20), rate=0.05)
    # the rate on new clips for thresholds from 20,000 sets of 60 uniform scores: what lies above the threshold
    rates = 100 * (1 - np.sort(rng.random((20_000, 60)), axis=1)[:, -4])
    np.testing.assert_allclose(estimate.interval, np.quantile(rates, [0.025, 0.975]), rtol=0.05)
    assert (estimate.clips, estimate.systems, estimate.above) == (60, 3, 3)


@pytest.mark.parametrize(("of_people", "above"), [(0.995, 0), (0.985, 1), (0.955, 4)])
def test_interval_belongs_to_the_threshold_that_people_give(of_people, above):
    """Of 100 clips of unknown systems at 0.00 to 0.99 the quantile lets 5 pass; a clip of a person bounds higher."""
    scores, groups = np.append(np.arange(100) / 100, of_people), np.array([*"ab" * 50, "person"])
    human = groups == "person"
    estimate = measure_false_accepts(scores, groups, [~human, human], rate=0.05)
    assert (estimate.threshold, estimate.clips, estimate.above) == (of_people, 100, above)
    exact = binomtest(above, 100).proportion_ci(0.95, method="exact")
    assert estimate.interval == pytest.approx((100 * exact.low, 100 * exact.high))
    of_quantile = measure_false_accepts(scores, groups, [~human], rate=0.05)
    assert (of_quantile.threshold, of_quantile.above) == (0.94, 5)
    assert of_quantile.interval[0] > estimate.interval[0]


def test_left_out_systems_worked_by_hand():
    """At a rate of 0, the threshold is the largest score of the other systems; a score equal to it is not above it."""
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.4])
    systems = np.array(["a", "a", "b", "b", "c", "c"])
    three = false_accepts(scores, systems, rate=0.0)  # thresholds 0.9, 0.9 and 0.4: 0, 0 and 50 %
    assert (three.left_out_mean, three.left_out_max) == pytest.approx((50 / 3, 50))
    two = false_accepts(scores[:4], systems[:4], rate=0.0)  # thresholds 0.4 and 0.2: 0 and 100 %
    assert (two.left_out_mean, two.left_out_max) == (50, 100)
    one = false_accepts(scores[:2], systems[:2], rate=0.0)
    assert (one.left_out_mean, one.left_out_max) == (None, None)
    people = np.append(
        scores, 0.35
    )  # thresholds with a person at 0.35: 0.9, 0.9 and 0.4; of two systems 0.4 and 0.35
    human = np.arange(7) == 6
    groups = np.append(systems, "person")
    with_people = measure_false_accepts(people, groups, [~human, human], rate=0.0)
    assert (with_people.left_out_mean, with_people.left_out_max) == pytest.approx((50 / 3, 50))
    first = np.array([0, 1, 2, 3, 6])
    two = measure_false_accepts(people[first], groups[first], [~human[first], human[first]], rate=0.0)
    assert (two.left_out_mean, two.left_out_max) == (25, 50)


# Amounts of speech


def test_speech_is_the_median_of_each_length_and_strictly_ascending():
    short, long = dev(1.0, speech=0.8), dev(4.0, speech=0.7)
    short.rows.loc[0, "speech_seconds"] = 99.0
    first, second = calibrator(joined(long, short)).speech_seconds
    assert first == 0.8
    assert 0.8 < second < 0.80001


def test_interpolation_is_linear_in_the_logarithm_and_constant_outside():
    values = np.array([[0.0, 10.0], [1.0, 20.0], [5.0, 40.0]])
    known = np.array([1.0, 4.0, 8.0])
    got = interpolate(values, known, np.array([0.0, 0.5, 1.0, 2.0, 4.0, 4 * 2**0.5, 8.0, 99.0]))
    expected = [[0, 10], [0, 10], [0, 10], [0.5, 15], [1, 20], [3, 30], [5, 40], [5, 40]]
    np.testing.assert_allclose(got, expected, atol=1e-9)
    np.testing.assert_allclose(interpolate(values[:, 0], known, np.array([2.0])), [0.5], atol=1e-9)


def test_interpolation_keeps_infinite_values_at_their_length():
    got = interpolate(np.array([np.inf, 1.0]), np.array([1.0, 4.0]), np.array([1.0, 2.0, 4.0]))
    assert got.tolist() == [np.inf, np.inf, 1.0]


# What cannot be calibrated


def test_calibration_needs_clips_of_training_systems_at_some_length():
    clips = dev()
    unseen = clips.select(clips.systems == "u")
    whole = clip_set(entries_of("a", [0, 10]), seconds=WHOLE_UTTERANCE)
    for refused in (unseen, whole):
        with pytest.raises(CalibrationError, match="no clip of a training system"):
            calibrator(refused)


def test_calibration_needs_two_systems():
    only_a = dev().select(dev().systems == "a")
    known = Gallery(gallery().clips[:1], gallery().embeddings[:1], "0" * 64)
    with pytest.raises(CalibrationError, match="one system in total"):
        ScoreCalibrator(only_a, known, prior=0.5, seed=0)
    ScoreCalibrator(only_a, gallery(), prior=0.5, seed=0)  # b is in train


def test_system_without_a_family_is_its_own_family():
    table = pd.DataFrame({"family": ["F", "", None]}, index=["a", "b", "c"])
    assert family_names(table).tolist() == ["F", "b", "c"]
