"""Download of one file over HTTP with resumption and MD5 check.

Received bytes are in `NAME.part`, which is renamed to `NAME` after its size and MD5 are verified; `NAME.verified.json`
records the verification. Hand-written because pooch 1.9 restarts a broken transfer at the first byte, which is
impractical for an archive of 150 GB in 11 segments, and huggingface_hub resumes only downloads from its own hub.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from makermark.foundation.errors import CorpusError, FilesError
from makermark.foundation.files import describe_os_error, read_json, write_json

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
TEMPORARY_ERRORS = (408, 425, 429, 500, 502, 503, 504)  # HTTP status codes after which a retry may succeed
MAX_PAUSE_S = 60.0
RANGE_NOT_SATISFIABLE = 416

ProgressCallback = Callable[[int, int | None], None]  # items done, items in total (None: unknown)


def ignore_progress(_done: int, _total: int | None) -> None:
    """Do nothing: the callback for downloads without a progress bar."""


def download_file(
    url: str,
    path: Path,
    *,
    md5: str,
    attempts: int,
    pause_s: float = 1.0,
    on_progress: ProgressCallback = ignore_progress,
) -> None:
    """Download `url` to `path`, unless the file exists with this MD5 (empty: any MD5 is accepted).

    A broken transfer continues at the last byte if the server supports ranges, otherwise from the start. The download
    fails after `attempts` in succession without a new byte; the pause between them starts at `pause_s` and doubles.

    Raises CorpusError with the file and a remedy for a wrong MD5 and for a permanent HTTP error, FilesError if the file
    cannot be written.
    """
    path = Path(path)
    if is_complete(path, md5=md5):
        return
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        _transfer(url, part, attempts=attempts, pause_s=pause_s, on_progress=on_progress)
        if resumed and md5 and md5_of(part) != md5:
            log.warning("%s: the bytes of an earlier run are wrong; downloading from the start", path.name)
            part.unlink()
            _transfer(url, part, attempts=attempts, pause_s=pause_s, on_progress=on_progress)
        if md5 and (actual := md5_of(part)) != md5:
            part.unlink()
            raise CorpusError(
                f"{path.name}: {url} sent wrong bytes (MD5 {actual}, not {md5}), which were deleted; run again; if "
                f"that fails too, download the file by hand to {path}"
            )
        part.replace(path)
    except OSError as error:
        raise FilesError(describe_os_error(error, part)) from error
    _record_verification(path, md5=md5)


def is_complete(path: Path, *, md5: str) -> bool:
    """Return whether `path` exists with this MD5. A verified file is not read again unless its size or time changes."""
    if not path.exists():
        return False
    record = _record(path)
    if record.exists() and read_json(record) == _state(path, md5=md5):
        return True
    if md5 and md5_of(path) != md5:
        log.warning("%s does not have MD5 %s; it is used as the beginning of the file", path, md5)
        path.replace(_part(path))
        return False
    _record_verification(path, md5=md5)
    return True


def md5_of(path: Path) -> str:
    """Return the MD5 of a file. It protects against damage, not against malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.verified.json")


def _record_verification(path: Path, *, md5: str) -> None:
    write_json(_record(path), _state(path, md5=md5))


def _state(path: Path, *, md5: str) -> dict[str, Any]:
    status = path.stat()
    return {"md5": md5, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _transfer(url: str, part: Path, *, attempts: int, pause_s: float, on_progress: ProgressCallback) -> None:
    """Send requests until `part` is as long as the server says."""
    failures = 0  # in succession, without a new byte
    while True:
        size, retry_after_s = _size(part), 0.0
        try:
            if _request(url, part, on_progress=on_progress):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code not in TEMPORARY_ERRORS:
                raise CorpusError(
                    f"{url}: the server responds {error.code} {error.reason}; correct the address in section mlaad of "
                    "params.yaml, or name an existing copy there"
                ) from error
            reason = f"{error.code} {error.reason}"
            retry_after = error.headers.get("Retry-After") or ""
            retry_after_s = float(retry_after) if retry_after.isdigit() else 0.0
        except (http.client.InvalidURL, ValueError) as error:
            raise CorpusError(
                f"{url}: not a valid address ({error}); correct it in section mlaad of params.yaml, or name an "
                "existing copy there"
            ) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ssl.SSLError,
            ConnectionError,
            TimeoutError,
        ) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > size else failures + 1
        if failures >= attempts:
            raise CorpusError(
                f"{url}: the download failed after {attempts} attempts without a new byte ({reason}); {_size(part)} "
                "bytes are stored: run again to continue, or name an existing copy in section mlaad of params.yaml"
            )
        pause = min(max(retry_after_s, pause_s * 2**failures), MAX_PAUSE_S)
        log.info("%s: %s after %d bytes; retry in %.1f s", part.stem, reason, _size(part), pause)
        time.sleep(pause)


def _request(url: str, part: Path, *, on_progress: ProgressCallback) -> bool:
    """Request the missing bytes and append them to `part`; return whether the file is complete."""
    start = _size(part)
    headers = {"User-Agent": "makermark", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:
            raise
        # No bytes after `start`: the part is the whole file, or the beginning of another file.
        is_whole = error.headers.get("Content-Range") == f"bytes */{start}"
        if not is_whole:
            part.unlink()
        return is_whole
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server ignores ranges and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            return False
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _check_free_space(part, needed=(total or 0) - start)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                on_progress(file.tell(), total)
            received = file.tell()
    if total is not None and received > total:
        part.unlink()
    return total is None or received == total


def _check_free_space(part: Path, *, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise CorpusError(
            f"{part.stem}: needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in {part.parent}; "
            "free some space, or set mlaad.folder to a folder on a larger disk"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
