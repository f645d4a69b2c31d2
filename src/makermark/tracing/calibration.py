"""Calibration on dev: from cosines to log-likelihood ratios (LLRs), and the decision thresholds of a gallery.

A calibration is fitted for each length of dev's clips and interpolated in between, linearly in the logarithm of the
amount of speech. It is not stored: it is fitted from the gallery and dev's clips when a tracer is loaded, so that it
can never be out of date after an enrolment.

The alternative to a system of the gallery is the reference population: dev's clips of other systems and, if there is
bona fide speech, clips of people, whom no system made. Both are non-target trials of the fits and unknown clips of the
thresholds.

Legend of axes: N clips, L lengths, S systems, D dimensions, G groups of systems.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import beta

from makermark.foundation.arrays import BoolArray, FloatArray, IntArray, StrArray
from makermark.foundation.embeddings import l2_normalise
from makermark.foundation.errors import CalibrationError
from makermark.scoring.calibration import (
    AffineCalibration,
    accept_threshold,
    conformal_margin,
    fit_calibration,
)
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.gallery import TRAINED, Gallery

SIMULATED_ENROLMENTS = 5  # of each unseen system of dev
NEIGHBOUR_WEIGHT = 0.5  # chosen on dev from 0.25, 0.5 and 0.75


class ScoreCalibrator:
    """Affine calibrations of cosines at each length of dev's clips: for training systems, enrolled systems and pairs.

    They depend on dev and on the training systems only, so that all galleries of a model share one calibrator.

    - dev: all clips of dev
    - bonafide: clips of human speech of the same lengths; None without
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
        self.dev, self.bonafide, self._prior, self._seed = dev, bonafide, prior, seed
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
    def training_systems(self) -> list[AffineCalibration]:
        """Calibrations for training systems, (L,): all clips of the population against all training systems."""
        fits = []
        for clips in self.population_by_length:
            cosines = clips.embeddings @ self._centroids.T
            target = clips.systems[:, None] == self._systems
            fits.append(fit_calibration(cosines.ravel(), target.ravel(), prior=self._prior))
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
            fits.append(fit_calibration(np.concatenate(scores), target, prior=self._prior))
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
            fits.append(fit_calibration(cosines, same_system, prior=self._prior))
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
    - system_threshold, family_threshold (L, S): minimum top LLR, per top-scoring system, for naming that system or its
      family
    - allowance (L, S): what the thresholds of a system contain for its nearest training system, see
      `neighbour_cosines`; thresholds minus allowance are equal for all training systems
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
    system_threshold: FloatArray
    family_threshold: FloatArray
    allowance: FloatArray
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

    def limit(self, llrs: FloatArray) -> FloatArray:
        """Return the LLRs limited to the range that dev supports."""
        return np.clip(llrs, self.min_llr, self.max_llr)


def calibrate_gallery(
    gallery: Gallery, calibrator: ScoreCalibrator, *, false_accept_rate: float, coverage: float
) -> GalleryCalibration:
    """Compute the calibration of a gallery; its training systems must be those of `calibrator`.

    `false_accept_rate` is the largest share of dev's clips of unknown systems that may be named: the thresholds are
    quantiles on dev and promise nothing about other unknown systems (`measure_false_accepts`). `coverage` is the
    share of clips whose true system is in the conformal candidate set.
    """
    summary, names = gallery.summary, np.array(gallery.systems, dtype=str)
    centroids, families = gallery.centroids(), family_names(summary)
    fits = [
        calibrator.training_systems if origin == TRAINED else calibrator.enrolled_systems(num_clips)
        for origin, num_clips in zip(summary["origin"], summary["clips"], strict=True)
    ]
    offset, slope = np.moveaxis(np.array(fits), (0, 1, 2), (2, 1, 0))  # (L, S)
    trained = (summary["origin"] == TRAINED).to_numpy()
    # Training systems form one group and each enrolled system another: an enrolment does not change other thresholds.
    groups = np.where(trained, 0, np.cumsum(~trained))
    allowance = NEIGHBOUR_WEIGHT * slope * neighbour_cosines(centroids, trained)  # (L, S)
    has_unseen = bool((~np.isin(calibrator.dev.systems, names)).any())
    thresholds = [
        _fit_thresholds(
            clips,
            offset[length] + slope[length] * (clips.embeddings @ centroids.T),
            names,
            families,
            groups=groups,
            allowance=allowance[length],
            has_unseen=has_unseen,
            false_accept_rate=false_accept_rate,
            coverage=coverage,
        )
        for length, clips in enumerate(calibrator.population_by_length)
    ]
    system_threshold, family_threshold, margin = zip(*thresholds, strict=True)
    min_llr, max_llr = calibrator.llr_range
    return GalleryCalibration(
        systems=gallery.systems,
        families=families.tolist(),
        centroids=centroids,
        speech_seconds=calibrator.speech_seconds,
        offset=offset,
        slope=slope,
        system_threshold=np.array(system_threshold),
        family_threshold=np.array(family_threshold),
        allowance=allowance,
        margin=np.array(margin),
        min_llr=min_llr,
        max_llr=max_llr,
        thresholds_from="unseen" if has_unseen else "left_out",
    )


