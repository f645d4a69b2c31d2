"""The examiner's commands: trace, enroll, compare, gallery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from makermark.errors import FilesError, TracerError

if TYPE_CHECKING:
    from makermark.tracing import Gallery, Trace, Tracer

GALLERY = Path(".makermark/gallery.arrow")
SHOWN = 5  # candidates on the terminal

Model = Annotated[
    str, typer.Option(help="Folder with best.* and tracer/, or runs:/... or models:/... of MLflow.")
]
Enrolled = Annotated[Path, typer.Option("--gallery", help="Arrow file of the systems enrolled here.")]
Prior = Annotated[
    float | None, typer.Option(help="Instead of params.yaml's: that the maker is in the gallery.")
]
Name = Annotated[str, typer.Argument(help="What to call the system.")]

galleries = typer.Typer(help="The systems that a clip can be traced to.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Make these commands part of `makermark`."""
    app.command()(explain)
    app.command()(trace)
    app.command()(enroll)
    app.command()(compare)
    app.command()(register)
    app.command()(report)
    app.add_typer(galleries, name="gallery")


def explain() -> None:
    """Show which bands and moments speak for each system of test: once, after make repro."""
    script = Path("stages/explain.py")
    if not script.exists():
        raise FilesError(
            f"no {script} in this folder; run makermark in the root of a clone of its repository"
        )
    paths = ["data/corpus/manifest.parquet", "models", "metrics/explain.json", "plots/explain"]
    command = [sys.executable, str(script), *paths]
    environment = os.environ | {"PYTHONPATH": "src"}
    if status := subprocess.run(command, env=environment, check=False).returncode:
        raise typer.Exit(status)


def trace(
    files: Annotated[
        list[Path], typer.Argument(help="Audio files, or - for a list of paths on standard input.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file and line.")] = False,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    prior_known: Prior = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that read files.", min=1)] = 2,
) -> None:
    """Say which system made each clip, how sure that is, and when it is none of those known.

    Files that cannot be heard are named on standard error and passed over; the exit status is then 1.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    if files == [Path("-")]:
        files = [Path(os.fsdecode(line)) for line in sys.stdin.buffer.read().splitlines() if line]
    tracer = _load(model, gallery, device=device, prior_known=prior_known)
    notes = Console(stderr=True)
    bad: list[Path] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    quiet = not notes.is_terminal or sys.stdout.isatty() or len(files) < 2
    # rich would send what is printed to where the bar stands, away from the results' own file or pipe
    with Progress(*columns, console=notes, disable=quiet, redirect_stdout=False) as progress:
        task = progress.add_task("clips", total=len(files))

        def failed(path: Path, reason: str) -> None:
            bad.append(path)
            print(f"{path}: {reason}", file=sys.stderr)
            progress.advance(task)

        for told in tracer.trace_all(files, workers=workers, failed=failed):
            print(json.dumps(told.as_json()) if as_json else "\n".join(lines_of(told)), flush=True)
            progress.advance(task)
    if bad:
        print(f"{len(bad)} of {len(files)} files could not be heard", file=sys.stderr)
        raise typer.Exit(1)


def lines_of(told: Trace) -> Iterator[str]:
    """A trace in words."""
    from makermark.tracing.verdict import ratio

    named = f": {told.name}" if told.name else ""
    yield f"{told.file}  ({told.duration_s:.1f} s, {told.speech_s:.1f} s of speech)"
    yield f"  {told.verdict}{named}  ({told.reason})"
    for each in told.candidates[:SHOWN]:
        yield (
            f"  {'*' if each.in_set else ' '} {each.system:<32} LR {ratio(each.log10_lr, at_bound=each.at_bound):>14}"
            f"   posterior {100 * each.posterior:5.1f} %"
        )
    yield (
        f"    {'(none of the gallery)':<32}    {'':>14}   posterior {100 * told.posterior_unknown:5.1f} %"
        f"   with prior {100 * told.prior_known:g} % for the gallery"
    )
    if told.agreement is not None:
        yield f"  along time: {100 * told.agreement:.0f} % of the windows agree with the whole"
        for window in told.windows:
            name = f": {window.name}" if window.name else ""
            yield f"    {window.start_s:6.1f} - {window.end_s:6.1f} s  nearest {window.best}, {window.verdict}{name}"
    if len(told.makers_along_time) > 1:
        yield f"  more than one maker along time: {', '.join(told.makers_along_time)}; the file may be put together"


def enroll(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Clips that it made: 2 at least, better 5 or more.")],
    family: Annotated[str, typer.Option(help="What kind of system it is, where that is known.")] = "",
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Add a system to the gallery from a few clips, without training."""
    from makermark.tracing import changing, write_gallery

    with changing(gallery):
        tracer = _load(model, gallery, device=device, new=True).enroll(name, files, family=family)
        _ = tracer.calibrated  # nothing is written that could not be used
        write_gallery(gallery, tracer.gallery.enrolled())
    print(
        f"{name}: enrolled from {len(files)} clips; {gallery} now has {', '.join(tracer.gallery.enrolled().systems)}"
    )


