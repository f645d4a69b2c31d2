"""The registry of corpora: the reader of each name that `corpus` in params.yaml takes.

A new corpus needs one module in corpora/readers, its import here and one line in CORPORA. No stage after `download`
imports this module, so a new corpus makes no feature cache and no trained model stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from makermark.corpora import mlaad
from makermark.corpora.listing import Listing
from makermark.corpora.readers import asvspoof2019_la, folders, stopa, table, wavefake
from makermark.foundation.errors import CorpusError, ParamsError
from makermark.foundation.params import Params

# Settings that hold a path of the user, by section of params.yaml.
PATH_SETTINGS = {"external": ("root",), "manifest": ("file",), "mlaad": ("root", "protocol", "folder")}


@dataclass(frozen=True)
class Corpus:
    """How to read a corpus (None: it is synthesised, see corpora.local), and the setting that must not be empty."""

    read: Callable[[Params], Listing] | None
    required_setting: tuple[str, str] | None = None  # section, key
    remedy: str = ""


def _folder_corpus(read: Callable[[Path], Listing]) -> Corpus:
    """A corpus in a folder of the user's disk, which `external.root` names."""
    return Corpus(
        lambda params: read(Path(params.external.root)),
        required_setting=("external", "root"),
        remedy="is read from a folder: set external.root to it",
    )


def _read_table(params: Params) -> Listing:
    return table.read_table(
        Path(params.manifest.file), root=params.external.root, columns=params.manifest.columns
    )


def _read_mlaad(params: Params) -> Listing:
    return mlaad.read_listing(**params.mlaad.model_dump() | {"folder": Path(params.mlaad.folder)})


CORPORA: dict[str, Corpus] = {
    "local": Corpus(read=None),
    "mlaad-v5": Corpus(_read_mlaad),
    "manifest": Corpus(
        _read_table,
        required_setting=("manifest", "file"),
        remedy="needs a table: set manifest.file to a .csv, .tsv, .jsonl or .parquet",
    ),
    "folders": _folder_corpus(folders.read_listing),
    "asvspoof2019-la": _folder_corpus(asvspoof2019_la.read_listing),
    "stopa": _folder_corpus(stopa.read_listing),
    "wavefake": _folder_corpus(wavefake.read_listing),
}


def check_corpus(params: Params) -> None:
    """Raise ParamsError if `params.corpus` is unknown or its required setting is empty. Opens no file."""
    corpus = CORPORA.get(params.corpus)
    if corpus is None:
        raise ParamsError(f"unknown corpus {params.corpus!r}; it is one of {list(CORPORA)}")
    if corpus.required_setting is not None:
        section, key = corpus.required_setting
        if not getattr(getattr(params, section), key):
            raise ParamsError(f"corpus {params.corpus} {corpus.remedy}")


def read_listing(params: Params) -> Listing | None:
    """Return the listing of the corpus that `params` name, or None for a corpus that is synthesised.

    Raises ParamsError for an unknown corpus or a missing setting, CorpusError or FilesError from the reader.
    """
    check_corpus(params)
    read = CORPORA[params.corpus].read
    return None if read is None else read(params)


def resolve_paths(params: Params, base: Path) -> Params:
    """Return `params` with the relative paths of PATH_SETTINGS joined to the folder `base`."""
    resolved: dict[str, dict[str, str]] = {section: {} for section in PATH_SETTINGS}
    for section, key, path in _user_paths(params):
        resolved[section][key] = str(base / path)
    return params.replace(
        external=params.external.replace(**resolved["external"]),
        manifest=params.manifest.replace(**resolved["manifest"]),
        mlaad=params.mlaad.replace(**resolved["mlaad"]),
    )


def check_paths_outside(folder: Path, params: Params) -> None:
    """Raise ParamsError if a path of PATH_SETTINGS lies in `folder`, which the download stage may replace."""
    for section, key, path in _user_paths(params):
        if path.resolve().is_relative_to(folder.resolve()):
            raise ParamsError(
                f"{section}.{key} is {str(path)!r}, inside {folder}, which the download stage replaces for another "
                f"corpus; move it to another folder and set {section}.{key} to the new path"
            )


def check_files_outside(folder: Path, listing: Listing) -> None:
    """Raise CorpusError if a file of `listing` lies in `folder`, which the download stage may replace."""
    root, emptied = listing.root.resolve(), folder.resolve()
    if not emptied.is_relative_to(root):
        return
    prefix = f"{emptied.relative_to(root).as_posix()}/"
    inside = listing.rows["path"][listing.rows["path"].str.startswith(prefix)]
    if len(inside):
        raise CorpusError(
            f"{root / inside.iloc[0]}: lies in {folder}, which the download stage replaces for another corpus; move "
            "the audio to another folder, or leave it out of the corpus"
        )


def _user_paths(params: Params) -> Iterator[tuple[str, str, Path]]:
    """Yield section, key and value of the settings of PATH_SETTINGS that are not empty."""
    for section, keys in PATH_SETTINGS.items():
        for key in keys:
            if path := getattr(getattr(params, section), key):
                yield section, key, Path(path)
