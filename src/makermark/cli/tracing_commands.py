"""The commands about clips and the gallery: trace, enroll, compare, report and gallery."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from makermark.foundation.errors import FilesError, TracerError

if TYPE_CHECKING:
    from makermark.tracing import Gallery, Trace, Tracer

GALLERY = Path(".makermark/gallery.arrow")
CORPUS = Path("data/corpus")
MAX_CANDIDATES = 5  # on the terminal
TERMINAL_COLUMNS = 80
MAX_PATH_BYTES = 4096  # of Linux
AUDIO_BEGINNINGS = (
    b"RIFF",
    b"RF64",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"FORM",
    b"caff",
    b".snd",
    b"NIST_1A",
    b"#!AMR",
    b"\xff",
)

Model = Annotated[
    str, typer.Option(help="Folder with best.* and tracer/, or an MLflow URI: runs:/... or models:/...")
]
Enrolled = Annotated[Path, typer.Option("--gallery", help="Arrow file of the enrolled systems.")]
Prior = Annotated[
    float | None, typer.Option(help="Prior that the system is in the gallery. Default: as in params.yaml.")
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")]
Corpus = Annotated[Path, typer.Option(help="Corpus of the model, for audio examples in reports; optional.")]
Name = Annotated[str, typer.Argument(help="Name of the system.")]

app = typer.Typer()
galleries = typer.Typer(
    help="List and change the systems that a clip can be traced to.", no_args_is_help=True
)
app.add_typer(galleries, name="gallery")


@app.command()
def trace(
    files: Annotated[
        list[Path], typer.Argument(help="Audio files, or - to read their paths from standard input.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file and line.")] = False,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    prior_known: Prior = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Threads that read files.", min=1)] = 2,
) -> None:
    """Trace clips to the systems of the gallery, with likelihood ratios, or to none of them.

    Unusable files are reported on standard error and skipped; the exit status is then 1.
    """
    from makermark.foundation.progress import progress_bar

    if files == [Path("-")]:
        files = read_paths(sys.stdin.buffer.read() if sys.stdin else b"")
    if not any(map(os.path.exists, files)):  # before the model is loaded
        for file in files:
            print(f"{file}: missing: there is no such file", file=sys.stderr)
        raise typer.Exit(1)
    tracer = _load(model, gallery, device=device, prior_known=prior_known)
    bad: list[Path] = []
    hidden = sys.stdout.isatty() or len(files) < 2  # on a terminal the results themselves show the progress
    with progress_bar("clips", total=len(files), hidden=hidden, redirect_stdout=False) as bar:

        def failed(path: Path, reason: str) -> None:
            bad.append(path)
            print(f"{path}: {reason}", file=sys.stderr)
            bar.advance()

        for result in tracer.trace_files(files, workers=workers, on_error=failed):
            print(json.dumps(result.as_json()) if as_json else "\n".join(describe_trace(result)), flush=True)
            bar.advance()
    if bad:
        print(f"{len(bad)} of {len(files)} files are unusable", file=sys.stderr)
        raise typer.Exit(1)


def read_paths(content: bytes) -> list[Path]:
    """Return the paths in standard input, one per line, or with a zero byte after each, as by `find -print0`.

    Raises FilesError if there are none, or if the input is a file itself.
    """
    if not content:
        raise FilesError("standard input: no paths; write one per line, as in `ls *.wav | makermark trace -`")
    separator = b"\0" if b"\0" in content else b"\n"
    paths = [line.removesuffix(b"\r") for line in content.split(separator) if line.strip()]
    if max(map(len, paths), default=0) > MAX_PATH_BYTES or content.startswith(AUDIO_BEGINNINGS):
        raise FilesError(
            "standard input: not a list of paths but the content of a file; save it and give its name: "
            "makermark trace FILE"
        )
    return [Path(os.fsdecode(path)) for path in paths]


def _check_exist(*files: Path) -> None:
    """Raise FilesError for the first file that does not exist, before a model is loaded."""
    for file in files:
        if not os.path.exists(file):
            raise FilesError(f"{file}: missing: there is no such file")


def describe_trace(result: Trace) -> Iterator[str]:
    """Yield the lines that describe a result on the terminal."""
    from makermark.tracing.decision import format_ratio

    name = f": {result.name}" if result.name else ""
    yield f"{result.file}  ({result.duration_s:.1f} s, {result.speech_s:.1f} s of speech)"
    for note in result.notes:
        yield from _wrap(f"note: {note}")
    yield f"  {result.conclusion}{name}"
    yield from _wrap(f"reason: {result.reason}")
    for candidate in result.candidates[:MAX_CANDIDATES]:
        posterior = "" if candidate.posterior is None else f"   posterior {100 * candidate.posterior:5.1f} %"
        yield (
            f"  {'*' if candidate.in_set else ' '} {candidate.system:<32} "
            f"LR {format_ratio(candidate.log10_lr, at_bound=candidate.at_bound):>14}{posterior}"
        )
    if result.posterior_unknown is not None:
        unknown = f"posterior {100 * result.posterior_unknown:5.1f} %"
        yield f"    {'(none of the gallery)':<32}    {'':>14}   {unknown}"
        yield f"  prior: {100 * result.prior_known:g} % that the system is in the gallery"
    if result.agreement is not None:
        yield f"  windows: {100 * result.agreement:.0f} % agree with the whole file"
        for window in result.windows:
            name = f": {window.name}" if window.name else ""
            nearest = "" if window.name == window.best else f", nearest {window.best}"
            yield f"    {window.start_s:6.1f} - {window.end_s:6.1f} s  {window.conclusion}{name}{nearest}"
    if len(result.makers_along_time) > 1:
        systems = ", ".join(result.makers_along_time)
        yield from _wrap(f"different systems in different windows: {systems}; the file may be spliced")


def _wrap(text: str) -> list[str]:
    """Return `text` as lines of at most TERMINAL_COLUMNS characters; a longer word, such as a path, stays whole."""
    return textwrap.wrap(
        text,
        TERMINAL_COLUMNS,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


@app.command()
def enroll(
    name: Name,
    files: Annotated[list[Path], typer.Argument(help="Clips of the system: at least 2, better 5 or more.")],
    family: Annotated[str, typer.Option(help="Family of the system, if it is known.")] = "",
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    device: Device = "auto",
) -> None:
    """Enroll a system in the gallery from a few clips; nothing is trained."""
    _check_exist(*files)
    from makermark.tracing import lock_gallery, write_gallery

    with lock_gallery(gallery):
        tracer = _load(model, gallery, device=device, new=True).enroll(name, files, family=family)
        _ = tracer.calibration  # raises CalibrationError before an unusable gallery is written
        write_gallery(gallery, tracer.gallery.enrolled())
    print(
        f"{name}: enrolled from {len(files)} clips; {gallery} now has {', '.join(tracer.gallery.enrolled().systems)}"
    )


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="First clip.")],
    b: Annotated[Path, typer.Argument(help="Second clip.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    model: Model = "models",
    prior_same: Annotated[
        float | None, typer.Option(help="Prior that one system made both clips. Default: as in params.yaml.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Print the likelihood ratio that one system made both clips, whichever system it is."""
    _check_exist(a, b)
    from makermark.tracing import Tracer
    from makermark.tracing.decision import format_ratio

    comparison = Tracer.load(model, device=device, prior_same=prior_same).compare(a, b)
    if as_json:
        print(json.dumps({"a": str(a), "b": str(b), **asdict(comparison)}))
        return
    print(
        f"same system against different systems: LR {format_ratio(comparison.log10_lr, at_bound=comparison.at_bound)}"
    )
    print(
        f"same system: posterior {100 * comparison.posterior_same:.1f} %, with prior {100 * comparison.prior_same:g} %"
    )
    if not comparison.enough_speech:
        print(f"too little speech to say: {min(comparison.speech_s):.1f} s in one of them")


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="An audio file.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: NAME.report.html in this folder.")
    ] = None,
    model: Model = "models",
    gallery: Enrolled = GALLERY,
    corpus: Corpus = CORPUS,
    prior_known: Prior = None,
    device: Device = "auto",
) -> None:
    """Write the evidence about a clip as one HTML file, to read, listen to and print without a network."""
    _check_exist(file)
    from makermark.examination.report import collect_report_data, render_report
    from makermark.foundation.files import atomic_write

    page = Path(f"{file.name}.report.html") if out is None else out
    if page.suffix.lower() not in (".html", ".htm"):
        raise FilesError(f"{page}: a report is an HTML file; give --out a name that ends in .html")
    tracer = _load(model, gallery, device=device, prior_known=prior_known)
    data = collect_report_data(tracer, file, corpus=corpus)
    with atomic_write(page) as draft:
        # a file name may contain bytes that are not UTF-8
        draft.write_text(render_report(data), encoding="utf-8", errors="backslashreplace")
    result = data.trace
    print(f"{page}: {result.conclusion}{f': {result.name}' if result.name else ''}")


