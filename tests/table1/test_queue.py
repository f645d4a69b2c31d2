"""`makermark table1` as a user runs it: DVC's queue, a real store, a run that is killed, reports."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from makermark.errors import FilesError
from makermark.table1.cells import narrowed, paper
from makermark.table1.queueing import refuse_unready, wanted_in

pytest.importorskip("dvc", reason="the pipeline extra is not installed")
pytest.importorskip("mlflow", reason="the pipeline extra is not installed")

REPOSITORY = Path(__file__).parents[2]
WORK = """
import dataclasses, json, time
from pathlib import Path
from makermark import tracking
from makermark.params import read_params

params = read_params(Path("params.yaml"))
with tracking.open_run(params.experiment, start=Path.cwd()) as run:
    run.params(dataclasses.asdict(params))
    run.tags(tracking.provenance(Path.cwd()))
    while Path({hold!r}, str(params.dim)).exists():
        time.sleep(0.1)
    told = {{split: {{"eer_micro_percent": params.dim / 10}} for split in ("dev", "test")}}
    Path("score.json").write_text(json.dumps(told))
    run.metrics(tracking.numbers(told))
Path("metrics").mkdir(exist_ok=True)
Path("score.json").rename("metrics/score.json")
"""


def call(folder, *command, check=True):
    author = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    unset = ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, **author, "PATH": path, "DVC_NO_ANALYTICS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout


def table1(folder, *options, check=True):
    command = [sys.executable, "-c", "from makermark.cli import main; main()", "table1", "--losses", "ge2e"]
    return call(folder, *command, *options, check=check)


@pytest.fixture
def project(tmp_path):
    """A repository whose one stage stands for training and scoring: it waits while hold/DIM exists."""
    project = tmp_path / "project"
    for name in ("src", "stages"):
        (project / name).mkdir(parents=True)
        (project / name / ".gitkeep").touch()
    (tmp_path / "hold").mkdir()
    (project / "stages/work.py").write_text(WORK.format(hold=str(tmp_path / "hold")))
    shutil.copy(REPOSITORY / "src/makermark/presets/local.yaml", project / "params.yaml")
    (project / ".gitignore").write_text("/data/\n/reports/\n/mlflow.db\n/mlartifacts/\n")
    stages = {
        "download": {"cmd": "mkdir -p data && echo corpus > data/corpus", "outs": ["data/corpus"]},
        "train": {
            "cmd": f"{sys.executable} stages/work.py",
            "deps": ["data/corpus", "stages/work.py"],
            "params": ["backbone", "loss", "sampler", "dim", "seed"],
            "metrics": [{"metrics/score.json": {"cache": False}}],
        },
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    call(project, "git", "init", "-q")
    call(project, sys.executable, "-m", "dvc", "init", "-q")
    commit(project)
    return project


def commit(project):
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "-q", "-m", "a commit")


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def runs_of(project):
    from makermark.tracking import recorded_runs

    return recorded_runs(project) if (project / "mlflow.db").exists() else []


@pytest.mark.pipeline
@pytest.mark.xdist_group("table1")
def test_a_killed_grid_goes_on_where_it_was(project, tmp_path):
    assert "no corpus yet" in table1(project, check=False)
    call(project, sys.executable, "-m", "dvc", "repro", "-q")  # dim 50 in the workspace
    commit(project)
    (tmp_path / "hold/512").touch()
    assert "1 of 2 have run" in (told := table1(project, "--dims", "50,512"))
    assert "table1-resnet34-ge2e-balanced-512-s0-" in told
    assert "0 queued, 1 already" in table1(project, "--dims", "50,512")
    running = subprocess.Popen(
        [sys.executable, "-m", "dvc", "exp", "run", "--run-all"],
        cwd=project,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: len(runs_of(project)) == 2)
    assert "0 queued, 1 already" in table1(project, "--dims", "50,512")  # it runs
    of_session = ["ps", "-o", "pid=", "--sid", str(running.pid)]
    for pid in subprocess.run(of_session, capture_output=True, text=True, check=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    running.wait()
    (tmp_path / "hold/512").unlink()
    assert "1 queued, 0 already" in table1(project, "--dims", "50,512")
    call(project, sys.executable, "-m", "dvc", "exp", "run", "--run-all")
    assert "2 of 2 have run" in (told := table1(project, "--dims", "50,512"))
    assert "queued" not in told
    table = pd.read_csv(project / "reports/table1.csv")
    assert dict(zip(table["dim"], table["test_eer_percent"], strict=True)) == {50: 5.0, 512: 51.2}
    head = call(project, "git", "rev-parse", "HEAD").strip()
    assert head in set(table["commits"])
    figures = call(project, "git", "status", "--porcelain")
    assert figures == ""  # the reports are not tracked


def test_code_that_differs_from_the_commit_is_not_queued(project):
    (project / "src/new.py").touch()
    wanted = wanted_in(project, narrowed(paper(), losses=["ge2e"]), [0], as_in_paper=False)
    with pytest.raises(FilesError, match=r"src/new\.py: differs from the commit"):
        refuse_unready(project, wanted)


def test_other_data_is_other_work(project):
    cells = narrowed(paper(), losses=["ge2e"])
    before = wanted_in(project, cells, [0, 1], as_in_paper=True)
    (project / "dvc.lock").write_text(json.dumps({"stages": {"download": {"outs": [{"md5": "abc.dir"}]}}}))
    after = wanted_in(project, cells, [0, 1], as_in_paper=True)
    names = [each.experiment.name for each in (*before, *after)]
    assert len(set(names)) == 16
    assert {each.work.data for each in after} == {"abc.dir"}