def compare(
    a: Annotated[Path, typer.Argument(help="One clip.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    model: Model = "models",
    prior_same: Annotated[
        float | None, typer.Option(help="Instead of params.yaml's: that one made both.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Say whether one system made both clips, whichever it is, as a likelihood ratio."""
    from makermark.tracing import Tracer
    from makermark.tracing.verdict import ratio

    told = Tracer.load(model, device=device, prior_same=prior_same).compare(a, b)
    if as_json:
        print(json.dumps({"a": str(a), "b": str(b), **asdict(told)}))
        return
    print(f"one maker against two: LR {ratio(told.log10_lr, at_bound=told.at_bound)}")
    print(f"one maker: {100 * told.posterior_same:.1f} %, with prior {100 * told.prior_same:g} %")
    if not told.enough_speech:
        print(f"too little speech to say: {min(told.speech_s):.1f} s in one of them")


def register(
    alias: Annotated[str, typer.Option(help="Name that points to this version from now on.")] = "champion",
    name: Annotated[str, typer.Option(help="Of the registered model.")] = "makermark",
    models: Annotated[Path, typer.Option(help="Folder with best.* and tracer/.")] = Path("models"),
    metrics: Annotated[Path, typer.Option(help="Folder with its score.json and trace.json.")] = Path(
        "metrics"
    ),
) -> None:
    """Put the tracer with its model card into MLflow's registry, as a version that MLflow can serve."""
    from makermark.registering import register_tracer

    version = register_tracer(models, metrics, name=name, alias=alias, start=Path.cwd())
    print(f"{name} version {version}: makermark trace --model models:/{name}/{version} clip.wav")
    if alias:
        print(f"alias {alias}: mlflow models serve -m models:/{name}@{alias} --env-manager local")


def report(
    file: Annotated[Path, typer.Argument(help="An audio file.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; else NAME.report.html in this folder.")
    ] = None,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    corpus: Annotated[
        Path, typer.Option(help="The corpus of the model, to listen to; the report does without, too.")
    ] = Path("data/corpus"),
    prior_known: Prior = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write all that can be said of a clip as one HTML file: to read, listen to and print, without a network."""
    from makermark.evidence import gather, html_report
    from makermark.files import replacing

    page = Path(f"{file.name}.report.html") if out is None else out
    if page.suffix.lower() not in (".html", ".htm"):
        raise FilesError(f"{page}: a report is an HTML file; give --out a name that ends in .html")
    tracer = _load(model, gallery, device=device, prior_known=prior_known)
    evidence = gather(tracer, file, corpus=corpus)
    with replacing(page) as draft:
        # a file's name may hold bytes that are no UTF-8
        draft.write_text(html_report(evidence), encoding="utf-8", errors="backslashreplace")
    told = evidence.trace
    print(f"{page}: {told.verdict}{f': {told.name}' if told.name else ''}")


@galleries.command("list")
def list_gallery(model: Model = "models", gallery: Enrolled = GALLERY) -> None:
    """List the systems that a clip can be traced to."""
    from rich.console import Console
    from rich.table import Table

    found = _load(model, gallery).gallery
    table = Table("system", "family", "from", "clips", box=None)
    for row in found.table.itertuples():
        table.add_row(str(row.Index), str(row.family), str(row.origin), str(row.clips))
    Console().print(table)
    print(f"{len(found.systems)} systems, model {found.model_sha256[:12]}")


@galleries.command("remove")
def remove_from_gallery(name: Name, model: Model = "models", gallery: Enrolled = GALLERY) -> None:
    """Remove an enrolled system."""
    from makermark.tracing import changing, write_gallery

    with changing(gallery):
        left = _load(model, gallery).gallery.without(name).enrolled()
        write_gallery(gallery, left)
    print(f"{name}: removed; {gallery} has {', '.join(left.systems) or 'none'} now")


@galleries.command("export")
def export_gallery(
    out: Annotated[Path, typer.Argument(help="Arrow file to write.")],
    model: Model = "models",
    gallery: Enrolled = GALLERY,
) -> None:
    """Write the enrolled systems into a file for others who have the same model."""
    from makermark.tracing import write_gallery

    enrolled = _load(model, gallery).gallery.enrolled()
    _refuse_empty(enrolled, gallery)
    write_gallery(out, enrolled)
    print(f"{out}: {', '.join(enrolled.systems)}")


@galleries.command("import")
def import_gallery(
    file: Annotated[Path, typer.Argument(help="Arrow file that `gallery export` wrote.")],
    model: Model = "models",
    gallery: Enrolled = GALLERY,
) -> None:
    """Add the systems of an exported gallery, once every value of it has been looked at."""
    from makermark.tracing import changing, enrolled_in, write_gallery

    with changing(gallery):
        here = _load(model, gallery, new=True).gallery
        given = enrolled_in(file, here)
        _refuse_empty(given, file)
        write_gallery(gallery, here.joined(given).enrolled())
    print(f"{gallery}: {', '.join(given.systems)} added")


def _load(
    model: str, gallery: Path, *, device: str = "auto", prior_known: float | None = None, new: bool = False
) -> Tracer:
    """The tracer with the systems enrolled in `gallery`, of which a `new` one is empty, and so is the usual one before
    anything was enrolled."""
    from makermark.tracing import Tracer

    if not (new or gallery == GALLERY or gallery.exists()):
        raise FilesError(f"{gallery}: missing: there is no such gallery")
    return Tracer.load(model, gallery=gallery, device=device, prior_known=prior_known)


def _refuse_empty(gallery: Gallery, path: Path) -> None:
    if not gallery.systems:
        raise TracerError(f"{path}: no enrolled system in it; add one with `makermark enroll NAME FILE...`")