@galleries.command("list")
def list_gallery(model: Model = "models", gallery: Enrolled = GALLERY) -> None:
    """List the systems that a clip can be traced to."""
    from rich.console import Console
    from rich.table import Table

    systems = _load(model, gallery).gallery
    table = Table("system", "family", "from", "clips", box=None)
    for row in systems.summary.itertuples():
        table.add_row(str(row.Index), str(row.family), str(row.origin), str(row.clips))
    Console().print(table)
    print(f"{len(systems.systems)} systems, model {systems.model_sha256[:12]}")


@galleries.command("remove")
def remove_from_gallery(name: Name, model: Model = "models", gallery: Enrolled = GALLERY) -> None:
    """Remove an enrolled system from the gallery."""
    from makermark.tracing import lock_gallery, write_gallery

    with lock_gallery(gallery):
        remaining = _load(model, gallery).gallery.without_system(name).enrolled()
        write_gallery(gallery, remaining)
    print(f"{name}: removed; {gallery} has {', '.join(remaining.systems) or 'none'} now")


@galleries.command("export")
def export_gallery(
    out: Annotated[Path, typer.Argument(help="Arrow file to write.")],
    model: Model = "models",
    gallery: Enrolled = GALLERY,
) -> None:
    """Write the enrolled systems to a file, for others who have the same model."""
    from makermark.tracing import write_gallery

    enrolled = _load(model, gallery).gallery.enrolled()
    _check_not_empty(enrolled, gallery)
    write_gallery(out, enrolled)
    print(f"{out}: {', '.join(enrolled.systems)}")


