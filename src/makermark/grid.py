"""A grid of experiments through the DVC queue: arms and seeds from one YAML file, results from what DVC kept.

An arm is a row of the table, such as `ge2e: {loss: ge2e}`; each arm runs once per seed. An experiment is named
GRID-ARM-sSEED, and what it left under that name in git and in DVC's cache is its result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from makermark import kept
from makermark.errors import ParamsError
from makermark.files import read_json
from makermark.params import read_yaml

KEYS = ("seeds", "common", "arms")


@dataclass(frozen=True)
class Experiment:
    """One cell of a grid: what it is called, and what it changes in params.yaml."""

    name: str
    arm: str
    seed: int
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an experiment left: metrics/score.json and models/history.json."""

    experiment: Experiment
    score: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]

    @property
    def train_seconds(self) -> float:
        return sum(epoch["train_seconds"] for epoch in self.history)


def read_grid(path: Path) -> list[Experiment]:
    """The experiments of a grid file, arm by arm; raises ParamsError for unknown or missing keys.

    `seeds` is a list, `common` the overrides of every arm, `arms` maps a name to its own overrides, which may
    hold `seeds` too. Overrides are written as for `dvc exp run -S`, such as `train.epochs: 12`.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping) or set(content) != set(KEYS):
        found = sorted(content) if isinstance(content, Mapping) else content
        raise ParamsError(f"{path}: holds {found}; a grid has exactly the keys {sorted(KEYS)}")
    experiments = []
    for arm, own in content["arms"].items():
        overrides = {"seeds": content["seeds"], **content["common"], **own}
        for seed in overrides.pop("seeds"):
            experiments.append(
                Experiment(f"{path.stem}-{arm}-s{seed}", arm, seed, {**overrides, "seed": seed})
            )
    return experiments


def queue(experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """Put those that DVC has not run into its queue; returns their names. `dvc exp run --run-all` runs them.

    Raises ParamsError if params.yaml differs from the commit's: every experiment would inherit that.
    """
    if kept.run(["git", "status", "--porcelain", "params.yaml"], folder).strip():
        raise ParamsError(
            "params.yaml has changes that every experiment of the grid would inherit; commit it, or go back with "
            "git restore params.yaml"
        )
    there = kept.experiments(folder)
    new = [experiment for experiment in experiments if experiment.name not in there]
    for experiment in new:
        settings = [f"--set-param={key}={_written(value)}" for key, value in experiment.overrides.items()]
        kept.dvc(["exp", "run", "--queue", "--name", experiment.name, *settings], folder)
    return [experiment.name for experiment in new]


def collect(experiments: Sequence[Experiment], folder: Path) -> list[Outcome]:
    """The outcomes of those that have run, in the grid's order."""
    there = kept.experiments(folder)
    return [_outcome(e, there[e.name], folder) for e in experiments if e.name in there]


def _outcome(experiment: Experiment, reference: str, folder: Path) -> Outcome:
    score = kept.read_kept(reference, "metrics/score.json", folder)
    with tempfile.TemporaryDirectory() as scratch:
        kept.fetch(reference, "models/history.json", Path(scratch) / "history.json", folder)
        return Outcome(experiment, score, read_json(Path(scratch) / "history.json"))


def _written(value: Any) -> str:
    """As YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
