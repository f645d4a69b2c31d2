"""Overhead of the pipeline: start-up of every command, `dvc repro` without changes, peak memory of every stage and of
reading a large feature cache.

    python benchmarks/pipeline.py startup [--repeats N]
    python benchmarks/pipeline.py repro [--clone FOLDER] [--repeats N]
    python benchmarks/pipeline.py memory --work FOLDER [--data FOLDER] [--shares 0.25 1] [--stages features train ...]
    python benchmarks/pipeline.py cache [--utterances 57000]

`repro` runs in a clone where `make repro` was run. `memory` runs the commands of dvc.yaml on shares of the corpus
of `make repro` (--data: the folder data of that clone), with one epoch of training, each stage in its own process;
download builds another corpus with that share of the utterances. FOLDER is outside the repository and holds the
results. The table is in megabytes: peak resident memory, of the largest process if there are several, and in
parentheses without mapped files. `cache` prints the same two figures for every way in which stages read a cache,
and for all of them one after another, each in its own process; the cache is noise in a temporary folder. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scale_page
import yaml
from scale_process import Spent, measure
from scale_steps import run_isolated

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("check", "download", "features", "train", "embed", "score", "probe", "fuse", "calibrate")
READER = Path(__file__).with_name("pipeline_cache.py")
READINGS = ("verify", "batches", "statistics", "crops")  # WAYS of pipeline_cache
MAKERMARK = "from makermark.cli.main import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    startup, repro, memory = (parts.add_parser(name) for name in ("startup", "repro", "memory"))
    for part in (startup, repro):
        part.add_argument("--repeats", type=int, default=5)
    repro.add_argument("--clone", type=Path, default=REPOSITORY)
    memory.add_argument("--work", type=Path, required=True)
    memory.add_argument("--data", type=Path, default=REPOSITORY / "data")
    memory.add_argument("--shares", type=float, nargs="+", default=[0.25, 1.0])
    memory.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    cache = parts.add_parser("cache")
    cache.add_argument("--utterances", type=int, default=57000)
    arguments = parser.parse_args()
    machine = scale_page.machine(REPOSITORY)
    print(
        f"{machine['processor']}, {machine['cores']} logical cores, load {machine['load_before']}; ", end=""
    )
    print(f"threads {machine['threads']}; ", end="")
    print(
        f"Python {machine['python']}, {', '.join(' '.join(pair) for pair in machine['versions'].items())}\n"
    )
    if arguments.part == "startup":
        measure_startup(arguments.repeats)
    elif arguments.part == "repro":
        measure_repro(arguments.clone, arguments.repeats)
    elif arguments.part == "cache":
        measure_cache(arguments.utterances)
    else:
        measure_memory(arguments.work.resolve(), arguments.data.resolve(), arguments.shares, arguments.stages)


def measure_startup(repeats: int) -> None:
    """Print the seconds that every command needs to print its help."""
    scripts = sorted((REPOSITORY / "stages").glob("*.py"))
    commands = {f"stages/{script.name} --help": [str(script)] for script in scripts}
    commands["makermark --help"] = ["-c", MAKERMARK]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    print("| command | seconds, median |\n|---|---:|")
    for name, command in commands.items():
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, *command, "--help"], env=environment, stdout=subprocess.DEVNULL, check=True
            )
            times.append(time.perf_counter() - start)
        print(f"| `{name}` | {statistics.median(times[1:]):.2f} |")


def measure_repro(clone: Path, repeats: int) -> None:
    """Print the seconds of `dvc repro` without changes; exit if it would run a stage."""
    dvc = [sys.executable, "-m", "dvc"]
    state = subprocess.run(
        [*dvc, "status", "dvc.yaml"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    if "up to date" not in state:
        sys.exit(
            f"error: {clone}: stages are out of date; run `make repro` there first. dvc status:\n{state}"
        )
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([*dvc, "repro"], cwd=clone, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    print(f"`dvc repro` with nothing changed: {statistics.median(times):.1f} s (median of {repeats})")


def measure_cache(utterances: int) -> None:
    """Print a row for every way of reading the cache."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    with tempfile.TemporaryDirectory() as scratch:
        hours, size = run_isolated(write_large_cache, Path(scratch), utterances)
        print(f"{utterances:,} utterances of 2 to 8 s, {hours:.1f} h, {size / 1e9:.2f} GB in the cache\n")
        print("| reading | peak, MB | without mapped files, MB | seconds |\n|---|---:|---:|---:|")
        for ways in [[], *([way] for way in READINGS), list(READINGS)]:
            command = [sys.executable, str(READER), scratch, *ways]
            log = Path(scratch, "log")
            spent = measure(command, folder=Path(scratch), environment=environment, log=log)
            if spent.status:
                sys.exit(f"error: reading {' '.join(ways)} ended with {spent.status}:\n{log.read_text()}")
            name = {0: "opened only", 1: " ".join(ways)}.get(len(ways), "all of them")
            own = (spent.own_bytes or 0) / 1e6
            print(f"| {name} | {spent.peak_bytes / 1e6:,.0f} | {own:,.0f} | {spent.wall_s:.1f} |")


