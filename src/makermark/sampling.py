"""Which utterances share a training batch: indices and labels only, no audio and no features.

Contract: `len(sampler)` is the number of batches of every epoch, and `sampler.batches(epoch)` gives them as
int64 arrays of row numbers into `systems`. (seed, epoch) decides everything: a sampler remembers nothing
between epochs, so that a resumed training sees the batches of an undisturbed one.

Legend: N utterances, C systems, P systems in a batch, K utterances of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from makermark.errors import ParamsError, TrainingError
from makermark.registry import build_from, check_settings

Rows = NDArray[np.int64]


class Sampler(Protocol):
    """What every class in SAMPLERS offers."""

    makes_groups: ClassVar[bool]  # whether a batch brings a chosen number of utterances of each system
    least: ClassVar[Mapping[str, int]]  # the lowest value of each setting

    def __len__(self) -> int: ...

    def batches(self, epoch: int) -> list[Rows]: ...


class RandomSampler:
    """All utterances in random order; each stands in exactly one batch of an epoch.

    An epoch has ceil(N / batch_utterances) batches, and their sizes differ by at most 1: there is no short
    last batch to drop or to fill up.
    """

    makes_groups: ClassVar[bool] = False
    least: ClassVar[Mapping[str, int]] = {"batch_utterances": 2}

    def __init__(self, systems: Sequence[Any], *, seed: int, batch_utterances: int) -> None:
        _refuse_below(self.least, "random", batch_utterances=batch_utterances)
        if len(systems) == 0:
            raise TrainingError(
                "sampler random: no utterances to train on; look at split train of the manifest"
            )
        self._utterances = len(systems)
        self._batch_utterances = batch_utterances
        self._seed = seed

    def __len__(self) -> int:
        return math.ceil(self._utterances / self._batch_utterances)

    def batches(self, epoch: int) -> list[Rows]:
        rng = np.random.default_rng([self._seed, epoch])
        return np.array_split(rng.permutation(self._utterances), len(self))


class BalancedSampler:
    """P systems x K utterances in every batch, all distinct, however unequal the systems are.

    An epoch has ceil(N / (P K)) batches. Inside it every system stands in the same number of batches, within
    1, and those that stand in one more change from epoch to epoch, so that over any number of epochs the
    counts agree within 1 as well. Each system's utterances are dealt from its own shuffled deck, K at a time;
    the deck goes on from one epoch to the next and is shuffled again when it is used up. So every utterance
    is used as often as any other of its system, within 1: small systems recur within an epoch, large ones are
    walked through over several.
    """

    makes_groups: ClassVar[bool] = True
    least: ClassVar[Mapping[str, int]] = {"batch_systems": 1, "utterances_per_system": 1}

    def __init__(
        self, systems: Sequence[Any], *, seed: int, batch_systems: int, utterances_per_system: int
    ) -> None:
        sizes = {"batch_systems": batch_systems, "utterances_per_system": utterances_per_system}
        _refuse_below(self.least, "balanced", **sizes)
        names, column, counts = np.unique(np.asarray(systems), return_inverse=True, return_counts=True)
        if batch_systems > len(names):
            raise TrainingError(
                f"sampler balanced: batch_systems is {batch_systems}, but split train has "
                f"{len(names)} systems; lower samplers.balanced.batch_systems to {len(names)} or below"
            )
        if counts.min() < utterances_per_system:
            scarce = int(counts.argmin())
            raise TrainingError(
                f"sampler balanced: system {str(names[scarce])!r} has {counts[scarce]} utterances in split "
                f"train, fewer than utterances_per_system ({utterances_per_system}); lower samplers.balanced."
                f"utterances_per_system to {counts[scarce]}, or give that system more utterances"
            )
        self._rows = np.split(np.argsort(column, kind="stable"), np.cumsum(counts)[:-1])  # of each system
        self._p = batch_systems
        self._k = utterances_per_system
        self._seed = seed
        self._batches = math.ceil(len(column) / (batch_systems * utterances_per_system))

    def __len__(self) -> int:
        return self._batches

    def batches(self, epoch: int) -> list[Rows]:
        before, after = self._turns(epoch), self._turns(epoch + 1)
        rng = np.random.default_rng([self._seed, epoch])
        once_more = np.flatnonzero(after - before > (after - before).min())
        chosen = islice(deal(rng, len(self._rows), hand=self._p, first=once_more), len(self))
        shuffled = rng.permutation(np.stack(list(chosen)))  # (batches, P)
        hands = [self._hands(system, turn) for system, turn in enumerate(before)]
        return [np.concatenate([next(hands[system]) for system in batch]) for batch in shuffled]

    def _turns(self, epoch: int) -> Rows:
        """(C,): in how many batches each system stands before `epoch`: places go round in a fixed order."""
        order = np.random.default_rng(self._seed).permutation(len(self._rows))
        rounds, over = divmod(epoch * len(self) * self._p, len(self._rows))
        return rounds + (order < over)

    def _hands(self, system: int, turn: int) -> Iterator[Rows]:
        """The K utterances that a system brings to its batch number `turn`, and to those that follow.

        After n / gcd(n, K) turns a system of n utterances has dealt whole decks only; each such cycle has its
        own generator, so that any turn can be found without those of the epochs before.
        """
        rows = self._rows[system]
        turns = len(rows) // math.gcd(len(rows), self._k)
        for cycle in count(turn // turns):
            rng = np.random.default_rng([self._seed, system, cycle, 1])  # 1: apart from [seed, epoch]
            place = turn % turns if cycle == turn // turns else 0
            for hand in islice(deal(rng, len(rows), hand=self._k), place, turns):
                yield rows[hand]


SAMPLERS: dict[str, type[Sampler]] = {
    "random": RandomSampler,
    "balanced": BalancedSampler,
}


def build(name: str, systems: Sequence[Any], *, seed: int, **settings: str | int | float | bool) -> Sampler:
    """The sampler called `name` over the utterances whose systems are given, row by row.

    Raises ParamsError for an unknown name or setting, or one out of range, TrainingError where systems are too few
    or too small.
    """
    check(name, **settings)
    facts = {"systems": systems, "seed": seed}
    return build_from(SAMPLERS, name, what="sampler", facts=facts, settings=settings)


def check(name: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError for an unknown sampler or setting, or one out of range; needs no data."""
    check_settings(SAMPLERS, name, what="sampler", facts={"systems": None, "seed": None}, settings=settings)
    _refuse_below(SAMPLERS[name].least, name, **settings)


