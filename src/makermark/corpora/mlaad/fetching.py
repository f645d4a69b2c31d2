"""Where MLAAD lies: in a copy that the user names, or in a folder that is filled here, once, and checked."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock

from makermark.corpora.mlaad.downloading import Told, download
from makermark.corpora.mlaad.hub import download_folders
from makermark.corpora.mlaad.segments import extract_all
from makermark.errors import CorpusError, FilesError
from makermark.files import explain, read_json, write_json

log = logging.getLogger(__name__)

ACCEPTED = "CC-BY-NC-4.0"
LICENCE = "CC BY-NC 4.0, non-commercial research only (https://creativecommons.org/licenses/by-nc/4.0/)"
PROTOCOL = "mlaad4sourcetracing.zip"
PARTS, WHOLE = "parts", "whole.json"


def protocol_file(given: str, folder: Path, *, licence: str, url: str, md5: str, attempts: int) -> Path:
    """The protocol: the zip or folder that is named, or the zip fetched into `folder`. Raises CorpusError."""
    if given:
        return Path(given)
    _refuse_unaccepted(licence, what="mlaad.protocol is empty, so the protocol")
    target = folder / PROTOCOL
    with _alone(folder), _bar("protocol") as tell:
        download(url, target, md5=md5, attempts=attempts, tell=tell)
    return target


def audio_root(
    given: str,
    folder: Path,
    *,
    paths: Sequence[str],
    licence: str,
    source: str,
    repository: str,
    revision: str,
    workers: int,
    zip_url: str,
    zip_parts: Sequence[str],
    zip_md5: str,
    attempts: int,
) -> Path:
    """The folder, absolute, that holds `paths`: the one that is named, or else `folder`, filled from `source`.

    What lacks in a copy that is named is the user's to mend. In `folder`, a file that neither source holds is
    logged; making the manifest lists it. Raises CorpusError.
    """
    if given:
        return _existing(Path(given))
    _refuse_unaccepted(licence, what="mlaad.root is empty, so the audio")
    folder = folder.resolve()
    whole = {
        "files": len(paths),
        "paths_sha256": hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest(),
    }
    with _alone(folder):
        marker = folder / WHOLE
        if marker.exists() and read_json(marker) == whole and not _absent(folder, paths):
            return folder
        if source == "huggingface":
            download_folders(
                folder, repository=repository, revision=revision, folders=_folders(paths), workers=workers
            )
        else:
            parts = _segments(folder / PARTS, url=zip_url, names=zip_parts, sums=zip_md5, attempts=attempts)
            with _bar("unpacking") as tell:
                extract_all(parts, folder, wanted=_chooser(paths), tell=tell)
        absent = _absent(folder, paths)
        if not absent:
            write_json(marker, whole)
    if len(absent) == len(paths):
        raise CorpusError(
            f"{folder}: what mlaad.source: {source} gave holds none of the protocol's {len(paths)} files (such as "
            f"{paths[0]}); is it MLAADv5? Correct the mlaad section, or name a copy as mlaad.root"
        )
    if absent:
        log.warning(
            "%d of the protocol's %d files are not there, such as %s", len(absent), len(paths), absent[0]
        )
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time fills `folder`; another waits, and then finds it filled."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FilesError(explain(error, folder)) from error
    with FileLock(folder / ".lock"):
        yield


def _existing(root: Path) -> Path:
    if (root / "fake").is_dir():
        return root.resolve()
    inside = " (it seems to be that folder itself: name the one above)" if root.name == "fake" else ""
    raise CorpusError(
        f"mlaad.root: {root} holds no folder `fake`{inside}; name the one that does, or leave it empty"
    )


def _refuse_unaccepted(licence: str, *, what: str) -> None:
    if licence != ACCEPTED:
        raise CorpusError(
            f"{what} would be fetched; its licence is {LICENCE}: accept it with mlaad.licence: {ACCEPTED}, "
            "or name what you have"
        )


def _segments(folder: Path, *, url: str, names: Sequence[str], sums: str, attempts: int) -> list[Path]:
    """The parts of the archive in order, each fetched and checked against the list of MD5 sums."""
    listed = folder / sums
    download(_address(url, sums), listed, md5="", attempts=attempts)
    md5_of = _read_sums(listed)
    for number, name in enumerate(names, start=1):
        if name not in md5_of:
            log.warning(
                "%s does not list %s: only its size and the CRC-32 of each file inside are checked",
                sums,
                name,
            )
        log.info("%s (%d of %d)", name, number, len(names))
        with _bar(name) as tell:
            download(
                _address(url, name), folder / name, md5=md5_of.get(name, ""), attempts=attempts, tell=tell
            )
    return [folder / name for name in names]


def _address(url: str, name: str) -> str:
    return url.replace("{name}", name)


def _read_sums(path: Path) -> dict[str, str]:
    """File name -> MD5, from the lines that `md5sum` writes."""
    sums = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        lines = [""]
    except OSError as error:
        raise FilesError(explain(error, path)) from error
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if len(digest) != 32 or not set(digest.lower()) <= set("0123456789abcdef") or not name:
            path.unlink()
            raise CorpusError(
                f"{path}:{number}: {line[:60]!r} is no MD5 sum with a file name, so it was deleted; correct "
                "mlaad.zip_url and mlaad.zip_md5, and run again"
            )
        sums[PurePosixPath(name.strip().lstrip("*")).name] = digest.lower()
    return sums


def _chooser(paths: Sequence[str]) -> Callable[[str], str | None]:
    """For the name of a member, whatever folders stand before its `fake/`: where it belongs, or None."""
    needed = {*paths, *(f"{folder}/meta.csv" for folder in _folders(paths))}

    def wanted(name: str) -> str | None:
        parts = name.split("/")
        path = "/".join(parts[parts.index("fake") :]) if "fake" in parts else ""
        return path if path in needed else None

    return wanted


def _folders(paths: Sequence[str]) -> list[str]:
    return sorted({PurePosixPath(path).parent.as_posix() for path in paths})


def _absent(folder: Path, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not (folder / path).is_file()]


@contextmanager
def _bar(what: str) -> Iterator[Told]:
    """A progress bar on a terminal; the function that moves it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda there, of: progress.update(task, completed=there, total=of)
