"""What a classifier could read instead of the system: five plain properties of the audio, and how much each tells.

For each property alone, a decision tree (at least LEAF utterances in a leaf) predicts the system, cross-validated;
its balanced accuracy stands against chance, 1 / C. A tree, since a property may tell systems apart without order: two
sample rates, several levels. Beside it eta squared, the share of the property's variance that lies between systems,
which sees differences of means only. `together` is a random forest of all five. Legend of axes: N files, C systems.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rich.console
import rich.progress
import soundfile
from numpy.typing import NDArray
from scipy.signal import welch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from makermark import audio
from makermark.errors import AudioError, CorpusError

FOLDS = 5
FEWEST = 2 * FOLDS  # measured utterances of a system
LEAF = 5
FRAME_S = 0.01
SPEECH_BELOW_LOUDEST_DB = 40.0
BANDWIDTH_BELOW_LOUDEST_DB = 60.0
SPECTRUM_POINTS = 1024
NAMED = 5  # unusable files told by name

Samples = NDArray[np.float32]


def bandwidth_hz(samples: Samples, rate_hz: int) -> float:
    """The highest frequency whose mean power lies within 60 dB of the strongest."""
    frequencies, power = welch(samples, rate_hz, nperseg=min(SPECTRUM_POINTS, len(samples)))
    heard = np.flatnonzero(power >= power.max() * 10 ** (-BANDWIDTH_BELOW_LOUDEST_DB / 10))
    return float(frequencies[heard[-1]])


def level_dbfs(samples: Samples, rate_hz: int) -> float:
    """Root mean square over the frames within 40 dB of the loudest."""
    power = _frame_power(samples, rate_hz)
    return float(10 * np.log10(power[_is_speech(power)].mean()))


def leading_silence_s(samples: Samples, rate_hz: int) -> float:
    """What comes before the first frame within 40 dB of the loudest."""
    return float(np.argmax(_is_speech(_frame_power(samples, rate_hz))) * FRAME_S)


def _frame_power(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    length = min(max(1, round(FRAME_S * rate_hz)), len(samples))
    whole = samples[: len(samples) // length * length].astype(np.float64)
    return np.asarray((whole.reshape(-1, length) ** 2).mean(axis=1))


def _is_speech(power: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((power > 0) & (power >= power.max() * 10 ** (-SPEECH_BELOW_LOUDEST_DB / 10)))


@dataclass(frozen=True)
class Property:
    """How a property is measured of samples (T,) and their rate, and what takes it away."""

    measure: Callable[[Samples, int], float]
    remedy: str


PROPERTIES: dict[str, Property] = {
    "sample_rate_hz": Property(
        lambda samples, rate_hz: float(rate_hz), "features resample to 16 kHz; the bandwidth stays as it was"
    ),
    "bandwidth_hz": Property(bandwidth_hz, "compare with a model that sees the band all systems fill"),
    "level_dbfs": Property(level_dbfs, "instance-normalised fbank hides it; a waveform model sees it"),
    "leading_silence_s": Property(
        leading_silence_s, "random crops hide it in part; cut silence off the corpus"
    ),
    "duration_s": Property(
        lambda samples, rate_hz: len(samples) / rate_hz,
        "training crops are of one length; whole utterances are not",
    ),
}


def shortcuts(rows: pd.DataFrame, root: Path, *, per_system: int, seed: int, workers: int) -> dict[str, Any]:
    """Measure up to `per_system` random files of each system, and predict the system from what they measure.

    Systems with fewer than FEWEST usable files are measured but not predicted. Raises CorpusError where no file can be
    used, or fewer than two systems are left to predict.
    """
    rng = np.random.default_rng(seed)
    files = rows.drop_duplicates("path").sort_values("path", ignore_index=True)
    picked = files.loc[rng.permutation(len(files))].groupby("system").head(per_system).sort_index()
    measured, unusable = measure((root / path for path in picked["path"]), total=len(picked), workers=workers)
    usable = [place for place, values in enumerate(measured) if values is not None]
    if not usable:
        raise CorpusError(f"{root}: no file of {len(picked)} can be used ({unusable[0]}); leave --audio out")
    table = pd.DataFrame([measured[place] for place in usable], columns=list(PROPERTIES))
    systems = picked["system"].iloc[usable].reset_index(drop=True)
    often = systems.map(systems.value_counts()) >= FEWEST
    if systems[often].nunique() < 2:
        raise CorpusError(f"{root}: fewer than two systems have {FEWEST} usable files; leave --audio out")
    medians = table.groupby(systems.to_numpy()).median()
    told = predict(table[often].to_numpy(), systems[often].to_numpy(dtype=str), seed=seed)
    return {
        "files": len(usable),
        "unusable_files": len(unusable),
        "unusable": unusable[:NAMED],
        "systems": int(systems[often].nunique()),
        "chance_percent": 100 / systems[often].nunique(),
        "properties": {name: told[name] | {"remedy": known.remedy} for name, known in PROPERTIES.items()},
        "together_balanced_accuracy_percent": told["together"]["balanced_accuracy_percent"],
        "medians": {str(system): medians.loc[system].to_dict() for system in medians.index},
    }


def measure(files: Iterable[Path], *, total: int, workers: int) -> tuple[list[list[float] | None], list[str]]:
    """The PROPERTIES of each file in their order, None for an unusable one; and the reasons of those."""
    reasons: list[str] = []

    def of_file(file: Path) -> list[float] | None:
        try:
            rate_hz = rate_of(file)
            samples = audio.read(file, sample_rate_hz=rate_hz)
        except AudioError as error:
            reasons.append(str(error))
        else:
            return [known.measure(samples, rate_hz) for known in PROPERTIES.values()]
        return None

    with (
        ThreadPoolExecutor(workers) as pool,
        rich.progress.Progress(
            console=rich.console.Console(stderr=True), disable=not sys.stderr.isatty()
        ) as progress,
    ):
        measured = list(progress.track(pool.map(of_file, files), total=total, description="listening"))
    return measured, sorted(reasons)


def rate_of(file: Path) -> int:
    """The rate of a file's samples; 0 for one that libsndfile cannot read: audio.read says why."""
    try:
        return int(soundfile.info(file).samplerate)
    except soundfile.LibsndfileError:
        return 0


