"""The baseline of a clone: the state after `make repro`, to which the workspace returns after other experiments.

`dvc.lock` names outputs by their hash. On another machine the same code gives other hashes, and `dvc checkout` with the
committed `dvc.lock` removes outputs that are not in this clone's cache. So every clone keeps its own baseline.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from makermark.experiments.dvc_experiments import run_dvc
from makermark.foundation.errors import FilesError
from makermark.foundation.files import atomic_folder, atomic_write, describe_os_error

BASELINE = Path(".makermark/baseline")
FILES = ("params.yaml", "dvc.lock")
METRICS = "metrics"  # a folder


def save_baseline(project: Path) -> Path:
    """Copy params.yaml, dvc.lock and metrics of a project; return the folder of the copy.

    Raises FilesError if the pipeline has not run, or if the files cannot be copied.
    """
    missing = [name for name in (*FILES, METRICS) if not (project / name).exists()]
    if missing:
        raise FilesError(f"{project}: no {missing[0]}; run make repro in the root of a clone")
    target = project / BASELINE
    try:
        with atomic_folder(target) as draft:
            for name in FILES:
                shutil.copyfile(project / name, draft / name)
            shutil.copytree(project / METRICS, draft / METRICS)
    except OSError as error:
        raise FilesError(describe_os_error(error, target)) from error
    return target


def restore_baseline(project: Path) -> None:
    """Restore params.yaml, dvc.lock and metrics from the baseline, and the outputs in dvc.lock from DVC's cache.

    Raises FilesError, before anything is changed, if there is no baseline or an output is not in the cache.
    """
    source = project / BASELINE
    if not source.is_dir():
        raise FilesError(f"{source}: there is no baseline; run make repro, which saves it")
    names = [*FILES, *(path.relative_to(source).as_posix() for path in (source / METRICS).rglob("*.json"))]
    previous = {name: _read(project / name) for name in names}
    try:
        for name in names:
            _write(project / name, _read(source / name))
        run_dvc(["checkout", "--force"], project)
    except FilesError as error:
        for name, content in previous.items():
            _write(project / name, content)
        run_dvc(["checkout", "--force", "--allow-missing"], project)
        raise FilesError(f"the baseline is not restored: {error}; run make repro") from error


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as draft:
            draft.write_bytes(content)
