"""What git and DVC keep of earlier experiments: asked of their commands, since nothing here imports DVC."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from makermark.errors import FilesError

PREFIX = "refs/exps/"
STASH = f"{PREFIX}celery/stash"


def experiments(folder: Path) -> dict[str, str]:
    """The git reference of every experiment that DVC keeps, by name; of two with one name, the newest."""
    listing = ["git", "for-each-ref", "--sort=creatordate", "--format=%(refname)", PREFIX]
    lines = [line.removeprefix(PREFIX).split("/") for line in run(listing, folder).splitlines()]
    return {parts[-1]: PREFIX + "/".join(parts) for parts in lines if len(parts) == 3 and len(parts[0]) == 2}


def queued(folder: Path) -> set[str]:
    """The names of the experiments that wait in DVC's queue: its stash says them in what it logs."""
    if not run(["git", "for-each-ref", STASH], folder):
        return set()
    log = run(["git", "reflog", "show", "--format=%gs", STASH], folder)
    return set(re.findall(r"dvc-exp:\w+:\w+:([^:\n]+)", log))


def baseline(reference: str) -> str:
    """The commit that an experiment started from, as its reference names it."""
    _, _, first, rest, _ = reference.split("/")
    return first + rest


def read_text(reference: str, path: str, folder: Path) -> str:
    """The file `path` as git keeps it under a reference; raises FilesError."""
    return run(["git", "show", f"{reference}:{path}"], folder)


def read_kept(reference: str, path: str, folder: Path) -> Any:
    """The JSON file `path` as git keeps it under a reference; raises FilesError."""
    content = read_text(reference, path, folder)
    try:
        return json.loads(content)
    except ValueError as error:
        raise FilesError(f"{path} of {reference}: not JSON ({error}); run that experiment again") from error


def fetch(reference: str, path: str, to: Path, folder: Path) -> None:
    """Copy an output, file or folder, from DVC's cache as it was under a reference; raises FilesError."""
    dvc(["get", "--rev", reference, "--out", str(to), ".", path], folder)


def dvc(arguments: list[str], folder: Path) -> str:
    """What `dvc ARGUMENTS` prints in `folder`; raises FilesError with its last line where it fails."""
    return run([sys.executable, "-m", "dvc", *arguments], folder)


def run(command: list[str], folder: Path) -> str:
    """What a command prints in `folder`; raises FilesError with its last line where it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise FilesError(f"{command[0]}: {error.strerror}; install it") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise FilesError(f"{' '.join(command)}: {said[-1]}")
    return done.stdout
