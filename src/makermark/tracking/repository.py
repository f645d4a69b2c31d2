"""Which repository a stage belongs to, and what git says of it.

`dvc exp run --temp` and `--queue` run the stages in a copy, `.dvc/tmp/exps/...`, that is deleted
afterwards. It is a repository of its own, without a remote; that it lies inside the main one is how
it is told, or else by DVC_ROOT, which DVC sets to the main repository also in the copy.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

COPIES = "/.dvc/tmp/exps/"
SQLITE = "sqlite:///"


def main_repository(start: Path) -> Path:
    """The root of the repository around `start`; of a DVC experiment's copy, that of the original.

    `start` itself where there is neither git nor DVC.
    """
    start = start.resolve()
    original, copy, _ = f"{start.as_posix()}/".partition(COPIES)
    if copy:
        return Path(original)
    if "DVC_EXP_NAME" in os.environ and "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"])
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir() or (folder / ".git").exists():
            return folder
    return start


def tracking_uri(start: Path) -> str:
    """Where runs go: MLFLOW_TRACKING_URI, or else mlflow.db in the main repository.

    A relative SQLite path starts from the main repository, wherever the stage runs.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if not uri.startswith(SQLITE):
        return uri
    return SQLITE + (main_repository(start) / uri.removeprefix(SQLITE)).as_posix()


def git(folder: Path, *arguments: str) -> str | None:
    """What a git command says about the repository around `folder`; None if it fails or git is absent."""
    try:
        told = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.rstrip("\n")


def commit_of(folder: Path) -> str:
    """The commit that the work tree around `folder` started from, or `none`.

    Inside a DVC experiment that is its baseline, a commit that the main repository has too.
    """
    return os.environ.get("DVC_EXP_BASELINE_REV") or git(folder, "rev-parse", "--verify", "HEAD") or "none"


def branch_of(folder: Path, commit: str) -> str:
    """The branch checked out; where DVC has detached HEAD, the branches that stand at `commit`, or `none`."""
    original = main_repository(folder)
    branch = git(original, "symbolic-ref", "--short", "--quiet", "HEAD")
    if branch:
        return branch
    pointing = git(original, "for-each-ref", "--points-at", commit, "--format=%(refname:short)", "refs/heads")
    return ",".join((pointing or "").split()) or "none"


def changed_files(folder: Path) -> list[str] | None:
    """Paths that differ from the commit, untracked ones too (ignored ones not); None without git."""
    told = git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    return None if told is None else [line[3:] for line in told.split("\0") if line]
