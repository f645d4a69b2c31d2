"""Download of the audio from the Hugging Face Hub; huggingface_hub resumes transfers and knows the checksums."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from makermark.foundation.errors import CorpusError, FilesError, install_hint
from makermark.foundation.files import describe_os_error

MAX_NAMED_FILES = 3


def download_folders(
    folder: Path, *, repository: str, revision: str, folders: Sequence[str], workers: int
) -> None:
    """Download `folders` of a dataset repository into `folder` and check every file against the SHA-256 of the Hub.

    Complete files are not downloaded again. Token, endpoint and proxy are those of the library (HF_TOKEN, HF_ENDPOINT).
    Raises CorpusError if the library is not installed, the repository is gated, unknown or unreachable, or a file has
    the wrong checksum.
    """
    try:
        from huggingface_hub import HfApi, errors, snapshot_download
    except ImportError as error:
        raise CorpusError(
            f"mlaad.source: huggingface needs the package huggingface_hub; {install_hint('mlaad')}, or choose zip"
        ) from error
    url = f"https://huggingface.co/datasets/{repository}"
    try:
        snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            local_dir=folder,
            allow_patterns=[f"{glob.escape(name)}/*" for name in folders],
            max_workers=workers,
        )
        result = HfApi().verify_repo_checksums(
            repository, repo_type="dataset", revision=revision, local_dir=folder
        )
    except errors.GatedRepoError as error:
        raise CorpusError(
            f"{url}: access needs an account that has accepted the terms on that page; accept them, then run "
            "`hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CorpusError(f"{url}: has no revision {revision!r}; correct mlaad.revision") from error
    except errors.RepositoryNotFoundError as error:
        raise CorpusError(
            f"{url}: does not exist, or this account has no access; correct mlaad.repository, or run `hf auth login`"
        ) from error
    except (
        vars(errors)["HTTPError"],
        errors.LocalEntryNotFoundError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise CorpusError(
            f"{url}: {_first_line(error)}; run again to continue the download, or set mlaad.root to an existing copy"
        ) from error
    except OSError as error:
        raise FilesError(describe_os_error(error, folder)) from error
    _delete_wrong_files(folder, [mismatch["path"] for mismatch in result.mismatches], url=url)


def _delete_wrong_files(folder: Path, paths: list[str], *, url: str) -> None:
    """Delete files with a wrong checksum. Raises CorpusError if there are any."""
    for path in paths:
        (folder / path).unlink()
    if paths:
        named = ", ".join(paths[:MAX_NAMED_FILES]) + ", ..." * (len(paths) > MAX_NAMED_FILES)
        raise CorpusError(
            f"{url}: {len(paths)} files do not have the Hub's checksum and were deleted ({named}); "
            "run again to download them again"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
