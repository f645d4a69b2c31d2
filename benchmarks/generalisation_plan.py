"""The runs of benchmarks/generalisation.py: which systems each model is trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SIZES = (8, 16, 32, 64)
UNTRAINED, STATISTICS, CURVE, CONTROL = "untrained network", "log-mel statistics", "curve", "control"
NETWORK = "network"  # another backbone, filter bank or normalisation
GROUPS = ("kind of generator", "kind of waveform maker", "generator", "waveform maker")  # that are left out
MIN_REMOVED = 3  # systems of a group that is left out
STANDARD_NETWORK = (
    "spectral-statistics",
    "linear-fbank",
    "",
)  # backbone, front end, normalisation (some have none)
OTHER_NETWORKS = (
    ("spectral-statistics", "fbank", ""),
    ("ecapa", "linear-fbank", "mean"),
    ("ecapa", "linear-fbank", "mean-variance"),
    ("ecapa", "fbank", "mean"),
    ("ecapa", "fbank", "mean-variance"),
)

GENERATOR_KINDS = {  # by family
    "formant": "formant", "klatt-formant": "formant", "HMM": "HMM", "clustergen": "HMM",
    "concatenative": "concatenative", "articulatory": "articulatory", "human": "copy synthesis of human speech",
    "distilled-neural": "neural", "FastSpeech2": "neural", "Tacotron2": "neural", "VITS": "neural",
    "StyleTTS2": "neural",
}  # fmt: skip
MAKER_KINDS = {  # by vocoder; "own": the classical generators' own, which resynthesise no other speech
    **dict.fromkeys(
        ("griffin-lim", "griffin-lim-22k", "griffin-lim-linear", "griffin-lim-short"), "DSP vocoder"
    ),
    **dict.fromkeys(("world", "world-coded", "mlsa", "straight"), "DSP vocoder"),
    **dict.fromkeys(("codec2-3200", "codec2-1300", "codec2-700"), "codec"),
    **dict.fromkeys(("mb-melgan", "hifigan-universal", "hifigan-lj", "hifigan-16k"), "neural vocoder"),
    **dict.fromkeys(("vits-hifigan", "istftnet"), "neural vocoder"),
    **dict.fromkeys(("espeak-harmonic", "klatt-pulse", "klatt-sampled", "speechplayer"), "own"),
    **dict.fromkeys(("pico-parametric", "allophone-concatenation", "diphone-lpc", "clustergen-mlsa"), "own"),
    **dict.fromkeys(("harmonic-plus-noise", "vocal-tract-simulation", "human"), "own"),
}


@dataclass(frozen=True)
class Run:
    """One training and its evaluation, or the evaluation of a reference that is not trained.

    `draw` is the seed of the training, and of the choice of the systems. `utterances` limits the training utterances
    of all systems together. `network` is a tuple as STANDARD_NETWORK.
    """

    kind: str  # UNTRAINED | STATISTICS | CURVE | CONTROL | NETWORK | one of GROUPS
    name: str
    draw: int
    systems: tuple[str, ...]
    steps: int
    utterances: int | None = None
    network: tuple[str, str, str] = STANDARD_NETWORK

    @property
    def key(self) -> tuple[str, str, int]:
        return self.kind, self.name, self.draw


def describe_systems(train: pd.DataFrame) -> pd.DataFrame:
    """Return one row per system of the training rows, sorted: generator, waveform maker, their kinds, utterances."""
    systems = train.groupby("system", sort=True).agg(
        generator=("acoustic_model", "first"),
        maker=("vocoder", "first"),
        family=("family", "first"),
        utterances=("system", "size"),
    )
    return systems.assign(
        generator_kind=kinds_of(systems["family"], GENERATOR_KINDS, name="GENERATOR_KINDS"),
        maker_kind=kinds_of(systems["maker"], MAKER_KINDS, name="MAKER_KINDS"),
    )


def kinds_of(values: pd.Series, kinds: dict[str, str], *, name: str) -> pd.Series:
    """Return the kind of every value; an unknown value ends the program."""
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise SystemExit(
            f"error: {unknown[0]!r} has no kind; add it to {name} in benchmarks/generalisation_plan.py"
        )
    return values.map(kinds)


def draw_systems(systems: pd.DataFrame, count: int, *, draw: int) -> tuple[str, ...]:
    """Return `count` systems, drawn by generator: in every round each generator gives one of its systems, at random.

    The order of the generators is random too, and a generator without systems left is passed over. Eight systems of
    seven generators are thus of all seven. The systems of a smaller `count` are among those of a larger one.
    """
    rng = np.random.default_rng([draw, 1])  # 1: not a stream of the training, whose seed is the draw
    members = {
        name: [str(system) for system in rng.permutation(sorted(group.index))]
        for name, group in systems.groupby("generator", sort=True)
    }
    order = [str(name) for name in rng.permutation(sorted(members))]
    rounds = max(map(len, members.values()))
    drawn = [members[name][turn] for turn in range(rounds) for name in order if turn < len(members[name])]
    return tuple(sorted(drawn[:count]))


def plan_curve(systems: pd.DataFrame, *, draws: int, steps: int) -> Iterator[Run]:
    """Yield the references, and the runs at every size for every draw; the largest size is that of all systems."""
    everything = tuple(systems.index)
    sizes = [size for size in SIZES if size < len(everything)] + [len(everything)]
    yield Run(STATISTICS, STATISTICS, 0, (), 0)
    for draw in range(draws):
        yield Run(UNTRAINED, UNTRAINED, draw, (), 0)
        for size in sizes:
            yield Run(CURVE, f"{size} systems", draw, draw_systems(systems, size, draw=draw), steps)


def plan_groups(systems: pd.DataFrame, *, draws: int, steps: int) -> Iterator[Run]:
    """Yield the runs without one kind or one part: all kinds and parts with the first draw, then with the next."""
    columns = dict(zip(GROUPS, ("generator_kind", "maker_kind", "generator", "maker"), strict=True))
    names: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for group, column in columns.items():
        for value in sorted(set(systems[column])):
            left = tuple(systems.index[systems[column] != value])
            if len(left) and len(systems) - len(left) >= MIN_REMOVED:
                names.setdefault(left, (group, []))[1].append(value)
    for draw in range(draws):
        for left, (group, values) in names.items():
            yield Run(group, " = ".join(dict.fromkeys(values)), draw, left, steps)


def plan_controls(systems: pd.DataFrame, *, draws: int, steps: int) -> Iterator[Run]:
    """Yield runs with all systems: with as many utterances as 16 systems have, and with other numbers of steps."""
    everything = tuple(systems.index)
    few = SIZES[1]
    for draw in range(draws if len(everything) > few else 0):
        utterances = int(systems.loc[list(draw_systems(systems, few, draw=draw)), "utterances"].sum())
        yield Run(CONTROL, f"utterances of {few} systems", draw, everything, steps, utterances)
    for draw in range(draws):
        yield Run(CONTROL, "half of the steps", draw, everything, steps // 2)
        yield Run(CONTROL, "twice the steps", draw, everything, 2 * steps)


def plan_networks(systems: pd.DataFrame, *, draws: int, steps: int) -> Iterator[Run]:
    """Yield runs with all systems and another network."""
    everything = tuple(systems.index)
    for draw in range(draws):
        for network in OTHER_NETWORKS:
            yield Run(NETWORK, network_name(network), draw, everything, steps, network=network)


def network_name(network: tuple[str, str, str]) -> str:
    """Return a network as text."""
    return ", ".join(part for part in network if part)


PLANS = {"curve": plan_curve, "groups": plan_groups, "controls": plan_controls, "networks": plan_networks}


def choose_utterances(systems: Sequence[str], count: int, *, draw: int) -> list[int]:
    """Return `count` positions into the systems (N,) of utterances, sorted, equally many of every system within 1."""
    rng = np.random.default_rng([draw, 2])
    order = rng.permutation(len(systems))
    rank = np.empty(len(systems), int)
    for system in sorted(set(systems)):
        own = order[np.asarray(systems)[order] == system]
        rank[own] = np.arange(len(own))
    chosen = sorted(order.tolist(), key=lambda position: rank[position])[:count]
    return sorted(chosen)


def batch_shape(utterances_of_system: Sequence[int], *, batch: int, systems: int) -> tuple[int, int]:
    """Return the systems of a batch and the utterances of each: at most `systems`, and `batch` utterances together.

    A system gives no more utterances than the smallest system has; the batch is then smaller.
    """
    rows = min(systems, len(utterances_of_system))
    return rows, min(math.floor(batch / rows), min(utterances_of_system))
