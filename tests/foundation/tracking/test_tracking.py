import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makermark.foundation import tracking
from makermark.foundation.errors import FilesError, TrackingError
from makermark.foundation.manifest import Manifest
from makermark.foundation.tracking import (
    MODEL_TAG,
    NoTracker,
    artifact_locations,
    flatten_metrics,
    flatten_settings,
)
from makermark.foundation.tracking.mlflow_store import MlflowStore

HISTORY = [
    {"epoch": 1, "loss": 2.5, "learning_rate": 0.001, "train_seconds": 1.5, "utterances_per_s": 90.0},
    {"epoch": 2, "loss": 1.25, "learning_rate": 0.0005, "train_seconds": 1.5, "dev_eer_percent": 12.5},
]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def git(folder: Path, *arguments: str) -> str:
    told = subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@y.z", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return told.stdout.strip()


def make_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    (folder / "code.py").write_text("print()\n")
    (folder / "params.yaml").write_text("loss: ge2e\n")
    (folder / ".gitignore").write_text("mlflow.db\nmlartifacts\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "a répo")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A repository shared by tests that each use an experiment of their own: making its database costs seconds."""
    pytest.importorskip("mlflow")
    return make_repository(tmp_path_factory.mktemp("tracking") / "a répo")


def runs_in(repository: Path, experiment: str):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking.tracking_uri(repository))
    found = client.get_experiment_by_name(experiment)
    return client, list(client.search_runs([found.experiment_id]))


def points(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


# Where runs go


def test_runs_go_to_a_database_in_the_repository_whatever_the_folder(repository):
    (repository / "deep" / "er").mkdir(parents=True)
    assert tracking.tracking_uri(repository / "deep" / "er") == f"sqlite:///{repository.resolve()}/mlflow.db"


def test_runs_of_an_experiments_copy_go_to_the_original(repository):
    copy = repository / ".dvc" / "tmp" / "exps" / "standalone" / "tmp12"
    (copy / ".dvc").mkdir(parents=True)
    assert tracking.find_main_repository(copy / "deep") == repository.resolve()


def test_a_copy_outside_the_repository_is_known_by_the_environment(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "calm-hill")
    monkeypatch.setenv("DVC_ROOT", str(repository))
    assert tracking.find_main_repository(tmp_path) == repository


def test_the_nearest_project_counts_in_a_repository_of_several(repository):
    (repository / "project" / ".dvc").mkdir(parents=True)
    (repository / "project" / "stages").mkdir()
    assert (
        tracking.find_main_repository(repository / "project" / "stages") == repository.resolve() / "project"
    )


def test_without_any_repository_runs_stay_in_the_folder(tmp_path):
    assert tracking.find_main_repository(tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "databricks", "sqlite:////elsewhere/x.db"])
def test_the_users_tracking_uri_is_respected(repository, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.tracking_uri(repository) == uri


def test_a_relative_database_is_that_of_the_main_repository(repository, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs/all.db")
    copy = repository / ".dvc" / "tmp" / "exps" / "tmp12"
    assert tracking.tracking_uri(copy) == f"sqlite:///{repository.resolve()}/runs/all.db"


# Nested values


def test_params_become_flat():
    nested = {
        "loss": "ge2e",
        "losses": {"ge2e": {"scale": 10.0}, "softmax": {}},
        "names": ["a", "b"],
        "x": None,
    }
    expected = {"loss": "ge2e", "losses.ge2e.scale": 10.0, "names": "['a', 'b']", "x": "None"}
    assert flatten_settings(nested) == expected


def test_metrics_become_flat_numbers():
    nested = {"dev": {"eer": 5, "ci": [4.5, 6.0], "auc": None}, "name": "x", "ok": True, "curve": [1, 2, 3]}
    assert flatten_metrics(nested) == {"dev.eer": 5.0, "dev.ci.low": 4.5, "dev.ci.high": 6.0}


LEAVES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=3))
NAMES = st.text(alphabet="abc", min_size=1, max_size=3)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a recursive strategy on a busy machine
@given(st.dictionaries(NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3))))
def test_every_setting_keeps_its_value_under_its_path(nested):
    flat = flatten_settings(nested)

    def leaves(branch, path=()):
        for name, value in branch.items():
            yield from leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]

    assert flat == {".".join(path): value for path, value in leaves(nested)}


