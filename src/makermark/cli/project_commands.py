"""The commands about the project in the current folder: one per pipeline stage, explain, info and ui."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from makermark import __version__
from makermark.foundation.errors import FilesError, MakermarkError, TrackingError, install_hint
from makermark.foundation.files import read_json

STAGES = {
    "check": "Validate params.yaml and the combination of its settings.",
    "download": "Synthesise or read the corpus and write its manifest.",
    "features": "Compute the feature caches (Arrow shards).",
    "train": "Train the model; write the best and the last checkpoint.",
    "embed": "Compute one embedding per utterance with the model and its baselines.",
    "score": "Compute the EER over all pairs, with confidence intervals over systems, for model and baselines.",
    "probe": "Train linear classifiers on the embeddings and draw a map of them.",
    "fuse": "Fuse the systems in fuse.systems; score them and their fusion.",
    "calibrate": "Build the tracer of single clips: calibrate it on dev, evaluate it on test.",
    "headline": "Select the figures that compare experiments.",
    "robustness": "Evaluate the tracer under codecs, noise, rooms and other conditions.",
    "foreign": "Score the model on foreign.manifest, a corpus that it is never trained on.",
}
PIPELINE = "dvc.yaml"
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_SECONDS = 3.0  # that a process gets before it is killed
PACKAGES = ("torch", "torchaudio", "numpy", "pyarrow", "numba", "scikit-learn", "dvc", "mlflow")


app = typer.Typer()


def _add_stage(name: str, purpose: str) -> None:
    @app.command(name, help=f"{purpose} (Runs the stage's command in dvc.yaml without DVC.)")
    def stage() -> None:
        run_stage(name)


for _name, _purpose in STAGES.items():
    _add_stage(_name, _purpose)


def run_stage(name: str) -> None:
    """Run the command of a stage in dvc.yaml; the paths of the stage are named only there."""
    from makermark.foundation.params import read_yaml

    if not Path(PIPELINE).exists():
        raise FilesError("no dvc.yaml in this folder; run makermark in the root of a clone of its repository")
    stage = read_yaml(Path(PIPELINE))["stages"][name]
    assignment, _, *arguments = shlex.split(stage["cmd"])  # VARIABLE=VALUE python SCRIPT ARGUMENT...
    variable, _, value = assignment.partition("=")
    _run_python(arguments, {variable: value})


def _run_python(arguments: list[str], variables: dict[str, str]) -> None:
    """Run Python with additional environment variables and exit with its status if it fails.

    A signal that ends this process ends it, and everything that it has started, too.
    """
    command, environment = [sys.executable, *arguments], os.environ | variables
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop(number: int, _: Any) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    before = {number: signal.signal(number, stop) for number in ENDING_SIGNALS}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end_group(process.pid)
    if status:
        raise typer.Exit(status if status > 0 else 128 - status)


def _end_group(group: int) -> None:
    """End what is left of a process group: a server that was ended may leave its workers."""
    with suppress(ProcessLookupError, PermissionError):
        for _ in range(round(END_SECONDS / 0.1)):
            os.killpg(group, signal.SIGTERM)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


@app.command()
def explain() -> None:
    """Compute which frequency bands and times identify each system of test; run it once, after make repro."""
    script = Path("stages/explain.py")
    if not script.exists():
        raise FilesError(
            f"no {script} in this folder; run makermark in the root of a clone of its repository"
        )
    paths = ["data/corpus/manifest.parquet", "models", "metrics/explain.json", "plots/explain"]
    _run_python([str(script), *paths], {"PYTHONPATH": "src"})


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Start the MLflow UI of this project on the loopback address; Ctrl-C stops it."""
    from makermark.foundation import tracking

    if find_spec("mlflow") is None:
        raise TrackingError(f"MLflow is not installed; {install_hint('pipeline')}")
    uri = tracking.existing_store(Path.cwd())
    tracking.correct_locations(Path.cwd())
    address = ["--host", "127.0.0.1", "--port", str(port)]
    _run_python(["-m", "mlflow", "ui", "--backend-store-uri", uri, *address], {})


@app.command()
def info() -> None:
    """Print versions, device, corpus, caches and last results of the project in this folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for key, value in describe_installation().items():
        table.add_row(key, value)
    Console().print(table)


def describe_installation() -> dict[str, str]:
    """Return the values that `info` prints, or the reason why one is not known."""
    values = {"makermark": __version__, "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            values[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            values[package] = "not installed"
    values["device"] = _device()
    if not Path("params.yaml").exists():
        return values | {
            "project": "none in this folder; run makermark in the root of a clone of its repository"
        }
    for name, describe in DESCRIPTIONS.items():
        try:
            values[name] = describe()
        except MakermarkError as error:
            values[name] = f"none ({error})"
    return values


def _device() -> str:
    from makermark.foundation.device import choose_device, choose_precision

    device = choose_device("auto")
    precision = str(choose_precision("auto", device)).removeprefix("torch.")
    return f"{device.type}, training in {precision}, {os.cpu_count()} processors"


def _experiment() -> str:
    from makermark.foundation.params import read_params

    return read_params(Path("params.yaml")).experiment


def _corpus() -> str:
    from makermark.foundation.manifest import MANIFEST_FILE, read_manifest

    manifest = read_manifest(Path("data/corpus", MANIFEST_FILE))
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
    checkpoint = read_json(Path("models/best.json"))
    commit = checkpoint["git_commit"][:10]
    return f"{checkpoint['backbone']}, dim {checkpoint['dim']}, epoch {checkpoint['epoch']}, commit {commit}"


def _last_results() -> str:
    score: dict[str, Any] = read_json(Path("metrics/score.json"))
    return ", ".join(f"{split} EER {score[split]['eer_micro_percent']:.2f} %" for split in ("dev", "test"))


def _runs() -> str:
    from makermark.foundation import tracking

    uri = tracking.existing_store(Path.cwd())
    tracking.correct_locations(Path.cwd())
    return uri


DESCRIPTIONS: dict[str, Callable[[], str]] = {
    "experiment": _experiment,
    "corpus": _corpus,
    "feature caches": _caches,
    "model": _model,
    "results": _last_results,
    "MLflow store": _runs,
}
