"""`corpus: mlaad-v5`: MLAADv5 with its source-tracing protocol, 56,891 utterances of 82 systems in 38 languages.

The files are those of an existing copy that the user names, or of a folder that is filled by a verified download.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock

from makermark.corpora.listing import Listing
from makermark.corpora.mlaad.download import ProgressCallback, download_file
from makermark.corpora.mlaad.hub import download_folders
from makermark.corpora.mlaad.protocol import read_protocol, read_transcripts
from makermark.corpora.mlaad.split_zip import extract_members
from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.files import describe_os_error, read_json, write_json
from makermark.foundation.progress import progress_bar

log = logging.getLogger(__name__)

ACCEPTED_LICENCE = "CC-BY-NC-4.0"
LICENCE = "CC BY-NC 4.0, non-commercial research only (https://creativecommons.org/licenses/by-nc/4.0/)"
PROTOCOL = "mlaad4sourcetracing.zip"
SEGMENTS_FOLDER, COMPLETE_MARKER = "parts", "whole.json"


def read_listing(
    *,
    root: str,
    protocol: str,
    licence: str,
    folder: Path,
    source: str,
    protocol_url: str,
    protocol_md5: str,
    repository: str,
    revision: str,
    workers: int,
    zip_url: str,
    zip_parts: Sequence[str],
    zip_md5: str,
    attempts: int,
) -> Listing:
    """Return the rows of the protocol and the folder of their audio, which stays where it is (see docs/mlaad.md).

    `root` is an existing copy (the folder that holds `fake/`), and `protocol` the zip or its unpacked folder. What is
    empty is downloaded into `folder`, after `licence` accepts the licence of the corpus: the audio from `repository` at
    `revision` (source huggingface), or from `zip_parts` at `zip_url`, whose MD5 sums `zip_md5` lists (source zip).
    The rows are those of `protocol.read_protocol`, with `text` if the copy has its meta.csv tables. Raises CorpusError.
    """
    log.info("MLAAD: %s", LICENCE)
    protocol_path = Path(protocol) if protocol else folder / PROTOCOL
    if not protocol:
        _check_licence(licence, reason="mlaad.protocol is empty, so the protocol")
        with _lock(folder), _progress_bar("protocol") as on_progress:
            download_file(
                protocol_url, protocol_path, md5=protocol_md5, attempts=attempts, on_progress=on_progress
            )
    rows = read_protocol(protocol_path)
    paths = rows["path"].unique().tolist()
    if root:
        audio_root = _check_copy(Path(root))
    else:
        _check_licence(licence, reason="mlaad.root is empty, so the audio")
        audio_root = folder.resolve()
        if source == "huggingface":
            fetch = partial(
                download_folders,
                repository=repository,
                revision=revision,
                folders=_list_folders(paths),
                workers=workers,
            )
        else:
            fetch = partial(
                _download_archive,
                paths=paths,
                url=zip_url,
                names=zip_parts,
                md5_list=zip_md5,
                attempts=attempts,
            )
        _fill_folder(audio_root, paths, fetch, source=source)
    rows = rows.assign(text=read_transcripts(rows["path"], root=audio_root))
    tables = sorted(protocol_path.rglob("*.csv")) if protocol_path.is_dir() else [protocol_path]
    return Listing(rows=rows, root=audio_root, source=str(protocol_path), tables=tuple(tables))


def _fill_folder(folder: Path, paths: Sequence[str], fetch: Callable[[Path], None], *, source: str) -> None:
    """Call `fetch` unless `folder` is complete.

    Files that the source does not have are logged here and rejected when the manifest is built. Raises CorpusError if
    it has none of them.
    """
    content = {
        "files": len(paths),
        "paths_sha256": hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest(),
    }
    with _lock(folder):
        marker = folder / COMPLETE_MARKER
        if marker.exists() and read_json(marker) == content and not _list_missing(folder, paths):
            return
        fetch(folder)
        missing = _list_missing(folder, paths)
        if not missing:
            write_json(marker, content)
    if len(missing) == len(paths):
        raise CorpusError(
            f"{folder}: the download from mlaad.source: {source} has none of the protocol's {len(paths)} files (such "
            f"as {paths[0]}); is it MLAADv5? Correct section mlaad of params.yaml, or set mlaad.root to a copy"
        )
    if missing:
        log.warning(
            "%d of the protocol's %d files are missing, such as %s", len(missing), len(paths), missing[0]
        )


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time fill `folder`; another process waits and then uses the result."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilesError(describe_os_error(error, folder)) from error
    with FileLock(folder / ".lock"):
        yield


def _check_copy(root: Path) -> Path:
    if (root / "fake").is_dir():
        return root.resolve()
    hint = " (it seems to be that folder itself: name its parent)" if root.name == "fake" else ""
    raise CorpusError(
        f"mlaad.root: {root} has no folder `fake`{hint}; name the folder that has it, or leave mlaad.root empty"
    )


def _check_licence(licence: str, *, reason: str) -> None:
    if licence != ACCEPTED_LICENCE:
        raise CorpusError(
            f"{reason} would be downloaded; its licence is {LICENCE}: accept it with "
            f"mlaad.licence: {ACCEPTED_LICENCE}, or name an existing copy"
        )


def _download_archive(
    folder: Path, *, paths: Sequence[str], url: str, names: Sequence[str], md5_list: str, attempts: int
) -> None:
    """Download the segments of the archive, verify them with the list of MD5 sums, and unpack `paths` into `folder`."""
    segments = folder / SEGMENTS_FOLDER
    download_file(url.replace("{name}", md5_list), segments / md5_list, md5="", attempts=attempts)
    md5_of = _read_md5_list(segments / md5_list)
    for number, name in enumerate(names, start=1):
        if name not in md5_of:
            log.warning(
                "%s does not list %s: only its size and the CRC-32 of each file in it are verified",
                md5_list,
                name,
            )
        log.info("%s (%d of %d)", name, number, len(names))
        with _progress_bar(name) as on_progress:
            download_file(
                url.replace("{name}", name),
                segments / name,
                md5=md5_of.get(name, ""),
                attempts=attempts,
                on_progress=on_progress,
            )
    with _progress_bar("unpacking") as on_progress:
        extract_members(
            [segments / name for name in names],
            folder,
            target_of=_target_finder(paths),
            on_progress=on_progress,
        )


def _read_md5_list(path: Path) -> dict[str, str]:
    """Return MD5 sums by file name, from a file in the format of `md5sum`. An invalid file is deleted."""
    sums = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = [""]
    except OSError as error:
        raise FilesError(describe_os_error(error, path)) from error
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if len(digest) != 32 or not set(digest.lower()) <= set("0123456789abcdef") or not name:
            path.unlink()
            raise CorpusError(
                f"{path}:{number}: {line[:60]!r} is not an MD5 sum with a file name; the file was deleted: correct "
                "mlaad.zip_url and mlaad.zip_md5, and run again"
            )
        sums[PurePosixPath(name.strip().lstrip("*")).name] = digest.lower()
    return sums


def _target_finder(paths: Sequence[str]) -> Callable[[str], str | None]:
    """Return a function from the name of a member to its path in the corpus, or None for a member to skip.

    The folders before `fake/` in the name are ignored.
    """
    targets = {*paths, *(f"{folder}/meta.csv" for folder in _list_folders(paths))}

    def target_of(name: str) -> str | None:
        parts = name.split("/")
        path = "/".join(parts[parts.index("fake") :]) if "fake" in parts else ""
        return path if path in targets else None

    return target_of


def _list_folders(paths: Sequence[str]) -> list[str]:
    return sorted({PurePosixPath(path).parent.as_posix() for path in paths})


def _list_missing(folder: Path, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not (folder / path).is_file()]


@contextmanager
def _progress_bar(description: str) -> Iterator[ProgressCallback]:
    """Show a progress bar on a terminal; yield the function that updates it."""
    with progress_bar(description, show_counts=False) as bar:
        yield lambda done, total: bar.update(done, total=total)