# What a run is made from


def test_a_clean_repository_is_not_dirty(repository):
    tags = tracking.provenance_tags(repository, device="cuda")
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == git(repository, "rev-parse", "HEAD")
    assert (tags["git.branch"], tags["git.dirty"], tags["git.changed"]) == ("trunk", "false", "")
    assert tags["dvc.experiment"] == "none"
    assert tags["device"] == "cuda"
    assert all(isinstance(value, str) for value in tags.values())


@pytest.mark.parametrize("path", ["code.py", "new file.py", "src/né.py"])
def test_changed_or_untracked_code_is_dirty(repository, path):
    (repository / "src").mkdir()
    (repository / path).write_text("changed\n")
    tags = tracking.provenance_tags(repository)
    assert (tags["git.dirty"], tags["git.changed"], tags["git.rewritten"]) == ("true", path, "")


def test_files_that_the_run_itself_records_are_named_apart_and_not_dirty(repository):
    (repository / "params.yaml").write_text("loss: aamsoftmax\n")
    (repository / "dvc.lock").write_text("stages: {}\n")
    tags = tracking.provenance_tags(repository)
    assert (tags["git.dirty"], tags["git.changed"]) == ("false", "")
    assert tags["git.rewritten"] == "params.yaml\ndvc.lock"
    (repository / "code.py").write_text("changed\n")
    tags = tracking.provenance_tags(repository)
    assert (tags["git.dirty"], tags["git.changed"]) == ("true", "code.py")
    assert tags["git.rewritten"] == "params.yaml\ndvc.lock"


def test_a_detached_head_is_named_by_the_branch_that_stands_there(repository):
    git(repository, "checkout", "--quiet", "--detach")
    assert tracking.provenance_tags(repository)["git.branch"] == "trunk"


def test_without_git_the_tags_say_so(tmp_path):
    tags = tracking.provenance_tags(tmp_path)
    assert (tags["git.commit"], tags["git.branch"], tags["git.dirty"]) == ("none", "none", "unknown")


def test_without_a_commit_the_tags_say_so(tmp_path):
    git(tmp_path, "init", "--quiet", "--initial-branch", "trunk")
    tags = tracking.provenance_tags(tmp_path)
    assert (tags["git.commit"], tags["git.branch"], tags["git.dirty"]) == ("none", "trunk", "false")


def test_data_are_named_by_the_hashes_of_dvc_lock(repository):
    (repository / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  download:\n    outs: [{path: data, md5: abc.dir}]\n  train:\n    outs: []\n"
    )
    tags = tracking.provenance_tags(repository)
    assert (tags["data.download"], tags["data.features"]) == ("abc.dir", "none")


# Runs


def test_a_training_is_recorded_whole(store):
    with tracking.open_run("resnet34-ge2e-balanced-50-s0", start=store, experiment="whole") as run:
        run.log_params({"loss": "ge2e", "losses": {"ge2e": {"scale": 10.0}}})
        run.set_tags(tracking.provenance_tags(store))
        for epoch in HISTORY:
            tracking.log_epoch(run, epoch)
        run.log_artifact(store / "params.yaml")
        run.set_tags({MODEL_TAG: "abc"})
    client, [found] = runs_in(store, "whole")
    assert (found.info.run_name, found.info.status) == ("resnet34-ge2e-balanced-50-s0", "FINISHED")
    assert found.data.params == {"loss": "ge2e", "losses.ge2e.scale": "10.0"}
    assert points(client, found, "loss") == [(1, 2.5), (2, 1.25)]
    assert points(client, found, "dev_eer_percent") == [(2, 12.5)]
    assert found.data.tags["git.commit"] == git(store, "rev-parse", "HEAD")
    assert found.data.tags[MODEL_TAG] == "abc"
    artefact = store / "mlartifacts" / found.info.run_id / "artifacts" / "params.yaml"
    assert artefact.read_text() == "loss: ge2e\n"


