"""What `corpus:` in params.yaml may say, and the settings that each cannot do without. How each is read stands in
reading.py, which only the download stage imports: a change to one adapter makes no trained model out of date."""

from __future__ import annotations

from makermark.errors import ParamsError
from makermark.params import Params

CORPORA = ("local", "mlaad-v5", "manifest", "folders", "asvspoof2019-la", "stopa", "wavefake")
ON_DISK = ("folders", "asvspoof2019-la", "stopa", "wavefake")


def check_corpus(params: Params) -> None:
    """Raise ParamsError for an unknown corpus, and for one whose table or folder is not named. Opens no file."""
    if params.corpus not in CORPORA:
        raise ParamsError(f"unknown corpus {params.corpus!r}; it is one of {list(CORPORA)}")
    if params.corpus == "manifest" and not params.manifest.file:
        raise ParamsError(
            "corpus manifest needs a table: set manifest.file to a .csv, .tsv, .jsonl or .parquet"
        )
    if params.corpus in ON_DISK and not params.external.root:
        raise ParamsError(f"corpus {params.corpus} is on your disk: set external.root to its folder")
