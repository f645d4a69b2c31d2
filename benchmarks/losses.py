"""Time of a forward and backward pass of every loss, against the formula of its paper in Python loops.

    python benchmarks/losses.py [--threads N]

24 systems x 12 utterances x 50 dimensions: medians in milliseconds, including the preparation of the labels.
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
from makermark.foundation.params import read_params
from makermark.models.losses import LOSSES, build

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/models/losses"))

from naive_losses import NAIVE  # noqa: E402

NUM_SYSTEMS, UTTERANCES, DIM = 24, 12, 50


def median_ms(loss: Callable[[], Tensor], *, repeats: int) -> float:
    """Return the median time of `repeats` forward and backward passes, after a warm-up pass."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss().backward()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{processor()}, {os.cpu_count()} logical cores, {arguments.threads} threads, torch {torch.__version__}\n"
    )
    torch.manual_seed(0)
    settings = read_params(REPOSITORY / "params.yaml").losses
    systems = torch.arange(NUM_SYSTEMS).repeat_interleave(UTTERANCES)
    embeddings = torch.randn(len(systems), DIM, requires_grad=True)
    print("| loss | makermark, ms | formula of the paper in loops, ms |\n|---|---:|---:|")
    for name in LOSSES:
        loss = build(name, num_systems=NUM_SYSTEMS, dim=DIM, **settings[name])
        ours = median_ms(lambda loss=loss: loss(embeddings, systems), repeats=200)
        naive = median_ms(lambda loss=loss, name=name: NAIVE[name](loss, embeddings, systems), repeats=1)
        print(f"| {name} | {ours:.2f} | {naive:.0f} |", flush=True)


if __name__ == "__main__":
    main()
