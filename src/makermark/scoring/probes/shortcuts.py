"""Shortcuts: simple properties of the audio from which a classifier could predict the system.

For each property alone, a decision tree predicts the system with cross-validation; its balanced accuracy is compared
with chance, 1 / C. A tree needs no order: a property may separate systems by two sample rates or several levels. Eta
squared, the share of the variance of the property that is between systems, detects differences of means only. A random
forest uses all properties together. Axes: N files, C systems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.signal import welch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from makermark.foundation import audio, signal_power
from makermark.foundation.arrays import Float32Array, FloatArray, StrArray
from makermark.foundation.errors import AudioError, CorpusError
from makermark.foundation.progress import track
from makermark.foundation.signal_power import frame_power, is_speech

FOLDS = 5
MIN_UTTERANCES = 2 * FOLDS  # of a system to be predicted
MIN_LEAF_UTTERANCES = 5
FRAME_S = 0.01
SPECTRUM_SAMPLES = 1024
MAX_NAMED_FILES = 5


def bandwidth_hz(samples: Float32Array, sample_rate_hz: int) -> float:
    """Return the bandwidth of `samples` (T,) from Welch's power spectrum."""
    nperseg = min(SPECTRUM_SAMPLES, len(samples))
    return signal_power.bandwidth_hz(*welch(samples, sample_rate_hz, nperseg=nperseg))


def level_dbfs(samples: Float32Array, sample_rate_hz: int) -> float:
    """Return the root mean square over the speech frames, in dB relative to full scale."""
    power = _frame_power(samples, sample_rate_hz)
    return float(10 * np.log10(power[is_speech(power)].mean()))


def leading_silence_s(samples: Float32Array, sample_rate_hz: int) -> float:
    """Return the time before the first speech frame."""
    return float(np.argmax(is_speech(_frame_power(samples, sample_rate_hz))) * FRAME_S)


def _frame_power(samples: Float32Array, sample_rate_hz: int) -> FloatArray:
    return frame_power(samples, max(1, round(FRAME_S * sample_rate_hz)))


@dataclass(frozen=True)
class AudioProperty:
    """A function that measures samples (T,) at a sample rate, and the remedy if the property predicts the system."""

    measure: Callable[[Float32Array, int], float]
    remedy: str


PROPERTIES: dict[str, AudioProperty] = {
    "sample_rate_hz": AudioProperty(
        lambda samples, sample_rate_hz: float(sample_rate_hz),
        "the features are resampled to 16 kHz, which does not change the bandwidth; check bandwidth_hz",
    ),
    "bandwidth_hz": AudioProperty(
        bandwidth_hz, "compare with a model whose input is limited to the band of all systems"
    ),
    "level_dbfs": AudioProperty(
        level_dbfs, "use an instance-normalised fbank front end; a waveform model uses the level"
    ),
    "leading_silence_s": AudioProperty(
        leading_silence_s, "random crops remove part of it; trim the silence of the corpus"
    ),
    "duration_s": AudioProperty(
        lambda samples, sample_rate_hz: len(samples) / sample_rate_hz,
        "crops for training have one length; whole utterances differ in length",
    ),
}


def measure_shortcuts(
    rows: pd.DataFrame, root: Path, *, per_system: int, seed: int, workers: int
) -> dict[str, Any]:
    """Measure up to `per_system` random files of each system, and predict the system from the measurements.

    Systems with fewer than MIN_UTTERANCES usable files are measured but not predicted. Raises CorpusError if no file
    is usable, or if fewer than two systems can be predicted.
    """
    rng = np.random.default_rng(seed)
    files = rows.drop_duplicates("path").sort_values("path", ignore_index=True)
    drawn = files.loc[rng.permutation(len(files))].groupby("system").head(per_system).sort_index()
    measured, unusable = measure_files(
        (root / path for path in drawn["path"]), total=len(drawn), workers=workers
    )
    usable = [index for index, values in enumerate(measured) if values is not None]
    if not usable:
        raise CorpusError(
            f"{root}: none of {len(drawn)} files can be used ({unusable[0]}); leave --audio out"
        )
    table = pd.DataFrame([measured[index] for index in usable], columns=list(PROPERTIES))
    systems = drawn["system"].iloc[usable].reset_index(drop=True)
    predicted = systems.map(systems.value_counts()) >= MIN_UTTERANCES
    system_count = int(systems[predicted].nunique())
    if system_count < 2:
        raise CorpusError(
            f"{root}: fewer than two systems have {MIN_UTTERANCES} usable files; leave --audio out"
        )
    medians = table.groupby(systems.to_numpy()).median()
    results = predict_systems(table[predicted].to_numpy(), systems[predicted].to_numpy(dtype=str), seed=seed)
    return {
        "files": len(usable),
        "unusable_files": len(unusable),
        "unusable": unusable[:MAX_NAMED_FILES],
        "systems": system_count,
        "chance_percent": 100 / system_count,
        "properties": {name: results[name] | {"remedy": prop.remedy} for name, prop in PROPERTIES.items()},
        "together_balanced_accuracy_percent": results["together"]["balanced_accuracy_percent"],
        "medians": {str(system): medians.loc[system].to_dict() for system in medians.index},
    }


def measure_files(
    files: Iterable[Path], *, total: int, workers: int
) -> tuple[list[list[float] | None], list[str]]:
    """Return the PROPERTIES of each file (None for an unusable file), and the sorted reasons of the unusable files."""
    reasons: list[str] = []

    def measure_file(file: Path) -> list[float] | None:
        try:
            recording = audio.load(file, sample_rate_hz=None)
        except AudioError as error:
            reasons.append(str(error))
        else:
            return [prop.measure(recording.waveform, recording.rate_hz) for prop in PROPERTIES.values()]
        return None

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(measure_file, files)
        measured = list(track(results, total=total, description="measuring files"))
    return measured, sorted(reasons)


def predict_systems(table: FloatArray, systems: StrArray, *, seed: int) -> dict[str, dict[str, Any]]:
    """Return the balanced accuracy of each property in table (N, properties) and of all `together`.

    A single property has eta squared too.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    tree = DecisionTreeClassifier(
        min_samples_leaf=MIN_LEAF_UTTERANCES, class_weight="balanced", random_state=seed
    )
    forest = RandomForestClassifier(100, class_weight="balanced", random_state=seed)

    def accuracy_percent(classifier: Any, values: FloatArray) -> float:
        if not np.ptp(values, axis=0).any():  # a constant property: chance, without the noise of the folds
            return 100 / len(np.unique(systems))
        predictions = cross_val_predict(classifier, values, systems, cv=folds)
        return 100 * float(balanced_accuracy_score(systems, predictions))

    results = {
        name: {
            "balanced_accuracy_percent": accuracy_percent(tree, table[:, [column]]),
            "eta_squared": eta_squared(table[:, column], systems),
        }
        for column, name in enumerate(PROPERTIES)
    }
    return results | {"together": {"balanced_accuracy_percent": accuracy_percent(forest, table)}}


def eta_squared(values: FloatArray, systems: StrArray) -> float:
    """Return the variance of the systems' means divided by the total variance of values (N,), in [0, 1].

    0 if the values are constant.
    """
    _, column, counts = np.unique(systems, return_inverse=True, return_counts=True)
    means = np.bincount(column, values) / counts
    total = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (means - values.mean()) ** 2).sum())
    return between / total if total > 0 else 0.0
