"""The decision rule, worked by hand on calibrations of two amounts of speech."""

import math

import numpy as np
import pytest

from makermark.tracing.calibration import GalleryCalibration
from makermark.tracing.decision import (
    FAMILY,
    LOG10,
    ONE_SYSTEM,
    TOO_LITTLE_SPEECH,
    UNKNOWN,
    Trace,
    Window,
    compute_posteriors,
    decide,
    format_ratio,
)


def score(llr):
    """Naming score at an LLR of 10 x cosine without a rival, which counts as one at cosine -1."""
    return 1.75 * np.asarray(llr) / 10 + 0.75


def calibration(**changes):
    """Systems a and b of family F and c of family G: LLR = 10 x cosine, named above 4 (family above 2), margin 1.

    No system is a rival of another, and the LLR of a known system is that of the top-scoring one.
    """
    values = {
        "systems": ["a", "b", "c"],
        "families": ["F", "F", "G"],
        "centroids": np.eye(3),
        "speech_seconds": np.array([1.0, 4.0]),
        "offset": np.zeros((2, 3)),
        "slope": np.full((2, 3), 10.0),
        "trained": np.zeros(3, dtype=bool),
        "human_centroid": None,
        "system_threshold": np.full((2, 3), score(4.0)),
        "family_threshold": np.full((2, 3), score(2.0)),
        "known_offset": np.full(2, 4.0),
        "known_slope": np.full(2, 10 / 1.75),
        "margin": np.ones(2),
        "min_llr": -3.0,
        "max_llr": 5.0,
        "thresholds_from": "unseen",
    }
    return GalleryCalibration(**(values | changes))


def conclude(cosines, *, seconds=2.0, prior_known=0.5, human=-1.0, **changes):
    """Decide on one clip: (conclusion, name, reason)."""
    decisions = decide(
        np.array([cosines]),
        np.array([seconds]),
        human_cosines=np.array([human]),
        calibration=calibration(**changes),
        prior_known=prior_known,
        min_speech_seconds=0.5,
    )
    return decisions.conclusions[0], decisions.names[0], decisions.reasons[0]


def test_posteriors_worked_by_hand():
    """Prior odds of 0.8 : 0.2 and a ratio of 2 give 8 : 1 for a known system; ratios of 3 and 1 divide it 6 : 2."""
    systems, unknown = compute_posteriors(np.log([[3.0, 1.0]]), np.log([2.0]), prior_known=0.8)
    np.testing.assert_allclose(systems, [[6 / 9, 2 / 9]])
    np.testing.assert_allclose(unknown, [1 / 9])


@pytest.mark.parametrize("systems", [1, 4, 25])
def test_zero_llrs_leave_the_prior_whatever_the_number_of_systems(systems):
    posteriors, unknown = compute_posteriors(np.zeros((2, systems)), np.zeros(2), prior_known=0.7)
    np.testing.assert_allclose(posteriors, np.full((2, systems), 0.7 / systems))
    np.testing.assert_allclose(unknown, [0.3, 0.3])


def test_llrs_divide_the_posterior_of_a_known_system_by_their_differences():
    divided, unknown = compute_posteriors(
        np.array([[9.0, 7.0], [4.0, 2.0]]), np.full(2, 1.5), prior_known=0.5
    )
    np.testing.assert_allclose(divided[0], divided[1])
    np.testing.assert_allclose(unknown[0], unknown[1])
    assert divided[0, 0] / divided[0, 1] == pytest.approx(math.exp(2.0))
    assert divided[0].sum() / unknown[0] == pytest.approx(math.exp(1.5))


def test_posterior_of_a_known_system_has_the_supported_range():
    """The LLR of a known system would be 9 and is limited to 5; the one of the lowest cosine is limited to -3."""
    decisions = decide(
        np.array([[0.9, 0.0, 0.0], [-0.9, -0.9, -0.9]]),
        np.array([2.0, 2.0]),
        human_cosines=np.full(2, -1.0),
        calibration=calibration(),
        prior_known=0.5,
        min_speech_seconds=0.5,
    )
    odds = decisions.posteriors.sum(axis=1) / decisions.posterior_unknown
    np.testing.assert_allclose(odds, [math.exp(5.0), math.exp(-3.0)])


