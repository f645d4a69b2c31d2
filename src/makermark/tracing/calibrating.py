"""What dev teaches a tracer: from cosines to likelihood ratios, and when to commit itself.

All is learned at several lengths of clips and interpolated between them (linearly in the logarithm of the seconds of
speech). Nothing learned is kept on disk: it follows from the gallery and dev's clips whenever a tracer is loaded, so
that no enrolment can leave it stale. Legend of axes: N clips, L lengths, S systems, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from makermark.errors import CalibrationError
from makermark.scoring.calibration import Line, fit_line
from makermark.scoring.deciding import accept_threshold, conformal_margin
from makermark.scoring.fusion import unit
from makermark.tracing.gallery import TRAINED, Gallery

WHOLE = 0.0  # the length that stands for: as long as the utterance is
ENROLMENTS = 5  # of each system that plays a newly enrolled one

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Clips:
    """Dev cut to lengths: `rows` (system, family, seconds, speech_seconds, sources) and vectors (N, D) of length 1.

    `sources` are the utterances a clip was cut from, one a line; `seconds` is WHOLE for an utterance as it is.
    """

    rows: pd.DataFrame
    vectors: NDArray[np.float32]

    def of_length(self, seconds: float) -> Clips:
        keep = (self.rows["seconds"] == seconds).to_numpy()
        return Clips(self.rows[keep].reset_index(drop=True), self.vectors[keep])

    @property
    def systems(self) -> NDArray[np.str_]:
        """(N,)."""
        return self.rows["system"].to_numpy(dtype=str)

    def shares_with(self, other: Clips) -> NDArray[np.bool_]:
        """(N, N of the other): whether two clips were cut from one utterance."""
        ours, theirs = ([set(text.split("\n")) for text in clips.rows["sources"]] for clips in (self, other))
        number = {name: place for place, name in enumerate(sorted(set().union(*ours, *theirs)))}
        inside = []
        for clips in (ours, theirs):
            table = np.zeros((len(clips), len(number)), dtype=np.float32)
            for row, names in enumerate(clips):
                table[row, [number[name] for name in names]] = 1
            inside.append(table)
        return np.asarray(inside[0] @ inside[1].T > 0)

    def pairs(self) -> tuple[Numbers, NDArray[np.bool_]]:
        """Cosines of all pairs that share no utterance, and whether one system made both."""
        first, second = self.pair_rows()
        cosines = np.einsum("nd,nd->n", self.vectors[first], self.vectors[second])
        return cosines, self.systems[first] == self.systems[second]

    def pair_rows(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows of each such pair."""
        first, second = np.triu_indices(len(self.systems), k=1)
        apart = ~self.shares_with(self)[first, second]
        return first[apart], second[apart]

    @property
    def lengths(self) -> list[float]:
        """(L,), rising, without WHOLE."""
        return sorted(set(self.rows["seconds"]) - {WHOLE})


@dataclass(frozen=True)
class Calibrated:
    """What holds for a gallery at each length.

    - `seconds` (L,): median seconds of speech in dev's clips of that length
    - `offset`, `slope` (L, S): from a cosine to a system's direction to the LLR of that system against any other
    - `system_above`, `family_above` (L, S): what the largest LLR must exceed, by whose it is, for that system, or for
      its family, to be named
    - `margin` (L,): how far behind it a candidate may lie
    - `lowest`, `highest`: LLRs beyond which so few clips of dev say nothing
    - `rejected_by`: `unseen` systems of dev set the thresholds, or, where it has none, systems `left_out` in turn
    """

    seconds: Numbers
    offset: Numbers
    slope: Numbers
    system_above: Numbers
    family_above: Numbers
    margin: Numbers
    lowest: float
    highest: float
    rejected_by: str

    def at(self, values: Numbers, speech_seconds: Numbers) -> Numbers:
        """`values` (L,) or (L, S) at each of the speech_seconds (N,): (N,) or (N, S)."""
        return between(values, self.seconds, speech_seconds)

    def llrs(self, cosines: Numbers, speech_seconds: Numbers) -> Numbers:
        """(N, S), natural logarithm, from cosines (N, S)."""
        ratios: Numbers = self.at(self.offset, speech_seconds) + self.at(self.slope, speech_seconds) * cosines
        return ratios

    def bounded(self, llrs: Numbers) -> Numbers:
        """LLRs no larger than dev can vouch for."""
        return np.clip(llrs, self.lowest, self.highest)


