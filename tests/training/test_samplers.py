"""The contract of all samplers, and the epochs of each."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark.foundation.errors import ParamsError, TrainingError
from makermark.foundation.params import read_params
from makermark.training import samplers
from makermark.training.samplers import SAMPLERS, BalancedSampler, RandomSampler

SETTINGS = read_params(Path(__file__).parents[2] / "params.yaml").samplers

every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@st.composite
def balanced_cases(draw: st.DrawFn) -> tuple[list[str], int, int, int]:
    """Draw (systems in shuffled rows and of unequal sizes, P, K, seed) that fit together."""
    k = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(k, 17), min_size=1, max_size=8))
    rows = [f"system{index}" for index, size in enumerate(sizes) for _ in range(size)]
    return draw(st.permutations(rows)), draw(st.integers(1, len(sizes))), k, draw(st.integers(0, 2**40))


def balanced(case: tuple[list[str], int, int, int]) -> BalancedSampler:
    systems, p, k, seed = case
    return BalancedSampler(systems, seed=seed, batch_systems=p, utterances_per_system=k)


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


# ---- every sampler


@every_sampler
def test_sampler_builds_from_the_settings_of_params_yaml(name: str) -> None:
    systems = np.repeat(np.arange(24), 55)
    sampler = samplers.build(name, systems, seed=0, **SETTINGS[name])
    batches = sampler.batches(0)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert batch.dtype == np.int64
        assert len(set(batch.tolist())) == len(batch)


@every_sampler
def test_sampler_depends_on_seed_and_epoch_only(name: str) -> None:
    systems = np.repeat(["a", "b", "c", "d"], [30, 40, 50, 60])
    sizes = {
        "random": {"batch_utterances": 16},
        "balanced": {"batch_systems": 3, "utterances_per_system": 4},
    }
    one, same = (samplers.build(name, systems, seed=3, **sizes[name]) for _ in range(2))
    other = samplers.build(name, systems, seed=4, **sizes[name])
    one.batches(0)  # earlier epochs have no influence
    epoch_5 = [batch.tolist() for batch in one.batches(5)]
    assert epoch_5 == [batch.tolist() for batch in same.batches(5)]
    assert epoch_5 != [batch.tolist() for batch in one.batches(6)]
    assert epoch_5 != [batch.tolist() for batch in other.batches(5)]


@every_sampler
def test_sampler_neither_uses_nor_changes_the_global_generator(name: str) -> None:
    systems = np.repeat(np.arange(24), 55)
    sampler = samplers.build(name, systems, seed=0, **SETTINGS[name])
    np.random.seed(0)
    first = sampler.batches(1)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    second = sampler.batches(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(state, np.random.get_state()[1])


@every_sampler
def test_build_raises_for_unknown_and_missing_settings(name: str) -> None:
    with pytest.raises(ParamsError, match=rf"sampler {name}: unknown settings \['batchsize'\].*it takes"):
        samplers.build(name, ["a"] * 10, seed=0, **SETTINGS[name], batchsize=3)
    with pytest.raises(ParamsError, match=rf"sampler {name}: missing settings"):
        samplers.build(name, ["a"] * 10, seed=0)


def test_build_raises_for_an_unknown_sampler_with_the_choices() -> None:
    with pytest.raises(
        ParamsError, match=r"unknown sampler 'ballanced'; it is one of \['random', 'balanced'\]"
    ):
        samplers.build("ballanced", ["a"], seed=0)


# ---- random


@given(utterances=st.integers(1, 300), batch=st.integers(2, 64), seed=st.integers(0, 2**40))
def test_random_sampler_uses_every_utterance_once_in_batches_of_equal_size(
    utterances: int, batch: int, seed: int
) -> None:
    sampler = RandomSampler(["x"] * utterances, seed=seed, batch_utterances=batch)
    batches = sampler.batches(2)
    assert len(batches) == len(sampler) == math.ceil(utterances / batch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(utterances))
    sizes = [len(rows) for rows in batches]
    assert max(sizes) <= batch
    assert spread(sizes) <= 1


def test_random_sampler_raises_without_utterances_and_for_batches_of_one() -> None:
    with pytest.raises(TrainingError, match="no utterances"):
        RandomSampler([], seed=0, batch_utterances=4)
    with pytest.raises(ParamsError, match=r"samplers\.random\.batch_utterances is 1; it is at least 2"):
        RandomSampler(["a", "b"], seed=0, batch_utterances=1)


# ---- balanced


@given(case=balanced_cases(), epoch=st.integers(0, 1000))
def test_balanced_sampler_batches_have_p_systems_of_k_distinct_utterances(
    case: tuple[list[str], int, int, int], epoch: int
) -> None:
    systems, p, k, _ = case
    sampler = balanced(case)
    batches = sampler.batches(epoch)
    assert len(batches) == len(sampler) == math.ceil(len(systems) / (p * k))
    for batch in batches:
        assert len(set(batch.tolist())) == p * k
        assert list(Counter(systems[row] for row in batch).values()) == [k] * p


@given(case=balanced_cases(), epoch=st.integers(0, 1000))
def test_balanced_sampler_uses_systems_in_equally_many_batches_of_an_epoch(
    case: tuple[list[str], int, int, int], epoch: int
) -> None:
    systems = case[0]
    counts = Counter(systems[row] for batch in balanced(case).batches(epoch) for row in batch)
    assert spread([counts[name] // case[2] for name in set(systems)]) <= 1


@settings(deadline=None)
@given(case=balanced_cases(), epochs=st.integers(1, 12))
def test_balanced_sampler_counts_agree_over_any_number_of_epochs(
    case: tuple[list[str], int, int, int], epochs: int
) -> None:
    """Between systems, and between the utterances of a system: permutations continue over epochs."""
    systems, _, k, _ = case
    sampler = balanced(case)
    counts = Counter(
        row for epoch in range(epochs) for batch in sampler.batches(epoch) for row in batch.tolist()
    )
    rows_of = {name: [row for row, other in enumerate(systems) if other == name] for name in set(systems)}
    for rows in rows_of.values():
        assert spread([counts[row] for row in rows]) <= 1
    assert spread([sum(counts[row] for row in rows) // k for rows in rows_of.values()]) <= 1


def test_balanced_sampler_reaches_every_utterance_of_a_large_system_and_repeats_small_ones() -> None:
    systems = ["large"] * 500 + ["small"] * 5 + ["middle"] * 50
    sampler = BalancedSampler(systems, seed=1, batch_systems=2, utterances_per_system=5)
    assert len(sampler) == 56
    counts = Counter(row for epoch in range(3) for batch in sampler.batches(epoch) for row in batch.tolist())
    assert set(counts) == set(range(555))
    assert min(counts[row] for row in range(500, 505)) > 50


def test_balanced_sampler_combines_all_pairs_of_systems() -> None:
    """A fixed schedule of systems would hide some comparisons from the loss."""
    systems = np.repeat(np.arange(6), 20)
    sampler = BalancedSampler(systems, seed=0, batch_systems=3, utterances_per_system=4)
    pairs = {
        (a, b)
        for epoch in range(20)
        for batch in sampler.batches(epoch)
        for a in systems[batch]
        for b in systems[batch]
    }
    assert len(pairs) == 36


def test_balanced_sampler_order_of_utterances_depends_on_seed_system_and_cycle() -> None:
    """With one system per batch, the first four batches of an epoch are one permutation of 12 utterances, the next
    four another one; the seed changes both, and two systems of equal size have different ones."""

    def permutations(seed: int, system: int) -> list[list[int]]:
        sampler = BalancedSampler(["a", "b"] * 12, seed=seed, batch_systems=2, utterances_per_system=3)
        rows = [
            row
            for epoch in range(2)
            for batch in sampler.batches(epoch)
            for row in batch
            if row % 2 == system
        ]
        return [[int(row) // 2 for row in rows[first : first + 12]] for first in (0, 12)]

    orders = [order for seed in (0, 1) for system in (0, 1) for order in permutations(seed, system)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(map(tuple, orders))) == 8


def test_balanced_sampler_draws_the_numbers_of_its_generators() -> None:
    """A training can be repeated only if a later version draws the same batches. Cycle c of system s is the
    permutation by generator [seed, s, c, 1]; here it is two batches of 3 out of 6 utterances. Both systems are in
    every batch."""
    sampler = BalancedSampler(["a", "b"] * 6, seed=7, batch_systems=2, utterances_per_system=3)
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for epoch in range(3):
        for batch in sampler.batches(epoch):
            for system in drawn:
                drawn[system] += [row // 2 for row in batch.tolist() if row % 2 == system]
    for system, rows in drawn.items():
        cycles = [np.random.default_rng([7, system, cycle, 1]).permutation(6) for cycle in range(3)]
        assert rows == np.concatenate(cycles).tolist()


def test_draw_without_replacement_across_permutations() -> None:
    """Chunks of 3 out of 4: each permutation is used up, and a chunk across two has no number twice."""
    draws = samplers.draw_without_replacement(np.random.default_rng(0), 4, chunk=3)
    numbers = [next(draws).tolist() for _ in range(8)]
    flat = [number for chunk in numbers for number in chunk]
    assert all(len(set(chunk)) == 3 for chunk in numbers)
    assert all(sorted(flat[first : first + 4]) == [0, 1, 2, 3] for first in range(0, 24, 4))
    first = samplers.draw_without_replacement(np.random.default_rng(0), 6, chunk=2, first=np.array([5, 3]))
    assert sorted(next(first).tolist()) == [3, 5]


@pytest.mark.parametrize("systems", [["b", "a"] * 6, np.array(["b", "a"] * 6), np.array([7, 3] * 6)])
def test_balanced_sampler_accepts_names_and_numbers(systems: list[str]) -> None:
    sampler = BalancedSampler(systems, seed=0, batch_systems=2, utterances_per_system=3)
    assert sorted(np.concatenate(sampler.batches(0)).tolist()) == list(range(12))


def test_balanced_sampler_error_names_the_system_that_is_too_small_and_the_remedy() -> None:
    with pytest.raises(TrainingError) as error:
        BalancedSampler(["a"] * 9 + ["b"] * 3, seed=0, batch_systems=2, utterances_per_system=4)
    assert "system 'b' has 3 utterances" in str(error.value)
    assert "lower samplers.balanced.utterances_per_system to 3" in str(error.value)
    assert "\n" not in str(error.value)


def test_balanced_sampler_raises_for_too_few_systems() -> None:
    with pytest.raises(TrainingError, match=r"batch_systems is 3, but .* 2 systems; lower .* to 2"):
        BalancedSampler(["a", "b"] * 9, seed=0, batch_systems=3, utterances_per_system=4)


@pytest.mark.parametrize(("p", "k"), [(0, 2), (2, 0), (-1, 2)])
def test_balanced_sampler_raises_for_sizes_below_one(p: int, k: int) -> None:
    with pytest.raises(ParamsError, match="it is at least 1"):
        BalancedSampler(["a", "b"] * 9, seed=0, batch_systems=p, utterances_per_system=k)


@every_sampler
def test_check_raises_for_a_setting_below_its_minimum_without_data(name: str) -> None:
    for setting, lowest in SAMPLERS[name].minimum.items():
        samplers.check(name, **(SETTINGS[name] | {setting: lowest}))
        with pytest.raises(ParamsError, match=rf"samplers\.{name}\.{setting} is .*; it is at least {lowest}"):
            samplers.check(name, **(SETTINGS[name] | {setting: lowest - 1}))


# ---- a loss that needs groups


def test_check_groups_raises_for_the_random_sampler() -> None:
    with pytest.raises(
        ParamsError, match=r"loss 'ge2e' .* sampler 'random' .* choose a sampler of \['balanced'\]"
    ):
        samplers.check_groups("random", loss="ge2e", **SETTINGS["random"])


def test_check_groups_raises_for_one_utterance_per_system() -> None:
    with pytest.raises(ParamsError, match=r"utterances_per_system is 1; make it 2 or more"):
        samplers.check_groups("balanced", loss="ge2e", batch_systems=4, utterances_per_system=1)
    with pytest.raises(ParamsError, match="takes a whole number"):
        samplers.check_groups("balanced", loss="ge2e", batch_systems=4, utterances_per_system=2.5)


def test_check_groups_accepts_the_balanced_sampler() -> None:
    samplers.check_groups("balanced", loss="ge2e", **SETTINGS["balanced"])