def neighbour_cosines(centroids: FloatArray, trained: BoolArray) -> FloatArray:
    """Return the largest cosine (S,) of each centroid (S, D) with that of another system in training; 0 without one.

    Where two systems in training are similar, an unknown one that resembles both is likely too. A threshold that
    rises with this cosine lets systems without such neighbours be named at lower scores. It is a normalisation by a
    cohort, as the Z-norm of speaker recognition (Auckenthaler et al. 2000), with one impostor for each system.
    Enrolled systems have no part in the cohort: an enrolment does not change the thresholds of others.
    """
    cosines = np.where(trained, centroids @ centroids.T, -np.inf)
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.max(axis=1)
    return np.where(np.isfinite(nearest), nearest, 0.0)


@dataclass(frozen=True)
class FalseAccepts:
    """How well the clips of unknown systems in dev determine a threshold, at one length; rates in percent.

    The threshold is a quantile of these clips' top LLRs, minus the allowance of their system, so it meets the
    false-accept rate on them by construction.

    - clips, systems: number of clips of unknown systems and of these systems
    - interval: 95 % interval of the rate on new clips, if all clips were independent: Beta(k + 1, N - k), the
      distribution of the probability above the (k + 1)-th largest of N values
    - left_out_mean, left_out_max: share of a system's clips above the threshold that the other systems give, mean and
      maximum over the systems; None for a single system
    """

    clips: int
    systems: int
    interval: tuple[float, float]
    left_out_mean: float | None
    left_out_max: float | None


def measure_false_accepts(top_llrs: FloatArray, systems: StrArray, *, rate: float) -> FalseAccepts:
    """Return what the top LLRs (N,), minus allowances, of clips of unknown `systems` (N,) say about a threshold."""
    allowed = int(np.floor(rate * len(top_llrs) + 1e-9))
    quantile = beta(allowed + 1, len(top_llrs) - allowed).ppf
    names = np.unique(systems)
    left_out = [
        np.mean(top_llrs[systems == name] > accept_threshold(top_llrs[systems != name], rate=rate))
        for name in (names if len(names) > 1 else ())
    ]
    return FalseAccepts(
        clips=len(top_llrs),
        systems=len(names),
        interval=(100 * float(quantile(0.025)), 100 * float(quantile(0.975))),
        left_out_mean=100 * float(np.mean(left_out)) if left_out else None,
        left_out_max=100 * float(np.max(left_out)) if left_out else None,
    )


def _fit_thresholds(
    clips: ClipSet,
    llrs: FloatArray,
    names: StrArray,
    families: StrArray,
    *,
    groups: IntArray,
    allowance: FloatArray,
    has_unseen: bool,
    false_accept_rate: float,
    coverage: float,
) -> tuple[FloatArray, FloatArray, float]:
    """Return system_threshold (S,), family_threshold (S,) and margin from the LLRs (N, S) of dev at one length.

    Both thresholds are the `allowance` (S,) plus a quantile that the systems of a group share.
    """
    target = clips.systems[:, None] == names
    seen = target.any(axis=1)
    unknown = ~seen if has_unseen else np.ones(len(target), dtype=bool)
    unknown_family = unknown & ~np.isin(family_names(clips.rows.set_index("system")), families)
    nontarget_llrs = np.where(target, -np.inf, llrs)
    top_by_group = [
        top_minus_allowance(nontarget_llrs[:, groups == group], allowance[groups == group])
        for group in range(groups.max() + 1)
    ]
    system_threshold = np.array(
        [accept_threshold(top[unknown], rate=false_accept_rate) for top in top_by_group]
    )
    family_threshold = system_threshold
    if unknown_family.any():  # naming a system names its family: both need the family threshold
        family_threshold = np.array(
            [accept_threshold(top[unknown_family], rate=false_accept_rate) for top in top_by_group]
        )
        system_threshold = np.maximum(system_threshold, family_threshold)
    target_llr = np.where(target, llrs, -np.inf).max(axis=1)
    below_top = (llrs.max(axis=1) - target_llr)[seen]
    return (
        system_threshold[groups] + allowance,
        family_threshold[groups] + allowance,
        conformal_margin(below_top, coverage=coverage),
    )


def top_minus_allowance(llrs: FloatArray, allowance: FloatArray) -> FloatArray:
    """Return the largest of the LLRs (N, S) of each clip, minus the allowance (S,) of its system, (N,)."""
    top = llrs.argmax(axis=1)
    return np.asarray(llrs[np.arange(len(llrs)), top] - allowance[top])


def family_names(table: pd.DataFrame) -> StrArray:
    """Return the family of each row of a table indexed by system; a system without a family is its own family."""
    family = table["family"].fillna("").to_numpy(dtype=str)
    return np.where(family == "", table.index.to_numpy(dtype=str), family)
