"""Time and memory of scoring every pair of a set, compared with scikit-learn's roc_curve and a peer.

    python benchmarks/scoring.py                                  # 3,000 to 33,900 utterances; references up to 6,000
    python benchmarks/scoring.py --reference 12000 --reference-repeats 1     # half a minute and 5 GB for 12,000
    python benchmarks/scoring.py --peer voxceleb_trainer=PATH     # tuneThreshold.py of the checkout at PATH
    python benchmarks/scoring.py --utterances 200000 --reference
    python benchmarks/scoring.py --utterances 1000000 --reference --device cuda

The embeddings are Gaussian clouds around one centre per system, with the same number of utterances per system.
Every row is measured in its own process, which imports, scores once (with compilation, or loading compiled code
from the cache) and then scores `--repeats` times. From LARGE utterances on there is one row with the first call
only. Memory is the peak of that process, and the peak of torch on the GPU. The references get the scores of all
pairs as one array from a blocked product; its time is included. `limit` is one product of all pairs by NumPy's BLAS
in blocks, without counting, at the rate measured in this run (`--device cpu` only): every method that computes each
score once needs it. Prints Markdown tables.
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
    """One row of the table."""

    first_s: float  # imports and the first call
    times_s: tuple[float, ...]  # of the calls after it; of the first call if there are none
    peak_bytes: int
    gpu_bytes: int
    eer_percent: float


def clouds(utterances: int, *, systems: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return embeddings (N, D), systems (N,) and strata (N,): half of the systems and languages are seen."""
    rng = np.random.default_rng(0)
    system = np.arange(utterances) % systems
    embeddings = rng.normal(size=(systems, dim)).astype(np.float32)[system]
    embeddings += np.float32(1.1) * rng.standard_normal((utterances, dim), np.float32)
    seen_system, seen_language = system % 2, rng.integers(0, 2, utterances)
    return embeddings, system, 2 * seen_system + seen_language


def makermark_eer(
    embeddings: np.ndarray, systems: np.ndarray, strata: np.ndarray | None, samples: int, device: str
) -> float:
    """Return the EER in percent; all other results of the scoring are computed, too."""
    from makermark.scoring.pairs import score_all_pairs

    scores = score_all_pairs(embeddings, systems, strata, bootstrap_samples=samples, seed=0, device=device)
    return scores.eer_micro_percent


def all_trials(embeddings: np.ndarray, systems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the upper triangle and whether each is a target trial, both (pairs,)."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
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


def sklearn_eer(embeddings: np.ndarray, systems: np.ndarray) -> float:
    """Return the pooled EER in percent by roc_curve on all scores of the upper triangle, interpolated by brentq."""
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq
    from sklearn.metrics import roc_curve

    scores, is_target = all_trials(embeddings, systems)
    fpr, tpr, _ = roc_curve(is_target, scores, drop_intermediate=False)
    return 100 * float(brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1))