@pytest.mark.parametrize(("rival", "expected"), [(0.2, ONE_SYSTEM), (0.3, UNKNOWN)])
def test_a_near_rival_prevents_a_conclusion(rival, expected):
    """At 0.45, a threshold of 0.6 needs a lead of 0.2: 0.45 + 0.75 x 0.2 = 0.6, with systems and with people."""
    limit = {"system_threshold": np.full((2, 3), 0.6), "family_threshold": np.full((2, 3), 0.6)}
    trained = np.ones(3, dtype=bool)
    assert conclude([0.45, 0.0, rival], trained=trained, **limit)[0] == expected
    assert conclude([0.45, 0.0, 0.1], human=rival, trained=trained, **limit)[0] == expected


def test_one_system_is_named_above_its_threshold():
    assert conclude([0.45, 0.2, 0.1])[:2] == (ONE_SYSTEM, "a")
    assert conclude([0.1, 0.2, 0.45])[:2] == (ONE_SYSTEM, "c")


def test_candidates_lie_within_the_margin_of_the_top_llr():
    """At 4.5 and a margin of 1, an LLR of 3.5 is a candidate and one of 3.4 is not."""
    decisions = decide(
        np.array([[0.45, 0.35, 0.34]]),
        np.array([2.0]),
        human_cosines=np.array([-1.0]),
        calibration=calibration(),
        prior_known=0.5,
        min_speech_seconds=0.5,
    )
    np.testing.assert_allclose(decisions.llrs, [[4.5, 3.5, 3.4]])
    assert decisions.in_set.tolist() == [[True, True, False]]


def test_clips_are_decided_independently_of_each_other():
    """At a prior of 0.05, an LLR of 4.5 makes the candidates more probable than an unknown system, and 3 does not."""
    cosines = np.array(
        [
            [0.45, 0.2, 0.1],
            [0.1, 0.2, 0.45],
            [0.3, 0.1, 0.1],
            [0.15, 0.0, 0.0],
            [0.45, 0.4, 0.1],
            [0.1, 0.45, 0.4],
        ]
    )
    decisions = decide(
        cosines,
        np.array([2.0, 1.0, 2.0, 4.0, 2.0, 3.0]),
        human_cosines=np.full(6, -1.0),
        calibration=calibration(),
        prior_known=0.05,
        min_speech_seconds=0.5,
    )
    single = [conclude(row, prior_known=0.05) for row in cosines.tolist()]
    assert list(zip(decisions.conclusions, decisions.names, decisions.reasons, strict=True)) == single
    assert decisions.conclusions == [ONE_SYSTEM, ONE_SYSTEM, UNKNOWN, UNKNOWN, FAMILY, UNKNOWN]
    posteriors, unknown = compute_posteriors(10 * cosines, 10 * cosines.max(axis=1), prior_known=0.05)
    np.testing.assert_allclose(decisions.posteriors, posteriors)
    np.testing.assert_allclose(decisions.posterior_unknown, unknown)


def test_family_is_named_if_its_systems_are_not_separated():
    conclusion, name, reason = conclude([0.45, 0.4, 0.1])
    assert (conclusion, name) == (FAMILY, "F")
    assert reason.endswith("a, b")


def test_family_is_named_between_its_threshold_and_that_of_the_system():
    conclusion, name, reason = conclude([0.3, 0.1, 0.1])
    assert (conclusion, name) == (FAMILY, "F")
    assert "not the system threshold" in reason


def test_systems_of_two_families_that_are_not_separated_are_not_named():
    conclusion, name, reason = conclude([0.45, 0.1, 0.4])
    assert (conclusion, name) == (UNKNOWN, "")
    assert reason.endswith("several families: a, c")


def test_naming_score_below_both_thresholds_is_an_unknown_system():
    conclusion, name, reason = conclude([0.15, 0.0, 0.0])
    assert (conclusion, name) == (UNKNOWN, "")
    assert reason.endswith("the only candidate is a")
    assert conclude([0.15, 0.14, 0.0])[2].endswith("no system of the gallery can be named")


def test_score_equal_to_the_threshold_is_not_above_it():
    """At a threshold of exactly the score, dev's clips of unknown systems are not named, so this one is not either."""
    five = np.full((2, 3), 0.5 + 0.75 * 1.5)
    assert conclude([0.5, 0.0, 0.0], system_threshold=five)[:2] == (FAMILY, "F")
    assert conclude([0.5, 0.0, 0.0], system_threshold=five, family_threshold=five)[0] == UNKNOWN


def test_nothing_is_named_if_an_unknown_system_is_more_probable():
    """An LLR of 4.5 is 90 to 1, but at a prior of 0.01 the posterior odds are 0.9 to 1."""
    conclusion, _, reason = conclude([0.45, 0.2, 0.1], prior_known=0.01)
    assert conclusion == UNKNOWN
    assert reason.startswith("an unknown system is more probable")


