"""Time and memory of scoring every pair of a set, beside scikit-learn's roc_curve and a peer on the same vectors.

    python benchmarks/scoring.py                                  # 3,000 to 33,900 utterances; references up to 6,000
    python benchmarks/scoring.py --reference 12000 --reference-repeats 1     # 12,000 take them half a minute, 5 GB
    python benchmarks/scoring.py --peer voxceleb_trainer=PATH     # its tuneThreshold.py, where PATH is a checkout
    python benchmarks/scoring.py --utterances 200000 --reference
    python benchmarks/scoring.py --utterances 1000000 --reference --device cuda

Gaussian clouds around one centre per system, utterances spread evenly over systems. Every line is measured in a process
of its own, which imports, scores once (compiling, or loading what an earlier run compiled) and then scores `--repeats`
times; from LARGE utterances on there is one line, of the first call alone. Memory is the peak of that process, and what
torch held on the GPU. References get the scores of all pairs as one array from a blocked product; the time to make it
counts. `limit` is one product of all pairs by NumPy's BLAS in blocks, nothing counted, at the rate measured in this run
(`--device cpu` only): any method that looks at every pair once pays that much. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from pathlib import Path

import numpy as np

BOOTSTRAP_SAMPLES = 1000
LARGE = 100_000
BLOCK = 2048
WITH_INTERVALS = "the same and intervals"
OURS = {
    "EER, macro, AUC, minDCF, DET": (False, 0),
    WITH_INTERVALS: (False, BOOTSTRAP_SAMPLES),
    "the same in all and four strata": (True, BOOTSTRAP_SAMPLES),
}
SKLEARN = "scikit-learn, pooled EER"


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    first_s: float  # imports and the first call
    times_s: tuple[float, ...]  # of the calls after it; of the first where there are none
    peak_bytes: int
    gpu_bytes: int
    eer_percent: float


def clouds(utterances: int, *, systems: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (N, D), systems (N,) and strata (N,): half the systems seen, half the utterances of each."""
    rng = np.random.default_rng(0)
    system = np.arange(utterances) % systems
    vectors = rng.normal(size=(systems, dim)).astype(np.float32)[system]
    vectors += np.float32(1.1) * rng.standard_normal((utterances, dim), np.float32)
    seen_system, seen_language = system % 2, rng.integers(0, 2, utterances)
    return vectors, system, 2 * seen_system + seen_language


def makermark_eer(
    vectors: np.ndarray, systems: np.ndarray, strata: np.ndarray | None, samples: int, device: str
) -> float:
    """The EER in percent, and everything else that score_set gives."""
    from makermark.scoring import score_set

    found = score_set(vectors, systems, strata, bootstrap_samples=samples, seed=0, device=device)
    return found.eer_micro_percent


def all_trials(vectors: np.ndarray, systems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the upper triangle, and which are of targets: (pairs,) each."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = len(unit) * (len(unit) - 1) // 2
    scores, is_target, done = np.empty(pairs, np.float32), np.empty(pairs, bool), 0
    for start in range(0, len(unit), BLOCK):
        product = unit[start : start + BLOCK] @ unit[start:].T
        same = systems[start : start + BLOCK, None] == systems[start:]
        for row in range(len(product)):
            end = done + len(unit) - start - row - 1
            scores[done:end], is_target[done:end] = product[row, row + 1 :], same[row, row + 1 :]
            done = end
    return scores, is_target


def sklearn_eer(vectors: np.ndarray, systems: np.ndarray) -> float:
    """The pooled EER in percent: all scores of the upper triangle, roc_curve, the crossing by brentq."""
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    scores, is_target = all_trials(vectors, systems)
    fpr, tpr, _ = roc_curve(is_target, scores, drop_intermediate=False)
    return 100 * float(brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1))


def voxceleb_trainer_eer(checkout: Path, vectors: np.ndarray, systems: np.ndarray) -> float:
    """The pooled EER in percent by the function of its tuneThreshold.py, called as its training does."""
    found = importlib.util.spec_from_file_location("tuneThreshold", checkout / "tuneThreshold.py")
    if found is None or found.loader is None or not (checkout / "tuneThreshold.py").exists():
        raise SystemExit(
            f"{checkout} has no tuneThreshold.py; give the folder of a checkout of voxceleb_trainer"
        )
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    scores, is_target = all_trials(vectors, systems)
    return float(module.tuneThresholdfromScore(scores, is_target.astype(int), [1, 0.1])[1])


PEERS = {"voxceleb_trainer": voxceleb_trainer_eer}


def measure(
    case: str, utterances: int, systems: int, dim: int, repeats: int, device: str, peer: Path | None
) -> Measured:
    """Run one case; called in a fresh process."""
    vectors, system, strata = clouds(utterances, systems=systems, dim=dim)
    call: Callable[[], float]
    if case in OURS:
        stratified, samples = OURS[case]
        call = lambda: makermark_eer(vectors, system, strata if stratified else None, samples, device)  # noqa: E731
    elif peer is not None:
        call = lambda: PEERS[case](peer, vectors, system)  # noqa: E731
    else:
        call = lambda: sklearn_eer(vectors, system)  # noqa: E731
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        eer = call()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = 0
    if device != "cpu":
        import torch

        gpu = torch.cuda.max_memory_reserved()
    return Measured(times[0], tuple(times[1:] or times), peak, gpu, eer)