def predict(table: NDArray[np.float64], systems: NDArray[np.str_], *, seed: int) -> dict[str, dict[str, Any]]:
    """Of each property in table (N, properties), and of all `together`: balanced accuracy, and eta squared of one."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    tree = DecisionTreeClassifier(min_samples_leaf=LEAF, class_weight="balanced", random_state=seed)
    forest = RandomForestClassifier(100, class_weight="balanced", random_state=seed)

    def accuracy(classifier: Any, values: NDArray[np.float64]) -> float:
        if not np.ptp(values, axis=0).any():  # one value throughout: a guess, which folds would only blur
            return 100 / len(np.unique(systems))
        guessed = cross_val_predict(classifier, values, systems, cv=folds)
        return 100 * float(balanced_accuracy_score(systems, guessed))

    told = {
        name: {
            "balanced_accuracy_percent": accuracy(tree, table[:, [column]]),
            "eta_squared": eta_squared(table[:, column], systems),
        }
        for column, name in enumerate(PROPERTIES)
    }
    return told | {"together": {"balanced_accuracy_percent": accuracy(forest, table)}}


def eta_squared(values: NDArray[np.float64], systems: NDArray[np.str_]) -> float:
    """Variance of the systems' means over the whole variance of values (N,), in [0, 1]; 0 where nothing varies."""
    _, column, counts = np.unique(systems, return_inverse=True, return_counts=True)
    means = np.bincount(column, values) / counts
    whole = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (means - values.mean()) ** 2).sum())
    return between / whole if whole > 0 else 0.0
