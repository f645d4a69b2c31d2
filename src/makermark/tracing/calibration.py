"""Calibration on dev: from cosines to log-likelihood ratios (LLRs), and the decision thresholds of a gallery.

A calibration is fitted for each length of dev's clips and interpolated in between, linearly in the logarithm of the
amount of speech. It is not stored: it is fitted from the gallery and dev's clips when a tracer is loaded, so that it
can never be out of date after an enrolment.

The alternative to a system of the gallery is the reference population: dev's clips of other systems and, if there is
bona fide speech, clips of people, whom no system made. Both are non-target trials of the fits; each of them bounds
the thresholds. No clip is compared with speech of its own system or speaker where it stands for an unknown one. The
thresholds apply to a score of its own (`naming_scores`), which is no LLR.

Legend of axes: N clips, L lengths, S systems, D dimensions, G groups of systems.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import beta

from makermark.foundation.arrays import BoolArray, FloatArray, IntArray, RealArray, StrArray
from makermark.foundation.embeddings import l2_normalise
from makermark.foundation.errors import CalibrationError
from makermark.scoring.calibration import (
    AffineCalibration,
    accept_threshold,
    conformal_margin,
    fit_calibration,
)
from makermark.tracing.bundle import SPEAKER_COLUMN, WHOLE_UTTERANCE, ClipSet
from makermark.tracing.gallery import TRAINED, Gallery

SIMULATED_ENROLMENTS = 5  # of each unseen system of dev
MARGIN_WEIGHT = 0.75  # of the lead over the nearest rival; chosen on dev from 0.25, 0.5 and 0.75
NO_RIVAL = -1.0  # cosine of a rival that does not exist: the smallest cosine
MIN_LEFT_OUT_SYSTEMS = 10  # unknown systems of dev from which on leaving one out says something about others
HUMAN_SPEECH = "human speech"  # in place of a system


class ScoreCalibrator:
    """Affine calibrations of cosines at each length of dev's clips: for training systems, enrolled systems and pairs.

    They depend on dev and on the training systems only, so that all galleries of a model share one calibrator.

    - dev: all clips of dev
    - bonafide: clips of human speech of the same lengths; None without
    - prior: weight of target trials in the fits
    """

    def __init__(
        self,
        dev: ClipSet,
        training_gallery: Gallery,
        *,
        prior: float,
        seed: int,
        bonafide: ClipSet | None = None,
    ) -> None:
        """`prior` weights target trials in the fits.

        Raises CalibrationError if dev has no clip of a training system, or if dev and train have one system in total.
        """
        self.dev, self.prior, self._seed = dev, prior, seed
        self.bonafide = bonafide.with_speakers() if bonafide is not None else None
        self._systems = np.array(training_gallery.systems, dtype=str)
        self._centroids = training_gallery.centroids()
        self._enrolled: dict[int, list[AffineCalibration] | None] = {}
        if not np.isin(dev.systems, self._systems).any() or not dev.lengths:
            raise CalibrationError("dev has no clip of a training system; a tracer cannot be calibrated")
        if len({*dev.systems, *self._systems}) < 2:
            raise CalibrationError("dev and train have one system in total; a tracer cannot be calibrated")

    @cached_property
    def dev_by_length(self) -> list[ClipSet]:
        """Clips of dev at each length, (L,)."""
        return [self.dev.of_length(seconds) for seconds in self.dev.lengths]

    @cached_property
    def population_by_length(self) -> list[ClipSet]:
        """Clips of dev and of human speech at each length, (L,)."""
        if self.bonafide is None:
            return self.dev_by_length
        lengths = zip(self.dev_by_length, self.dev.lengths, strict=True)
        return [clips.join(self.bonafide.of_length(seconds)) for clips, seconds in lengths]

    @cached_property
    def human_centroid(self) -> FloatArray | None:
        """Mean embedding of human speech of all lengths, scaled to unit length, (D,); None without such speech."""
        if self.bonafide is None:
            return None
        return np.asarray(l2_normalise(self.bonafide.embeddings.mean(axis=0, dtype=np.float64)[None])[0])

    @cached_property
    def human_cosines_by_length(self) -> list[FloatArray]:
        """Cosines (N,) of the population at each length with human speech, (L,); NO_RIVAL without such speech.

        A clip of human speech is compared with the mean of the clips of other speakers, as a clip of a new speaker will
        be; NO_RIVAL if there is one speaker.
        """
        if self.bonafide is None or self.human_centroid is None:
            return [np.full(len(clips.systems), NO_RIVAL) for clips in self.population_by_length]
        cosines = []
        for clips in self.population_by_length:
            values = np.asarray(clips.embeddings @ self.human_centroid, dtype=np.float64)
            human, speakers = clips.systems == HUMAN_SPEECH, origins(clips)
            for speaker in np.unique(speakers[human]):
                own = human & (speakers == speaker)
                others = self.bonafide.embeddings[origins(self.bonafide) != speaker]
                values[own] = _cosines_to_mean(clips.embeddings[own], others) if len(others) else NO_RIVAL
            cosines.append(values)
        return cosines

    @cached_property
    def training_systems(self) -> list[AffineCalibration]:
        """Calibrations for training systems, (L,): all clips of the population against all training systems."""
        fits = []
        for clips in self.population_by_length:
            cosines = clips.embeddings @ self._centroids.T
            target = clips.systems[:, None] == self._systems
            fits.append(fit_calibration(cosines.ravel(), target.ravel(), prior=self.prior))
        return fits

    def enrolled_systems(self, num_clips: int) -> list[AffineCalibration]:
        """Return calibrations for systems enrolled from `num_clips` clips, (L,).

        Enrolment is simulated with the systems of dev that are not in train. Each is enrolled SIMULATED_ENROLMENTS
        times from `num_clips` whole utterances (at most half of its utterances). The trials are the clips that share
        no utterance with the enrolment. Without such systems, the calibrations of `training_systems` are returned.
        """
        if num_clips not in self._enrolled:
            self._enrolled[num_clips] = self._fit_enrolled(num_clips)
        return self._enrolled[num_clips] or self.training_systems

    def _fit_enrolled(self, num_clips: int) -> list[AffineCalibration] | None:
        whole = self.dev.of_length(WHOLE_UTTERANCE)
        rng = np.random.default_rng([self._seed, num_clips])
        enrolments = [
            (system, rng.choice(rows, size=max(1, min(num_clips, len(rows) // 2)), replace=False))
            for system in sorted(set(whole.systems) - set(self._systems))
            for rows in [np.flatnonzero(whole.systems == system)] * SIMULATED_ENROLMENTS
            if len(rows) > 1
        ]
        fits = []
        for clips in self.population_by_length:
            shared = clips.shares_utterance(whole)  # (clips of this length, whole utterances)
            scores, targets = [np.empty(0)], [np.empty(0, dtype=bool)]
            for system, drawn in enrolments:
                disjoint = ~shared[:, drawn].any(axis=1)
                centroid = l2_normalise(whole.embeddings[drawn].mean(axis=0, keepdims=True))[0]
                scores.append(clips.embeddings[disjoint] @ centroid)
                targets.append(clips.systems[disjoint] == system)
            target = np.concatenate(targets)
            if not target.any() or target.all():
                return None
            fits.append(fit_calibration(np.concatenate(scores), target, prior=self.prior))
        return fits

    @cached_property
    def pairs(self) -> list[AffineCalibration]:
        """Calibrations for pairs of clips without a common utterance, (L,).

        Raises CalibrationError if dev has no pair of one system or no pair of two systems.
        """
        fits = []
        for clips in self.dev_by_length:
            cosines, same_system = clips.pair_trials()
            if not same_system.any() or same_system.all():
                raise CalibrationError(
                    "dev needs pairs of clips of one system and of two systems; comparison cannot be calibrated"
                )
            fits.append(fit_calibration(cosines, same_system, prior=self.prior))
        return fits

    @cached_property
    def speech_seconds(self) -> FloatArray:
        """Median amount of speech at each length, (L,), strictly ascending."""
        medians = [float(np.median(clips.rows["speech_seconds"])) for clips in self.dev_by_length]
        ascending: FloatArray = np.maximum.accumulate(medians) + 1e-6 * np.arange(len(medians))
        return ascending

    @cached_property
    def llr_range(self) -> tuple[float, float]:
        """Smallest and largest LLR that the number of dev's clips supports.

        The limits correspond to one error in all target clips and to one error in all clips.
        """
        targets = min(int(np.isin(clips.systems, self._systems).sum()) for clips in self.dev_by_length)
        total = min(len(clips.systems) for clips in self.dev_by_length)
        return -float(np.log(targets + 1)), float(np.log(total + 1))

    def pair_llrs(self, cosines: FloatArray, speech_seconds: FloatArray) -> FloatArray:
        """Return the LLRs (N,) of one system against two, from the cosines (N,) of pairs of clips.

        `speech_seconds` (N,) is the amount of speech of the shorter clip of each pair.
        """
        coefficients = interpolate(np.array(self.pairs), self.speech_seconds, speech_seconds)
        llrs: FloatArray = coefficients[:, 0] + coefficients[:, 1] * cosines
        return llrs


def interpolate(values: FloatArray, known_seconds: FloatArray, speech_seconds: FloatArray) -> FloatArray:
    """Interpolate `values` (L,) or (L, S), known at `known_seconds` (L,), at `speech_seconds` (N,).

    Linear in the logarithm of the seconds, constant outside the known range. Returns (N,) or (N, S).
    """
    position = np.interp(
        np.log(np.maximum(speech_seconds, 1e-3)), np.log(known_seconds), np.arange(len(known_seconds))
    )
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, len(known_seconds) - 1)
    weight = (position - lower).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):  # values may be infinite
        mixed = (1 - weight) * values[lower] + weight * values[upper]
        return np.asarray(np.where(weight > 0, mixed, values[lower]))


@dataclass(frozen=True)
class GalleryCalibration:
    """Calibration and decision thresholds for a gallery, at L amounts of speech.

    - systems, families, centroids (S,), (S,), (S, D): of the gallery; a system without a family is its own family
    - speech_seconds (L,): median amount of speech in dev's clips of each length
    - offset, slope (L, S): LLR of a system against any other = offset + slope * cosine to the centroid of the system
    - trained (S,): whether a system is one in training
    - human_centroid (D,): of human speech; None without such speech
    - system_threshold, family_threshold (L, S): naming score (`naming_scores`) that the top-scoring system must exceed
      for naming that system or its family; equal for all training systems
    - known_offset, known_slope (L,): LLR of a clip of a known system against one of the reference population = offset
      + slope * (naming score of the top-scoring system - its system threshold); fitted on training systems
    - margin (L,): conformal margin below the top LLR within which a system is a candidate
    - min_llr, max_llr: range of LLRs that the number of dev's clips supports
    - thresholds_from: `unseen` (systems of dev that are not in the gallery), or `left_out` (dev has none: each system
      of the gallery was left out in turn)
    """

    systems: list[str]
    families: list[str]
    centroids: FloatArray
    speech_seconds: FloatArray
    offset: FloatArray
    slope: FloatArray
    trained: BoolArray
    human_centroid: FloatArray | None
    system_threshold: FloatArray
    family_threshold: FloatArray
    known_offset: FloatArray
    known_slope: FloatArray
    margin: FloatArray
    min_llr: float
    max_llr: float
    thresholds_from: str

    def interpolate(self, values: FloatArray, speech_seconds: FloatArray) -> FloatArray:
        """Interpolate `values` (L,) or (L, S) at `speech_seconds` (N,); returns (N,) or (N, S)."""
        return interpolate(values, self.speech_seconds, speech_seconds)

    def llrs(self, cosines: FloatArray, speech_seconds: FloatArray) -> FloatArray:
        """Return LLRs (N, S), natural logarithm, from cosines (N, S)."""
        offset = self.interpolate(self.offset, speech_seconds)
        llrs: FloatArray = offset + self.interpolate(self.slope, speech_seconds) * cosines
        return llrs

    def human_cosines(self, embeddings: RealArray) -> FloatArray:
        """Return the cosines (N,) of embeddings (N, D) of unit length with human speech; NO_RIVAL without it."""
        if self.human_centroid is None:
            return np.full(len(embeddings), NO_RIVAL)
        return np.asarray(embeddings @ self.human_centroid, dtype=np.float64)

    def known_llrs(self, excess: FloatArray, speech_seconds: FloatArray) -> FloatArray:
        """Return the LLRs (N,) of a known system against none, limited; `excess` (N,) is over the system threshold."""
        offset = self.interpolate(self.known_offset, speech_seconds)
        return self.limit(offset + self.interpolate(self.known_slope, speech_seconds) * excess)

    def limit(self, llrs: FloatArray) -> FloatArray:
        """Return the LLRs limited to the range that dev supports."""
        return np.clip(llrs, self.min_llr, self.max_llr)


def calibrate_gallery(
    gallery: Gallery, calibrator: ScoreCalibrator, *, false_accept_rate: float, coverage: float
) -> GalleryCalibration:
    """Compute the calibration of a gallery; its training systems must be those of `calibrator`.

    `false_accept_rate` is the largest share of dev's clips of unknown systems, and of clips of people, that may exceed
    a threshold (`unknown_threshold`). That promises nothing about other unknown systems (`measure_false_accepts`).
    `coverage` is the share of clips whose true system is in the conformal candidate set.
    """
    summary, names = gallery.summary, np.array(gallery.systems, dtype=str)
    centroids, families = gallery.centroids(), family_names(summary)
    fits = [
        calibrator.training_systems if origin == TRAINED else calibrator.enrolled_systems(num_clips)
        for origin, num_clips in zip(summary["origin"], summary["clips"], strict=True)
    ]
    offset, slope = np.moveaxis(np.array(fits), (0, 1, 2), (2, 1, 0))  # (L, S)
    trained = (summary["origin"] == TRAINED).to_numpy()
    groups = threshold_groups(trained)
    has_unseen = bool((~np.isin(calibrator.dev.systems, names)).any())
    thresholds = [
        _fit_thresholds(
            trials,
            offset[length] + slope[length] * trials.cosines,
            groups=groups,
            prior=calibrator.prior,
            false_accept_rate=false_accept_rate,
            coverage=coverage,
        )
        for length in range(len(calibrator.population_by_length))
        for trials in [_naming_trials(calibrator, length, names, families, centroids, trained)]
    ]
    min_llr, max_llr = calibrator.llr_range
    return GalleryCalibration(
        systems=gallery.systems,
        families=families.tolist(),
        centroids=centroids,
        speech_seconds=calibrator.speech_seconds,
        offset=offset,
        slope=slope,
        trained=trained,
        human_centroid=calibrator.human_centroid,
        system_threshold=np.array([part.system for part in thresholds]),
        family_threshold=np.array([part.family for part in thresholds]),
        known_offset=np.array([part.known.offset for part in thresholds]),
        known_slope=np.array([part.known.slope for part in thresholds]),
        margin=np.array([part.margin for part in thresholds]),
        min_llr=min_llr,
        max_llr=max_llr,
        thresholds_from="unseen" if has_unseen else "left_out",
    )


def _cosines_to_mean(embeddings: RealArray, others: RealArray) -> FloatArray:
    """Return the cosines (N,) of embeddings (N, D) of unit length with the mean of others (M, D)."""
    centroid = l2_normalise(others.mean(axis=0, dtype=np.float64)[None])[0]
    return np.asarray(embeddings @ centroid, dtype=np.float64)


def origins(clips: ClipSet) -> StrArray:
    """Return the system of each clip, or the speaker of human speech, (N,): what is left out as a whole."""
    human = clips.systems == HUMAN_SPEECH
    if not human.any():
        return clips.systems
    return np.where(human, clips.rows[SPEAKER_COLUMN].fillna("").to_numpy(dtype=str), clips.systems)


def threshold_groups(trained: BoolArray) -> IntArray:
    """Return the group (S,) of each system; the systems of a group share their thresholds.

    Training systems form group 0 and each enrolled system another: an enrolment does not change other thresholds.
    """
    return np.where(trained, 0, np.cumsum(~trained))


def naming_scores(cosines: FloatArray, human_cosines: FloatArray, trained: BoolArray) -> FloatArray:
    """Return the naming score (N, S) of each clip and system, which the thresholds for naming apply to.

    It is the cosine of the clip to the system plus MARGIN_WEIGHT times its lead over the nearest rival: the largest
    cosine to another training system, or that to human speech. A clip of an unknown system lies between known ones
    more often than a clip of a known system does. The rivals are the cohort of a score normalisation, as in the T-norm
    of speaker recognition (Auckenthaler et al. 2000), with the nearest rival in place of the mean.

    - cosines (N, S): to the centroids; -inf for a system that is left out
    - human_cosines (N,): to the centroid of human speech; NO_RIVAL without such speech
    - trained (S,): systems in training; enrolled systems are no rivals, so that an enrolment does not change the scores
      of others
    """
    rivals = np.where(trained, cosines, NO_RIVAL)
    first = rivals.argmax(axis=1)
    is_first = np.arange(rivals.shape[1]) == first[:, None]
    largest = rivals.max(axis=1, keepdims=True)
    second = np.where(is_first, NO_RIVAL, rivals).max(axis=1, keepdims=True)
    nearest = np.maximum(np.where(is_first, second, largest), human_cosines[:, None])
    nearest = np.maximum(nearest, NO_RIVAL)
    return np.asarray(cosines + MARGIN_WEIGHT * (cosines - nearest))


def left_out_rate(scores: FloatArray, systems: StrArray, *, rate: float) -> float:
    """Return the share of a system's clips above the threshold of the other systems, mean over the systems."""
    return float(np.mean(_left_out_shares(scores, systems, rate=rate)))


