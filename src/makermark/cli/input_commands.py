"""The commands about corpora and weights from elsewhere: audit and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
converters = typer.Typer(
    help="Convert published weights to the formats that makermark reads.", no_args_is_help=True
)
app.add_typer(converters, name="convert")


@app.command("audit")
def audit_corpus(
    manifest: Annotated[
        Path, typer.Argument(help="A manifest, its folder, or the zip file of the MLAADv5 protocol.")
    ],
    json: Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report to this Markdown file.")] = None,
    audio: Annotated[
        bool, typer.Option("--audio", help="Analyse audio files too, for acoustic shortcuts.")
    ] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the audio; default: as in the manifest.")
    ] = None,
    per_system: Annotated[int, typer.Option(min=1, help="Audio files to analyse per system.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read audio.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random choice of files and folds.")] = 0,
) -> None:
    """Report properties of a corpus that make metrics misleading: duplicates, aliases, imbalance, shortcuts."""
    from rich.console import Console

    from makermark.audit import audit, open_corpus
    from makermark.audit.report import render_markdown, render_terminal
    from makermark.foundation.files import atomic_write, write_json

    corpus, shortcuts = open_corpus(manifest), None
    if audio:
        from makermark.audit.shortcuts import measure_shortcuts

        shortcuts = measure_shortcuts(
            corpus.rows, root or corpus.root, per_system=per_system, seed=seed, workers=workers
        )
    report = audit(corpus.rows, corpus=corpus.corpus, shortcuts=shortcuts)
    if json:
        write_json(json, report)
    if markdown:
        with atomic_write(markdown) as draft:
            draft.write_text(render_markdown(report), encoding="utf-8")
    Console().print(render_terminal(report), highlight=False)


@converters.command("aasist")
def convert_published_aasist(
    source: Annotated[Path, typer.Argument(help="Published weights, AASIST.pth or AASIST-L.pth.")],
    out: Annotated[
        Path,
        typer.Argument(help="File to write (.safetensors), with a .json file of its settings."),
    ],
) -> None:
    """Convert the published weights of AASIST, so that training can start from them."""
    from makermark.models.weight_conversion.aasist import convert_aasist

    path = out.with_suffix(".safetensors")
    settings = {**convert_aasist(source, path), "initial": path}
    choices = " ".join(f"-S backbones.aasist.{name}={value}" for name, value in settings.items())
    print(f"{path}: start from it with -S backbone=aasist {choices}")


@converters.command("whisper")
def convert_whisper(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the model.bin of a Whisper model for CTranslate2.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write, for the setting ssl.model.")],
) -> None:
    """Convert the encoder of a Whisper model for CTranslate2 to a Hugging Face folder."""
    from makermark.models.weight_conversion.whisper_ctranslate2 import convert

    convert(folder, out)
    print(f"{out}: use it with -S ssl.model={out}")
