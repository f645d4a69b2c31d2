"""The `makermark` command: the stages without DVC, and a look at what there is."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from makermark import __version__, door, serving_commands, tracing_commands
from makermark.errors import FilesError, MakermarkError, ParamsError
from makermark.files import read_json
from makermark.params import from_mapping, read_params, read_yaml

app = typer.Typer(
    help="Which TTS system made this voice? Source tracing of synthetic speech.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

grids = typer.Typer(help="Grids of experiments through the DVC queue.", no_args_is_help=True)
app.add_typer(grids, name="grid")
converters = typer.Typer(help="Published weights in the form that makermark reads.", no_args_is_help=True)
app.add_typer(converters, name="convert")
tracing_commands.add_to(app)
serving_commands.add_to(app)

STAGES = {
    "check": "Refuse params that no stage could carry out.",
    "download": "Make or fetch the corpus and its manifest.",
    "features": "Compute the feature caches (Arrow shards).",
    "train": "Train the backbone; best and last checkpoints.",
    "embed": "One vector per utterance, by the model and by its baselines.",
    "score": "EER over every pair, with intervals over systems, beside the baselines.",
    "probe": "What a linear classifier reads from the vectors; their map.",
    "fuse": "Fuse the systems that fuse.systems names, and score parts and whole.",
    "calibrate": "Make the tracer of single clips: calibrated on dev, judged on test.",
    "robustness": "Judge the tracer under codecs, noise, rooms and the like.",
}
PIPELINES = ("dvc.yaml", "robustness/dvc.yaml")  # the second is left out of a plain `dvc repro`
VERSIONS_OF = ("torch", "torchaudio", "numpy", "pyarrow", "numba", "scikit-learn", "dvc", "mlflow")


def run_stage(name: str) -> None:
    """Run the command that dvc.yaml gives for a stage, without DVC: its paths stand there only."""
    pipeline = Path("dvc.yaml")
    if not pipeline.exists():
        raise FilesError("no dvc.yaml in this folder; run makermark in the root of a clone of its repository")
    stages = {stage: told for path in PIPELINES for stage, told in read_yaml(Path(path))["stages"].items()}
    setting, _, *command = shlex.split(stages[name]["cmd"])
    variable, _, value = setting.partition("=")
    environment = os.environ | {variable: value}
    status = subprocess.run([sys.executable, *command], env=environment, check=False).returncode
    if status:
        raise typer.Exit(status)


def _add_stage(name: str, purpose: str) -> None:
    def stage() -> None:
        run_stage(name)

    app.command(name, help=f"{purpose} (The stage's command of dvc.yaml, run without DVC.)")(stage)


for _name, _purpose in STAGES.items():
    _add_stage(_name, _purpose)


@app.command()
def results(metrics: Annotated[Path, typer.Option(help="Folder of the metrics.")] = Path("metrics")) -> None:
    """Print the result table and where to look next."""
    from rich.console import Console

    from makermark.reporting import open_set_lines, results_table, tracer_line

    probe = read_json(metrics / "probe.json")
    console = Console()
    score = read_json(metrics / "score.json")
    console.print(results_table(score))
    console.print("\n".join(open_set_lines(score)), highlight=False)
    console.print(
        f"Linear probe over {probe['systems']} systems of {probe['split']}: {probe['accuracy_percent']:.1f} % "
        f"(chance {probe['chance_percent']:.1f} %)\n"
        f"{tracer_line(read_json(metrics / 'trace.json'))}\n"
        "Pictures: plots/   Figures: metrics/   Model: models/best.safetensors   Tracer: models/tracer   "
        "All runs: make ui",
        highlight=False,
    )


@app.command("audit")
def audit_corpus(
    manifest: Annotated[
        Path, typer.Argument(help="A manifest, the folder that holds it, or the zip of the MLAADv5 protocol.")
    ],
    json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    audio: Annotated[bool, typer.Option("--audio", help="Listen to the files, too.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Where paths start, if not where the corpus says.")
    ] = None,
    per_system: Annotated[int, typer.Option(min=1, help="Files of each system to listen to.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Threads that listen.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Which files, and which folds.")] = 0,
) -> None:
    """Report what in a corpus would make a figure misleading: duplicates, aliases, shares, shortcuts."""
    from rich.console import Console

    from makermark.auditing import audit, open_corpus
    from makermark.files import replacing, write_json
    from makermark.reporting.audit import audit_markdown, audit_terminal

    corpus, heard = open_corpus(manifest), None
    if audio:
        from makermark.auditing.shortcuts import shortcuts

        heard = shortcuts(corpus.rows, root or corpus.root, per_system=per_system, seed=seed, workers=workers)
    report = audit(corpus.rows, corpus=corpus.corpus, shortcuts=heard)
    if json:
        write_json(json, report)
    if markdown:
        with replacing(markdown) as draft:
            draft.write_text(audit_markdown(report), encoding="utf-8")
    Console().print(audit_terminal(report), highlight=False)


@app.command("log-run")
def log_run() -> None:
    """Record the last run in MLflow from its files, or what its run still lacks (after an outage, say)."""
    from makermark import tracking
    from makermark.checkpoint import file_sha256

    told = read_json(Path("models/best.json"))
    params = from_mapping(told["params"])
    figures = {
        Path(f).stem: read_json(Path(f))
        for f in ("metrics/score.json", "metrics/probe.json", "metrics/trace.json")
        if Path(f).exists()
    }
    metrics = figures.pop("score", {}) | figures
    kept = {
        "checkpoint": ["models/best.safetensors", "models/best.json", "models/history.json"],
        "plots/score": ["plots/score"],
        "plots/probe": ["plots/probe"],
        "checkpoint/tracer": ["models/tracer"],
        "plots/trace": ["plots/trace"],
        "metrics": ["metrics/score.json", "metrics/probe.json", "metrics/trace.json"],
        "": ["params.yaml", "dvc.lock"],
    }
    here = Path.cwd()
    run_id = tracking.log_run(
        params.experiment,
        model_sha256=file_sha256(Path("models/best.safetensors")),
        params=told["params"],
        history=read_json(Path("models/history.json")),
        emphasis=told["emphasis"],
        metrics=metrics,
        tags=tracking.provenance(here) | {"git.commit": told["git_commit"]},
        artefacts=[(Path(p), folder) for folder, paths in kept.items() for p in paths if Path(p).exists()],
        start=here,
    )
    print(f"recorded as run {run_id} ({params.experiment}) in {tracking.tracking_uri(here)}")


@app.command("preset")
def print_preset(
    name: Annotated[str, typer.Argument(help="local, mlaad-resnet or mlaad-ssl.")],
) -> None:
    """Print a whole params.yaml: `makermark preset mlaad-resnet > params.yaml`."""
    from makermark.presets import preset

    print(preset(name), end="")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Path without suffix, such as models/best.")],
    manifest: Annotated[
        Path, typer.Option(help="manifest.parquet, its folder, or a table with path and system.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: report, figures, pictures, vectors, features.")],
    split: Annotated[list[str] | None, typer.Option(help="Again for each; all where none is named.")] = None,
    label: Annotated[
        str, typer.Option(help="What is traced, such as family; else what the model was trained on.")
    ] = "",
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Of a table: score repeated rows and files, too.")
    ] = False,
    root: Annotated[str, typer.Option(help="Of a table: where paths start; else its own folder.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: path=NAME of its column, or split= for none; again for each."),
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="logmel_stats or untrained; again for each.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that compute features.", min=1)] = 2,
) -> None:
    """Score a model on another corpus, without the one that it was trained on."""
    from rich.console import Console

    from makermark.evaluating import evaluate
    from makermark.reporting import results_table

    told = evaluate(
        checkpoint,
        manifest,
        out,
        root=root,
        columns=_pairs(column or []),
        label=label,
        keep_duplicates=keep_duplicates,
        splits=split or (),
        baselines=baseline or (),
        device=device,
        workers=workers,
    )
    console = Console()
    console.print(results_table(told))
    console.print(
        f"Report: {out}/report.md   Figures: {out}/score.json   Pictures: {out}/plots", highlight=False
    )


@app.command()
def table1(
    only: Annotated[str, typer.Option(help="Backbones, such as resnet34; commas between several.")] = "",
    losses: Annotated[str, typer.Option(help="Such as aamsoftmax,ge2e; all where none is named.")] = "",
    samplers: Annotated[str, typer.Option(help="random or balanced.")] = "",
    dims: Annotated[str, typer.Option(help="Such as 50,200.")] = "",
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2.")] = "0",
    paper_settings: Annotated[
        bool, typer.Option(help="Schedule, batch and margins of the preset for each backbone.")
    ] = False,
    queue: Annotated[bool, typer.Option(help="Queue what has not run, or only write the report.")] = True,
    reports: Annotated[Path, typer.Option(help="Folder of table1.md, .csv and .png.")] = Path("reports"),
) -> None:
    """Queue what has not run of the paper's Table 1, and report what has, beside the paper's figures.

    Again after `dvc exp run --run-all`, or after that was killed: what has run by the same code, on the same data and
    with the same params is reported and not queued.
    """
    from makermark import grid
    from makermark.table1 import (
        Row,
        found_in,
        narrowed,
        paper,
        refuse_unready,
        wanted_in,
        write_report,
    )

    here = Path.cwd()
    corpus = read_params(here / "params.yaml").corpus
    cells = narrowed(
        paper(),
        backbones=_listed(only),
        losses=_listed(losses),
        samplers=_listed(samplers),
        dims=_numbers(dims),
    )
    wanted = wanted_in(here, cells, _numbers(seeds), as_in_paper=paper_settings)
    found, problem = found_in(here, wanted)
    missing = [each.experiment for each in wanted if each.experiment.name not in found]
    of_cell = {cell: [each.experiment for each in wanted if each.cell == cell] for cell in cells}
    rows = [
        Row(cell, corpus, {e.seed: found[e.name] for e in experiments if e.name in found})
        for cell, experiments in of_cell.items()
    ]
    written = write_report(reports, rows)
    print(f"{len(found)} of {len(wanted)} have run: {', '.join(map(str, written))}")
    if problem:
        print(f"without the MLflow store: {problem}", file=sys.stderr)
    if queue and missing:
        refuse_unready(here, wanted)
        names = grid.queue(missing, here)
        already = len(missing) - len(names)
        print("\n".join([*names, f"{len(names)} queued, {already} already; dvc exp run --run-all runs them"]))


def _pairs(given: list[str]) -> dict[str, str]:
    """OURS=THEIRS by ours; nothing after the sign: the table has no such column."""
    if not all("=" in part for part in given):
        raise ParamsError(f"--column takes OURS=THEIRS, such as path=clip, not {given}")
    return dict(part.partition("=")[::2] for part in given)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError as error:
        raise ParamsError(f"{text!r}: give whole numbers with commas between, such as 0,1,2") from error


@grids.command("queue")
def queue_grid(
    grid: Annotated[Path, typer.Argument(help="Its YAML file, such as grids/local.yaml.")],
) -> None:
    """Put the grid's experiments that have not run into DVC's queue; `dvc exp run --run-all` runs them."""
    from makermark.grid import queue, read_grid

    names = queue(read_grid(grid), Path.cwd())
    print("\n".join([*names, f"{len(names)} queued; dvc exp run --run-all runs them"]))


@grids.command("table")
def table_of_grid(
    grid: Annotated[Path, typer.Argument(help="Its YAML file, such as grids/local.yaml.")],
    table: Annotated[Path, typer.Argument(help="Markdown file to write, such as docs/grid.md.")],
    picture: Annotated[Path, typer.Argument(help="PNG file to write, such as docs/images/grid.png.")],
) -> None:
    """Write the table and the picture of what has run of a grid; between <!-- table --> markers, if there are some."""
    from makermark.files import replacing
    from makermark.grid import collect, read_grid
    from makermark.reporting.grid import Result, baseline_results, grid_markdown, placed, plot_grid

    experiments = read_grid(grid)
    outcomes = collect(experiments, Path.cwd())
    if not outcomes:
        raise FilesError(
            f"{grid}: none of its {len(experiments)} experiments has run; queue and run them first"
        )
    results = [Result(o.experiment.arm, o.score, o.train_seconds) for o in outcomes]
    untaught = baseline_results([o.score for o in outcomes])
    commits = ", ".join(sorted({o.commit[:8] for o in outcomes}))
    before = table.read_text(encoding="utf-8") if table.exists() else ""
    with replacing(table) as draft:
        text = f"{grid_markdown([*results, *untaught])}\nMade by {grid} at commit {commits}.\n"
        draft.write_text(placed(text, before), encoding="utf-8")
    plot_grid(picture, [*results, *untaught])
    print(f"{len(outcomes)} of {len(experiments)} experiments: {table}, {picture}")


@converters.command("aasist")
def convert_published_aasist(
    source: Annotated[Path, typer.Argument(help="Published weights, AASIST.pth or AASIST-L.pth.")],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors; its settings beside it, .json.")],
) -> None:
    """Rename the published weights of AASIST, so that training can begin with them."""
    from makermark.converting import convert_aasist

    path = out.with_suffix(".safetensors")
    settings = {**convert_aasist(source, path), "initial": path}
    choices = " ".join(f"-S backbones.aasist.{name}={value}" for name, value in settings.items())
    print(f"{path}: begin with it by -S backbone=aasist {choices}")


@converters.command("whisper")
def convert_whisper(
    folder: Annotated[Path, typer.Argument(help="Holds the model.bin of a Whisper model for CTranslate2.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; give it as ssl.model.")],
) -> None:
    """Make a Hugging Face folder of the encoder of a Whisper model for CTranslate2."""
    from makermark.encoders.ctranslate2 import convert

    convert(folder, out)
    print(f"{out}: use it with -S ssl.model={out}")


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open the MLflow UI of this project on the loopback address; Ctrl-C ends it."""
    from makermark import tracking

    uri = tracking.tracking_uri(Path.cwd())
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.run([*command, "--port", str(port)], check=False).returncode)