def _left_out_shares(scores: FloatArray, systems: StrArray, *, rate: float) -> list[float]:
    return [
        float(np.mean(scores[systems == name] > accept_threshold(scores[systems != name], rate=rate)))
        for name in np.unique(systems)
    ]


def unknown_threshold(scores: FloatArray, systems: StrArray, *, rate: float) -> float:
    """Return the lowest threshold that names at most a share `rate` of clips of unknown `systems` (N,).

    At most this share of the scores (N,) exceeds it. With MIN_LEFT_OUT_SYSTEMS systems or more, in addition: if one
    system is left out and the threshold set in the same way, at most this share of its clips exceeds it, on average
    over the systems, as far as the largest score allows. Raises ValueError without scores, and for a rate outside
    [0, 1).
    """
    threshold = accept_threshold(scores, rate=rate)
    if len(np.unique(systems)) < MIN_LEFT_OUT_SYSTEMS:
        return threshold
    # The left-out rate never falls with the share of clips that may exceed the threshold: bisection finds the largest.
    allowed = bisect_right(
        range(1, int(np.sum(scores > threshold)) + 1),
        rate,
        key=lambda count: left_out_rate(scores, systems, rate=count / len(scores)),
    )
    return accept_threshold(scores, rate=allowed / len(scores)) if allowed else float(np.max(scores))


