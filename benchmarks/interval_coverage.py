"""How often 95 % intervals over systems contain the true EER, by simulation.

    python benchmarks/interval_coverage.py                      # 400 sets per row
    python benchmarks/interval_coverage.py --sets 200 --rows "9 systems" "27 systems"

A system is a random centre and a random spread; its utterances are normal around the centre. Each row draws sets of a
few systems from one population and computes both intervals from the same resamples of the systems: the plain percentile
interval (2.5 and 97.5 %) and the expanded one (`quantile_levels`). The true EER is that of large sets, which are many
sets of the row pooled. An interval covers if it contains the true EER; `above` and `below` are the intervals that lie
wholly above or below it. The column ± is the largest binomial standard error of a coverage in that row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from makermark.foundation.arrays import FloatArray, IntArray
from makermark.scoring.pairs import score_all_pairs
from makermark.scoring.pairs.intervals import quantile_levels, resampled_eers

DIM = 8
UTTERANCES = 8  # of every system that does not dominate
SPREAD = 0.55  # median standard deviation of an utterance in each dimension; centres have 1
SPREAD_SIGMA = 0.35  # of the logarithm of the spread, between systems
HARD = 3.0  # factor of the spread of a hard system
RESAMPLES = 1000
BINS = 512
LARGE_SYSTEMS = 400  # of one large set
LARGE_SETS = 10
PLAIN = (0.025, 0.975)

Recipe = Callable[
    [int, np.random.Generator], tuple[IntArray, FloatArray]
]  # utterances (C,), factor of the spread (C,)


def equal(systems: int, _: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return systems with equal numbers of utterances, from one distribution of difficulty."""
    return np.full(systems, UTTERANCES), np.ones(systems)


def half_of_utterances(systems: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return systems of which one has half of all utterances."""
    utterances, factor = equal(systems, rng)
    utterances[0] = UTTERANCES * (systems - 1)
    return utterances, factor


def one_hard_system(systems: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return systems of which exactly one is much harder."""
    utterances, factor = equal(systems, rng)
    factor[0] = HARD
    return utterances, factor


def half_and_hard(systems: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return systems of which one has half of all utterances and is much harder."""
    utterances, factor = half_of_utterances(systems, rng)
    factor[0] = HARD
    return utterances, factor


def rare_hard_systems(systems: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return systems that are much harder with a chance of 1 / C: a set has none, one or several."""
    utterances, factor = equal(systems, rng)
    factor[rng.random(systems) < 1 / systems] = HARD
    return utterances, factor


ROWS: dict[str, tuple[int, Recipe]] = {
    **{f"{systems} systems": (systems, equal) for systems in (5, 6, 9, 16, 27, 64)},
    **{
        f"{systems} systems, {name.format(systems)}": (systems, recipe)
        for name, recipe in {
            "one has half of the utterances": half_of_utterances,
            "one is hard": one_hard_system,
            "one is hard and has half": half_and_hard,
            "hard with a chance of 1 in {}": rare_hard_systems,
        }.items()
        for systems in (9, 27)
    },
}


class Coverage(NamedTuple):
    """The share of the sets, in percent, whose interval contains, is above, or is below the true EER; median width."""

    covers: float
    above: float
    below: float
    width: float


def draw_set(systems: int, recipe: Recipe, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Return embeddings (N, DIM) and the system (N,) of every utterance."""
    utterances, factor = recipe(systems, rng)
    column = np.repeat(np.arange(systems), utterances)
    centre = rng.normal(size=(systems, DIM))
    spread = factor * SPREAD * np.exp(SPREAD_SIGMA * rng.normal(size=systems))
    return centre[column] + spread[column, None] * rng.normal(size=(len(column), DIM)), column


def true_eers(systems: int, recipe: Recipe, rng: np.random.Generator) -> FloatArray:
    """Return the micro and the macro EER, in percent, over large sets: their mean."""
    eers = []
    for _ in range(LARGE_SETS):
        parts = [draw_set(systems, recipe, rng) for _ in range(LARGE_SYSTEMS // systems)]
        embeddings = np.concatenate([part for part, _ in parts])
        names = np.concatenate([column + systems * index for index, (_, column) in enumerate(parts)])
        scores = score_all_pairs(embeddings, names, bootstrap_samples=0, seed=0)
        eers.append((scores.eer_micro_percent, scores.eer_macro_percent))
    return np.mean(eers, axis=0)


def resample_set(embeddings: FloatArray, column: IntArray, *, seed: int) -> FloatArray:
    """Return the micro and the macro EERs (2, R), in percent, of the resamples of one set."""
    systems = int(column.max()) + 1
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    a, b = np.triu_indices(len(column), 1)  # systems are sorted: column[a] <= column[b]
    score_bin = np.clip(((unit @ unit.T)[a, b] + 1) / 2 * BINS, 0, BINS - 1).astype(int)
    first, second = np.triu_indices(systems)
    row = np.zeros((systems, systems), int)
    row[first, second] = np.arange(len(first))
    counts = np.bincount(row[column[a], column[b]] * BINS + score_bin, minlength=len(first) * BINS)
    counts = counts.reshape(len(first), BINS).astype(np.uint32)
    eers = resampled_eers(counts, np.arange(len(first)), first, second, samples=RESAMPLES, seed=[seed])
    return 100 * np.array(eers)


def measure(systems: int, recipe: Recipe, *, sets: int, seed: int) -> dict[tuple[str, str], Coverage]:
    """Return the coverage by average (micro, macro) and interval (plain, expanded)."""
    rng = np.random.default_rng([seed, systems])
    truth = true_eers(systems, recipe, rng)
    resamples = [resample_set(*draw_set(systems, recipe, rng), seed=index) for index in range(sets)]
    results = {}
    for index, average in enumerate(("micro", "macro")):
        for name, levels in {"plain": PLAIN, "expanded": quantile_levels(systems)}.items():
            ends = np.array([np.nanquantile(eers[index], levels) for eers in resamples])
            above, below = 100 * (ends[:, 0] > truth[index]).mean(), 100 * (ends[:, 1] < truth[index]).mean()
            width = float(np.median(ends[:, 1] - ends[:, 0]))
            results[average, name] = Coverage(100 - above - below, above, below, width)
        results[average, "truth"] = Coverage(truth[index], 0, 0, 0)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    arguments = parser.parse_args()
    started = time.perf_counter()
    print(
        f"{arguments.sets} sets per row, {RESAMPLES} resamples; coverage in % (above, below), width in points\n"
    )
    print(
        "| systems | EER | true, % | plain | width | expanded | width | ± |\n|---|---|---:|---|---:|---|---:|---:|"
    )
    for label in arguments.rows:
        systems, recipe = ROWS[label]
        results = measure(systems, recipe, sets=arguments.sets, seed=arguments.seed)
        for average in ("micro", "macro"):
            cells = []
            for name in ("plain", "expanded"):
                covers, above, below, width = results[average, name]
                cells.append(f"{covers:.1f} ({above:.1f}, {below:.1f}) | {width:.1f}")
            share = min(results[average, name].covers for name in ("plain", "expanded")) / 100
            error = 100 * np.sqrt(share * (1 - share) / arguments.sets)
            truth = results[average, "truth"].covers
            print(f"| {label} | {average} | {truth:.1f} | {' | '.join(cells)} | {error:.1f} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
