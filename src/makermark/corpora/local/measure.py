"""What a finished corpus still tells about its systems: level, length and bandwidth, as a table in Markdown.

python -m makermark.corpora.local.measure data/local
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray

from makermark.corpora.finishing import RATE_HZ, active_rms
from makermark.corpora.rows import Manifest, read_manifest, strata

FFT = 512
BANDWIDTH_BELOW_LOUDEST_DB = 60.0


def measure(manifest: Manifest) -> pd.DataFrame:
    """Per system: utterances, length, level of the speech, peak, bandwidth (means; spread of length and level)."""
    values = [_of_utterance(manifest.file(path)) for path in manifest.rows["path"]]
    each = pd.DataFrame(values, columns=["seconds", "level_dbfs", "peak", "bandwidth_hz"])
    by_system = each.groupby(manifest.rows["system"].to_numpy())
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


def _of_utterance(file: Path) -> tuple[float, float, float, float]:
    samples, _ = sf.read(file, dtype="float64")
    level_dbfs = 20 * np.log10(active_rms(samples))
    return len(samples) / RATE_HZ, level_dbfs, float(np.abs(samples).max()), bandwidth_hz(samples)


def bandwidth_hz(samples: NDArray[np.float64]) -> float:
    """The highest frequency whose mean power lies within 60 dB of the strongest."""
    frames = samples[: len(samples) // FFT * FFT].reshape(-1, FFT) * np.hanning(FFT)
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).mean(axis=0)
    heard = np.flatnonzero(power >= power.max() * 10 ** (-BANDWIDTH_BELOW_LOUDEST_DB / 10))
    return float(heard[-1] * RATE_HZ / FFT)


def main() -> None:
    manifest = read_manifest(Path(sys.argv[1]) / "manifest.parquet")
    rows = manifest.rows
    held_out = rows[rows["split"] != "train"]
    counts = pd.crosstab(strata(held_out), held_out["split"])
    print(_markdown(counts, "stratum"), _markdown(measure(manifest), "system"), sep="\n\n")


def _markdown(table: pd.DataFrame, index: str) -> str:
    lines = [[index, *map(str, table.columns)], ["---"] * (len(table.columns) + 1)]
    lines += [list(map(str, row)) for row in table.itertuples(name=None)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