@dataclass(frozen=True)
class FalseAccepts:
    """How well the clips of unknown systems in dev determine a threshold, at one length; rates in percent.

    The threshold is a quantile of the top naming scores of these clips or, if that is larger, of clips of people
    (`naming_threshold`), so it meets the false-accept rate on both by construction.

    - threshold: the naming score that must be exceeded
    - clips, systems: number of clips of unknown systems and of these systems
    - above: number of these clips above the threshold
    - interval: 95 % interval of the rate on new clips, if all clips were independent. With k of N clips above the
      threshold: Beta(k + 1, N - k), the distribution of the probability above the (k + 1)-th largest of N values, if
      the threshold is a quantile of these clips; else that of Clopper & Pearson (1934), as other clips gave it
    - left_out_mean, left_out_max: share of a system's clips above the threshold that the other clips give, mean and
      maximum over the systems; None for a single system
    """

    threshold: float
    clips: int
    systems: int
    above: int
    interval: tuple[float, float]
    left_out_mean: float | None
    left_out_max: float | None


def naming_threshold(
    scores: FloatArray, groups: StrArray, populations: Sequence[BoolArray], *, rate: float
) -> float:
    """Return the largest `unknown_threshold` of several populations: masks (N,) of the clips with these scores (N,).

    `groups` (N,) are the systems and speakers that are left out as a whole.
    """
    return max(unknown_threshold(scores[part], groups[part], rate=rate) for part in populations)


