"""The way back to the state after `make repro`, with a real DVC pipeline, on a clone with other data."""

import subprocess
import sys

import pytest
import yaml

from makermark.experiments.baseline import BASELINE, restore_baseline, save_baseline
from makermark.foundation.errors import FilesError

pytest.importorskip("dvc", reason="the pipeline extra is not installed")
pytestmark = pytest.mark.pipeline

STAGE = """
import json, os, pathlib, sys
seed = pathlib.Path("params.yaml").read_text().strip()
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path("models/best").write_text(f"{seed} on {sys.argv[1]}")
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics/score.json").write_text(json.dumps({"eer": seed}))
"""


def call(folder, *command):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def dvc(folder, *arguments):
    call(folder, sys.executable, "-m", "dvc", *arguments)


def repro(folder, machine):
    (folder / "machine").write_text(machine)
    dvc(folder, "repro", "-q")


@pytest.fixture
def clone(tmp_path):
    """A clone on machine B of a repository whose committed dvc.lock is of machine A; B has run the pipeline."""
    origin = tmp_path / "origin"
    origin.mkdir()
    call(origin, "git", "init", "-q")
    dvc(origin, "init", "-q")
    (origin / "stage.py").write_text(STAGE)
    (origin / "params.yaml").write_text("seed: 0\n")
    (origin / ".gitignore").write_text("/machine\n/models\n/.makermark/\n")
    command = f"{sys.executable} stage.py $(cat machine)"
    stage = {
        "cmd": command,
        "params": ["seed"],
        "outs": ["models"],
        "metrics": [{"metrics/score.json": {"cache": False}}],
    }
    (origin / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    repro(origin, "A")
    call(origin, "git", "add", "-A")
    call(
        origin, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "of machine A"
    )
    clone = tmp_path / "clone"
    call(tmp_path, "git", "clone", "-q", str(origin), str(clone))
    repro(clone, "B")
    return clone


def state(folder):
    names = ("params.yaml", "dvc.lock", "metrics/score.json", "models/best")
    return {name: (folder / name).read_text() for name in names}


def test_restore_returns_to_the_outputs_of_this_machine(clone):
    save_baseline(clone)
    before = state(clone)
    assert before["models/best"] == "seed: 0 on B"
    (clone / "params.yaml").write_text("seed: 1\n")
    repro(clone, "B")
    assert state(clone)["models/best"] == "seed: 1 on B"
    restore_baseline(clone)
    assert state(clone) == before


def test_restore_changes_nothing_if_an_output_is_not_in_the_cache(clone):
    save_baseline(clone)
    (clone / "params.yaml").write_text("seed: 1\n")
    repro(clone, "B")
    before = state(clone)
    call(clone, sys.executable, "-m", "dvc", "gc", "--workspace", "--force", "-q")
    with pytest.raises(FilesError, match=r"the baseline is not restored: .*; run make repro"):
        restore_baseline(clone)
    assert state(clone) == before


def test_restore_without_a_baseline_changes_nothing(clone):
    before = state(clone)
    with pytest.raises(FilesError, match="there is no baseline; run make repro"):
        restore_baseline(clone)
    assert state(clone) == before


def test_save_raises_before_the_pipeline_has_run(tmp_path):
    (tmp_path / "params.yaml").touch()
    with pytest.raises(FilesError, match=r"no dvc\.lock; run make repro"):
        save_baseline(tmp_path)
    assert not (tmp_path / BASELINE).exists()
