"""Which experiments count as run: decided on runs, and on those of a real MLflow store."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from makermark import tracking
from makermark.params import from_mapping
from makermark.presets import preset
from makermark.table1.holding import as_recorded, code_in, deciding, held, held_by_dvc, work_of
from makermark.tracking import Recorded

BASE = yaml.safe_load(preset("local"))
PARAMS = from_mapping(BASE)
WORK = work_of(PARAMS, code="code", data="data")
FIGURES = {"dev.eer_micro_percent": 9.0, "test.eer_micro_percent": 10.0}
RUN = Recorded("1", "commit", True, "data", as_recorded(PARAMS), FIGURES)


def found(*runs, wanted=WORK):
    return held({"it": wanted}, runs, code_of=lambda commit: {"commit": "code"}.get(commit, "other"))


def with_params(**values):
    return dataclasses.replace(RUN, params={**RUN.params, **values})


def test_a_run_of_the_same_code_data_and_params_counts_and_the_first_of_several():
    later = dataclasses.replace(RUN, metrics={**FIGURES, "test.eer_micro_percent": 8.0})
    assert found(later, RUN)["it"].metrics["test.eer_micro_percent"] == 8.0


@pytest.mark.parametrize(
    "run",
    [
        dataclasses.replace(RUN, commit="another"),
        dataclasses.replace(RUN, clean=False),
        dataclasses.replace(RUN, data="other"),
        dataclasses.replace(RUN, metrics={"dev.eer_micro_percent": 9.0}),  # killed before it was scored
        with_params(seed="1"),
        with_params(**{"train.epochs": "31"}),
        with_params(**{"losses.ge2e.scale": "11.0"}),
        with_params(unheard="of"),
    ],
)
def test_a_run_that_differs_in_one_thing_does_not(run):
    assert found(run) == {}
    assert set(found(run, RUN)) == {"it"}


@pytest.mark.parametrize(
    "name",
    ["losses.npair.reg", "samplers.random.batch_utterances", "probe.epochs", "local.workers", "embed.device"],
)
def test_what_no_figure_depends_on_may_differ(name):
    assert name in RUN.params
    assert set(found(with_params(**{name: "other"}))) == {"it"}


# Said here once more, by hand: local.yaml trains resnet34 with ge2e and the balanced sampler.
IDLE_SECTIONS = ("probe.", "fuse.", "trace.", "explain.", "robustness.")  # no figure comes from these
OTHERS = {  # settings of what is not chosen
    "backbones": ["conformer", "ecapa", "aasist", "wav2vec2-aasist"],
    "losses": [
        *("softmax", "amsoftmax", "aamsoftmax", "angularproto", "npair", "triplet", "proto", "proxyanchor"),
        *("subcenter-aamsoftmax", "refd"),
    ],
    "samplers": ["random"],
}
SPEED = {
    "local.workers", "local.utterance_timeout_s", "external.workers", "mlaad.workers", "features.workers",
    "front_ends.wav2vec2.batch_seconds", "front_ends.wav2vec2.device", "train.device", "embed.device",
    "embed.batch_seconds",
}  # fmt: skip


def idle(name):
    section, *rest = name.split(".")
    return name.startswith(IDLE_SECTIONS) or name in SPEED or (rest and rest[0] in OTHERS.get(section, ()))


def test_every_param_decides_but_those_that_are_known_not_to():
    assert {name for name in RUN.params if name not in WORK.params} == {n for n in RUN.params if idle(n)}
    assert set(RUN.params) >= SPEED


@given(
    st.sampled_from(sorted(set(as_recorded(PARAMS)) - {"backbone", "loss", "sampler"})), st.text(max_size=5)
)
def test_the_digest_changes_exactly_where_a_deciding_param_does(name, value):
    same = idle(name) or value == RUN.params[name]
    changed = dataclasses.replace(WORK, params=deciding({**RUN.params, name: value}))
    assert (changed.digest == WORK.digest) is bool(same)


@pytest.mark.parametrize(("name", "value"), [("backbone", "ecapa"), ("loss", "proto"), ("sampler", "random")])
def test_another_choice_is_other_work(name, value):
    assert dataclasses.replace(WORK, params=deciding({**RUN.params, name: value})).digest != WORK.digest


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y.z", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    for name in ("src/code.py", "stages/train.py", "dvc.yaml", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first\n")
    (tmp_path / ".gitignore").write_text("mlflow.db\nmlartifacts\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def commit(repository: Path, name: str) -> str:
    (repository / name).write_text("second\n")
    git(repository, "commit", "--quiet", "-am", name)
    return git(repository, "rev-parse", "HEAD")


def test_a_commit_of_documents_is_the_same_code_and_one_of_a_stage_is_not(repository):
    code_of, first = code_in(repository), git(repository, "rev-parse", "HEAD")
    assert code_of(first) == code_of(commit(repository, "README.md"))
    assert code_of(first) != code_of(commit(repository, "stages/train.py"))
    assert code_of("none") == "none"


def test_runs_of_a_real_store_are_found_again(repository, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (repository / "dvc.lock").write_text("stages:\n  download:\n    outs: [{path: data, md5: abc.dir}]\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "data")
    works = {}
    for seed in (0, 1, 2):
        params = from_mapping({**BASE, "seed": seed})
        code = code_in(repository)("HEAD")
        works[f"s{seed}"] = work_of(params, code=code, data="abc.dir")
        with tracking.open_run(params.experiment, start=repository) as run:
            run.params(dataclasses.asdict(params))
            run.tags(tracking.provenance(repository))
            if seed == 1:
                continue  # killed before it was scored
            run.metrics(FIGURES | {"test.eer_micro_percent": 10.0 + seed})
            if seed == 2:  # a stage run again with other params: the run is not what its params say
                run.params({"score": {"seed": 7}})
    there = held(works, tracking.recorded_runs(repository), code_of=code_in(repository))
    assert set(there) == {"s0"}
    assert there["s0"].commit == git(repository, "rev-parse", "HEAD")
    rescored = {
        "s2": work_of(
            from_mapping({**BASE, "seed": 2, "score": {**BASE["score"], "seed": 7}}),
            code=code,
            data="abc.dir",
        )
    }
    runs = tracking.recorded_runs(repository)
    assert held(rescored, runs, code_of=code_in(repository))["s2"].metrics["test.eer_micro_percent"] == 12.0
    commit(repository, "README.md")
    assert set(held(works, runs, code_of=code_in(repository))) == {"s0"}


def test_more_runs_than_mlflow_gives_at_once_are_all_read(repository, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("makermark.tracking.recorded.PAGE", 2)
    for number in range(5):
        with tracking.open_run(f"r{number}", start=repository) as run:
            run.metrics({"number": number})
    assert sorted(run.metrics["number"] for run in tracking.recorded_runs(repository)) == [0, 1, 2, 3, 4]


def test_what_ran_while_the_store_was_away_is_found_where_dvc_keeps_it(repository):
    start = git(repository, "rev-parse", "HEAD")
    (repository / "metrics").mkdir()
    told = {
        "dev": {"eer_micro_percent": 9.0},
        "test": {"eer_micro_percent": 10.0, "eer_micro_ci95_percent": [8, 12]},
    }
    (repository / "metrics/score.json").write_text(json.dumps(told))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "result")
    git(repository, "update-ref", f"refs/exps/{start[:2]}/{start[2:]}/table1-x-s0-12345678", "HEAD")
    there = held_by_dvc(["table1-x-s0-12345678", "table1-x-s1-12345678"], repository)
    assert set(there) == {"table1-x-s0-12345678"}
    kept = there["table1-x-s0-12345678"]
    assert (kept.commit, kept.metrics["test.eer_micro_ci95_percent.high"]) == (start, 12.0)