def measure_false_accepts(
    scores: FloatArray, groups: StrArray, populations: Sequence[BoolArray], *, rate: float
) -> FalseAccepts:
    """Return what top naming scores (N,) say about the `naming_threshold` of the same arguments.

    The first population is that of unknown systems.
    """
    threshold = naming_threshold(scores, groups, populations, rate=rate)
    unknown = populations[0]
    count, above = int(unknown.sum()), int(np.sum(scores[unknown] > threshold))
    is_quantile = bool(np.any(scores[unknown] == threshold))
    lower = beta(above + 1, count - above) if is_quantile else beta(above, count - above + 1)
    names = np.unique(groups[unknown])
    shares = [
        float(np.mean(scores[part] > unknown_threshold(scores[part], groups[part], rate=rate)))
        for part in populations
    ]
    left_out = [
        float(np.mean(scores[own] > _threshold_without(name, scores, groups, populations, shares)))
        for name in names
        if len(names) > 1
        for own in [unknown & (groups == name)]
    ]
    return FalseAccepts(
        threshold=threshold,
        clips=count,
        systems=len(names),
        above=above,
        interval=(
            100 * float(lower.ppf(0.025)) if above or is_quantile else 0.0,
            100 * float(beta(above + 1, count - above).ppf(0.975)),
        ),
        left_out_mean=100 * float(np.mean(left_out)) if left_out else None,
        left_out_max=100 * float(np.max(left_out)) if left_out else None,
    )


