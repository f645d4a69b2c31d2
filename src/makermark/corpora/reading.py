"""How each corpus but the built-in one is read: what `corpus:` says, to the function that makes its listing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from makermark.corpora import asvspoof2019_la, folders, mlaad, stopa, tables, wavefake
from makermark.corpora.listing import Listing
from makermark.errors import ParamsError
from makermark.params import Params


def read(params: Params) -> Listing:
    """The listing of the corpus that `params` name. Raises ParamsError for an unknown name or a missing setting."""
    if params.corpus not in READERS:
        raise ParamsError(f"unknown corpus {params.corpus!r}; it is one of {['local', *READERS]}")
    return READERS[params.corpus](params)


def _table(params: Params) -> Listing:
    if not params.manifest.file:
        raise ParamsError(
            "corpus manifest needs a table: set manifest.file to a .csv, .tsv, .jsonl or .parquet"
        )
    return tables.listing(
        Path(params.manifest.file), root=params.external.root, columns=params.manifest.columns
    )


def _in_root(listing: Callable[[Path], Listing]) -> Callable[[Params], Listing]:
    def read(params: Params) -> Listing:
        if not params.external.root:
            raise ParamsError(f"corpus {params.corpus} is on your disk: set external.root to its folder")
        return listing(Path(params.external.root))

    return read


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
