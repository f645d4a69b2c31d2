"""Which experiments have been run already: by the same code, on the same data, with the same params."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from makermark import kept
from makermark.errors import FilesError
from makermark.params import Params
from makermark.tracking import Recorded, flatten, numbers

CODE = ("src", "stages", "dvc.yaml")  # what two commits have alike if they are the same code
CHOSEN = {
    "backbones": "backbone",
    "losses": "loss",
    "samplers": "sampler",
}  # of these sections one entry counts
UNUSED = ("probe", "fuse", "trace", "explain", "robustness")  # no figure comes from these
SPEED_ONLY = ("workers", "device", "batch_seconds", "utterance_timeout_s")
NEEDED = ("dev.eer_micro_percent", "test.eer_micro_percent")


@dataclass(frozen=True)
class Work:
    """What decides the figures of an experiment."""

    code: str
    data: str
    params: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Eight digits that name it: other code, data or params, another name."""
        return hashlib.sha256(
            json.dumps([self.code, self.data, sorted(self.params.items())]).encode()
        ).hexdigest()[:8]


@dataclass(frozen=True)
class Found:
    """What an experiment left: the commit it started from, and its figures by dotted name."""

    commit: str
    metrics: Mapping[str, float]


def work_of(params: Params, *, code: str, data: str) -> Work:
    """The work that these params ask for."""
    return Work(code, data, deciding(as_recorded(params)))


def as_recorded(params: Params) -> dict[str, str]:
    """All params as a store holds them: dotted names, values as text."""
    return {name: str(value) for name, value in flatten(dataclasses.asdict(params)).items()}


def deciding(params: Mapping[str, str]) -> dict[str, str]:
    """Those of a run's params that its figures depend on: no other loss's settings, no number of workers."""
    chosen = {section: params.get(key, "") for section, key in CHOSEN.items()}

    def counts(name: str) -> bool:
        section, *rest = name.split(".")
        other = section in chosen and rest[0] != chosen[section]
        return not (other or section in UNUSED or name.rpartition(".")[2] in SPEED_ONLY)

    return {name: value for name, value in params.items() if counts(name)}


def held(
    wanted: Mapping[str, Work], runs: Iterable[Recorded], *, code_of: Callable[[str], str]
) -> dict[str, Found]:
    """Of the `wanted`, by name, those that a run has done whole; of several runs the first.

    A run counts if it was scored on dev and test, with a clean work tree; `code_of` says which code a commit holds.
    """
    done = [run for run in runs if run.clean and all(name in run.metrics for name in NEEDED)]
    found = {}
    for name, work in wanted.items():
        for run in done:
            same = run.data == work.data and deciding(run.params) == work.params
            if same and code_of(run.commit) == work.code:
                found[name] = Found(run.commit, run.metrics)
                break
    return found


def held_by_dvc(names: Iterable[str], folder: Path) -> dict[str, Found]:
    """Of experiments named after their work's digest, those that DVC keeps: what ran while the store was away."""
    there = kept.experiments(folder)
    return {
        name: Found(
            kept.baseline(there[name]), numbers(kept.read_kept(there[name], "metrics/score.json", folder))
        )
        for name in names
        if name in there
    }


def code_in(folder: Path) -> Callable[[str], str]:
    """A function that says which code a commit of the repository `folder` holds, as the hashes that git has of CODE.

    A commit that is not there stands for itself.
    """

    @cache
    def code_of(commit: str) -> str:
        try:
            return kept.run(["git", "rev-parse", *(f"{commit}:{path}" for path in CODE)], folder)
        except FilesError:
            return commit

    return code_of