def test_equally_probable_unknown_system_prevents_a_conclusion():
    """LLR of a known system 0 at cosine 0, prior 0.5: both posteriors are 0.5, and 'more probable' is false."""
    one = {
        "systems": ["a"], "families": ["F"], "trained": np.array([True]), "slope": np.ones((2, 1)),
        "offset": np.zeros((2, 1)), "known_offset": np.zeros(2), "known_slope": np.ones(2),
        "system_threshold": np.full((2, 1), 0.75), "family_threshold": np.full((2, 1), -1.0),
    }  # fmt: skip
    assert conclude([0.0], **one)[::2] == (
        UNKNOWN, "an unknown system is more probable than the candidates, at the stated prior",
    )  # fmt: skip
    assert conclude([0.01], **one)[0] == ONE_SYSTEM


def test_clip_at_the_minimum_of_speech_is_assessed():
    assert conclude([0.45, 0.2, 0.1], seconds=0.5)[0] == ONE_SYSTEM
    assert conclude([0.45, 0.2, 0.1], seconds=0.49)[:2] == (TOO_LITTLE_SPEECH, "")


def test_thresholds_are_those_of_the_top_system_at_the_amount_of_speech():
    """Between 1 s and 4 s values are interpolated in the logarithm: 2 s is halfway."""
    thresholds = np.array([[2.0, 9.0, 9.0], [4.0, 9.0, 9.0]])
    for seconds, threshold in ((1.0, 2.0), (2.0, 3.0), (4.0, 4.0), (60.0, 4.0), (0.6, 2.0)):
        for llr, expected in ((threshold - 0.01, FAMILY), (threshold + 0.01, ONE_SYSTEM)):
            cosines = [llr / 10, -1.0, -1.0]
            low = np.full((2, 3), -9.0)
            got = conclude(cosines, seconds=seconds, system_threshold=score(thresholds), family_threshold=low)
            assert got[0] == expected, (seconds, llr)


def test_margin_is_that_of_the_amount_of_speech():
    for seconds, candidates in ((1.0, ONE_SYSTEM), (4.0, FAMILY)):
        got = conclude([0.45, 0.3, -1.0], seconds=seconds, margin=np.array([1.0, 2.0]))
        assert got[0] == candidates


def test_infinite_margin_makes_every_system_a_candidate():
    """Too few clips of dev give an infinite margin at one length; it does not spread to others as NaN."""
    margin = np.array([np.inf, 1.0])
    assert conclude([0.45, 0.2, 0.1], seconds=4.0, margin=margin)[0] == ONE_SYSTEM
    assert conclude([0.45, 0.2, 0.1], seconds=1.0, margin=margin)[0] == UNKNOWN


def test_natural_logarithms_become_decimal_ones():
    assert math.log(1000) / LOG10 == pytest.approx(3)


def test_results_repeat_their_conclusion_under_the_old_key():
    window = Window(start_s=0, end_s=1, conclusion=FAMILY, name="F", best="a", log10_lr=1.0)
    trace = Trace(
        file="x.wav", duration_s=1, speech_s=1, conclusion=ONE_SYSTEM, name="a", reason="", posterior_unknown=0.1,
        prior_known=0.5, coverage=0.9, candidates=[], windows=[window],
    )  # fmt: skip
    content = trace.as_json()
    assert content["verdict"] == content["conclusion"] == ONE_SYSTEM
    assert content["windows"][0]["verdict"] == content["windows"][0]["conclusion"] == FAMILY
    assert content["notes"] == content["makers_along_time"] == []


@pytest.mark.parametrize(
    ("log10_lr", "at_bound", "text"),
    [
        (math.log10(240), False, "240 to 1"),
        (math.log10(52), True, "over 52 to 1"),
        (math.log10(3.24), True, "over 3.2 to 1"),
        (-math.log10(52), False, "1 to 52"),
        (-math.log10(52), True, "under 1 to 52"),
        (0.0, False, "1.0 to 1"),
        (math.log10(9.49), False, "9.5 to 1"),
        (math.log10(9.51), False, "10 to 1"),
        (-math.log10(3.24), False, "1 to 3.2"),
    ],
)
def test_ratio_as_text(log10_lr, at_bound, text):
    assert format_ratio(log10_lr, at_bound=at_bound) == text