@app.command()
def info() -> None:
    """Versions, device, corpus, caches and last results of the project in this folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for key, value in facts().items():
        table.add_row(key, value)
    Console().print(table)


def facts() -> dict[str, str]:
    """What `info` prints: each fact, or the reason why it is not known."""
    found = {"makermark": __version__, "python": sys.version.split()[0]}
    for package in VERSIONS_OF:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    for name, look in LOOKS.items():
        try:
            found[name] = look()
        except MakermarkError as error:
            found[name] = f"none ({error})"
    return found


def _device() -> str:
    from makermark.device import choose_device, choose_precision

    device = choose_device("auto")
    precision = str(choose_precision("auto", device)).removeprefix("torch.")
    return f"{device.type}, training in {precision}, {os.cpu_count()} processors"


def _experiment() -> str:
    return read_params(Path("params.yaml")).experiment


def _corpus() -> str:
    from makermark.corpora.making import MANIFEST
    from makermark.corpora.rows import read_manifest

    manifest = read_manifest(Path("data/corpus", MANIFEST))
    rows = manifest.rows
    hours = rows["duration_s"].sum() / 3600
    return (
        f"{manifest.corpus}: {len(rows)} utterances, {hours:.1f} h, {rows['system'].nunique()} systems, "
        f"{len(set(rows['language']) - {''})} languages"
    )


def _caches() -> str:
    folders = [shards.name for shards in sorted(Path("data/features").glob("*")) if shards.is_dir()]
    if not folders:
        raise FilesError("data/features has none: run the features stage")
    sizes = {
        name: sum(f.stat().st_size for f in Path("data/features", name).rglob("*.arrow")) / 1e6
        for name in folders
    }
    return ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items())


def _model() -> str:
    told = read_json(Path("models/best.json"))
    return f"{told['backbone']}, dim {told['dim']}, epoch {told['epoch']}, commit {told['git_commit'][:10]}"


def _last_results() -> str:
    score: dict[str, Any] = read_json(Path("metrics/score.json"))
    return ", ".join(f"{split} EER {score[split]['eer_micro_percent']:.2f} %" for split in ("dev", "test"))


LOOKS: dict[str, Callable[[], str]] = {
    "device": _device,
    "experiment": _experiment,
    "corpus": _corpus,
    "feature caches": _caches,
    "model": _model,
    "results": _last_results,
}


def main() -> None:
    """The console script."""
    # names of files and systems are anything: what an encoding cannot say is escaped
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    door.guard(app)