def test_more_values_than_mlflow_takes_at_once(store):
    many = {f"setting{number}": number for number in range(250)}
    with tracking.open_run("many", start=store, experiment="many") as run:
        run.log_params(many)
        run.log_metrics(many)
    _, [found] = runs_in(store, "many")
    assert len(found.data.params) == len(found.data.metrics) == 250


def test_names_that_mlflow_refuses_are_mended(store):
    with tracking.open_run("names", start=store, experiment="names") as run:
        run.log_metrics({"eer of espeak+world (v1)": 1.0})
    _, [found] = runs_in(store, "names")
    assert found.data.metrics == {"eer of espeak_world _v1_": 1.0}


def test_a_killed_training_goes_on_in_its_run_and_repeats_no_point(store):
    first = tracking.open_run("killed", start=store, experiment="resumed")
    tracking.log_epoch(first, HISTORY[0])
    with tracking.open_run("killed", start=store, experiment="resumed", resume_run_id=first.run_id) as second:
        for epoch in HISTORY:
            tracking.log_epoch(second, epoch)
    client, [found] = runs_in(store, "resumed")
    assert points(client, found, "loss") == [(1, 2.5), (2, 1.25)]
    assert found.info.status == "FINISHED"


def test_a_run_that_is_not_in_the_store_any_more_starts_anew(store):
    with tracking.open_run("anew", start=store, experiment="anew", resume_run_id="0" * 32) as run:
        pass
    _, [found] = runs_in(store, "anew")
    assert found.info.run_id == run.run_id != "0" * 32


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_training_that_breaks_off_says_so(store, error, status):
    with pytest.raises(error), tracking.open_run("broken", start=store, experiment=status):
        raise error
    _, [found] = runs_in(store, status)
    assert found.info.status == status


def test_scoring_adds_to_the_latest_run_of_the_model(store):
    for name in ("older", "newer"):
        with tracking.open_run(name, start=store, experiment="score") as run:
            run.set_tags({MODEL_TAG: "abc"})
        time.sleep(0.01)
    with tracking.open_run("of another model", start=store, experiment="score") as run:
        run.set_tags({MODEL_TAG: "def"})
    for eer in (5.0, 4.0):  # scored, and scored again
        with tracking.open_model_run("abc", start=store, experiment="score") as run:
            run.log_metrics({"test.eer_micro_percent": eer})
    _, found = runs_in(store, "score")
    scored = {run.info.run_name: run.data.metrics for run in found}
    assert scored == {"older": {}, "newer": {"test.eer_micro_percent": 4.0}, "of another model": {}}


def test_a_param_that_changed_for_a_rerun_becomes_a_tag(store):
    with tracking.open_run("p", start=store, experiment="changed") as run:
        run.log_params({"score": {"seed": 0, "p_target": 0.05}})
        run.log_params({"score": {"seed": 1, "p_target": 0.05}})
    _, [found] = runs_in(store, "changed")
    assert found.data.params["score.seed"] == "0"
    assert {k: v for k, v in found.data.tags.items() if k.startswith("changed")} == {
        "changed.score.seed": "1"
    }


def test_a_model_without_a_run_is_told(store, caplog):
    caplog.set_level(logging.INFO)
    tracker = tracking.open_model_run("f" * 64, start=store, experiment="none")
    assert isinstance(tracker, NoTracker)
    assert "makermark log-run" in caplog.text


# MLflow away


def use_all(run) -> None:
    run.log_params({"a": 1})
    run.log_metrics({"b": 2.0}, step=1)
    run.set_tags({"c": "d"})
    run.log_artifact(Path(__file__))