def check_groups(name: str, *, loss: str, **settings: str | int | float | bool) -> None:
    """Raise ParamsError unless sampler `name` brings at least 2 utterances of each system it chooses.

    For losses with `needs_groups`; it needs no data, so that a run is refused before any work.
    """
    check(name, **settings)
    if not SAMPLERS[name].makes_groups:
        grouping = [choice for choice, kind in SAMPLERS.items() if kind.makes_groups]
        raise ParamsError(
            f"loss {loss!r} compares utterances of one system inside a batch, which sampler {name!r} "
            f"leaves to chance; choose a sampler of {grouping}, or another loss"
        )
    if int(settings["utterances_per_system"]) < 2:
        raise ParamsError(
            f"loss {loss!r} compares utterances of one system inside a batch, but "
            f"samplers.{name}.utterances_per_system is {settings['utterances_per_system']}; make it 2 or more"
        )


def deal(rng: np.random.Generator, cards: int, *, hand: int, first: Rows | None = None) -> Iterator[Rows]:
    """Deal hands of `hand` distinct cards out of 0 .. cards - 1 for ever.

    A shuffled deck is used up before the next one begins; where a hand takes the last cards of one deck,
    those of the next that it already holds stay in that deck. `first` are the cards of the first deck, by
    default all.
    """
    deck = rng.permutation(cards if first is None else first)
    while True:
        if len(deck) >= hand:
            dealt, deck = deck[:hand], deck[hand:]
        else:
            fresh = rng.permutation(cards)
            taken = fresh[~np.isin(fresh, deck)][: hand - len(deck)]
            dealt, deck = np.concatenate([deck, taken]), fresh[~np.isin(fresh, taken)]
        yield dealt


def _refuse_below(least: Mapping[str, int], sampler: str, **settings: Any) -> None:
    for name, lowest in least.items():
        if settings[name] < lowest:
            raise ParamsError(f"samplers.{sampler}.{name} is {settings[name]}; it is at least {lowest}")
