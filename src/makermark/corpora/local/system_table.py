"""The table of all systems of a finished local corpus, as Markdown: what they are, their audio and its hash.

python -m makermark.corpora.local.system_table data/corpus
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from makermark.corpora.normalise_audio import SAMPLE_RATE_HZ, active_rms
from makermark.foundation import signal_power
from makermark.foundation.arrays import FloatArray
from makermark.foundation.manifest import LICENCE, MANIFEST_FILE, Manifest, compute_strata, read_manifest

FRAME_SAMPLES = 512
HASH_DIGITS = 12
ATTRIBUTES = ("acoustic_model", "vocoder", "family", LICENCE)


def describe_systems(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the attributes of every system, the split that it is new in (or train), and a hash of all its audio files.

    Two corpora have the same files of a system if its hashes are equal.
    """
    by_system = rows.groupby("system")
    table = by_system[list(ATTRIBUTES)].first()
    splits = by_system["split"].agg(set)
    table.insert(0, "part", ["train" if "train" in of_system else of_system.pop() for of_system in splits])
    table["hash"] = by_system["sha256"].agg(_hash)
    return table.sort_values(
        "part", key=lambda part: -part.map(["test", "dev", "train"].index), kind="stable"
    )


def _hash(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()[:HASH_DIGITS]


def measure_systems(manifest: Manifest) -> pd.DataFrame:
    """Return a table by system: utterances, and mean or spread of length, speech level, peak and bandwidth."""
    values = [_measure_utterance(manifest.audio_path(path)) for path in manifest.rows["path"]]
    utterances = pd.DataFrame(values, columns=["seconds", "level_dbfs", "peak", "bandwidth_hz"])
    by_system = utterances.groupby(manifest.rows["system"].to_numpy())
    return pd.DataFrame(
        {
            "utterances": by_system.size(),
            "length s": by_system["seconds"].mean().round(2),
            "spread s": by_system["seconds"].std().round(2),
            "level dBFS": by_system["level_dbfs"].mean().round(1),
            "spread dB": by_system["level_dbfs"].std().round(1),
            "highest peak": by_system["peak"].max().round(2),
            "bandwidth kHz": (by_system["bandwidth_hz"].median() / 1000).round(1),
        }
    )


def _measure_utterance(file: Path) -> tuple[float, float, float, float]:
    """Return duration (s), level (dBFS), peak and bandwidth (Hz)."""
    samples, _ = sf.read(file, dtype="float64")
    level_dbfs = 20 * np.log10(active_rms(samples))
    return len(samples) / SAMPLE_RATE_HZ, level_dbfs, float(np.abs(samples).max()), bandwidth_hz(samples)


def bandwidth_hz(samples: FloatArray) -> float:
    """Return the bandwidth of `samples` (T,) from the mean spectrum of frames under a Hann window."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES) * np.hanning(
        FRAME_SAMPLES
    )
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).mean(axis=0)
    return signal_power.bandwidth_hz(np.arange(len(power)) * SAMPLE_RATE_HZ / FRAME_SAMPLES, power)


def main() -> None:
    manifest = read_manifest(Path(sys.argv[1]) / MANIFEST_FILE)
    rows = manifest.rows
    held_out = rows[rows["split"] != "train"]
    counts = pd.crosstab(compute_strata(held_out), held_out["split"])
    systems = describe_systems(rows)
    measured = measure_systems(manifest).loc[systems.index]
    print(
        _to_markdown(counts, "stratum"),
        _to_markdown(systems, "system"),
        _to_markdown(measured, "system"),
        sep="\n\n",
    )


def _to_markdown(table: pd.DataFrame, index: str) -> str:
    lines = [[index, *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    lines += [list(map(str, row)) for row in table.itertuples(name=None)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
