"""What holds for every sampler, and what each promises about its epochs."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makermark import sampling
from makermark.errors import ParamsError, TrainingError
from makermark.params import read_params
from makermark.sampling import SAMPLERS, BalancedSampler, RandomSampler

SETTINGS = read_params(Path(__file__).parents[1] / "params.yaml").samplers

every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@st.composite
def balanced_cases(draw: st.DrawFn) -> tuple[list[str], int, int, int]:
    """Systems of unequal sizes in shuffled rows, a feasible P and K, and a seed."""
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
def test_params_yaml_has_its_settings_and_they_build_it(name: str) -> None:
    systems = np.repeat(np.arange(24), 55)
    sampler = sampling.build(name, systems, seed=0, **SETTINGS[name])
    batches = sampler.batches(0)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert batch.dtype == np.int64
        assert len(set(batch.tolist())) == len(batch)


@every_sampler
def test_seed_and_epoch_decide_everything(name: str) -> None:
    systems = np.repeat(["a", "b", "c", "d"], [30, 40, 50, 60])
    wanted = {
        "random": {"batch_utterances": 16},
        "balanced": {"batch_systems": 3, "utterances_per_system": 4},
    }
    one, same = (sampling.build(name, systems, seed=3, **wanted[name]) for _ in range(2))
    other = sampling.build(name, systems, seed=4, **wanted[name])
    one.batches(0)  # an epoch drawn before must not matter
    epoch_5 = [batch.tolist() for batch in one.batches(5)]
    assert epoch_5 == [batch.tolist() for batch in same.batches(5)]
    assert epoch_5 != [batch.tolist() for batch in one.batches(6)]
    assert epoch_5 != [batch.tolist() for batch in other.batches(5)]


@every_sampler
def test_no_hidden_global_generator(name: str) -> None:
    systems = np.repeat(np.arange(24), 55)
    sampler = sampling.build(name, systems, seed=0, **SETTINGS[name])
    np.random.seed(0)
    first = sampler.batches(1)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    second = sampler.batches(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(state, np.random.get_state()[1])


@every_sampler
def test_unknown_and_missing_settings_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ParamsError, match=rf"sampler {name}: unknown settings \['batchsize'\].*it takes"):
        sampling.build(name, ["a"] * 10, seed=0, **SETTINGS[name], batchsize=3)
    with pytest.raises(ParamsError, match=rf"sampler {name}: missing settings"):
        sampling.build(name, ["a"] * 10, seed=0)


def test_an_unknown_sampler_is_refused_with_the_choices() -> None:
    with pytest.raises(
        ParamsError, match=r"unknown sampler 'ballanced'; it is one of \['random', 'balanced'\]"
    ):
        sampling.build("ballanced", ["a"], seed=0)


# ---- random


@given(utterances=st.integers(1, 300), batch=st.integers(2, 64), seed=st.integers(0, 2**40))
def test_random_uses_every_utterance_exactly_once_in_batches_of_even_size(
    utterances: int, batch: int, seed: int
) -> None:
    sampler = RandomSampler(["x"] * utterances, seed=seed, batch_utterances=batch)
    batches = sampler.batches(2)
    assert len(batches) == len(sampler) == math.ceil(utterances / batch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(utterances))
    sizes = [len(rows) for rows in batches]
    assert max(sizes) <= batch
    assert spread(sizes) <= 1


def test_random_refuses_no_utterances_and_batches_of_one() -> None:
    with pytest.raises(TrainingError, match="no utterances"):
        RandomSampler([], seed=0, batch_utterances=4)
    with pytest.raises(ParamsError, match=r"samplers\.random\.batch_utterances is 1; it is at least 2"):
        RandomSampler(["a", "b"], seed=0, batch_utterances=1)


# ---- balanced


@given(case=balanced_cases(), epoch=st.integers(0, 1000))
def test_balanced_batches_hold_p_systems_of_k_distinct_utterances(
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
def test_balanced_systems_stand_in_equally_many_batches_of_an_epoch(
    case: tuple[list[str], int, int, int], epoch: int
) -> None:
    systems = case[0]
    seen = Counter(systems[row] for batch in balanced(case).batches(epoch) for row in batch)
    assert spread([seen[name] // case[2] for name in set(systems)]) <= 1


@settings(deadline=None)
@given(case=balanced_cases(), epochs=st.integers(1, 12))
def test_balanced_counts_agree_over_any_number_of_epochs(
    case: tuple[list[str], int, int, int], epochs: int
) -> None:
    """Between systems, and between the utterances of a system: the decks go on over the epochs."""
    systems, _, k, _ = case
    sampler = balanced(case)
    drawn = Counter(
        row for epoch in range(epochs) for batch in sampler.batches(epoch) for row in batch.tolist()
    )
    rows_of = {name: [row for row, other in enumerate(systems) if other == name] for name in set(systems)}
    for rows in rows_of.values():
        assert spread([drawn[row] for row in rows]) <= 1
    assert spread([sum(drawn[row] for row in rows) // k for rows in rows_of.values()]) <= 1


def test_balanced_reaches_every_utterance_of_a_large_system_and_repeats_small_ones() -> None:
    systems = ["large"] * 500 + ["small"] * 5 + ["middle"] * 50
    sampler = BalancedSampler(systems, seed=1, batch_systems=2, utterances_per_system=5)
    assert len(sampler) == 56
    drawn = Counter(row for epoch in range(3) for batch in sampler.batches(epoch) for row in batch.tolist())
    assert set(drawn) == set(range(555))
    assert min(drawn[row] for row in range(500, 505)) > 50


def test_balanced_chance_meets_all_pairs_of_systems() -> None:
    """A schedule that always put the same systems together would hide some comparisons from the loss."""
    systems = np.repeat(np.arange(6), 20)
    sampler = BalancedSampler(systems, seed=0, batch_systems=3, utterances_per_system=4)
    met = {
        (a, b)
        for epoch in range(20)
        for batch in sampler.batches(epoch)
        for a in systems[batch]
        for b in systems[batch]
    }
    assert len(met) == 36


@pytest.mark.parametrize("systems", [["b", "a"] * 6, np.array(["b", "a"] * 6), np.array([7, 3] * 6)])
def test_balanced_takes_names_and_numbers(systems: list[str]) -> None:
    sampler = BalancedSampler(systems, seed=0, batch_systems=2, utterances_per_system=3)
    assert sorted(np.concatenate(sampler.batches(0)).tolist()) == list(range(12))


def test_balanced_names_the_system_that_is_too_small_and_the_remedy() -> None:
    with pytest.raises(TrainingError) as caught:
        BalancedSampler(["a"] * 9 + ["b"] * 3, seed=0, batch_systems=2, utterances_per_system=4)
    assert "system 'b' has 3 utterances" in str(caught.value)
    assert "lower samplers.balanced.utterances_per_system to 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_balanced_refuses_more_systems_than_there_are() -> None:
    with pytest.raises(TrainingError, match=r"batch_systems is 3, but .* 2 systems; lower .* to 2"):
        BalancedSampler(["a", "b"] * 9, seed=0, batch_systems=3, utterances_per_system=4)


@pytest.mark.parametrize(("p", "k"), [(0, 2), (2, 0), (-1, 2)])
def test_balanced_refuses_counts_below_one(p: int, k: int) -> None:
    with pytest.raises(ParamsError, match="it is at least 1"):
        BalancedSampler(["a", "b"] * 9, seed=0, batch_systems=p, utterances_per_system=k)


# ---- a loss that needs groups


def test_a_grouping_loss_with_the_random_sampler_is_refused_before_any_data() -> None:
    with pytest.raises(
        ParamsError, match=r"loss 'ge2e' .* sampler 'random' .* choose a sampler of \['balanced'\]"
    ):
        sampling.check_groups("random", loss="ge2e", **SETTINGS["random"])


def test_a_grouping_loss_with_one_utterance_per_system_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"utterances_per_system is 1; make it 2 or more"):
        sampling.check_groups("balanced", loss="ge2e", batch_systems=4, utterances_per_system=1)
    with pytest.raises(ParamsError, match="takes a whole number"):
        sampling.check_groups("balanced", loss="ge2e", batch_systems=4, utterances_per_system=2.5)


def test_a_grouping_loss_with_the_balanced_sampler_is_accepted() -> None:
    sampling.check_groups("balanced", loss="ge2e", **SETTINGS["balanced"])