class Lines:
    """From cosines to LLRs at each of dev's lengths, for systems of training, enrolled ones, and pairs of clips.

    They depend on dev and on the systems of training only, so that every gallery shares them.
    """

    def __init__(self, dev: Clips, trained: Gallery, *, prior: float, seed: int) -> None:
        """Raises CalibrationError where dev holds no clip of a system of `trained`, or only such of one system."""
        self.dev, self._prior, self._seed = dev, prior, seed
        self._known, self._directions = np.array(trained.systems, dtype=str), trained.directions()
        self._enrolled: dict[int, list[Line] | None] = {}
        if not np.isin(dev.systems, self._known).any() or not dev.lengths:
            raise CalibrationError(
                "dev holds no clip of a system of train: a tracer cannot be calibrated on it"
            )
        if len({*dev.systems, *self._known}) < 2:
            raise CalibrationError("dev and train hold one system alone: a tracer cannot be calibrated on it")

    @cached_property
    def parts(self) -> list[Clips]:
        """Dev at each length, (L,)."""
        return [self.dev.of_length(seconds) for seconds in self.dev.lengths]

    @cached_property
    def trained(self) -> list[Line]:
        """For systems of training: dev's clips of seen systems against their own, of all against others, (L,)."""
        lines = []
        for part in self.parts:
            cosines = part.vectors @ self._directions.T
            hit = part.systems[:, None] == self._known
            lines.append(fit_line(cosines.ravel(), hit.ravel(), prior=self._prior))
        return lines

    def enrolled(self, size: int) -> list[Line]:
        """For systems enrolled from `size` clips, (L,): dev's systems that training did not know play them in turn.

        Each is enrolled ENROLMENTS times from as many whole utterances drawn (at most half of its own); the clips that
        no such utterance is in are the trials. Where dev has no such system, the lines of `trained`.
        """
        if size not in self._enrolled:
            self._enrolled[size] = self._of_enrolments(size)
        return self._enrolled[size] or self.trained

    def _of_enrolments(self, size: int) -> list[Line] | None:
        whole, rng = self.dev.of_length(WHOLE), np.random.default_rng([self._seed, size])
        plays = [
            (system, rng.choice(own, size=max(1, min(size, len(own) // 2)), replace=False))
            for system in sorted(set(whole.systems) - set(self._known))
            for own in [np.flatnonzero(whole.systems == system)] * ENROLMENTS
            if len(own) > 1
        ]
        lines = []
        for part in self.parts:
            inside = part.shares_with(whole)  # (n of the length, N whole)
            scores, targets = [np.empty(0)], [np.empty(0, dtype=bool)]
            for system, drawn in plays:
                free = ~inside[:, drawn].any(axis=1)
                direction = unit(whole.vectors[drawn].mean(axis=0, keepdims=True))[0]
                scores.append(part.vectors[free] @ direction)
                targets.append(part.systems[free] == system)
            target = np.concatenate(targets)
            if not target.any() or target.all():
                return None
            lines.append(fit_line(np.concatenate(scores), target, prior=self._prior))
        return lines

    @cached_property
    def pairs(self) -> list[Line]:
        """For two clips: all pairs of a length that share no utterance, (L,). Raises TracerError without such pairs of
        one system or of two."""
        lines = []
        for part in self.parts:
            scores, same = part.pairs()
            if not same.any() or same.all():
                raise CalibrationError(
                    "dev has no two clips of one system, or none of two: clips cannot be compared by it"
                )
            lines.append(fit_line(scores, same, prior=self._prior))
        return lines

    @cached_property
    def speech_seconds(self) -> Numbers:
        """(L,), rising: the median of each length."""
        found = [float(np.median(part.rows["speech_seconds"])) for part in self.parts]
        rising: Numbers = np.maximum.accumulate(found) + 1e-6 * np.arange(len(found))
        return rising

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """LLRs beyond which as many clips as dev has say nothing: the rarer error than one in all of them."""
        hits = min(int(np.isin(part.systems, self._known).sum()) for part in self.parts)
        clips = min(len(part.systems) for part in self.parts)
        return -float(np.log(hits + 1)), float(np.log(clips + 1))

    def at(self, values: Numbers, speech_seconds: Numbers) -> Numbers:
        """`values` (L,) or (L, S) between the lengths: (N,) or (N, S) for speech_seconds (N,)."""
        return between(values, self.speech_seconds, speech_seconds)

    def pair_llrs(self, cosines: Numbers, speech_seconds: Numbers) -> Numbers:
        """(N,): one system against two, from cosines (N,) of clips of which the shorter has speech_seconds (N,)."""
        line = self.at(np.array(self.pairs), speech_seconds)
        ratios: Numbers = line[:, 0] + line[:, 1] * cosines
        return ratios


def between(values: Numbers, at_seconds: Numbers, speech_seconds: Numbers) -> Numbers:
    """`values` (L,) or (L, S), known at_seconds (L,), for speech_seconds (N,): linear in their logarithm, then flat."""
    place = np.interp(
        np.log(np.maximum(speech_seconds, 1e-3)), np.log(at_seconds), np.arange(len(at_seconds))
    )
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(at_seconds) - 1)
    share = (place - low).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):  # infinite values on either side
        return np.asarray(np.where(share > 0, (1 - share) * values[low] + share * values[high], values[low]))


def calibrate(gallery: Gallery, lines: Lines, *, false_accept_rate: float, coverage: float) -> Calibrated:
    """What holds for this gallery; its trained systems are those of `lines`."""
    table, names = gallery.table, np.array(gallery.systems, dtype=str)
    directions, families = gallery.directions(), family_names(table)
    of_systems = [
        lines.trained if origin == TRAINED else lines.enrolled(clips)
        for origin, clips in zip(table["origin"], table["clips"], strict=True)
    ]
    offset, slope = np.moveaxis(np.array(of_systems), (0, 1, 2), (2, 1, 0))  # (L, S) each
    trained = (table["origin"] == TRAINED).to_numpy()
    # the systems of training are one group, each enrolled one is another: an enrolment leaves the others as they are
    groups = np.where(trained, 0, np.cumsum(~trained))
    unseen = bool((~np.isin(lines.dev.systems, names)).any())
    found = [
        _thresholds(
            part,
            offset[length] + slope[length] * (part.vectors @ directions.T),
            names,
            families,
            groups=groups,
            unseen=unseen,
            false_accept_rate=false_accept_rate,
            coverage=coverage,
        )
        for length, part in enumerate(lines.parts)
    ]
    system_above, family_above, margin = zip(*found, strict=True)
    lowest, highest = lines.bounds
    return Calibrated(
        seconds=lines.speech_seconds,
        offset=offset,
        slope=slope,
        system_above=np.array(system_above),
        family_above=np.array(family_above),
        margin=np.array(margin),
        lowest=lowest,
        highest=highest,
        rejected_by="unseen" if unseen else "left_out",
    )


def _thresholds(
    part: Clips,
    llrs: Numbers,
    names: NDArray[np.str_],
    families: NDArray[np.str_],
    *,
    groups: NDArray[np.int64],
    unseen: bool,
    false_accept_rate: float,
    coverage: float,
) -> tuple[Numbers, Numbers, float]:
    """system_above (S,), family_above (S,) and margin, from the LLRs (N, S) of dev at one length."""
    own = part.systems[:, None] == names
    of_gallery = own.any(axis=1)
    unknown = ~of_gallery if unseen else np.ones(len(own), dtype=bool)
    strange = unknown & ~np.isin(family_names(part.rows.set_index("system")), families)
    others = np.where(own, -np.inf, llrs)
    best = [others[:, groups == group].max(axis=1) for group in range(groups.max() + 1)]
    system_above = np.array([accept_threshold(each[unknown], rate=false_accept_rate) for each in best])
    family_above = system_above
    if strange.any():  # naming a system names its family, too: what keeps strange families out goes for both
        family_above = np.array([accept_threshold(each[strange], rate=false_accept_rate) for each in best])
        system_above = np.maximum(system_above, family_above)
    behind = (llrs.max(axis=1) - np.where(own, llrs, -np.inf).max(axis=1))[of_gallery]
    return system_above[groups], family_above[groups], conformal_margin(behind, coverage=coverage)


def family_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """The family of each row of a table indexed by system; a system without one is its own."""
    family = table["family"].fillna("").to_numpy(dtype=str)
    return np.where(family == "", table.index.to_numpy(dtype=str), family)
