"""Another corpus than the one that a checkpoint was trained on: its rows, and what the checkpoint has seen of them."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from makermark.checkpoint import Description
from makermark.corpora import tables
from makermark.corpora.choices import LABELS, relabel
from makermark.corpora.listing import Listing
from makermark.corpora.making import MANIFEST, make
from makermark.corpora.rows import SPLITS, Manifest, read_manifest
from makermark.errors import AudioError, CorpusError, ManifestError

log = logging.getLogger(__name__)

# Messages about corpora name settings of params.yaml, which is not read here: each as the option that stands for it.
OPTIONS = {
    r"set external\.dedupe: false": "give --keep-duplicates",
    r"manifest\.columns: \{(\w+): ['\"]?(\w*)['\"]?\}": r"--column \1=\2",
    r"manifest\.columns": "--column",
    r"set manifest\.file to": "give --manifest",
    r"manifest\.file": "--manifest",
    r"set external\.root to": "give as --root",
    r"external\.root": "--root",
    r",? or raise external\.max_bad_fraction( \([^)]*\))?": "",  # as many as there are may be unusable
    r"label: system": "--label system",
    r" \(features\.max_bad_fraction is [^)]*\)": "",
}


def read_corpus(
    path: Path,
    *,
    root: str = "",
    columns: Mapping[str, str] | None = None,
    label: str = "system",
    splits: Sequence[str] = (),
    keep_duplicates: bool = False,
    folder: Path,
    workers: int = 2,
) -> Manifest:
    """The rows of `splits` (none named: all) of a manifest.parquet, the folder that holds one, or any table that
    `corpus: manifest` takes; `label` is what is traced.

    Of a table, whose paths are relative to `root` (empty: its own folder), every file is looked at, and `folder` gets
    manifest.parquet and rejected.csv, however many these are; without splits all is test. `columns` as in tables.py,
    `keep_duplicates` as `dedupe: false` in making.py.

    Raises FilesError for a file that is not there, ManifestError or CorpusError for what is no corpus, CorpusError for
    an unknown label or one that a row lacks, ManifestError for a split that the corpus lacks (before any file is
    looked at).
    """
    if label not in LABELS:
        raise CorpusError(f"--label is {label!r}; it is one of {list(LABELS)}")
    if (path / MANIFEST).is_file():
        path = path / MANIFEST
    if path.is_dir():
        raise CorpusError(
            f"{path}: no {MANIFEST} in this folder; name one that has it, or the table of a corpus"
        )
    with in_options():
        if is_manifest(path):
            manifest = read_manifest(path)
            _refuse_absent(splits, manifest.rows["split"], corpus=manifest.corpus)
            manifest = dataclasses.replace(manifest, rows=relabel(manifest.rows, labels=label))
        else:
            listing = tables.listing(path, root=root, columns=columns or {})
            _refuse_absent(splits, _splits_of(listing), corpus=path.stem)
            make(
                folder,
                listing,
                corpus=path.stem,
                split=lambda rows: rows.assign(split="test"),
                label=label,
                dedupe=not keep_duplicates,
                strata_from="train",
                max_bad_fraction=1.0,
                workers=workers,
            )
            manifest = read_manifest(folder / MANIFEST)
    rows = manifest.rows
    return dataclasses.replace(manifest, rows=rows[rows["split"].isin(splits or SPLITS)])


@contextmanager
def in_options() -> Iterator[None]:
    """What is raised inside speaks of the options of `makermark evaluate`, not of params.yaml."""
    try:
        yield
    except (AudioError, CorpusError, ManifestError) as error:
        message = str(error)
        for setting, option in OPTIONS.items():
            message = re.sub(setting, option, message)
        raise type(error)(message) from error


def is_manifest(path: Path) -> bool:
    """Whether a file is one of our manifests: Parquet that names its corpus and root."""
    if path.suffix != ".parquet":
        return False
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return True  # whoever reads it as a manifest says what is wrong
    return {b"corpus", b"root"} <= set(metadata)


def _splits_of(listing: Listing) -> pd.Series:
    if "split" not in listing.rows:
        return pd.Series(["test"])
    return listing.rows["split"].replace("", "test")


def _refuse_absent(splits: Sequence[str], there: pd.Series, *, corpus: str) -> None:
    absent = [split for split in splits if split not in set(there)]
    if absent:
        names = [split for split in SPLITS if split in set(there)]
        raise ManifestError(f"corpus {corpus} has no split {absent[0]!r}; it has {names}")


def label_for(description: Description, wish: str) -> str:
    """What to trace: as wished, or with "" what the checkpoint was trained to tell apart.

    Where the two differ the log says so: the checkpoint has then seen none of the classes, or others by chance.
    """
    external = description.params.get("external", {})  # older checkpoints lack it; `local` does not read it
    trained = external.get("label", "system") if description.params["corpus"] != "local" else "system"
    if wish and wish != trained:
        log.warning(
            "the model was trained to tell apart by %s and is scored by %s: what it has seen cannot be told",
            trained,
            wish,
        )
    return wish or trained


def strata_by_language(description: Description, languages: Collection[str]) -> bool:
    """Whether strata say anything of languages: some are known both of the corpus and of the training set."""
    return bool(set(languages) - {""}) and bool(set(description.languages or ()) - {""})


def seen_by(description: Description, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `system_seen` and `language_seen` as the checkpoint has seen them: in its training set.

    A language that a row does not give ("") is a language of its own, as in the pipeline: seen if rows of the training
    set gave none either. Where no row gives one, or the checkpoint knows none, strata go by system alone: all
    languages count as seen, as they do in the pipeline for a corpus without languages, and the log says so. What the
    checkpoint has seen of acoustic models and vocoders is not known.
    """
    languages = rows["language"].fillna("")
    by_language = strata_by_language(description, languages)
    if not by_language:
        log.warning("languages are not known, of the corpus or of the model: strata go by system alone")
    return rows.assign(
        system_seen=rows["system"].isin(description.systems),
        language_seen=languages.isin(description.languages or ()) | (not by_language),
        acoustic_model_seen=None,
        vocoder_seen=None,
    )
