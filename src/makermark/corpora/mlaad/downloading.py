"""One file over HTTP, whole or not at all: continued where it broke off, checked, and never fetched twice.

What has arrived lies beside the file, as `NAME.part`; it takes its name once size and MD5 are right.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from makermark.errors import CorpusError, FilesError
from makermark.files import explain, read_json, write_json

log = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT_S = 60.0
BUSY = (408, 425, 429, 500, 502, 503, 504)  # worth asking again
LONGEST_PAUSE_S = 60.0

Told = Callable[[int, int | None], None]  # bytes that are there, bytes in all where known


def silent(_there: int, _of: int | None) -> None:
    """Tell nobody."""


def download(
    url: str, path: Path, *, md5: str, attempts: int, pause_s: float = 1.0, tell: Told = silent
) -> None:
    """Bring the file at `url` to `path`, unless it is there with this MD5 (empty: not known; then size decides).

    A transfer that breaks off goes on where it stopped, if the server can do ranges, or else from the start; after
    `attempts` without a new byte it is given up, with pauses of `pause_s`, doubled each time, between them.
    Raises CorpusError, naming file and remedy, for wrong bytes and for what the server refuses.
    """
    path = Path(path)
    if is_whole(path, md5=md5):
        return
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        continued = part.exists()
        _transfer(url, part, attempts=attempts, pause_s=pause_s, tell=tell)
        if continued and md5 and md5_of(part) != md5:
            log.warning(
                "%s: what an earlier run had left does not fit; fetching it from the start", path.name
            )
            part.unlink()
            _transfer(url, part, attempts=attempts, pause_s=pause_s, tell=tell)
        if md5 and (found := md5_of(part)) != md5:
            part.unlink()
            raise CorpusError(
                f"{path.name}: {url} sent wrong bytes (MD5 {found}, not {md5}), which were deleted; run again, and if "
                "that does not help, fetch the file by hand and put it at " + str(path)
            )
        part.replace(path)
    except OSError as error:
        raise FilesError(explain(error, part)) from error
    _remember(path, md5=md5)


def is_whole(path: Path, *, md5: str) -> bool:
    """Whether `path` is there with this MD5; what was read once is not read again until size or time change."""
    if not path.exists():
        return False
    stamp = _stamp(path)
    if stamp.exists() and read_json(stamp) == _state(path, md5=md5):
        return True
    if md5 and md5_of(path) != md5:
        log.warning("%s does not have MD5 %s; it is taken for the beginning of the file", path, md5)
        path.replace(_part(path))
        return False
    _remember(path, md5=md5)
    return True


def md5_of(path: Path) -> str:
    """The MD5 of a file, which guards against damage, not against malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _remember(path: Path, *, md5: str) -> None:
    write_json(_stamp(path), _state(path, md5=md5))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified.json")


def _state(path: Path, *, md5: str) -> dict[str, Any]:
    status = path.stat()
    return {"md5": md5, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _transfer(url: str, part: Path, *, attempts: int, pause_s: float, tell: Told) -> None:
    """Ask until `part` is as long as the server says."""
    left = attempts
    while True:
        before = _size(part)
        try:
            if _ask(url, part, tell=tell):
                return
            reason, wait_s = "the connection ended early", 0.0
        except urllib.error.HTTPError as error:
            if error.code not in BUSY:
                raise CorpusError(
                    f"{url}: the server answers {error.code} {error.reason}; correct the address under mlaad in "
                    "params.yaml, or name an existing copy"
                ) from error
            reason, wait_s = f"{error.code} {error.reason}", _seconds(error.headers.get("Retry-After"))
        except (http.client.InvalidURL, ValueError) as error:
            raise CorpusError(
                f"{url}: no address ({error}); correct it under mlaad in params.yaml, or name an existing copy"
            ) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ssl.SSLError,
            ConnectionError,
            TimeoutError,
        ) as error:
            reason, wait_s = str(getattr(error, "reason", error)) or type(error).__name__, 0.0
        left = attempts if _size(part) > before else left - 1
        if left <= 0:
            raise CorpusError(
                f"{url}: given up after {attempts} attempts without a new byte ({reason}); {_size(part)} bytes are "
                "kept: run again to go on there, or name an existing copy under mlaad in params.yaml"
            )
        pause = min(max(wait_s, pause_s * 2 ** (attempts - left)), LONGEST_PAUSE_S)
        log.info("%s: %s after %d bytes; again in %.1f s", part.stem, reason, _size(part), pause)
        time.sleep(pause)


def _ask(url: str, part: Path, *, tell: Told) -> bool:
    """One request for what is missing, appended to `part`; whether the file is as long as it should be."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "makermark", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing from there on: the file has that length, or is another one
            raise
        whole = error.headers.get("Content-Range") == f"bytes */{start}"
        if not whole:
            part.unlink()
        return whole
    with answer:
        if answer.status != 206:
            start = 0  # it sends the whole file
        elif not _begins(answer, start):
            part.unlink()
            return False
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        _refuse_small_disk(part, needed=(total or 0) - start)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                tell(file.tell(), total)
            there = file.tell()
    if total is not None and there > total:
        part.unlink()
    return total is None or there == total


def _begins(answer: Any, start: int) -> bool:
    """Whether an answer to a range starts where it was asked to."""
    said = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return said is not None and int(said[1]) == start


def _refuse_small_disk(part: Path, *, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise CorpusError(
            f"{part.stem}: needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in {part.parent}; "
            "make room, or set mlaad.folder to a larger disk"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 0.0