def voxceleb_trainer_eer(checkout: Path, embeddings: np.ndarray, systems: np.ndarray) -> float:
    """Return the pooled EER in percent by tuneThreshold.py, called as in its training."""
    spec = importlib.util.spec_from_file_location("tuneThreshold", checkout / "tuneThreshold.py")
    if spec is None or spec.loader is None or not (checkout / "tuneThreshold.py").exists():
        raise SystemExit(
            f"{checkout} has no tuneThreshold.py; give the folder of a checkout of voxceleb_trainer"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scores, is_target = all_trials(embeddings, systems)
    return float(module.tuneThresholdfromScore(scores, is_target.astype(int), [1, 0.1])[1])


PEERS = {"voxceleb_trainer": voxceleb_trainer_eer}


def measure(
    case: str, utterances: int, systems: int, dim: int, repeats: int, device: str, peer: Path | None
) -> Measured:
    """Run one case in a new process."""
    embeddings, system, strata = clouds(utterances, systems=systems, dim=dim)
    call: Callable[[], float]
    if case in OURS:
        stratified, samples = OURS[case]
        call = lambda: makermark_eer(embeddings, system, strata if stratified else None, samples, device)  # noqa: E731
    elif peer is not None:
        call = lambda: PEERS[case](peer, embeddings, system)  # noqa: E731
    else:
        call = lambda: sklearn_eer(embeddings, system)  # noqa: E731
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
    """Return the pairs per second of a blocked float32 product by BLAS, the fastest of 20."""
    rng = np.random.default_rng(0)
    rows, columns = (rng.standard_normal((BLOCK, dim), np.float32) for _ in range(2))
    scores, times = np.empty((BLOCK, BLOCK), np.float32), []
    for _ in range(20):
        start = time.perf_counter()
        np.matmul(rows, columns.T, out=scores)
        times.append(time.perf_counter() - start)
    return BLOCK * BLOCK / min(times)


def counters(utterances: int, systems: int, dim: int) -> str:
    """Describe the memory of the counts of all pairs of systems, which the bootstrap resamples."""
    from makermark.scoring.pairs.intervals import MIN_BINS, TABLE_BYTES
    from makermark.scoring.pairs.tiling import choose_bin_count, tile_embeddings

    embeddings, system, strata = clouds(utterances, systems=systems, dim=dim)
    counts = []
    for name, groups in (("all", None), ("in strata", strata)):
        blocks = len(tile_embeddings(embeddings, system, groups).blocks)
        megabytes = blocks * choose_bin_count(blocks) * 4 / 1e6
        counts.append(f"{name}: {blocks:,} blocks x {choose_bin_count(blocks)} bins, {megabytes:.0f} MB")
    table = max(TABLE_BYTES, 4 * MIN_BINS * systems**2) / 1e6
    return f"counts of pairs of systems at {utterances:,} utterances, {'; '.join(counts)}; resampling, {table:.0f} MB"


def machine(device: str) -> str:
    """Return processor, memory, threads, versions and load in one line."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    threads = os.environ.get("NUMBA_NUM_THREADS", f"{os.cpu_count()}, one per core")
    packages = ["numba", "numpy", "scikit-learn", "scipy"]
    if device != "cpu":
        import torch

        from makermark.foundation.device import choose_device

        choose_device(device)
        name += f"; {torch.cuda.get_device_name()}"
        packages.append("torch")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    load = f"load {os.getloadavg()[0]:.1f} before the run"
    return (
        f"{name}, {memory:.0f} GB; threads: {threads}; Python {platform.python_version()}, {versions}; {load}"
    )


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
    arguments = parser.parse_args()
    peers = {name: Path(path) for name, _, path in (peer.partition("=") for peer in arguments.peer)}
    if unknown := sorted(set(peers) - set(PEERS)):
        parser.error(f"unknown peer {unknown}; choose from {list(PEERS)}")
    print(
        f"{machine(arguments.device)}\n{arguments.systems} systems, {arguments.dim} dimensions, medians of the calls\n"
    )
    rate = product_rate(arguments.dim) if arguments.device == "cpu" else None
    print(
        "| utterances | pairs | work | first call s | calls | median s | lowest-highest s | peak MB | GPU MB | EER % |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    measured: dict[tuple[int, str], Measured] = {}
    for utterances in sorted({*arguments.utterances, *arguments.reference}):
        cases = [SKLEARN, *peers] if utterances in arguments.reference else []
        ours = list(OURS) if utterances < LARGE else [WITH_INTERVALS]
        for case in cases + (ours if utterances in arguments.utterances else []):
            repeats = arguments.repeats if case in OURS else arguments.reference_repeats
            repeats = 0 if utterances >= LARGE else repeats
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                line = pool.submit(
                    measure,
                    case,
                    utterances,
                    arguments.systems,
                    arguments.dim,
                    repeats,
                    arguments.device,
                    peers.get(case),
                ).result()
            measured[utterances, case] = line
            print(
                f"| {utterances:,} | {utterances * (utterances - 1) // 2:,} | {case} | {line.first_s:.2f} "
                f"| {len(line.times_s)} | {statistics.median(line.times_s):.2f} "
                f"| {min(line.times_s):.2f}-{max(line.times_s):.2f} | {line.peak_bytes / 1e6:,.0f} "
                f"| {line.gpu_bytes / 1e6:,.0f} "
                f"| {line.eer_percent:.6f} |",
                flush=True,
            )
    print("\n| work | makermark s | reference | reference s | ratio | limit s | share of the limit |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for (utterances, case), line in measured.items():
        if case not in OURS:
            continue
        ours = statistics.median(line.times_s)
        limit = utterances * (utterances - 1) / 2 / rate if rate else None
        against = [c for n, c in measured if n == utterances and c not in OURS] or [None]
        for name in against:
            other = statistics.median(measured[utterances, name].times_s) if name else None
            print(
                f"| {utterances:,}: {case} | {ours:.2f} | {name or 'none in this run'} "
                f"| {f'{other:.2f}' if other else ''} | {f'{other / ours:.1f}' if other else ''} "
                f"| {f'{limit:.3f}' if limit else ''} | {f'{100 * limit / ours:.0f} %' if limit else ''} |"
            )
    if rate:
        print(
            f"\nlimit: {rate / 1e9:.2f} G pairs per second, {2e-9 * rate * arguments.dim:.0f} GFLOP/s of BLAS"
        )
    print(counters(max(u for u, _ in measured), arguments.systems, arguments.dim))


if __name__ == "__main__":
    main()
