"""A grid: what its file says, and what git and DVC keep of experiments under their names."""

import json
import subprocess

import pytest

from makermark import grid, kept
from makermark.errors import FilesError, ParamsError

GRID = """
seeds: [0, 1]
common: {train.epochs: 3}
arms:
  ge2e: {loss: ge2e}
  narrow: {loss: softmax, dim: 10, seeds: [5]}
"""


@pytest.fixture
def repository(tmp_path):
    """A git repository with one commit that DVC would keep as the experiment `small-ge2e-s0`."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/score.json").write_text(json.dumps({"test": {"eer_micro_percent": 7.5}}))
    (tmp_path / "params.yaml").write_text("loss: ge2e\nseed: 0\ntrain: {epochs: 3}\n")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "result"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    reference = f"refs/exps/ab/{'c' * 38}/small-ge2e-s0"
    for name in (reference, "refs/exps/celery/stash", "refs/exps/exec/EXEC_HEAD"):
        subprocess.run(["git", "update-ref", name, "HEAD"], cwd=tmp_path, check=True)
    return tmp_path


def test_every_arm_runs_once_per_seed_under_a_name_that_reads_well(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(GRID)
    found = grid.read_grid(path)
    assert [e.name for e in found] == ["small-ge2e-s0", "small-ge2e-s1", "small-narrow-s5"]
    assert found[2].overrides == {"train.epochs": 3, "loss": "softmax", "dim": 10, "seed": 5}


@pytest.mark.parametrize("content", ["[1, 2]", "seeds: [0]\narms: {}", GRID + "\nepochs: 3"])
def test_a_grid_with_other_keys_is_refused(tmp_path, content):
    path = tmp_path / "small.yaml"
    path.write_text(content)
    with pytest.raises(ParamsError, match="a grid has exactly the keys"):
        grid.read_grid(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (GRID.replace("seeds: [0, 1]", "seeds: 0"), "seeds of arm ge2e are 0; they are a list"),
        (GRID.replace("{train.epochs: 3}", "3"), "common is 3; it takes keys and values"),
        (GRID.replace("{loss: ge2e}", "ge2e"), "arms.ge2e is 'ge2e'; it takes keys and values"),
    ],
)
def test_a_grid_with_values_of_another_kind_is_refused(tmp_path, wrong, message):
    path = tmp_path / "small.yaml"
    path.write_text(wrong)
    with pytest.raises(ParamsError, match=message):
        grid.read_grid(path)


def test_what_has_run_or_waits_is_not_queued_again(repository, monkeypatch):
    asked = []

    def dvc(arguments, folder):
        asked.append(arguments)
        return "Task     Name           Created    Status\nff03e84  small-ge2e-s3  12:51 PM   Running\n"

    monkeypatch.setattr(kept, "dvc", dvc)
    message = f"dvc-exp:{'a' * 40}:{'b' * 40}:small-ge2e-s1"
    command = [
        "git",
        "update-ref",
        "--create-reflog",
        "-m",
        f"commit: {message}",
        "refs/exps/celery/stash",
        "HEAD",
    ]
    subprocess.run(["git", "update-ref", "-d", "refs/exps/celery/stash"], cwd=repository, check=True)
    subprocess.run(command, cwd=repository, check=True)
    experiments = [
        grid.Experiment(
            f"small-ge2e-s{seed}", "ge2e", seed, {"loss": "ge2e", "train.epochs": 3, "seed": seed}
        )
        for seed in (0, 1, 2, 3)
    ]
    assert grid.queue(experiments, repository) == ["small-ge2e-s2"]
    assert [command[4] for command in asked if command[0] == "exp"] == ["small-ge2e-s2"]


@pytest.mark.parametrize("overrides", [{"loss": "softmax"}, {"train.epochs": 4}, {"train.epochs.more": 1}])
def test_an_experiment_that_had_other_params_is_not_taken_for_the_grids(repository, overrides):
    other = grid.Experiment("small-ge2e-s0", "ge2e", 0, overrides)
    with pytest.raises(ParamsError, match="dvc exp remove small-ge2e-s0"):
        grid.queue([other], repository)
    with pytest.raises(ParamsError, match="was run with"):
        grid.collect([other], repository)


def test_an_experiments_baseline_is_the_commit_its_reference_names(repository):
    assert kept.baseline(kept.experiments(repository)["small-ge2e-s0"]) == "ab" + "c" * 38


def test_experiments_are_found_by_name_and_dvcs_own_references_are_not_experiments(repository):
    there = kept.experiments(repository)
    assert list(there) == ["small-ge2e-s0"]
    told = kept.read_kept(there["small-ge2e-s0"], "metrics/score.json", repository)
    assert told["test"]["eer_micro_percent"] == 7.5


def test_a_changed_params_yaml_is_not_passed_on_to_a_whole_grid(repository):
    (repository / "params.yaml").write_text("loss: ge2e")
    with pytest.raises(ParamsError, match="that every experiment of the grid would inherit"):
        grid.queue([], repository)


def test_what_an_experiment_did_not_leave_is_told_in_one_line(repository):
    reference = kept.experiments(repository)["small-ge2e-s0"]
    with pytest.raises(FilesError, match=r"git show .*metrics/none.json.*does not exist"):
        kept.read_kept(reference, "metrics/none.json", repository)