def _threshold_without(
    name: str,
    scores: FloatArray,
    groups: StrArray,
    populations: Sequence[BoolArray],
    shares: Sequence[float],
) -> float:
    """Return the threshold without one system, above which each population has its share, as it has with the system."""
    others = [part & (groups != name) for part in populations]
    return max(
        accept_threshold(scores[part], rate=share)
        for part, share in zip(others, shares, strict=True)
        if part.any()
    )


def measure_system_threshold(
    calibration: GalleryCalibration, calibrator: ScoreCalibrator, *, system: int, length: int, rate: float
) -> FalseAccepts | None:
    """Return how well dev determines the system threshold of the system with number `system`, at one length of dev.

    `rate` is that of the calibration. Returns None if dev has no unknown systems.
    """
    if calibration.thresholds_from != "unseen":
        return None
    names, families = np.array(calibration.systems, dtype=str), np.array(calibration.families, dtype=str)
    trials = _naming_trials(calibrator, length, names, families, calibration.centroids, calibration.trained)
    if not trials.unknown.any():
        return None
    groups = threshold_groups(calibration.trained)
    top = trials.scores[:, groups == groups[system]].max(axis=1)
    return measure_false_accepts(top, trials.origins, trials.system_populations, rate=rate)


@dataclass(frozen=True)
class _LengthThresholds:
    """Thresholds at one length; the fields are rows of those of GalleryCalibration."""

    system: FloatArray
    family: FloatArray
    known: AffineCalibration
    margin: float


