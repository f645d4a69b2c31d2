"""Grids: their files, and the experiments that DVC has finished, queued or running."""

import json
import os
import subprocess
import sys

import pytest

from makermark.experiments import dvc_experiments, grid
from makermark.foundation.errors import FilesError, ParamsError

GRID = """
seeds: [0, 1]
common: {train.epochs: 3}
arms:
  ge2e: {loss: ge2e}
  narrow: {loss: softmax, dim: 10, seeds: [5]}
"""
STATUS = """Task     Name           Created       Status
af03e84  small-ge2e-s1  12:50 PM      Queued
bf03e84  small-ge2e-s3  12:51 PM      Running
cf03e84  small-ge2e-s4  Nov 02, 2026  Failed

Worker status: 1 active, 0 idle
"""


def git(folder, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A git repository whose second commit stands for the experiment `small-ge2e-s0`, started from the first."""
    (tmp_path / "params.yaml").write_text("loss: ge2e\nseed: 0\ntrain: {epochs: 3}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/score.json").write_text(json.dumps({"test": {"eer_micro_percent": 7.5}}))
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "result")
    store_experiment(tmp_path, "small-ge2e-s0", baseline="HEAD~1", commit="HEAD")
    return tmp_path


def store_experiment(repository, name, *, baseline, commit):
    """Store a finished experiment as DVC does."""
    started = git(repository, "rev-parse", baseline)
    git(repository, "update-ref", f"refs/exps/{started[:2]}/{started[2:]}/{name}", commit)


@pytest.fixture
def commands(repository, monkeypatch):
    """The commands given to DVC, which has a queue as in STATUS."""
    given = []
    executor = {"state": "running", "local": {"pid": os.getpid()}}
    shown = [{"experiments": [{"name": "small-ge2e-s3", "executor": executor}]}, {"experiments": None}]
    outputs = {"status": STATUS, "show": json.dumps(shown)}

    def run_dvc(arguments, folder):
        given.append(arguments)
        return outputs.get(arguments[1], "")

    monkeypatch.setattr(dvc_experiments, "run_dvc", run_dvc)
    monkeypatch.setattr(dvc_experiments, "baseline", lambda revision, folder: "base")
    return given


def test_read_grid_returns_one_experiment_per_arm_and_seed(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(GRID)
    experiments = grid.read_grid(path)
    assert [e.name for e in experiments] == ["small-ge2e-s0", "small-ge2e-s1", "small-narrow-s5"]
    assert experiments[2].overrides == {"train.epochs": 3, "loss": "softmax", "dim": 10, "seed": 5}


@pytest.mark.parametrize("content", ["[1, 2]", "seeds: [0]\narms: {}", GRID + "\nepochs: 3"])
def test_read_grid_raises_for_other_keys(tmp_path, content):
    path = tmp_path / "small.yaml"
    path.write_text(content)
    with pytest.raises(ParamsError, match="a grid has exactly the keys"):
        grid.read_grid(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GRID.replace("seeds: [0, 1]", "seeds: 0"), "seeds of arm ge2e are 0; they must be a list"),
        (GRID.replace("{train.epochs: 3}", "3"), "common is 3; it takes keys and values"),
        (GRID.replace("{loss: ge2e}", "ge2e"), "arms.ge2e is 'ge2e'; it takes keys and values"),
    ],
)
def test_read_grid_raises_for_values_of_another_type(tmp_path, content, message):
    path = tmp_path / "small.yaml"
    path.write_text(content)
    with pytest.raises(ParamsError, match=message):
        grid.read_grid(path)


def test_queue_experiments_skips_finished_queued_and_running_ones(repository, commands):
    experiments = [
        grid.Experiment(
            f"small-ge2e-s{seed}", "ge2e", seed, {"loss": "ge2e", "train.epochs": 3, "seed": seed}
        )
        for seed in (0, 1, 2, 3, 4)
    ]
    assert grid.queue_experiments(experiments, repository) == ["small-ge2e-s2", "small-ge2e-s4"]
    queued = [command[4] for command in commands if command[:2] == ["exp", "run"]]
    assert queued == ["small-ge2e-s2", "small-ge2e-s4"]


def test_names_in_queue_kills_a_running_task_without_a_process(repository, commands, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    monkeypatch.setattr(dvc_experiments, "_process_number", lambda task, folder: process.pid)
    assert dvc_experiments.names_in_queue(repository) == {"small-ge2e-s1"}
    assert ["queue", "kill", "--force", "bf03e84"] in commands


def test_names_in_queue_keeps_a_running_task_whose_process_is_unknown(repository, commands, monkeypatch):
    monkeypatch.setattr(dvc_experiments, "_process_number", lambda task, folder: None)
    assert dvc_experiments.names_in_queue(repository) == {"small-ge2e-s1", "small-ge2e-s3"}


@pytest.mark.parametrize("overrides", [{"loss": "softmax"}, {"train.epochs": 4}, {"train.epochs.more": 1}])
def test_grid_raises_for_an_experiment_that_had_other_params(repository, commands, overrides):
    other = grid.Experiment("small-ge2e-s0", "ge2e", 0, overrides)
    with pytest.raises(ParamsError, match="dvc exp remove small-ge2e-s0"):
        grid.queue_experiments([other], repository)
    with pytest.raises(ParamsError, match="was run with"):
        grid.collect_outcomes([other], repository)


def test_baseline_is_the_commit_that_an_experiment_was_started_from(repository):
    assert dvc_experiments.baseline("HEAD", repository) == git(repository, "rev-parse", "HEAD~1")


def test_list_experiments_returns_the_newest_commit_of_each_name(repository):
    first, second = (git(repository, "rev-parse", revision) for revision in ("HEAD~1", "HEAD"))
    (repository / "new").touch()
    git(repository, "add", "-A")
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2099-01-01T00:00:00"}
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *author, "commit", "-qm", "new"], cwd=repository, env=environment, check=True)
    third = git(repository, "rev-parse", "HEAD")
    store_experiment(repository, "a", baseline=first, commit=third)
    store_experiment(repository, "a", baseline=second, commit=second)
    for queue in ("celery/stash", "exec/EXEC_HEAD"):
        git(repository, "update-ref", f"refs/exps/{queue}", first)
    assert dvc_experiments.list_experiments(repository) == {"a": third, "small-ge2e-s0": second}


@pytest.mark.pipeline
def test_list_experiments_agrees_with_dvc_exp_list(repository):
    pytest.importorskip("dvc", reason="the pipeline extra is not installed")
    dvc_experiments.run_dvc(["init", "-q"], repository)
    listing = dvc_experiments.run_dvc(["exp", "list", "--all-commits", "--name-only"], repository)
    assert list(dvc_experiments.list_experiments(repository)) == listing.split()


def test_read_json_reads_a_file_of_an_experiment(repository, commands):
    commit = dvc_experiments.list_experiments(repository)["small-ge2e-s0"]
    score = dvc_experiments.read_json(commit, "metrics/score.json", repository)
    assert score["test"]["eer_micro_percent"] == 7.5


def test_queue_experiments_raises_for_a_changed_params_yaml(repository, commands):
    (repository / "params.yaml").write_text("loss: ge2e")
    with pytest.raises(ParamsError, match="that every experiment of the grid would inherit"):
        grid.queue_experiments([], repository)


def test_read_json_names_a_missing_file_in_one_line(repository):
    with pytest.raises(FilesError, match=r"git show .*metrics/none.json.*does not exist"):
        dvc_experiments.read_json("HEAD", "metrics/none.json", repository)
