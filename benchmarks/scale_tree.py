"""A replacement for the audio of MLAADv5: its protocol, or a share of it, and a WAV file at every path.

The speech is cut from other recordings, so that decoding, hashing and log-mels cost as much as on real speech. The
system and the language of a path are unrelated to the content of its file.
"""

from __future__ import annotations

import csv
import io
import os
import random
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16000
SHORTEST_S, LONGEST_S = 2.0, 8.0
HEADER_BYTES = 44  # of a WAV file with one chunk of 16-bit samples
MIN_UTTERANCES = 2  # per system and split: one target trial
MAX_RECORDINGS = 500  # read from the folder: half an hour of speech, 60 MB
WRITERS = 4
TABLES = ("train.csv", "dev.csv", "eval.csv")


def tables_of(protocol: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the rows (path, system) of every table, such as `eval.csv` or `fine/...`."""
    with zipfile.ZipFile(protocol) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".csv")}
    return {
        name: [(row[0], row[1]) for row in csv.reader(io.StringIO(text))][1:] for name, text in texts.items()
    }


def write_share(protocol: Path, share: float, path: Path) -> None:
    """A protocol zip with `share` of the rows of each system in each split (MIN_UTTERANCES at least), evenly spaced."""
    tables = tables_of(protocol)
    for name in TABLES:
        of_system: dict[str, list[tuple[str, str]]] = {}
        for row in tables[name]:
            of_system.setdefault(row[1], []).append(row)
        tables[name] = [row for rows in of_system.values() for row in _evenly(rows, share)]
    selected = {os.path.normpath(row[0]) for name in TABLES for row in tables[name]}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, rows in tables.items():
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["path", "model_name"])
            writer.writerows(row for row in rows if os.path.normpath(row[0]) in selected)
            archive.writestr(
                zipfile.ZipInfo(name), text.getvalue()
            )  # without a date: identical bytes every time
    if (
        not path.exists() or path.read_bytes() != content.getvalue()
    ):  # an unchanged file keeps its results up to date
        path.write_bytes(content.getvalue())


def _evenly(rows: list[tuple[str, str]], share: float) -> Iterator[tuple[str, str]]:
    count = min(len(rows), max(MIN_UTTERANCES, round(share * len(rows))))
    return (rows[index * len(rows) // count] for index in range(count))


def paths_of(protocol: Path) -> list[str]:
    """Return the distinct paths of the three tables, sorted, without `./`."""
    tables = tables_of(protocol)
    return sorted({os.path.normpath(path) for name in TABLES for path, _ in tables[name]})


def build_tree(root: Path, paths: Iterable[str], recordings: Path) -> dict[str, float]:
    """Write the missing files of root/PATH for all `paths`: 2 to 8 s, 16 kHz, 16 bit, one channel; all files differ.

    The path determines length, position in the speech and gain. A file of the right size counts as complete. Returns
    the number, hours and bytes of all files, and the number of files written now.
    """
    paths = list(paths)
    lengths = {path: _samples(path) for path in paths}
    missing = [path for path in paths if _size(root / path) != HEADER_BYTES + 2 * lengths[path]]
    for folder in {(root / path).parent for path in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    speech = _speech(recordings) if missing else np.empty(0, np.int16)
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda path: _write(root / path, path, lengths[path], speech), missing):
            pass
    total_bytes = sum(HEADER_BYTES + 2 * length for length in lengths.values())
    return {"files": len(paths), "hours": hours_of(paths), "bytes": total_bytes, "written": len(missing)}


def hours_of(paths: Iterable[str]) -> float:
    """Return the hours of audio that `build_tree` writes for these paths."""
    return sum(map(_samples, paths)) / RATE_HZ / 3600


def _samples(path: str) -> int:
    return int(RATE_HZ * random.Random(path).uniform(SHORTEST_S, LONGEST_S))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _speech(recordings: Path) -> np.ndarray:
    """Return the recordings of the folder, concatenated: 16-bit samples (T,), at least 2 LONGEST_S long."""
    files = sorted(path for path in recordings.rglob("*") if path.suffix in (".wav", ".flac"))
    if not files:
        raise SystemExit(f"error: {recordings} has no .wav or .flac files; give --audio a folder with speech")
    chosen = random.Random(0).sample(files, min(len(files), MAX_RECORDINGS))
    joined = np.concatenate([soundfile.read(path, dtype="int16", always_2d=True)[0][:, 0] for path in chosen])
    return np.resize(joined, max(len(joined), int(2 * LONGEST_S * RATE_HZ)))


def _write(file: Path, path: str, length: int, speech: np.ndarray) -> None:
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    start = int(rng.integers(len(speech) - length))
    samples = speech[start : start + length] * np.float32(rng.uniform(0.3, 0.9))
    soundfile.write(file, samples.astype(np.int16), RATE_HZ, subtype="PCM_16", format="WAV")


def drop_from_page_cache(files: Iterable[Path]) -> bool:
    """Drop the files from the page cache, so that they are read from disk; return False if the system cannot do it."""
    if not hasattr(os, "posix_fadvise"):
        return False
    os.sync()
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
