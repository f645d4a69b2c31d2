"""Samplers: which utterances form a training batch. They read labels only, no audio and no features.

Contract: `len(sampler)` is the number of batches of every epoch, and `sampler.batches(epoch)` returns them as int64
arrays of positions into `systems`. (seed, epoch) determines all random numbers. A sampler has no state between epochs:
a resumed training gets the batches of an uninterrupted one.

Legend: N utterances, C systems, P systems in a batch, K utterances of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, ClassVar, Protocol

import numpy as np

from makermark.foundation.arrays import IntArray
from makermark.foundation.errors import ParamsError, TrainingError
from makermark.foundation.settings import build_registered, check_settings


class Sampler(Protocol):
    """The contract of every class in SAMPLERS."""

    makes_groups: ClassVar[bool]  # whether every batch has a fixed number of utterances per system
    minimum: ClassVar[Mapping[str, int]]  # the lowest value of each setting

    def __len__(self) -> int: ...

    def batches(self, epoch: int) -> list[IntArray]: ...


class RandomSampler:
    """All utterances in random order; each is in exactly one batch of an epoch.

    An epoch has ceil(N / batch_utterances) batches, whose sizes differ by at most 1: no short last batch has to be
    dropped or filled up.
    """

    makes_groups: ClassVar[bool] = False
    minimum: ClassVar[Mapping[str, int]] = {"batch_utterances": 2}

    def __init__(self, systems: Sequence[Any], *, seed: int, batch_utterances: int) -> None:
        _check_minimum(self.minimum, "random", batch_utterances=batch_utterances)
        if len(systems) == 0:
            raise TrainingError(
                "sampler random: no utterances to train on; look at split train of the manifest"
            )
        self._utterances = len(systems)
        self._batch_utterances = batch_utterances
        self._seed = seed

    def __len__(self) -> int:
        return math.ceil(self._utterances / self._batch_utterances)

    def batches(self, epoch: int) -> list[IntArray]:
        rng = np.random.default_rng([self._seed, epoch])
        return np.array_split(rng.permutation(self._utterances), len(self))


class BalancedSampler:
    """P systems x K utterances in every batch, all distinct, however unequal the systems are.

    An epoch has ceil(N / (P K)) batches. In an epoch all systems are in the same number of batches, within 1. The
    systems with one batch more change from epoch to epoch, so that the counts agree within 1 over any number of epochs
    too. Each system's utterances are drawn without replacement from its own permutation, K at a time. The permutation
    continues in the next epoch and is renewed when it is used up: every utterance is used as often as any other of
    its system, within 1. Small systems recur within an epoch; large ones take several epochs.
    """

    makes_groups: ClassVar[bool] = True
    minimum: ClassVar[Mapping[str, int]] = {"batch_systems": 1, "utterances_per_system": 1}

    def __init__(
        self, systems: Sequence[Any], *, seed: int, batch_systems: int, utterances_per_system: int
    ) -> None:
        sizes = {"batch_systems": batch_systems, "utterances_per_system": utterances_per_system}
        _check_minimum(self.minimum, "balanced", **sizes)
        names, column, counts = np.unique(np.asarray(systems), return_inverse=True, return_counts=True)
        if batch_systems > len(names):
            raise TrainingError(
                f"sampler balanced: batch_systems is {batch_systems}, but split train has "
                f"{len(names)} systems; lower samplers.balanced.batch_systems to {len(names)} or below"
            )
        if counts.min() < utterances_per_system:
            smallest = int(counts.argmin())
            raise TrainingError(
                f"sampler balanced: system {str(names[smallest])!r} has {counts[smallest]} utterances in split "
                f"train, fewer than utterances_per_system ({utterances_per_system}); lower samplers.balanced."
                f"utterances_per_system to {counts[smallest]}, or give that system more utterances"
            )
        self._rows = np.split(np.argsort(column, kind="stable"), np.cumsum(counts)[:-1])  # of each system
        self._p = batch_systems
        self._k = utterances_per_system
        self._seed = seed
        self._batches = math.ceil(len(column) / (batch_systems * utterances_per_system))

    def __len__(self) -> int:
        return self._batches

    def batches(self, epoch: int) -> list[IntArray]:
        before, after = self._batches_before(epoch), self._batches_before(epoch + 1)
        rng = np.random.default_rng([self._seed, epoch])
        with_one_more = np.flatnonzero(after - before > (after - before).min())
        draws = draw_without_replacement(rng, len(self._rows), chunk=self._p, first=with_one_more)
        chosen = rng.permutation(np.stack(list(islice(draws, len(self)))))  # (batches, P)
        utterances = [self._utterances(system, batch) for system, batch in enumerate(before)]
        return [np.concatenate([next(utterances[system]) for system in batch]) for batch in chosen]

    def _batches_before(self, epoch: int) -> IntArray:
        """Return (C,): the number of batches of each system in all epochs before `epoch`."""
        order = np.random.default_rng(self._seed).permutation(len(self._rows))
        rounds, remainder = divmod(epoch * len(self) * self._p, len(self._rows))
        return rounds + (order < remainder)

    def _utterances(self, system: int, batch: int) -> Iterator[IntArray]:
        """Yield the K utterances of a system in its batch number `batch`, and in those that follow.

        After n / gcd(n, K) batches a system of n utterances has used whole permutations only. Each such cycle has its
        own generator, so that any batch can be computed without the epochs before it.
        """
        rows = self._rows[system]
        cycle_batches = len(rows) // math.gcd(len(rows), self._k)
        for cycle in count(batch // cycle_batches):
            rng = np.random.default_rng([self._seed, system, cycle, 1])  # 1: not the stream [seed, epoch]
            start = batch % cycle_batches if cycle == batch // cycle_batches else 0
            chunks = draw_without_replacement(rng, len(rows), chunk=self._k)
            for chunk in islice(chunks, start, cycle_batches):
                yield rows[chunk]


SAMPLERS: dict[str, type[Sampler]] = {
    "random": RandomSampler,
    "balanced": BalancedSampler,
}


def build(name: str, systems: Sequence[Any], *, seed: int, **settings: str | int | float | bool) -> Sampler:
    """Build the sampler `name` over utterances with these systems, row by row.

    Raises ParamsError for an unknown name or setting, or one out of range; TrainingError if there are too few
    systems, or too few utterances of one.
    """
    facts = {"systems": systems, "seed": seed}
    return build_registered(SAMPLERS, name, kind="sampler", facts=facts, settings=settings)


def check(name: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError for an unknown sampler or setting, or one out of range; needs no data."""
    check_settings(SAMPLERS, name, kind="sampler", facts={"systems": None, "seed": None}, settings=settings)
    _check_minimum(SAMPLERS[name].minimum, name, **settings)