def product_rate(dim: int) -> float:
    """Pairs per second of a blocked float32 product by BLAS into one buffer: the fastest of 20."""
    rng = np.random.default_rng(0)
    rows, columns = (rng.standard_normal((BLOCK, dim), np.float32) for _ in range(2))
    scores, times = np.empty((BLOCK, BLOCK), np.float32), []
    for _ in range(20):
        start = time.perf_counter()
        np.matmul(rows, columns.T, out=scores)
        times.append(time.perf_counter() - start)
    return BLOCK * BLOCK / min(times)


def counters(utterances: int, systems: int, dim: int) -> str:
    """What the counts of all pairs of systems take, from which the intervals are drawn without another pass."""
    from makermark.scoring.bins import bin_count
    from makermark.scoring.intervals import FEWEST_BINS, TABLE_BYTES
    from makermark.scoring.layout import lay_out

    vectors, system, strata = clouds(utterances, systems=systems, dim=dim)
    told = []
    for name, given in (("all", None), ("in strata", strata)):
        blocks = len(lay_out(vectors, system, given).blocks)
        megabytes = blocks * bin_count(blocks) * 4 / 1e6
        told.append(f"{name}: {blocks:,} blocks x {bin_count(blocks)} bins, {megabytes:.0f} MB")
    table = max(TABLE_BYTES, 4 * FEWEST_BINS * systems**2) / 1e6
    return f"counts of pairs of systems at {utterances:,} utterances, {'; '.join(told)}; resampling, {table:.0f} MB"


def machine(device: str) -> str:
    """Processor, memory, threads, versions and load, in one line."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    threads = os.environ.get("NUMBA_NUM_THREADS", f"one for each of {os.cpu_count()} cores")
    packages = ["numba", "numpy", "scikit-learn", "scipy"]
    if device != "cpu":
        import torch

        from makermark.device import choose_device

        choose_device(device)
        name += f"; {torch.cuda.get_device_name()}"
        packages.append("torch")
    told = ", ".join(f"{p} {version(p)}" for p in packages)
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return f"{name}, {memory:.0f} GB; threads: {threads}; Python {platform.python_version()}, {told}; {load}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, nargs="*", default=[3000, 6000, 12_000, 33_900])
    parser.add_argument("--reference", type=int, nargs="*", default=[3000, 6000])
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PATH", help=f"NAME: {', '.join(PEERS)}"
    )
    parser.add_argument("--systems", type=int, default=64)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--reference-repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    peers = {name: Path(path) for name, _, path in (peer.partition("=") for peer in given.peer)}
    if unknown := sorted(set(peers) - set(PEERS)):
        parser.error(f"unknown peer {unknown}; it is one of {list(PEERS)}")
    print(
        f"{machine(given.device)}\n{given.systems} systems, {given.dim} dimensions, median of the calls timed\n"
    )
    rate = product_rate(given.dim) if given.device == "cpu" else None
    print(
        "| utterances | pairs | work | first call s | calls | median s | lowest-highest s | peak MB | GPU MB | EER % |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    found: dict[tuple[int, str], Measured] = {}
    for utterances in sorted({*given.utterances, *given.reference}):
        cases = [SKLEARN, *peers] if utterances in given.reference else []
        ours = list(OURS) if utterances < LARGE else [WITH_INTERVALS]
        for case in cases + (ours if utterances in given.utterances else []):
            repeats = given.repeats if case in OURS else given.reference_repeats
            repeats = 0 if utterances >= LARGE else repeats
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                line = pool.submit(
                    measure,
                    case,
                    utterances,
                    given.systems,
                    given.dim,
                    repeats,
                    given.device,
                    peers.get(case),
                ).result()
            found[utterances, case] = line
            print(
                f"| {utterances:,} | {utterances * (utterances - 1) // 2:,} | {case} | {line.first_s:.2f} "
                f"| {len(line.times_s)} | {statistics.median(line.times_s):.2f} "
                f"| {min(line.times_s):.2f}-{max(line.times_s):.2f} | {line.peak_bytes / 1e6:,.0f} "
                f"| {line.gpu_bytes / 1e6:,.0f} "
                f"| {line.eer_percent:.6f} |",
                flush=True,
            )
    print("\n| work | ours s | reference | reference s | ratio | limit s | of the limit |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for (utterances, case), line in found.items():
        if case not in OURS:
            continue
        ours = statistics.median(line.times_s)
        limit = utterances * (utterances - 1) / 2 / rate if rate else None
        against = [c for n, c in found if n == utterances and c not in OURS] or [None]
        for name in against:
            other = statistics.median(found[utterances, name].times_s) if name else None
            print(
                f"| {utterances:,}: {case} | {ours:.2f} | {name or 'none in this run'} "
                f"| {f'{other:.2f}' if other else ''} | {f'{other / ours:.1f}' if other else ''} "
                f"| {f'{limit:.3f}' if limit else ''} | {f'{100 * limit / ours:.0f} %' if limit else ''} |"
            )
    if rate:
        print(
            f"\nlimit: {rate / 1e9:.2f} G pairs per second, {2e-9 * rate * given.dim:.0f} GFLOP/s of BLAS in this run"
        )
    print(counters(max(u for u, _ in found), given.systems, given.dim))


if __name__ == "__main__":
    main()
