"""Time and memory of stages/score.py on a set of MLAADv5's size, vectors drawn at random.

    python benchmarks/scoring_stage.py                 # a model with a classifier, and two baselines
    python benchmarks/scoring_stage.py --baselines 0 --repeats 5

11,100 vectors of 24 systems to know, 12,000 and 33,900 to judge, of 25 and 64 systems in all four strata, two of the
systems aliases of others, so that families are scored too. Every pair in every stratum, micro and macro, six detectors
of unknown systems, the intervals and the pictures that params.yaml asks for. Each repeat is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from scale_process import Spent, measure

REPOSITORY = Path(__file__).resolve().parents[1]
SPLITS = {"train": (11_100, 0, 24, 8), "dev": (12_000, 14, 25, 21), "test": (33_900, 18, 64, 37)}
# utterances; the first system, how many, how many languages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baselines", type=int, default=2)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # in a process of its own: what this one holds would count as the stage's, which begins as its copy
        draw = [sys.executable, __file__, "--draw", folder, str(given.baselines), str(given.dim)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
        run = Path(folder)
        check(measure(draw, folder=run, environment=environment, log=run / "log"), run / "log")
        stage = [sys.executable, REPOSITORY / "stages/score.py", "embeddings", "score.json", "plots"]
        stage = [*map(str, stage), "--params", str(REPOSITORY / "params.yaml")]
        spent = []
        for _ in range(given.repeats):
            spent.append(measure(stage, folder=run, environment=environment, log=run / "log"))
            check(spent[-1], run / "log")
        told = json.loads((run / "score.json").read_text())
    print(f"| {given.repeats} runs | wall s | processor s | peak MB | target |\n|---|---:|---:|---:|---|")
    wall, processor = (statistics.median(getattr(s, name) for s in spent) for name in ("wall_s", "cpu_s"))
    peak = max(s.peak_bytes for s in spent) / 1e6
    work = f"stages/score.py, a model and {given.baselines} baselines"
    print(f"| {work} | {wall:.1f} | {processor:.1f} | {peak:,.0f} | 60 s, 3,000 MB |")
    for split in ("dev", "test"):
        part = told[split]
        print(
            f"{split}: EER {part['eer_micro_percent']:.3f} % {part['eer_micro_ci95_percent']}, macro "
            f"{part['eer_macro_percent']:.3f} %, {len(part['strata'])} strata, "
            f"{part['target_trials'] + part['nontarget_trials']:,} trials"
        )


def check(spent: Spent, log: Path) -> None:
    """End the benchmark where a process failed, with what it said."""
    if spent.status:
        raise SystemExit(log.read_text(errors="replace"))


def draw(folder: Path, *, baselines: int, dim: int) -> None:
    """Write embeddings/*.arrow: a cloud around one place for each system, the model's tighter than the baselines'."""
    import numpy as np
    import pandas as pd

    from makermark.corpora.rows import GIVEN, derive_seen
    from makermark.vectors import write_embeddings

    rng = np.random.default_rng(0)
    parts = []
    for split, (count, first, systems, languages) in SPLITS.items():
        system = first + np.arange(count) % systems
        part = pd.DataFrame({name: [f"{name}-{split}-{i}" for i in range(count)] for name in GIVEN.names})
        language = rng.integers(0, languages, count)
        family = np.where(system == 1, 0, np.where(system == 30, 29, system))
        parts.append(
            part.assign(
                split=split,
                system=[f"system-{s:02d}" for s in system],
                family=[f"family-{f:02d}" for f in family],
                language=[f"language-{n:02d}" for n in language],
            )
        )
    rows = derive_seen(pd.concat(parts, ignore_index=True))
    number = rows["system"].str.removeprefix("system-").astype(int).to_numpy()
    places = rng.normal(size=(number.max() + 1, dim))
    known = np.unique(number[rows["split"] == "train"])
    for baseline, name in enumerate(["model", *(f"baseline{n}" for n in range(baselines))]):
        vectors = places[number] + (1.1 + 0.4 * baseline) * rng.normal(size=(len(rows), dim))
        logits = (vectors @ places[known].T).astype(np.float32) if name == "model" else None
        write_embeddings(
            folder / "embeddings" / f"{name}.arrow",
            rows,
            vectors.astype(np.float32),
            metadata={"model_sha256": "drawn"},
            logits=logits,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--draw"]:
        draw(Path(sys.argv[2]), baselines=int(sys.argv[3]), dim=int(sys.argv[4]))
    else:
        main()
