"""DVC experiments of a repository: finished, queued and running, through the commands of DVC and git.

Nothing here imports DVC, which starts slowly and may be absent.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makermark.foundation.errors import FilesError

BASELINE = "refs/exps/[0-9a-f]{2}/[0-9a-f]{38}"  # the commit from which an experiment was started
FINISHED = re.compile(BASELINE + r"/(?P<name>\S+) (?P<commit>[0-9a-f]+)")


@dataclass(frozen=True)
class QueueTask:
    """A row of `dvc queue status`."""

    task: str  # the abbreviated commit in which DVC stores the queued experiment
    name: str
    state: str  # Queued, Running, Failed or Success


def list_experiments(folder: Path) -> dict[str, str]:
    """Return the commit of every finished experiment by name; the newest, if a name occurs more than once.

    Read from git, where DVC documents that it stores them. `dvc exp list` waits for a lock that
    `dvc exp run --run-all` holds to its end, and `dvc exp show` parses the metrics of every commit.
    """
    listing = ["for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", "refs/exps"]
    matches = (FINISHED.fullmatch(line) for line in run(["git", *listing], folder).splitlines())
    return {match["name"]: match["commit"] for match in matches if match}


def baseline(revision: str, folder: Path) -> str:
    """Return the commit from which an experiment was started; raises FilesError."""
    return run(["git", "rev-parse", "--verify", f"{revision}^1"], folder).strip()


def read_text(revision: str, path: str, folder: Path) -> str:
    """Return the content of a file that git stores in a commit; raises FilesError."""
    return run(["git", "show", f"{revision}:{path}"], folder)


def read_json(revision: str, path: str, folder: Path) -> Any:
    """Return the content of a JSON file that git stores in a commit; raises FilesError."""
    content = read_text(revision, path, folder)
    try:
        return json.loads(content)
    except ValueError as error:
        raise FilesError(f"{path} of {revision}: not JSON ({error}); run that experiment again") from error


def download(revision: str, path: str, to: Path, folder: Path) -> None:
    """Copy an output of a commit, a file or a folder, from DVC's cache; raises FilesError."""
    run_dvc(["get", "--rev", revision, "--out", str(to), ".", path], folder)


def queue_tasks(folder: Path) -> list[QueueTask]:
    """Return the named tasks of DVC's queue."""
    rows = [line.split() for line in run_dvc(["queue", "status"], folder).splitlines()]
    return [
        QueueTask(task=row[0], name=row[1], state=row[-1])
        for row in rows
        if len(row) > 3 and re.fullmatch("[0-9a-f]{7,}", row[0])
    ]


def names_in_queue(folder: Path) -> set[str]:
    """Return the names of all experiments that wait in DVC's queue or run.

    DVC does not notice that the process of a running task was killed, and `dvc exp run --run-all` would wait for it
    without end. Such tasks are marked as failed (`dvc queue kill`) and not returned.
    """
    names = set()
    for task in queue_tasks(folder):
        if task.state == "Running" and not is_alive(task, folder):
            run_dvc(["queue", "kill", "--force", task.task], folder)
        elif task.state in ("Queued", "Running"):
            names.add(task.name)
    return names


def is_alive(task: QueueTask, folder: Path) -> bool:
    """Return whether the process of a running task exists; True if its process number is unknown."""
    process = _process_number(task, folder)
    if process is None:
        return True
    try:
        os.kill(process, 0)  # sends no signal
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _process_number(task: QueueTask, folder: Path) -> int | None:
    command = ["exp", "show", "--json", "--hide-workspace", "--hide-queued", "--hide-failed"]
    try:
        commits = json.loads(run_dvc([*command, "--rev", baseline(task.task, folder)], folder))
        for experiment in (experiment for commit in commits for experiment in commit["experiments"] or []):
            executor = experiment["executor"]
            if experiment["name"] == task.name and executor and executor["state"] == "running":
                return int(executor["local"]["pid"])
    except (FilesError, ValueError, KeyError, TypeError):
        pass
    return None


def run_dvc(arguments: list[str], folder: Path) -> str:
    """Run `dvc ARGUMENTS` in `folder` and return its output; raises FilesError with its last line if it fails."""
    return run([sys.executable, "-m", "dvc", *arguments], folder)


def run(command: list[str], folder: Path) -> str:
    """Run a command in `folder` and return its output; raises FilesError with its last line if it fails."""
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FilesError(f"{command[0]}: {error.strerror}; install it") from error
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or [f"status {result.returncode}"]
        raise FilesError(f"{' '.join(command)}: {lines[-1]}")
    return result.stdout
