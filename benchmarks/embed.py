"""Extraction of embeddings: batches of utterances of similar length against one utterance at a time; memory.

    python benchmarks/embed.py [--features FOLDER] [--model PATH] [--utterances N] [--repeats N] [--seconds S]

Reads the results of `make repro` (data/features, models/best). Both variants embed the same utterances with the
same network in float32 and take turns: one utterance at a time with `network(features[None])`, as a simple script
does, and `makermark.models.extraction.embed`. The limit is the network's convolutions alone, each timed by itself
on a batch of average length. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from convolving import convolutions_alone

from features import head_line, timed
from makermark.features.cache import FeatureCache
from makermark.models.checkpoint import load_checkpoint
from makermark.models.extraction import embed_rows

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", type=Path, default=REPOSITORY / "data/features")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models/best", help="without suffix")
    parser.add_argument("--utterances", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of audio in a batch")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.model)
    network, metadata = checkpoint.backbone.eval(), checkpoint.metadata
    cache = FeatureCache.open(arguments.features / metadata.front_end, metadata.front_end_parameters)
    rows = np.random.default_rng(0).permutation(len(cache.frames))[: arguments.utterances]
    rate = round(arguments.seconds * 100)

    def one_by_one() -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate(
                [
                    network(torch.from_numpy(cache.read_utterance(int(row)).copy())[None]).numpy()
                    for row in rows
                ]
            )

    def ours() -> np.ndarray:
        return embed_rows(network, cache, rows, batch_frames=rate, device=CPU)

    print(f"{head_line()}; {torch.get_num_threads()} threads; medians of {arguments.repeats}\n")
    apart = np.abs(one_by_one() - ours()).max()
    times: dict[str, list[float]] = {"alone": [], "ours": []}
    for _ in range(arguments.repeats):
        times["alone"].append(timed(one_by_one))
        times["ours"].append(timed(ours))
    alone, fast = (statistics.median(times[way]) for way in ("alone", "ours"))
    mean = round(float(cache.frames[rows].mean()))
    together = max(1, rate // mean)
    limit = together / convolutions_alone(
        network,
        torch.zeros(together, mean, cache.width),
        precision=torch.float32,
        backward=False,
        repeats=arguments.repeats,
    )
    title = f"{metadata.backbone}, {len(rows)} utterances of {cache.frames[rows].mean() / 100:.2f} s"
    print(f"| {title} | utterances/s | ratio |")
    print("|---|---:|---:|")
    print(f"| one at a time | {len(rows) / alone:.1f} | 1.0 |")
    print(f"| batches of {arguments.seconds:g} s | {len(rows) / fast:.1f} | {alone / fast:.2f} |")
    print(
        f"| limit: convolutions of {together} x {mean} frames alone | {limit:.1f} | {limit * alone / len(rows):.2f} |"
    )
    held = int(cache.frames[rows].sum())
    passed = sum(
        features.shape[0] * features.shape[1]
        for _, features, _ in cache.length_batches(rows, max_frames=rate)
    )
    print(
        f"\nlargest difference of an embedding value {apart:.1e}; padding {100 * (1 - held / passed):.1f} %; ",
        end="",
    )
    print(f"memory of this process without mapped files: {own_megabytes()} MB")


def own_megabytes() -> int | str:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon")), "?")


if __name__ == "__main__":
    main()