def check_groups(name: str, *, loss: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError unless the batches of sampler `name` have at least 2 utterances of each of their systems.

    For losses with `needs_groups`; needs no data.
    """
    check(name, **settings)
    if not SAMPLERS[name].makes_groups:
        choices = [choice for choice, sampler in SAMPLERS.items() if sampler.makes_groups]
        raise ParamsError(
            f"loss {loss!r} compares utterances of one system within a batch, and sampler {name!r} does not guarantee "
            f"several of one system; choose a sampler of {choices}, or another loss"
        )
    if int(settings["utterances_per_system"]) < 2:
        raise ParamsError(
            f"loss {loss!r} compares utterances of one system within a batch, but "
            f"samplers.{name}.utterances_per_system is {settings['utterances_per_system']}; make it 2 or more"
        )


def draw_without_replacement(
    rng: np.random.Generator, size: int, *, chunk: int, first: IntArray | None = None
) -> Iterator[IntArray]:
    """Yield chunks of `chunk` distinct numbers out of 0 .. size - 1, without end.

    A permutation is used up before the next one begins. A chunk across two permutations takes the rest of the first
    one, and from the second one numbers that are not in that rest. `first` are the numbers of the first permutation;
    None: all.
    """
    permutation = rng.permutation(size if first is None else first)
    while True:
        if len(permutation) >= chunk:
            drawn, permutation = permutation[:chunk], permutation[chunk:]
        else:
            following = rng.permutation(size)
            added = following[~np.isin(following, permutation)][: chunk - len(permutation)]
            drawn = np.concatenate([permutation, added])
            permutation = following[~np.isin(following, added)]
        yield drawn


def _check_minimum(minimum: Mapping[str, int], sampler: str, **settings: Any) -> None:
    for name, lowest in minimum.items():
        if settings[name] < lowest:
            raise ParamsError(f"samplers.{sampler}.{name} is {settings[name]}; it is at least {lowest}")
