"""Time of one forward and backward pass of every loss, against the paper's formula in Python loops.

    python benchmarks/losses.py [--threads N]

24 systems x 12 utterances of dimension 50: medians in milliseconds, counting the systems (`arrange`) included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from features import processor
from makermark.losses import LOSSES, build
from makermark.params import read_params

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "losses"))

from naive_losses import NAIVE  # noqa: E402

NUM_SYSTEMS, UTTERANCES, DIM = 24, 12, 50


def median_ms(loss: Callable[[], Tensor], *, repeats: int) -> float:
    """Median over `repeats` of a forward and a backward pass, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss().backward()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{processor()}, {os.cpu_count()} logical cores, {given.threads} threads, torch {torch.__version__}\n"
    )
    torch.manual_seed(0)
    settings = read_params(REPOSITORY / "params.yaml").losses
    systems = torch.arange(NUM_SYSTEMS).repeat_interleave(UTTERANCES)
    embeddings = torch.randn(len(systems), DIM, requires_grad=True)
    print("| loss | ours, ms | formula as the paper has it, in loops, ms |\n|---|---:|---:|")
    for name in LOSSES:
        loss = build(name, num_systems=NUM_SYSTEMS, dim=DIM, **settings[name])
        ours = median_ms(lambda loss=loss: loss(embeddings, systems), repeats=200)
        naive = median_ms(lambda loss=loss, name=name: NAIVE[name](loss, embeddings, systems), repeats=1)
        print(f"| {name} | {ours:.2f} | {naive:.0f} |", flush=True)


if __name__ == "__main__":
    main()
