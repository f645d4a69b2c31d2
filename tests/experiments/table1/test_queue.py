"""`makermark table1` as a user runs it: DVC's queue, a real MLflow store, a killed run, reports."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from makermark.experiments.table1.paper_table import read_paper_table, select_cells
from makermark.experiments.table1.runs import check_reproducible, plan_experiments
from makermark.foundation.errors import FilesError

pytest.importorskip("dvc", reason="the pipeline extra is not installed")
pytest.importorskip("mlflow", reason="the pipeline extra is not installed")

REPOSITORY = Path(__file__).parents[3]
WORK = """
import dataclasses, json, time
from pathlib import Path
from makermark.foundation import tracking
from makermark.foundation.params import read_params

params = read_params(Path("params.yaml"))
with tracking.open_run(params.experiment, start=Path.cwd()) as run:
    run.log_params(params.model_dump())
    run.set_tags(tracking.provenance_tags(Path.cwd()))
    while Path({hold!r}, str(params.dim)).exists():
        time.sleep(0.1)
    metrics = {{split: {{"eer_micro_percent": params.dim / 10}} for split in ("dev", "test")}}
    Path("score.json").write_text(json.dumps(metrics))
    run.log_metrics(tracking.flatten_metrics(metrics))
Path("metrics").mkdir(exist_ok=True)
Path("score.json").rename("metrics/score.json")
"""


def call(folder, *command, check=True):
    author = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    unset = ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    result = subprocess.run(
        command,
        cwd=folder,
        env={**environment, **author, "PATH": path, "DVC_NO_ANALYTICS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1800,
    )
    assert result.returncode == 0 or not check, result.stdout
    return result.stdout


def table1(folder, *options, check=True):
    command = [
        sys.executable,
        "-c",
        "from makermark.cli.main import main; main()",
        "table1",
        "--losses",
        "ge2e",
    ]
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
    params = (REPOSITORY / "params.yaml").read_text()
    (project / "params.yaml").write_text(
        re.sub("^backbone: [a-z0-9-]+", "backbone: resnet34", params, flags=re.M)
    )
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


def wait_for(condition, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def runs_of(project):
    from makermark.foundation.tracking import query_runs

    return query_runs(project) if (project / "mlflow.db").exists() else []


@pytest.mark.pipeline
def test_table1_continues_after_the_queue_was_killed(project, tmp_path):
    assert "no corpus yet" in table1(project, check=False)
    call(project, sys.executable, "-m", "dvc", "repro", "-q")  # dim 50 in the workspace
    commit(project)
    (tmp_path / "hold/512").touch()
    output = table1(project, "--dims", "50,512")
    assert "1 of 2 have run" in output
    assert "table1-resnet34-ge2e-balanced-512-s0-" in output
    assert "0 queued, 1 already" in table1(project, "--dims", "50,512")
    queue = subprocess.Popen(
        [sys.executable, "-m", "dvc", "exp", "run", "--run-all"],
        cwd=project,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: len(runs_of(project)) == 2)
    assert "0 queued, 1 already" in table1(project, "--dims", "50,512")  # it is running
    list_processes = ["ps", "-o", "pid=", "--sid", str(queue.pid)]
    for pid in subprocess.run(list_processes, capture_output=True, text=True, check=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    queue.wait()
    (tmp_path / "hold/512").unlink()
    assert "1 queued, 0 already" in table1(project, "--dims", "50,512")
    call(project, sys.executable, "-m", "dvc", "exp", "run", "--run-all")
    output = table1(project, "--dims", "50,512")
    assert "2 of 2 have run" in output
    assert "queued" not in output
    table = pd.read_csv(project / "reports/table1.csv")
    assert dict(zip(table["dim"], table["test_eer_percent"], strict=True)) == {50: 5.0, 512: 51.2}
    head = call(project, "git", "rev-parse", "HEAD").strip()
    assert head in set(table["commits"])
    changes = call(project, "git", "status", "--porcelain")
    assert changes == ""  # the reports are not tracked


def test_check_reproducible_raises_for_code_that_differs_from_the_commit(project):
    (project / "src/new.py").touch()
    cells = select_cells(read_paper_table(), losses=["ge2e"])
    planned = plan_experiments(project, cells, [0], as_in_paper=False)
    with pytest.raises(FilesError, match=r"src/new\.py: differs from the commit"):
        check_reproducible(project, planned)


def test_plan_experiments_names_depend_on_the_data(project):
    cells = select_cells(read_paper_table(), losses=["ge2e"])
    before = plan_experiments(project, cells, [0, 1], as_in_paper=True)
    (project / "dvc.lock").write_text(json.dumps({"stages": {"download": {"outs": [{"md5": "abc.dir"}]}}}))
    after = plan_experiments(project, cells, [0, 1], as_in_paper=True)
    names = [plan.experiment.name for plan in (*before, *after)]
    assert len(set(names)) == 16
    assert {plan.key.data for plan in after} == {"abc.dir"}