def write_large_cache(folder: Path, utterances: int) -> tuple[float, int]:
    """Imports in the process that writes, not in this one."""
    import pipeline_cache

    return pipeline_cache.write(folder, utterances)


def measure_memory(work: Path, data: Path, shares: list[float], stages: list[str]) -> None:
    """A column for each share of the corpus, a row for each stage."""
    if work.is_relative_to(REPOSITORY):
        sys.exit(f"error: {work} is in the repository; give --work a folder outside")
    costs: dict[str, list[Spent]] = {stage: [] for stage in stages}
    counts = []
    for share in shares:
        folder = work / f"share-{share:g}"
        counts.append(run_isolated(cut, folder, data, share))
        for stage in stages:
            costs[stage].append(run_stage(stage, fewer(folder, share) if stage == "download" else folder))
    print("| stage | " + " | ".join(f"{count:,} utterances" for count in counts) + " |")
    print("|---|" + "---:|" * len(counts))
    for stage, spent in costs.items():
        cells = [f"{one.peak_bytes / 1e6:,.0f} ({(one.own_bytes or 0) / 1e6:,.0f})" for one in spent]
        print(f"| {stage} | {' | '.join(cells)} |")


def run_stage(stage: str, folder: Path) -> Spent:
    """Run the command of the stage in `folder`; exit if it fails."""
    line = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["cmd"]
    _, _, script, *arguments = shlex.split(line)
    log = folder / f"{stage}.log"
    settings = {"PYTHONPATH": str(REPOSITORY / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    spent = measure(command, folder=folder, environment=os.environ | settings, log=log)
    if spent.status:
        sys.exit(f"error: {stage} ended with status {spent.status}; its output: {log}")
    return spent


def fewer(folder: Path, share: float) -> Path:
    """Create a subfolder for the download stage: params.yaml with this share of the utterances per system."""
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for name in ("train_utterances", "dev_utterances", "test_utterances"):
        params["local"][name] = max(2, round(share * params["local"][name]))
    below = folder / "download"
    below.mkdir(exist_ok=True)
    (below / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return below


def cut(folder: Path, data: Path, share: float) -> int:
    """Create a working folder for the stages: params.yaml and this share of the manifest's rows, evenly spaced."""
    import numpy as np

    from makermark.foundation.manifest import read_manifest, write_manifest

    (folder / "data/corpus").mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"epochs": 1, "warmup_epochs": 0.0, "evaluate_every_epochs": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    manifest = read_manifest(data / "corpus/manifest.parquet")
    count = max(2, round(share * len(manifest.rows)))
    rows = manifest.rows.iloc[np.linspace(0, len(manifest.rows) - 1, count).astype(int)]
    write_manifest(
        folder / "data/corpus/manifest.parquet", rows, corpus=manifest.corpus, root=str(manifest.root)
    )
    if not (folder / "data/bonafide").exists():
        (folder / "data/bonafide").symlink_to(data / "bonafide")
    return count


if __name__ == "__main__":
    main()