def test_training_goes_on_where_mlflow_is_not_installed(repository, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for name in ("mlflow", "mlflow.tracking", "mlflow.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with tracking.open_run("x", start=repository) as run:
        use_all(run)
    assert run.run_id is None
    assert [record.message for record in caplog.records] == [
        "MLflow is not installed, so no run is recorded (pip install -e '.[pipeline]' in the clone of makermark)"
    ]
    with pytest.raises(TrackingError, match="not installed"):
        log_whole_run(repository, "x")


def test_training_goes_on_where_the_server_is_down_and_says_so_once(repository, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    started = time.monotonic()
    with tracking.open_run("x", start=repository) as run:
        use_all(run)
    assert time.monotonic() - started < 30
    assert [record.message for record in caplog.records if record.name.startswith("makermark")] == [
        "MLflow at http://127.0.0.1:9 cannot be reached; the run continues without it: record it later with "
        "`makermark log-run`"
    ]


def test_log_run_fails_where_the_server_is_down(repository, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="cannot be reached"):
        log_whole_run(repository, "x")


def test_a_store_that_fails_in_mid_training_costs_one_line_and_is_completed_later(repository, caplog):
    pytest.importorskip("mlflow")
    with tracking.open_run("x", start=repository) as run:
        run.log_params({"loss": "ge2e"})
        tracking.log_epoch(run, HISTORY[0])
        with sqlite3.connect(repository / "mlflow.db") as database:
            database.execute("ALTER TABLE runs RENAME TO away")
        tracking.log_epoch(run, HISTORY[1])
        use_all(run)
    assert len([record for record in caplog.records if "the run continues without it" in record.message]) == 1
    with sqlite3.connect(repository / "mlflow.db") as database:
        database.execute("ALTER TABLE away RENAME TO runs")
    assert log_whole_run(repository, "makermark") == run.run_id
    client, [found] = runs_in(repository, "makermark")
    assert points(client, found, "loss") == [(1, 2.5), (2, 1.25)]
    assert found.info.status == "FINISHED"


# A whole run from its files


def log_whole_run(repository: Path, experiment: str) -> str:
    return tracking.log_run(
        "x",
        model_sha256="abc",
        params={"loss": "ge2e"},
        history=HISTORY,
        emphasis=[{"epoch": 1, "loss": 7.5}],
        metrics={"test": {"eer_micro_percent": 5.0, "eer_micro_ci95_percent": [4.0, 6.0]}},
        tags={"git.commit": "1234"},
        artifacts=[(repository / "params.yaml", ""), (repository / "params.yaml", "config")],
        start=repository,
        experiment=experiment,
    )


def test_a_run_recorded_twice_from_its_files_stands_there_once(store):
    assert log_whole_run(store, "twice") == log_whole_run(store, "twice")
    client, [found] = runs_in(store, "twice")
    assert found.data.params == {"loss": "ge2e"}
    assert found.data.metrics["test.eer_micro_ci95_percent.low"] == 4.0
    assert points(client, found, "loss") == [(1, 2.5), (2, 1.25)]
    assert points(client, found, "emphasis.loss") == [(1, 7.5)]
    assert points(client, found, "test.eer_micro_percent") == [(0, 5.0)]
    assert (found.data.tags[MODEL_TAG], found.info.status) == ("abc", "FINISHED")
    assert len(list((store / "mlartifacts" / found.info.run_id).rglob("params.yaml"))) == 2


def test_a_run_of_the_same_name_with_other_losses_is_another(store):
    with tracking.open_run("x", start=store, experiment="others") as run:
        tracking.log_epoch(run, {**HISTORY[0], "loss": 2.25})
    assert log_whole_run(store, "others") != run.run_id
    assert len(runs_in(store, "others")[1]) == 2


@pytest.mark.parametrize(
    ("losses", "is_continued"),
    [([2.5], True), ([2.5, 1.25], True), ([2.5, 1.5], False), ([2.5, 1.25, 1.0], False)],
)
def test_an_interrupted_run_is_completed_if_all_its_losses_are_those_of_the_history(
    store, losses, is_continued
):
    """Runs of one name that start alike, such as two settings of a later epoch, are different runs."""
    experiment = f"interrupted {losses}"
    with tracking.open_run("x", start=store, experiment=experiment) as run:
        for number, loss in enumerate(losses, start=1):
            tracking.log_epoch(run, {"epoch": number, "loss": loss})
    assert (log_whole_run(store, experiment) == run.run_id) == is_continued
    client, found = runs_in(store, experiment)
    assert len(found) == 2 - is_continued
    recorded = [points(client, one, "loss") for one in found if one.data.tags.get(MODEL_TAG) == "abc"]
    assert recorded == [[(1, 2.5), (2, 1.25)]]


def test_a_run_with_a_model_of_its_own_is_not_completed(store):
    with tracking.open_run("x", start=store, experiment="own model") as run:
        tracking.log_epoch(run, HISTORY[0])
        run.set_tags({MODEL_TAG: "def"})
    assert log_whole_run(store, "own model") != run.run_id


# Several workers


TRAINING = """
    import json, os, sys
    from pathlib import Path
    from makermark.foundation import tracking

    name = sys.argv[1] if len(sys.argv) > 1 else Path("params.yaml").read_text().split()[1]
    with tracking.open_run(name, start=Path.cwd()) as run:
        run.set_tags(tracking.provenance_tags(Path.cwd()))
        for epoch in range(20):
            run.log_metrics({"loss": 1 / (epoch + 1)}, step=epoch)
        run.log_artifact(Path("params.yaml"))
    Path("out.json").write_text("{}")
"""


def test_three_workers_at_once_on_a_fresh_store_lose_nothing(repository):
    pytest.importorskip("mlflow")
    (repository / "train.py").write_text(textwrap.dedent(TRAINING))
    workers = [
        subprocess.Popen([sys.executable, "train.py", f"run{number}"], cwd=repository, stderr=subprocess.PIPE)
        for number in range(3)
    ]
    assert [(worker.communicate()[1], worker.returncode) for worker in workers] == [(b"", 0)] * 3
    client, found = runs_in(repository, "makermark")
    assert sorted(run.info.run_name for run in found) == ["run0", "run1", "run2"]
    assert [len(points(client, run, "loss")) for run in found] == [20] * 3


def dvc(folder: Path, *arguments: str) -> str:
    scripts = str(Path(sys.executable).parent)  # a queue's workers are started as `dvc`, from PATH
    told = subprocess.run(
        [str(Path(sys.executable).with_name("dvc")), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PATH": scripts + os.pathsep + os.environ["PATH"]},
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_experiments_in_copies_land_in_the_store_of_the_repository(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("dvc")
    repository = make_repository(tmp_path / "with space")  # DVC itself cannot copy a path with é
    (repository / "train.py").write_text(textwrap.dedent(TRAINING))
    stage = {
        "cmd": f"{sys.executable} train.py",
        "params": ["loss"],
        "deps": ["train.py"],
        "outs": ["out.json"],
    }
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"train": stage}}))
    dvc(repository, "init", "--quiet")
    git(repository, "config", "user.name", "x")
    git(repository, "config", "user.email", "x@y.z")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "second")
    dvc(repository, "exp", "run", "--temp", "--set-param", "loss=temp")
    for number in range(2):
        dvc(
            repository, "exp", "run", "--queue", "--name", f"q{number}", "--set-param", f"loss=queued{number}"
        )
    dvc(repository, "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 900
    while (status := dvc(repository, "queue", "status")).count("Success") < 2 and time.monotonic() < deadline:
        time.sleep(1)
    dvc(repository, "queue", "stop")
    assert status.count("Success") == 2, status
    client, found = runs_in(repository, "makermark")
    assert sorted(run.info.run_name for run in found) == ["queued0", "queued1", "temp"]
    for run in found:
        assert len(points(client, run, "loss")) == 20
        assert run.data.tags["git.commit"] == git(repository, "rev-parse", "HEAD")
        assert (run.data.tags["git.branch"], run.data.tags["git.dirty"]) == ("trunk", "false")
        kept = repository / "mlartifacts" / run.info.run_id / "artifacts" / "params.yaml"
        assert kept.read_text() == f"loss: {run.info.run_name}\n"
    assert {run.data.tags["dvc.experiment"] for run in found} >= {"q0", "q1"}


@pytest.mark.parametrize("name", ["feature%2Fx", "what? a#b 100% größe"])
def test_store_and_artifacts_are_in_the_repository_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    repository = tmp_path / "in" / name
    (repository / ".git").mkdir(parents=True)
    monkeypatch.chdir(repository)
    store = MlflowStore(repository, experiment="x")
    run = store.create("n")
    (tmp_path / "f.txt").write_text("content")
    store.client.log_artifact(run.info.run_id, str(tmp_path / "f.txt"))
    assert sorted(file.name for file in repository.iterdir()) == [".git", "mlartifacts", "mlflow.db"]
    assert [file.name for file in (tmp_path / "in").iterdir()] == [name]
    assert Path(store.client.download_artifacts(run.info.run_id, "f.txt")).read_text() == "content"


# A project that was copied or moved


def record_run_with_artifact(project: Path) -> str:
    """Make a repository with one run that has params.yaml as artifact; return the run's id."""
    make_repository(project)
    with tracking.open_run("x", start=project) as run:
        run.log_artifact(project / "params.yaml")
    return run.run_id


def locations(project: Path) -> set[str]:
    """Return all places of artifacts in the database; MLflow's experiment 0 belongs to the folder of the process."""
    with sqlite3.connect(project / "mlflow.db") as database:
        rows = database.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id > 0"
        ).fetchall()
        rows += database.execute("SELECT artifact_uri FROM runs").fetchall()
    return {location for (location,) in rows}


@pytest.mark.parametrize("is_moved", [True, False])
@pytest.mark.parametrize("name", ["copy", "what? 100% größe"])
def test_a_copied_project_reads_and_writes_its_own_artifacts(name, is_moved, tmp_path):
    pytest.importorskip("mlflow")
    origin, copy = tmp_path / "origin", tmp_path / name
    run_id = record_run_with_artifact(origin)
    shutil.copytree(origin, copy)
    (copy / "mlartifacts" / run_id / "artifacts/params.yaml").write_text("loss: of the copy\n")
    if is_moved:
        shutil.rmtree(origin)
    before = None if is_moved else sorted(path.name for path in origin.rglob("*"))
    artifact = tracking.download_artifact(f"runs:/{run_id}/params.yaml", tmp_path / "to", start=copy)
    assert artifact.read_text() == "loss: of the copy\n"
    with tracking.open_run("y", start=copy) as run:
        run.log_artifact(copy / "code.py")
    assert (copy / "mlartifacts" / run.run_id / "artifacts/code.py").exists()
    assert all(quote(name) in location or name in location for location in locations(copy))
    if is_moved:
        assert not origin.exists()
    else:
        assert sorted(path.name for path in origin.rglob("*")) == before
        assert locations(origin) == {
            str(origin / "mlartifacts"),
            str(origin / f"mlartifacts/{run_id}/artifacts"),
        }


def test_a_copy_without_artifacts_reads_those_of_the_origin_and_writes_its_own(tmp_path):
    pytest.importorskip("mlflow")
    origin, copy = tmp_path / "origin", tmp_path / "copy"
    run_id = record_run_with_artifact(origin)
    shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("mlartifacts"))
    artifact = tracking.download_artifact(f"runs:/{run_id}/params.yaml", tmp_path / "to", start=copy)
    assert artifact.read_text() == "loss: ge2e\n"
    with tracking.open_run("y", start=copy) as run:
        run.log_artifact(copy / "code.py")
    assert (copy / "mlartifacts" / run.run_id / "artifacts/code.py").exists()
    shutil.copytree(origin / "mlartifacts", copy / "mlartifacts", dirs_exist_ok=True)  # copied later
    tracking.correct_locations(copy)
    assert not [location for location in locations(copy) if str(origin) in location]


