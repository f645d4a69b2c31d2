"""Which experiments of DVC's queue run, and which only seem to: DVC does not notice that a run was killed."""

from __future__ import annotations

import os
from pathlib import Path

from makermark import kept
from makermark.errors import FilesError
from makermark.files import read_json

RUNS = ".dvc/tmp/exps/run"  # a folder for each that was begun; its JSON file names the process


def running_in(folder: Path) -> set[str]:
    """The names of the experiments that run now.

    DVC is told to file as failed those whose process is gone: `dvc exp run --run-all` would wait for them for ever.
    """
    alive = set()
    for task, name in _said_to_run(folder).items():
        if _lives(task, folder):
            alive.add(name)
        else:
            kept.dvc(["queue", "kill", "--force", task], folder)
    return alive


def _said_to_run(folder: Path) -> dict[str, str]:
    """Name by task, of the rows `TASK NAME TIME Running` that DVC prints."""
    rows = [line.split() for line in kept.dvc(["queue", "status"], folder).splitlines()]
    return {row[0]: row[1] for row in rows if len(row) > 2 and row[-1] == "Running"}


def _lives(task: str, folder: Path) -> bool:
    """Whether the task's process is there; also where that cannot be known."""
    try:
        pid = int(read_json(next((folder / RUNS).glob(f"{task}*/{task}*.json")))["pid"])
        os.kill(pid, 0)  # asks only
    except ProcessLookupError:
        return False
    except (StopIteration, FilesError, KeyError, TypeError, ValueError, OSError):
        return True
    return True
