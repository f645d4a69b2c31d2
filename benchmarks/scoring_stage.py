"""Time and memory of stages/score.py on random embeddings of MLAADv5's size.

    python benchmarks/scoring_stage.py                 # a model with a classifier, and two baselines
    python benchmarks/scoring_stage.py --baselines 0 --repeats 5

Train has 11,100 embeddings of 24 systems; dev and test have 12,000 and 33,900 of 25 and 64 systems in all four
strata. Two systems share a family with others, so that families are scored, too. The stage scores every pair in
every stratum, micro and macro, and runs six detectors of unknown systems, with the intervals and plots of
params.yaml. Every repeat is a process of its own.
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
# utterances, first system, number of systems, number of languages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baselines", type=int, default=2)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # in a separate process: the stage starts as a copy of this process, whose memory would count
        draw = [sys.executable, __file__, "--draw", folder, str(arguments.baselines), str(arguments.dim)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
        run = Path(folder)
        check(measure(draw, folder=run, environment=environment, log=run / "log"), run / "log")
        stage = [sys.executable, REPOSITORY / "stages/score.py", "embeddings", "score.json", "plots"]
        stage = [*map(str, stage), "--params", str(REPOSITORY / "params.yaml")]
        spent = []
        for _ in range(arguments.repeats):
            spent.append(measure(stage, folder=run, environment=environment, log=run / "log"))
            check(spent[-1], run / "log")
        metrics = json.loads((run / "score.json").read_text())
    print(f"| {arguments.repeats} runs | wall s | processor s | peak MB | target |\n|---|---:|---:|---:|---|")
    wall, processor = (statistics.median(getattr(s, name) for s in spent) for name in ("wall_s", "cpu_s"))
    peak = max(s.peak_bytes for s in spent) / 1e6
    work = f"stages/score.py, a model and {arguments.baselines} baselines"
    print(f"| {work} | {wall:.1f} | {processor:.1f} | {peak:,.0f} | 60 s, 3,000 MB |")
    for split in ("dev", "test"):
        part = metrics[split]
        print(
            f"{split}: EER {part['eer_micro_percent']:.3f} % {part['eer_micro_ci95_percent']}, macro "
            f"{part['eer_macro_percent']:.3f} %, {len(part['strata'])} strata, "
            f"{part['target_trials'] + part['nontarget_trials']:,} trials"
        )


def check(spent: Spent, log: Path) -> None:
    """Exit with the output of a process if it failed."""
    if spent.status:
        raise SystemExit(log.read_text(errors="replace"))


def draw(folder: Path, *, baselines: int, dim: int) -> None:
    """Write embeddings/*.arrow: one cloud per system, those of the model narrower than those of the baselines."""
    import numpy as np
    import pandas as pd

    from makermark.foundation.embeddings import write_embeddings
    from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns

    rng = np.random.default_rng(0)
    parts = []
    for split, (count, first, systems, languages) in SPLITS.items():
        system = first + np.arange(count) % systems
        part = pd.DataFrame(
            {name: [f"{name}-{split}-{i}" for i in range(count)] for name in INPUT_SCHEMA.names}
        )
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
    rows = add_seen_columns(pd.concat(parts, ignore_index=True))
    number = rows["system"].str.removeprefix("system-").astype(int).to_numpy()
    centres = rng.normal(size=(number.max() + 1, dim))
    known = np.unique(number[rows["split"] == "train"])
    for baseline, name in enumerate(["model", *(f"baseline{n}" for n in range(baselines))]):
        embeddings = centres[number] + (1.1 + 0.4 * baseline) * rng.normal(size=(len(rows), dim))
        logits = (embeddings @ centres[known].T).astype(np.float32) if name == "model" else None
        write_embeddings(
            folder / "embeddings" / f"{name}.arrow",
            rows,
            embeddings.astype(np.float32),
            metadata={"model_sha256": "drawn"},
            logits=logits,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--draw"]:
        draw(Path(sys.argv[2]), baselines=int(sys.argv[3]), dim=int(sys.argv[4]))
    else:
        main()