def test_a_full_disk_is_not_blamed_on_the_model(tmp_path):
    pytest.importorskip("mlflow")
    project, folder = tmp_path / "project", tmp_path / "temporary/model"
    make_repository(project)
    folder.mkdir(parents=True)
    (project / "best.safetensors").write_bytes(bytes(10 << 20))
    with tracking.open_run("x", start=project) as run:
        run.log_artifact(project / "best.safetensors")
    uri = f"runs:/{run.run_id}/best.safetensors"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))  # as a disk with 8 MiB left
    try:
        with pytest.raises(FilesError, match=r"temporary: .*: the model cannot be copied there; .* TMPDIR"):
            tracking.download_artifact(uri, folder, start=project)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tracking.download_artifact(uri, folder, start=project).stat().st_size == 10 << 20
    with pytest.raises(TrackingError, match="absent"):
        tracking.download_artifact(uri.replace("best.safetensors", "absent"), folder, start=project)


def test_a_store_outside_the_repository_is_left_alone(tmp_path, monkeypatch):
    """A database that several projects share names the artifacts of each."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    record_run_with_artifact(tmp_path / "one")
    other = make_repository(tmp_path / "other")
    with sqlite3.connect(tmp_path / "shared.db") as database:
        before = database.execute("SELECT artifact_location FROM experiments").fetchall()
    tracking.correct_locations(other)
    with tracking.open_run("x", start=other):
        pass
    with sqlite3.connect(tmp_path / "shared.db") as database:
        assert database.execute("SELECT artifact_location FROM experiments").fetchall() == before


def test_a_moved_store_that_cannot_be_written_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    record_run_with_artifact(tmp_path / "origin")
    (tmp_path / "origin").rename(tmp_path / "moved")
    monkeypatch.setattr(artifact_locations, "_connect", lambda database, mode: connect_read_only(database))
    with pytest.raises(
        TrackingError, match=r"mlflow\.db: the project was copied or moved.*readonly.*writable"
    ):
        tracking.correct_locations(tmp_path / "moved")


def connect_read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)


# The utterances of a run


def test_the_datasets_of_a_run_are_its_splits_with_digests_of_their_rows(store):
    rows = pd.DataFrame(
        {
            "utterance_id": ["a", "b", "c"],
            "split": ["train", "train", "dev"],
            "system": ["x", "y", "x"],
            "language": ["en", "en", "de"],
        }
    )
    manifest = Manifest("tones", store / "data" / "corpus", rows)
    for _ in range(2):  # training, and log-run
        with tracking.open_run("x", start=store, experiment="datasets") as run:
            for _ in range(2):  # a resumed training
                run.log_datasets(tracking.dataset_records(manifest, store))
    _, found = runs_in(store, "datasets")
    recorded = [{i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs} for run in found]
    assert [sorted(datasets) for datasets in recorded] == [["training", "validation"]] * 2
    train, dev = recorded[0]["training"], recorded[0]["validation"]
    assert (train.name, json.loads(train.source)) == ("tones", {"uri": "data/corpus"})
    assert json.loads(train.profile) == {"utterances": 2, "systems": 2, "languages": 1}
    assert train.digest != dev.digest
    assert train.digest == recorded[1]["training"].digest
    other = Manifest("tones", manifest.root, rows.assign(system=["x", "x", "x"]))
    digests = [record.digest for record in tracking.dataset_records(other, store)]
    assert (digests[0] != train.digest, digests[1] == dev.digest) == (True, True)


def test_a_damaged_store_is_left_to_mlflow(tmp_path):
    pytest.importorskip("mlflow")
    repository = make_repository(tmp_path / "project")
    (repository / "mlflow.db").write_bytes(b"no database" * 100)
    tracking.correct_locations(repository)
    with pytest.raises(TrackingError, match="not a database"):
        tracking.query_runs(repository)
