"""What may be audited: a manifest, its folder, or the MLAAD protocol as it was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from makermark.corpora.mlaad.protocol import read_protocol
from makermark.corpora.rows import read_manifest
from makermark.errors import CorpusError

MANIFEST = "manifest.parquet"
OF_PROTOCOL = "train.csv"


@dataclass(frozen=True)
class Opened:
    """The rows of a corpus, and the folder that their paths start from."""

    corpus: str
    root: Path
    rows: pd.DataFrame


def open_corpus(path: Path) -> Opened:
    """Read a manifest (or the folder that holds one), or the MLAADv5 protocol: its zip, or a folder with train.csv,
    where its audio is taken to lie beside.

    Raises ManifestError or FilesError for a manifest that cannot be read, CorpusError for a protocol that cannot, and
    for a path that is neither.
    """
    if (path / MANIFEST).is_file():
        path = path / MANIFEST
    if path.suffix == ".zip" or (path / OF_PROTOCOL).is_file():
        return Opened("mlaad-v5", path if path.is_dir() else path.parent, read_protocol(path))
    if path.is_dir():
        raise CorpusError(
            f"{path}: neither a {MANIFEST} nor the {OF_PROTOCOL} of the MLAAD protocol stands in this folder; name "
            "the manifest of a corpus (data/corpus, after the download stage), or the protocol's zip"
        )
    manifest = read_manifest(path)
    return Opened(manifest.corpus, manifest.root, manifest.rows)
