"""How each corpus but the built-in one is read: what `corpus:` says, to the function that makes its listing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from makermark.corpora import asvspoof2019_la, folders, mlaad, stopa, tables, wavefake
from makermark.corpora.listing import Listing
from makermark.corpora.names import check_corpus
from makermark.errors import CorpusError, ParamsError
from makermark.params import Params

PATHS = {"external": ("root",), "manifest": ("file",), "mlaad": ("root", "protocol", "folder")}


def read(params: Params) -> Listing:
    """The listing of the corpus that `params` name. Raises ParamsError for an unknown name or a missing setting."""
    check_corpus(params)
    return READERS[params.corpus](params)


def from_home(params: Params, home: Path) -> Params:
    """`params` with the settings of PATHS as full paths: relative ones start from `home`."""
    full: dict[str, dict[str, str]] = {section: {} for section in PATHS}
    for section, name, path in _paths(params):
        full[section][name] = str(home / path)
    return replace(
        params,
        external=replace(params.external, **full["external"]),  # type: ignore[arg-type]
        manifest=replace(params.manifest, **full["manifest"]),  # type: ignore[arg-type]
        mlaad=replace(params.mlaad, **full["mlaad"]),  # type: ignore[arg-type]
    )


def refuse_inside(folder: Path, params: Params) -> None:
    """Raise ParamsError where a corpus of the user's, named in PATHS, lies in `folder`, which the download stage
    empties."""
    for section, name, path in _paths(params):
        if path.resolve().is_relative_to(folder.resolve()):
            raise ParamsError(
                f"{section}.{name} is {str(path)!r}, inside {folder}, which the download stage empties for another "
                "corpus; move it out of there and name its new place"
            )


def refuse_files_inside(folder: Path, listing: Listing) -> None:
    """Raise CorpusError where a file of `listing` lies in `folder`."""
    root, place = listing.root.resolve(), folder.resolve()
    if not place.is_relative_to(root):
        return
    below = f"{place.relative_to(root).as_posix()}/"
    inside = listing.rows["path"][listing.rows["path"].str.startswith(below)]
    if len(inside):
        raise CorpusError(
            f"{root / inside.iloc[0]}: lies in {folder}, which the download stage empties for another corpus; move "
            "the audio out of there, or leave it out of the corpus"
        )


def _paths(params: Params) -> Iterator[tuple[str, str, Path]]:
    """Section, name and value of the settings of PATHS that are not empty."""
    for section, names in PATHS.items():
        for name in names:
            if path := getattr(getattr(params, section), name):
                yield section, name, Path(path)


def _table(params: Params) -> Listing:
    return tables.listing(
        Path(params.manifest.file), root=params.external.root, columns=params.manifest.columns
    )


def _in_root(listing: Callable[[Path], Listing]) -> Callable[[Params], Listing]:
    return lambda params: listing(Path(params.external.root))


def _mlaad(params: Params) -> Listing:
    given = asdict(params.mlaad)
    return mlaad.listing(**given | {"folder": Path(params.mlaad.folder)})


READERS: dict[str, Callable[[Params], Listing]] = {
    "mlaad-v5": _mlaad,
    "manifest": _table,
    "folders": _in_root(folders.listing),
    "asvspoof2019-la": _in_root(asvspoof2019_la.listing),
    "stopa": _in_root(stopa.listing),
    "wavefake": _in_root(wavefake.listing),
}