@galleries.command("import")
def import_gallery(
    file: Annotated[Path, typer.Argument(help="Arrow file that `gallery export` wrote.")],
    model: Model = "models",
    gallery: Enrolled = GALLERY,
) -> None:
    """Add the systems of an exported gallery after all its values were validated."""
    from makermark.tracing import lock_gallery, read_enrolled_systems, write_gallery

    with lock_gallery(gallery):
        current = _load(model, gallery, new=True).gallery
        imported = read_enrolled_systems(file, current)
        _check_not_empty(imported, file)
        write_gallery(gallery, current.merge(imported).enrolled())
    print(f"{gallery}: {', '.join(imported.systems)} added")


def _load(
    model: str, gallery: Path, *, device: str = "auto", prior_known: float | None = None, new: bool = False
) -> Tracer:
    """Return the tracer with the systems enrolled in `gallery`.

    A `new` gallery may be absent, and so may the default one: no system is enrolled then. Raises FilesError otherwise.
    """
    from makermark.tracing import Tracer

    if not (new or gallery == GALLERY or gallery.exists()):
        raise FilesError(f"{gallery}: missing: this gallery does not exist; correct --gallery")
    return Tracer.load(model, gallery=gallery, device=device, prior_known=prior_known)


def _check_not_empty(gallery: Gallery, path: Path) -> None:
    if not gallery.systems:
        raise TracerError(f"{path}: no system is enrolled; add one with `makermark enroll NAME FILE...`")
