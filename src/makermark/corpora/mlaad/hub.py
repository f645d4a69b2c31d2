"""The audio from the Hugging Face Hub: its own library fetches, resumes and knows the checksums."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from makermark.errors import CorpusError, FilesError, how_to_add
from makermark.files import explain

SHOWN = 3


def download_folders(
    folder: Path, *, repository: str, revision: str, folders: Sequence[str], workers: int
) -> None:
    """Bring those `folders` of a dataset repository into `folder`, and compare all with the Hub's SHA-256.

    Whole files are not fetched again. The library takes token, endpoint and proxy from its own settings (HF_TOKEN,
    HF_ENDPOINT). Raises CorpusError with the remedy: not installed, gated, unknown, out of reach, wrong bytes.
    """
    try:
        from huggingface_hub import HfApi, errors, snapshot_download
    except ImportError as error:
        raise CorpusError(
            f"mlaad.source: huggingface needs the package huggingface_hub; {how_to_add('mlaad')}, or choose zip"
        ) from error
    page = f"https://huggingface.co/datasets/{repository}"
    try:
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            local_dir=folder,
            allow_patterns=[f"{glob.escape(each)}/*" for each in folders],
            max_workers=workers,
        )
        checked = HfApi().verify_repo_checksums(
            repository, repo_type="dataset", revision=revision, local_dir=folder
        )
    except errors.GatedRepoError as error:
        raise CorpusError(
            f"{page}: is given only to those who accept its terms there; do so, then `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CorpusError(f"{page}: has no revision {revision!r}; correct mlaad.revision") from error
    except errors.RepositoryNotFoundError as error:
        raise CorpusError(
            f"{page}: not found, or not for this account; correct mlaad.repository, or `hf auth login`"
        ) from error
    except (
        vars(errors)["HTTPError"],
        errors.LocalEntryNotFoundError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise CorpusError(
            f"{page}: {_first_line(error)}; run again to go on where it stopped, or name an existing copy as mlaad.root"
        ) from error
    except OSError as error:
        raise FilesError(explain(error, folder)) from error
    wrong = [mismatch["path"] for mismatch in checked.mismatches]
    for path in wrong:
        (folder / path).unlink()
    if wrong:
        named = ", ".join(wrong[:SHOWN]) + ", ..." * (len(wrong) > SHOWN)
        raise CorpusError(
            f"{page}: {len(wrong)} files do not have the Hub's checksum and were deleted ({named}); "
            "run again to fetch them anew"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
