"""EERs inside the values of a column, against lists of all pairs in NumPy."""

from itertools import combinations

import numpy as np
import pytest
from brute_force import eer_percent
from scipy.stats import norm, t

from makermark.scoring.pairs import score_all_pairs
from makermark.scoring.within import (
    mean_quantile_levels,
    score_within,
    select_rows,
    within_to_json,
)

PAGES = ["one"] * 22 + ["two"] * 14 + ["three"] * 4 + [""] * 5
SYSTEMS = [*"aaaabbbbccccdddeeeffff", *"aaaaggggghhhii", *"jjjj", *"abcde"]


@pytest.fixture(scope="module")
def drawn():
    """Embeddings, systems and pages; page three has one system, five rows have no page."""
    rng = np.random.default_rng(7)
    systems = np.array(SYSTEMS)
    centres = {name: rng.normal(size=6) for name in sorted(set(SYSTEMS))}
    embeddings = np.stack([centres[name] for name in SYSTEMS]) + 1.5 * rng.normal(size=(len(systems), 6))
    return embeddings.astype(np.float32), systems, np.array(PAGES)


def listed_eers(embeddings, systems, pages, page, weights=None):
    """Return the micro EER and the EERs by system, in percent, over a list of all pairs of one page."""
    pairs = [(i, j) for i, j in combinations(range(len(systems)), 2) if pages[i] == page and pages[j] == page]
    first, second = np.array(pairs).T
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = (unit[first] * unit[second]).sum(axis=1)
    is_target = systems[first] == systems[second]
    weights = weights or dict.fromkeys(systems.tolist(), 1)
    times = [np.array([weights[name] for name in systems[side]], float) for side in (first, second)]
    weight = np.where(is_target, times[0], times[0] * times[1])
    by_system = {}
    for name in sorted(set(systems[pages == page].tolist())):
        mine = (systems[first] == name) | (systems[second] == name)
        by_system[name] = eer_percent(is_target[mine], scores[mine], weight[mine])
    return eer_percent(is_target, scores, weight), by_system


def test_eers_within_a_column_equal_those_of_listed_pairs(drawn):
    result = score_within(*drawn, bootstrap_samples=0, seed=0)
    assert list(result.values) == ["one", "two"]
    micros, macros = [], []
    for page in ("one", "two"):
        micro, by_system = listed_eers(*drawn, page)
        macro = np.mean(list(by_system.values()))
        assert result.values[page].eer_micro_percent == pytest.approx(micro, abs=1e-4)
        assert result.values[page].eer_macro_percent == pytest.approx(macro, abs=1e-4)
        micros, macros = [*micros, micro], [*macros, macro]
    assert result.eer_micro_percent == pytest.approx(np.mean(micros), abs=1e-4)
    assert result.eer_macro_percent == pytest.approx(np.mean(macros), abs=1e-4)


