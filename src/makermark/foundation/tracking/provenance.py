"""The repository of a stage (main folder, tracking store, commit) and the provenance of a run as tags.

`dvc exp run --temp` and `--queue` run the stages in a copy, `.dvc/tmp/exps/...`, that is deleted afterwards. The copy
is a repository of its own. The main repository follows from the path of the copy, or from DVC_ROOT, which DVC sets.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import yaml

from makermark.foundation.errors import TrackingError

# Every experiment rewrites these files, and its run stores them: they do not make the code differ from the commit.
EXPERIMENT_FILES = ("params.yaml", "dvc.lock", "metrics/")
MAX_CHANGES_NAMED = 20
COPIES = "/.dvc/tmp/exps/"
SQLITE = "sqlite:///"
DEFAULT_STORE = f"{SQLITE}mlflow.db"


def provenance_tags(
    repository: Path,
    *,
    device: str = "cpu",
    data_stages: tuple[str, ...] = ("download", "features"),
) -> dict[str, str]:
    """Return the tags of a run that starts in `repository`.

    - `git.commit`, `git.branch`: `none` without git; in a DVC experiment, its baseline.
    - `git.dirty`: `true` if anything but EXPERIMENT_FILES differs from the commit, untracked files included; `unknown`
      without git. `git.changed` names what makes it dirty, and `git.rewritten` which of EXPERIMENT_FILES differ.
    - `dvc.experiment`: the name of the DVC experiment, `none` outside `dvc exp run`.
    - `data.STAGE`: the hashes in dvc.lock of the outputs of each of `data_stages`; `none` without it.
    - `version.*`, `machine.*`, `device`.
    """
    commit = commit_of(repository)
    branch = branch_of(repository, commit)
    return {
        "git.commit": commit,
        "git.branch": branch,
        "mlflow.source.git.commit": commit,  # MLflow's UI shows these two
        "mlflow.source.git.branch": branch,
        **changes(repository),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", "none"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", "none"),
        **{f"data.{stage}": stage_outputs_hash(repository / "dvc.lock", stage) for stage in data_stages},
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in ("makermark", "torch", "numpy")},
        "machine.cpu": processor(),
        "machine.cores": str(os.cpu_count()),
        "machine.platform": platform.platform(),
        "device": device,
    }


def changes(repository: Path) -> dict[str, str]:
    """Return the tags `git.dirty`, `git.changed` and `git.rewritten`."""
    paths = changed_files(repository)
    if paths is None:
        return {"git.dirty": "unknown", "git.changed": "", "git.rewritten": ""}
    rewritten = [path for path in paths if path.startswith(EXPERIMENT_FILES)]
    changed = [path for path in paths if path not in rewritten]
    more = len(changed) - MAX_CHANGES_NAMED
    names = changed[:MAX_CHANGES_NAMED] + [f"and {more} more"] * (more > 0)
    return {
        "git.dirty": str(bool(changed)).lower(),
        "git.changed": "\n".join(names),
        "git.rewritten": "\n".join(rewritten),
    }


def stage_outputs_hash(lock: Path, stage: str) -> str:
    """Return the hashes in dvc.lock of the outputs of `stage`, or `none`."""
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        outputs = stages[stage]["outs"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return "none"
    return ",".join(str(output.get("md5", "none")) for output in outputs)


def version(name: str) -> str:
    """Return the installed version of a distribution, or `none`."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def processor() -> str:
    """Return the model name of the processor if the system provides it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_main_repository(start: Path) -> Path:
    """Return the root of the repository around `start`; for the copy of a DVC experiment, that of the original.

    Returns `start` itself outside of git and DVC repositories.
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
    """Return the URI of the tracking store: MLFLOW_TRACKING_URI, by default mlflow.db in the main repository.

    A relative SQLite path is relative to the main repository, also for a stage that runs in a copy.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    name, question_mark, query = uri.removeprefix(SQLITE).partition("?")
    if not uri.startswith(SQLITE) or Path(name).is_absolute():
        return uri
    return sqlite_uri(find_main_repository(start) / name) + (question_mark + query if name else "")


def existing_store(start: Path) -> str:
    """Return `tracking_uri`. Raises TrackingError for a SQLite file that does not exist, which MLflow would create."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    name = uri.removeprefix(SQLITE).partition("?")[0]
    file = find_main_repository(start) / name
    if uri.startswith(SQLITE) and name and not name.startswith("file:") and not file.exists():
        raise TrackingError(
            f"{file}: there is no MLflow store; run makermark in a clone of its repository after make repro or "
            "makermark log-run, or set MLFLOW_TRACKING_URI"
        )
    return tracking_uri(start)


def own_database(start: Path) -> Path | None:
    """Return the SQLite file of the tracking store if it lies in the main repository; otherwise None."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    name = uri.removeprefix(SQLITE).partition("?")[0]
    repository = find_main_repository(start)
    file = (repository / name).resolve()
    return file if uri.startswith(SQLITE) and file.is_file() and file.is_relative_to(repository) else None


def sqlite_uri(file: Path) -> str:
    """Return the URI of a SQLite file. In its path `?` would begin a query and `%` a character code."""
    path = file.as_posix()
    if not has_uri_characters(path):
        return SQLITE + path
    try:
        from sqlalchemy import URL  # which MLflow requires; its versions differ in what they decode
    except ImportError:
        return SQLITE + path
    # sqlite+pysqlite: MLflow would create the folder of `sqlite:///` from the encoded path
    url = URL.create("sqlite+pysqlite", database=f"file:{quote(path)}", query={"uri": "true"})
    return url.render_as_string(hide_password=False)


def has_uri_characters(path: str) -> bool:
    """Return whether a path has characters with a meaning in a URI."""
    return any(character in path for character in "%?#")


def git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command in `folder`; None if it fails or git is not installed."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.rstrip("\n")


def commit_of(folder: Path) -> str:
    """Return the commit of the work tree around `folder`, or `none`.

    In a DVC experiment this is its baseline, a commit that the main repository has too.
    """
    return os.environ.get("DVC_EXP_BASELINE_REV") or git(folder, "rev-parse", "--verify", "HEAD") or "none"


def branch_of(folder: Path, commit: str) -> str:
    """Return the current branch; with a detached HEAD the branches that point to `commit`, or `none`."""
    original = find_main_repository(folder)
    branch = git(original, "symbolic-ref", "--short", "--quiet", "HEAD")
    if branch:
        return branch
    pointing = git(original, "for-each-ref", "--points-at", commit, "--format=%(refname:short)", "refs/heads")
    return ",".join((pointing or "").split()) or "none"


def changed_files(folder: Path) -> list[str] | None:
    """Return the paths that differ from the commit, with untracked but without ignored files; None without git."""
    status = git(folder, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    return None if status is None else [line[3:] for line in status.split("\0") if line]
