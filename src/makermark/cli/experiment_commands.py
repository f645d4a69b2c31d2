"""The commands about one experiment: preset, results, evaluate, log-run and baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from makermark.cli.tracing_commands import Device
from makermark.foundation import entrypoint
from makermark.foundation.errors import OptionFormats, ParamsError
from makermark.foundation.files import read_json

app = typer.Typer()
baseline = typer.Typer(
    help="Save the state after make repro, and return to it after other experiments.", no_args_is_help=True
)
app.add_typer(baseline, name="baseline")


@baseline.command("save")
def save() -> None:
    """Save params.yaml, dvc.lock and metrics as the baseline of this clone, as make repro does."""
    from makermark.experiments.baseline import save_baseline

    print(f"baseline saved in {save_baseline(Path())}")


@baseline.command("restore")
def restore() -> None:
    """Restore params.yaml, dvc.lock, metrics and all outputs of the baseline."""
    from makermark.experiments.baseline import restore_baseline

    restore_baseline(Path())
    print("the workspace holds the baseline again")


@app.command("preset")
def print_preset(
    name: Annotated[
        str,
        typer.Argument(help="Name of the preset: local, local-small, local-full, mlaad-resnet or mlaad-ssl."),
    ],
) -> None:
    """Print a complete params.yaml, as in `makermark preset mlaad-resnet > params.yaml`."""
    from makermark.experiments.presets import preset

    print(preset(name), end="")


@app.command()
def results(metrics: Annotated[Path, typer.Option(help="Folder of the metrics.")] = Path("metrics")) -> None:
    """Print the table of results and the folders of plots, metrics and model."""
    from rich.console import Console

    from makermark.reporting.tables import describe_open_set, describe_tracer, results_table

    probe = read_json(metrics / "probe.json")
    console = Console()
    score = read_json(metrics / "score.json")
    console.print(results_table(score), "")
    console.print("\n".join(describe_open_set(score)), highlight=False)
    console.print("\n".join(describe_tracer(read_json(metrics / "trace.json"))), highlight=False)
    console.print(
        f"Linear probe over {probe['systems']} systems of {probe['split']}: {probe['accuracy_percent']:.1f} % "
        f"(chance {probe['chance_percent']:.1f} %)\n"
        "Plots: plots/   Metrics: metrics/   Model: models/best.safetensors   Tracer: models/tracer   "
        "All runs: make ui",
        highlight=False,
    )


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Option(help="Path of the checkpoint without suffix, such as models/best.")
    ],
    manifest: Annotated[
        Path,
        typer.Option(help="A manifest.parquet, its folder, or a table with the columns path and system."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write: report, metrics, plots, embeddings and features.")
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to score; may be repeated. Default: all splits.")
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            help="Label to trace, such as family, or columns combined, as in system@page. Default: the label that the "
            "model was trained on."
        ),
    ] = "",
    within: Annotated[
        list[str] | None,
        typer.Option(
            help="Column, such as language: score the pairs that share its value too; may be repeated."
        ),
    ] = None,
    min_utterances: Annotated[
        int, typer.Option(help="Least utterances of a system in a value of --within.", min=1)
    ] = 1,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Score repeated rows and files of a table too.")
    ] = False,
    root: Annotated[
        str, typer.Option(help="Folder where the paths of a table start. Default: the folder of the table.")
    ] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Column of a table: path=NAME, or split= to ignore it; may be repeated."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Baseline: logmel_stats, untrained, resemblyzer or whisper-early; may be repeated."
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Threads that compute features.", min=1)] = 2,
) -> None:
    """Score a model on another corpus; the training corpus is not needed."""
    from rich.console import Console

    from makermark.experiments.cross_corpus import evaluate
    from makermark.reporting.tables import results_table

    with entrypoint.settings_as_options(EVALUATE_OPTIONS):
        metrics = evaluate(
            checkpoint,
            manifest,
            out,
            root=root,
            columns=_parse_columns(column or []),
            label=label,
            keep_duplicates=keep_duplicates,
            splits=split or (),
            within=within or (),
            min_utterances=min_utterances,
            baselines=baseline or (),
            device=device,
            workers=workers,
        )
    console = Console()
    console.print(results_table(metrics))
    console.print(
        f"Report: {out}/report.md   Metrics: {out}/score.json   Plots: {out}/plots", highlight=False
    )


# How `evaluate` writes the settings of params.yaml that errors name. It skips all unusable files, so max_bad_fraction
# has no option.
EVALUATE_OPTIONS: OptionFormats = {
    "external.dedupe": lambda _: "--keep-duplicates",
    "external.label": lambda label: f"--label {label}",
    "external.max_bad_fraction": None,
    "external.root": lambda root: f"--root {root}",
    "features.max_bad_fraction": None,
    "manifest.columns": lambda columns: " ".join(f"--column {ours}={name}" for ours, name in columns.items()),
    "manifest.file": lambda file: f"--manifest {file}",
}


def _parse_columns(options: list[str]) -> dict[str, str]:
    """Return options OURS=THEIRS as a mapping; an empty name means that the table has no such column."""
    if not all("=" in option for option in options):
        raise ParamsError(f"--column takes OURS=THEIRS, such as path=clip, not {options}")
    return dict(option.partition("=")[::2] for option in options)


@app.command("log-run")
def log_run() -> None:
    """Record the last run in MLflow from its files, or add what its run lacks, for instance after an outage."""
    from makermark.foundation import tracking
    from makermark.foundation.manifest import MANIFEST_FILE, read_manifest
    from makermark.foundation.params import parse_params
    from makermark.models.checkpoint import check_trained, file_sha256
    from makermark.reporting.headline import headline_metrics
    from makermark.training.active_params import active_params

    check_trained(Path("models/best"))
    checkpoint = read_json(Path("models/best.json"))
    params = parse_params(checkpoint["params"])
    score, trace = Path("metrics/score.json"), Path("metrics/trace.json")
    headline = (
        headline_metrics(read_json(score), read_json(trace)) if score.exists() and trace.exists() else {}
    )
    manifest = Path("data/corpus", MANIFEST_FILE)
    artifacts = {
        "checkpoint": ["models/best.safetensors", "models/best.json", "models/history.json"],
        "plots/score": ["plots/score"],
        "plots/probe": ["plots/probe"],
        "checkpoint/tracer": ["models/tracer"],
        "plots/trace": ["plots/trace"],
        "metrics": ["metrics"],
        "": ["params.yaml", "dvc.lock"],
    }
    here = Path.cwd()
    run_id = tracking.log_run(
        params.experiment,
        model_sha256=file_sha256(Path("models/best.safetensors")),
        params=active_params(params),
        history=read_json(Path("models/history.json")),
        emphasis=checkpoint["emphasis"],
        metrics=headline,
        datasets=tracking.dataset_records(read_manifest(manifest), here) if manifest.exists() else [],
        tags=tracking.provenance_tags(here) | {"git.commit": checkpoint["git_commit"]},
        artifacts=[
            (Path(p), folder) for folder, paths in artifacts.items() for p in paths if Path(p).exists()
        ],
        start=here,
    )
    print(f"recorded as run {run_id} ({params.experiment}) in {tracking.tracking_uri(here)}")