def test_trials_of_different_values_are_not_counted(drawn):
    result = score_within(*drawn, bootstrap_samples=0, seed=0)
    targets = {"one": 4 * 6 + 2 * 3, "two": 6 + 10 + 3 + 1}
    pairs = {"one": 22 * 21 // 2, "two": 14 * 13 // 2}
    for page, value in result.values.items():
        assert (value.target_trials, value.nontarget_trials) == (targets[page], pairs[page] - targets[page])
    assert (result.target_trials, result.utterances, result.systems) == (sum(targets.values()), 36, 9)


def test_systems_with_few_utterances_in_a_value_are_left_out_of_it(drawn):
    embeddings, systems, pages = drawn
    result = score_within(*drawn, min_utterances=4, bootstrap_samples=0, seed=0)
    assert (result.values["one"].systems, result.values["two"].systems) == (4, 2)
    chosen = (pages == "two") & np.isin(systems, ["a", "g"])
    expected = score_all_pairs(embeddings[chosen], systems[chosen], bootstrap_samples=0, seed=0)
    assert result.values["two"].eer_micro_percent == expected.eer_micro_percent


def test_one_value_has_the_eer_of_the_whole_set(drawn):
    embeddings, systems, _ = drawn
    result = score_within(embeddings, systems, np.full(len(systems), "all"), bootstrap_samples=50, seed=0)
    whole = score_all_pairs(embeddings, systems, bootstrap_samples=50, seed=0)
    assert result.eer_micro_percent == whole.eer_micro_percent
    assert result.values["all"].eer_macro_ci95_percent == whole.eer_macro_ci95_percent


def test_order_of_rows_and_threads_do_not_change_the_result(drawn):
    order = np.random.default_rng(0).permutation(len(SYSTEMS))
    first = score_within(*drawn, bootstrap_samples=20, seed=3, threads=1)
    assert first == score_within(*(part[order] for part in drawn), bootstrap_samples=20, seed=3, threads=2)


def test_interval_of_the_mean_equals_that_of_listed_weighted_trials(drawn):
    """Every resample draws all nine systems once for both pages; a page without trials of both kinds has no EER."""
    samples, names = 30, sorted(set(SYSTEMS) - {"j"})
    resampled = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=samples)
    micro, macro = [], []
    for times in resampled:
        weights = dict(zip(names, times.tolist(), strict=True)) | {"j": 0}
        pages = [listed_eers(*drawn, page, weights) for page in ("one", "two")]
        micros = [value for value, _ in pages if value is not None]
        micro += [np.mean(micros)] if micros else []
        macros = [
            np.average(
                [v for v in eers.values() if v is not None],
                weights=[weights[n] for n, v in eers.items() if v is not None],
            )
            for _, eers in pages
            if any(v is not None for v in eers.values())
        ]
        macro += [np.mean(macros)] if macros else []
    result = score_within(*drawn, bootstrap_samples=samples, seed=5)
    levels = mean_quantile_levels(systems=9, cells=10, values=2)
    assert result.eer_micro_ci95_percent == pytest.approx(np.quantile(micro, levels), abs=0.1)
    assert result.eer_macro_ci95_percent == pytest.approx(np.quantile(macro, levels), abs=0.1)


def test_quantile_levels_of_one_value_are_those_of_hesterberg_and_of_more_values_are_wider():
    alpha = norm.cdf(-np.sqrt(9 / 8) * t.ppf(0.975, 8))
    assert mean_quantile_levels(systems=9, cells=9, values=1) == pytest.approx((alpha, 1 - alpha))
    nested = norm.cdf(-np.sqrt(60 / 40) * t.ppf(0.975, 40))  # 20 values of 3 systems
    assert mean_quantile_levels(systems=60, cells=60, values=20) == pytest.approx((nested, 1 - nested))
    crossed = norm.cdf(-np.sqrt(60 / 40) * t.ppf(0.975, 2))  # the same 3 systems in every value
    assert mean_quantile_levels(systems=3, cells=60, values=20) == pytest.approx((crossed, 1 - crossed))


def test_few_systems_have_no_interval(drawn):
    result = score_within(*drawn, bootstrap_samples=20, seed=0)
    assert result.values["one"].eer_micro_ci95_percent is not None  # six systems
    assert result.values["two"].eer_micro_ci95_percent is None  # four
    assert score_within(*drawn, bootstrap_samples=0, seed=0).eer_micro_ci95_percent is None


def test_column_without_trials_of_both_kinds_has_no_eer(drawn):
    embeddings, systems, _ = drawn
    result = score_within(embeddings, systems, systems, bootstrap_samples=10, seed=0)
    assert (result.eer_micro_percent, result.utterances, dict(result.values)) == (None, 0, {})


def test_select_rows_skips_empty_values_and_values_of_one_system():
    systems, column = np.array(list("aabba")), np.array(["x", "x", "x", "y", ""])
    assert {
        value: rows.tolist() for value, rows in select_rows(systems, column, min_utterances=1).items()
    } == {"x": [0, 1, 2]}
    assert select_rows(systems, column, min_utterances=2) == {}


def test_json_has_lists_for_intervals(drawn):
    values = within_to_json(score_within(*drawn, bootstrap_samples=20, seed=0))
    assert isinstance(values["eer_micro_ci95_percent"], list)
    assert isinstance(values["values"]["one"]["eer_macro_ci95_percent"], list)
    assert values["values"]["two"]["eer_micro_ci95_percent"] is None