@dataclass(frozen=True)
class _NamingTrials:
    """The population at one length as clips of N trials against a gallery.

    - cosines, target (N, S): to the centroids; whether the system made the clip
    - scores, own_scores (N, S): naming scores without and with the system that made the clip
    - origins (N,): `origins` of the clips
    - unknown, unknown_family, human (N,): clips of systems outside the gallery (all clips of systems, if dev has none
      outside), those of them whose family is outside too, and clips of people
    """

    cosines: FloatArray
    target: BoolArray
    scores: FloatArray
    own_scores: FloatArray
    origins: StrArray
    unknown: BoolArray
    unknown_family: BoolArray
    human: BoolArray

    @property
    def system_populations(self) -> list[BoolArray]:
        """Populations that bound the system threshold: naming a system names its family, so the family ones too."""
        return [part for part in (self.unknown, self.unknown_family, self.human) if part.any()]

    @property
    def family_populations(self) -> list[BoolArray]:
        """Populations that bound the family threshold."""
        if not self.unknown_family.any():
            return self.system_populations
        return [part for part in (self.unknown_family, self.human) if part.any()]


def _naming_trials(
    calibrator: ScoreCalibrator,
    length: int,
    names: StrArray,
    families: StrArray,
    centroids: FloatArray,
    trained: BoolArray,
) -> _NamingTrials:
    """Return the trials of the population at the length with number `length` against a gallery."""
    clips = calibrator.population_by_length[length]
    human_cosines = calibrator.human_cosines_by_length[length]
    cosines = np.asarray(clips.embeddings @ centroids.T)
    target = clips.systems[:, None] == names
    human = clips.systems == HUMAN_SPEECH
    has_unseen = bool((~np.isin(calibrator.dev.systems, names)).any())
    unknown = ~target.any(axis=1) & ~human if has_unseen else ~human
    return _NamingTrials(
        cosines=cosines,
        target=target,
        scores=naming_scores(np.where(target, -np.inf, cosines), human_cosines, trained),
        own_scores=naming_scores(cosines, human_cosines, trained),
        origins=origins(clips),
        unknown=unknown,
        unknown_family=unknown & ~np.isin(family_names(clips.rows.set_index("system")), families),
        human=human,
    )


