"""Time and memory of scoring every pair of a set, beside scikit-learn's roc_curve on the same vectors.

    python benchmarks/scoring.py                       # scikit-learn at 3,000 and 6,000 utterances
    python benchmarks/scoring.py --sklearn 12000       # 12,000 take it about 25 s and 5 GB a time
    python benchmarks/scoring.py --utterances 200000 --repeats 1 --sklearn

Gaussian clouds around one centre per system, utterances spread evenly over systems. Every line is
measured in a process of its own, which imports, scores once (compiling, or loading what an earlier run
compiled) and then scores `--repeats` times; memory is the peak of that process. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context

import numpy as np

BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    first_s: float  # imports and the first call
    median_s: float
    lowest_s: float
    highest_s: float
    peak_bytes: int
    eer_percent: float


def clouds(utterances: int, *, systems: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (N, D), systems (N,) and strata (N,): half the systems seen, half the utterances of each."""
    rng = np.random.default_rng(0)
    system = np.arange(utterances) % systems
    vectors = rng.normal(size=(systems, dim))[system] + 1.1 * rng.normal(size=(utterances, dim))
    seen_system, seen_language = system % 2, rng.integers(0, 2, utterances)
    return vectors.astype(np.float32), system, 2 * seen_system + seen_language


def makermark_eer(vectors: np.ndarray, systems: np.ndarray, strata: np.ndarray | None, samples: int) -> float:
    """The EER in percent, and everything else that score_set gives."""
    from makermark.scoring import score_set

    return score_set(vectors, systems, strata, bootstrap_samples=samples, seed=0).eer_micro_percent


def sklearn_eer(vectors: np.ndarray, systems: np.ndarray) -> float:
    """The pooled EER in percent: all scores of the upper triangle, roc_curve, the crossing by brentq."""
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.concatenate([unit[i + 1 :] @ unit[i] for i in range(len(unit))])
    is_target = np.concatenate([systems[i + 1 :] == systems[i] for i in range(len(unit))])
    fpr, tpr, _ = roc_curve(is_target, scores, drop_intermediate=False)
    return 100 * float(brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1))


def measure(case: str, utterances: int, systems: int, dim: int, repeats: int) -> Measured:
    """Run one case; called in a fresh process."""
    vectors, system, strata = clouds(utterances, systems=systems, dim=dim)
    call: Callable[[], float] = {
        "EER, macro, AUC, minDCF, DET": lambda: makermark_eer(vectors, system, None, 0),
        "the same and intervals": lambda: makermark_eer(vectors, system, None, BOOTSTRAP_SAMPLES),
        "the same in all and four strata": lambda: makermark_eer(vectors, system, strata, BOOTSTRAP_SAMPLES),
        "scikit-learn, pooled EER": lambda: sklearn_eer(vectors, system),
    }[case]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        eer = call()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(times[0], statistics.median(times[1:]), min(times[1:]), max(times[1:]), peak, eer)


def alone(case: str, utterances: int, systems: int, dim: int, repeats: int) -> Measured:
    """`measure` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, case, utterances, systems, dim, repeats).result()


def machine() -> str:
    """Processor, threads and versions, in one line."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    threads = os.environ.get("NUMBA_NUM_THREADS", f"one for each of {os.cpu_count()} cores")
    packages = ", ".join(f"{p} {version(p)}" for p in ("numba", "numpy", "scikit-learn", "scipy"))
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return f"{name}; threads: {threads}; Python {platform.python_version()}, {packages}; {load}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, nargs="*", default=[3000, 6000, 12_000, 33_900])
    parser.add_argument("--sklearn", type=int, nargs="*", default=[3000, 6000])
    parser.add_argument("--systems", type=int, default=64)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{machine()}\n{given.systems} systems, {given.dim} dimensions, median of {given.repeats}\n")
    print(
        "| utterances | pairs | what | first call s | median s | lowest-highest s | peak MB | EER % | times |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|")
    for utterances in sorted({*given.utterances, *given.sklearn}):
        cases = ["scikit-learn, pooled EER"] if utterances in given.sklearn else []
        if utterances in given.utterances:
            cases += [
                "EER, macro, AUC, minDCF, DET",
                "the same and intervals",
                "the same in all and four strata",
            ]
        reference_s = None
        for case in cases:
            found = alone(case, utterances, given.systems, given.dim, given.repeats)
            if case.startswith("scikit-learn"):
                reference_s = found.median_s
            times = f"{reference_s / found.median_s:.1f}" if reference_s else ""
            print(
                f"| {utterances:,} | {utterances * (utterances - 1) // 2:,} | {case} | {found.first_s:.2f} "
                f"| {found.median_s:.2f} | {found.lowest_s:.2f}-{found.highest_s:.2f} "
                f"| {found.peak_bytes / 1e6:,.0f} | {found.eer_percent:.6f} | {times} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
