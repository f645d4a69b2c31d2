"""The EER of unseen systems against the number of training systems, and without one kind of system.

    python benchmarks/generalisation.py run RESULTS.jsonl --work WORK [--clips ../shared/data/demos/manifest.csv]
    python benchmarks/generalisation.py run RESULTS.jsonl --work WORK --plan groups
    python benchmarks/generalisation.py report RESULTS.jsonl [--figure docs/images/generalisation.png]

`run` needs the built-in corpus and its features (`dvc repro features`). It trains the backbone spectral-statistics on
subsets of the training systems and scores every model on the same trials: all pairs of the unseen systems of test, and
all pairs of clips of published systems, if there is a table of them, pooled and within a page.

- `--plan curve`: 8, 16, 32, 64 and all systems, several draws of each; the untrained network and log-mel statistics.
- `--plan groups`: all systems but one kind of generator or waveform maker, one generator, or one waveform maker.
- `--plan controls`: all systems with as many utterances as 16 systems have, and with half and twice the steps.
- `--plan networks`: all systems with another backbone, filter bank, or normalisation of its bands.

A draw is a random subset and the seed of the training. All runs have the same number of steps and of crops per step.
RESULTS.jsonl gets one line per run when it ends. Runs that it contains are skipped, so a killed command continues.
`report` prints the tables of docs/generalisation.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from generalisation_plan import PLANS, Run, describe_systems
from generalisation_report import plot_curve, read_results, report_markdown, result_key

from makermark.foundation.errors import MakermarkError

STEPS = 150
Execute = Callable[[Run], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="carry out the runs that RESULTS.jsonl lacks")
    run.add_argument("results", type=Path)
    run.add_argument(
        "--work", type=Path, required=True, help="folder of features of the clips and unfinished runs"
    )
    run.add_argument("--plan", choices=PLANS, default="curve")
    run.add_argument("--draws", type=int, default=3)
    run.add_argument("--steps", type=int, default=STEPS)
    run.add_argument("--workers", type=int, default=1, help="processes; each has OMP_NUM_THREADS threads")
    run.add_argument("--corpus", type=Path, default=Path("data/corpus/manifest.parquet"))
    run.add_argument("--features", type=Path, default=Path("data/features"))
    run.add_argument("--clips", type=Path, help="table with path, system, source and page")
    run.add_argument("--params", type=Path, default=Path("params.yaml"))
    report = commands.add_parser("report", help="print the tables; draw the figure")
    report.add_argument("results", type=Path)
    report.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "run":
            run_plan(arguments)
        else:
            results = read_results(arguments.results)
            print(report_markdown(results))
            if arguments.figure:
                plot_curve(arguments.figure, results)
    except MakermarkError as error:
        raise SystemExit(f"error: {error}") from error


def run_plan(arguments: argparse.Namespace) -> None:
    """Carry out the runs of a plan that the results lack."""
    from generalisation_training import Inputs, execute, network_settings, write_clip_features

    from makermark.foundation.manifest import file_sha256, read_manifest
    from makermark.foundation.tracking.provenance import commit_of

    rows = read_manifest(arguments.corpus).rows
    systems = describe_systems(rows[rows["split"] == "train"])
    planned = list(PLANS[arguments.plan](systems, draws=arguments.draws, steps=arguments.steps))
    settings = network_settings(arguments.params) | {
        "steps": arguments.steps,
        "corpus_sha256": file_sha256(arguments.corpus),
        "clips_sha256": file_sha256(arguments.clips) if arguments.clips else None,
    }
    arguments.work.mkdir(parents=True, exist_ok=True)
    missing = missing_runs(planned, arguments.results, settings)
    print(f"{len(planned)} runs planned, {len(missing)} to do", flush=True)
    inputs = Inputs(arguments.params, arguments.corpus, arguments.features, arguments.clips, arguments.work)
    if missing:
        write_clip_features(inputs)
    stamp = {"settings": settings, "commit": commit_of(Path(__file__).parent)}
    finished = carry_out(missing, functools.partial(execute, inputs=inputs), workers=arguments.workers)
    for run, result in finished:
        append_result(arguments.results, run, result | stamp)
        print(
            f"{run.kind}, {run.name}, draw {run.draw}: {result['test']['eer_micro_percent']:.2f} %",
            flush=True,
        )


def missing_runs(planned: Sequence[Run], results: Path, settings: dict[str, Any]) -> list[Run]:
    """Return the runs that a file of results lacks; results with other settings end the program."""
    finished = read_results(results) if results.exists() else []
    for result in finished:
        different = sorted(name for name in settings if result["settings"].get(name) != settings[name])
        if different:
            raise SystemExit(
                f"error: {results} has results with other {', '.join(different)}; name another file"
            )
    keys = {result_key(result) for result in finished}
    return [run for run in planned if run.key not in keys]


def carry_out(runs: Sequence[Run], execute: Execute, *, workers: int) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yield every run with its result as soon as it ends; with several workers each runs in its own process."""
    if workers == 1:
        yield from ((run, execute(run)) for run in runs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(execute, run): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def append_result(path: Path, run: Run, result: dict[str, Any]) -> None:
    """Append the line of a run; an unfinished last line, of a killed command, is removed first."""
    line = json.dumps({"kind": run.kind, "name": run.name, "draw": run.draw} | result)
    whole = path.read_bytes() if path.exists() else b""
    path.write_bytes(whole[: whole.rfind(b"\n") + 1] + line.encode() + b"\n")


if __name__ == "__main__":
    main()