def _fit_thresholds(
    trials: _NamingTrials,
    llrs: FloatArray,
    *,
    groups: IntArray,
    prior: float,
    false_accept_rate: float,
    coverage: float,
) -> _LengthThresholds:
    """Return the thresholds from the trials and LLRs (N, S) at one length.

    The systems of a group share their thresholds. Clips of unknown systems and clips of people each give a threshold;
    the larger one counts, so that neither population is named more often than the rate.
    """
    target, trained = trials.target, groups == 0

    def fit(populations: Sequence[BoolArray]) -> FloatArray:
        """Return the threshold of each group."""
        tops = [trials.scores[:, groups == group].max(axis=1) for group in range(groups.max() + 1)]
        return np.array(
            [naming_threshold(top, trials.origins, populations, rate=false_accept_rate) for top in tops]
        )

    system, family = fit(trials.system_populations), fit(trials.family_populations)
    seen, is_alternative = target.any(axis=1), trials.unknown | trials.human
    excess = [
        part[:, trained].max(axis=1) - system[0]
        for part in (trials.own_scores[target[:, trained].any(axis=1)], trials.scores[is_alternative])
    ]
    excess = [
        part[np.isfinite(part)] for part in excess
    ]  # a clip of the only training system has no other system
    is_known = np.repeat([True, False], [len(part) for part in excess])
    known = (
        fit_calibration(np.concatenate(excess), is_known, prior=prior)
        if is_known.any() and not is_known.all()
        else AffineCalibration(offset=0.0, slope=0.0)
    )
    target_llr = np.where(target, llrs, -np.inf).max(axis=1)
    below_top = (llrs.max(axis=1) - target_llr)[seen]
    return _LengthThresholds(
        system[groups], family[groups], known, conformal_margin(below_top, coverage=coverage)
    )


def family_names(table: pd.DataFrame) -> StrArray:
    """Return the family of each row of a table indexed by system; a system without a family is its own family."""
    family = table["family"].fillna("").to_numpy(dtype=str)
    return np.where(family == "", table.index.to_numpy(dtype=str), family)
