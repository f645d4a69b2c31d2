"""What a run was made from: commit, data, software and machine, as tags."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import yaml

from makermark.tracking.repository import branch_of, changed_files, commit_of

# Rewritten by every experiment, and kept whole in its run: no sign of code that differs from the commit.
RECORDED = ("params.yaml", "dvc.lock", "metrics/")
MOST_CHANGES_NAMED = 20


def provenance(
    repository: Path,
    *,
    device: str = "cpu",
    data_stages: tuple[str, ...] = ("download", "features"),
) -> dict[str, str]:
    """The tags of a run that starts in `repository`.

    - `git.commit`, `git.branch`: `none` without git; in a DVC experiment, its baseline.
    - `git.dirty`: `true` if anything but RECORDED differs from the commit, untracked files included;
      `git.changed` names what differs. `unknown` without git.
    - `dvc.experiment`: the name that DVC gave, `none` outside `dvc exp run`.
    - `data.STAGE`: the hashes of what each of `data_stages` wrote, by dvc.lock; `none` if it is not there.
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
        **{f"data.{stage}": outputs_hash(repository / "dvc.lock", stage) for stage in data_stages},
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in ("makermark", "torch", "numpy")},
        "machine.cpu": processor(),
        "machine.cores": str(os.cpu_count()),
        "machine.platform": platform.platform(),
        "device": device,
    }


def changes(repository: Path) -> dict[str, str]:
    """The tags `git.dirty` and `git.changed`."""
    changed = changed_files(repository)
    if changed is None:
        return {"git.dirty": "unknown", "git.changed": ""}
    dirty = any(not path.startswith(RECORDED) for path in changed)
    more = len(changed) - MOST_CHANGES_NAMED
    named = changed[:MOST_CHANGES_NAMED] + [f"and {more} more"] * (more > 0)
    return {"git.dirty": str(dirty).lower(), "git.changed": "\n".join(named)}


def outputs_hash(lock: Path, stage: str) -> str:
    """The hashes that dvc.lock holds for the outputs of `stage`, or `none`."""
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
        outputs = stages[stage]["outs"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return "none"
    return ",".join(str(output.get("md5", "none")) for output in outputs)


def version(name: str) -> str:
    """The installed version of a distribution, or `none`."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
