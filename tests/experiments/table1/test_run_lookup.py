"""The lookup of finished experiments, among given runs and in a real MLflow store."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from makermark.experiments.presets import preset
from makermark.experiments.table1.runs import (
    code_lookup,
    experiment_key,
    flatten_params,
    match_runs,
    read_dvc_results,
    relevant_params,
)
from makermark.foundation import tracking
from makermark.foundation.params import parse_params
from makermark.foundation.tracking import RunRecord
from makermark.training.active_params import active_params

BASE = yaml.safe_load(preset("local"))
PARAMS = parse_params(BASE)
KEY = experiment_key(PARAMS, code="code", data="data")
METRICS = {"dev.eer_micro_percent": 9.0, "test.eer_micro_percent": 10.0}
RUN = RunRecord("1", "commit", True, "data", flatten_params(active_params(PARAMS)), METRICS)
OLD_RUN = dataclasses.replace(
    RUN, params=flatten_params(PARAMS.model_dump())
)  # version 0.1 recorded all params


def match(*runs):
    return match_runs({"it": KEY}, runs, code_of=lambda commit: {"commit": "code"}.get(commit, "other"))


def with_params(**values):
    return dataclasses.replace(RUN, params={**RUN.params, **values})


def test_match_runs_returns_the_first_run_of_the_same_code_data_and_params():
    later = dataclasses.replace(RUN, metrics={**METRICS, "test.eer_micro_percent": 8.0})
    assert match(later, RUN)["it"].metrics["test.eer_micro_percent"] == 8.0


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
        with_params(loss="softmax"),
        dataclasses.replace(RUN, params={k: v for k, v in RUN.params.items() if k != "train.epochs"}),
    ],
)
def test_match_runs_ignores_a_run_that_differs_in_one_thing(run):
    assert match(run) == {}
    assert set(match(run, RUN)) == {"it"}


@pytest.mark.parametrize(
    "name",
    ["losses.npair.reg", "samplers.random.batch_utterances", "probe.epochs", "local.workers", "embed.device"],
)
def test_match_runs_ignores_params_without_influence_on_the_metrics(name):
    assert name in OLD_RUN.params
    assert set(match(dataclasses.replace(OLD_RUN, params=OLD_RUN.params | {name: "other"}))) == {"it"}


def test_match_runs_finds_a_run_that_recorded_all_params():
    assert set(match(OLD_RUN)) == {"it"}
    assert match(dataclasses.replace(OLD_RUN, params=OLD_RUN.params | {"losses.ge2e.scale": "11.0"})) == {}


# A second list, made by hand. params.yaml: spectral-statistics, ge2e, balanced batches, the built-in corpus.
UNUSED_SECTIONS = (
    *("probe.", "fuse.", "trace.", "explain.", "robustness.", "foreign."),  # without influence on the EERs
    *("external.", "manifest.", "split.", "mlaad."),  # of other corpora
    *("ssl.", "bonafide.", "front_ends.waveform.", "front_ends.wav2vec2.", "front_ends.linear-fbank."),
)
UNSELECTED = {  # entries of other choices
    "backbones": ["resnet34", "conformer", "ecapa", "aasist", "wav2vec2-aasist"],
    "losses": [
        *("softmax", "amsoftmax", "aamsoftmax", "angularproto", "npair", "triplet", "proto", "proxyanchor"),
        *("subcenter-aamsoftmax", "refd"),
    ],
    "samplers": ["random"],
}
SPEED = {
    "local.workers", "local.utterance_timeout_s", "features.workers", "train.device", "embed.device",
    "embed.batch_seconds",
}  # fmt: skip


def is_irrelevant(name):
    section, *rest = name.split(".")
    return (
        name.startswith(UNUSED_SECTIONS) or name in SPEED or (rest and rest[0] in UNSELECTED.get(section, ()))
    )


def test_key_leaves_out_only_params_without_influence():
    assert set(OLD_RUN.params) - set(KEY.params) == {n for n in OLD_RUN.params if is_irrelevant(n)}
    assert set(OLD_RUN.params) >= SPEED


@given(st.sampled_from(sorted(RUN.params)), st.text(max_size=5))
def test_digest_changes_if_and_only_if_a_relevant_param_changes(name, value):
    same = is_irrelevant(name) or value == RUN.params[name]
    changed = dataclasses.replace(KEY, params=relevant_params({**RUN.params, name: value}))
    assert (changed.digest == KEY.digest) is bool(same)


@pytest.mark.parametrize(
    "change", [{"backbone": "ecapa"}, {"loss": "proto"}, {"sampler": "random"}, {"corpus": "stopa"}]
)
def test_digest_changes_with_another_choice(change):
    assert experiment_key(PARAMS.replace(**change), code="code", data="data").digest != KEY.digest


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


def test_code_lookup_ignores_documents_and_not_stages(repository):
    code_of, first = code_lookup(repository), git(repository, "rev-parse", "HEAD")
    assert code_of(first) == code_of(commit(repository, "README.md"))
    assert code_of(first) != code_of(commit(repository, "stages/train.py"))
    assert code_of("none") == "none"


def test_match_runs_finds_the_runs_of_a_real_store(repository, monkeypatch):
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (repository / "dvc.lock").write_text("stages:\n  download:\n    outs: [{path: data, md5: abc.dir}]\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "data")
    keys = {}
    for seed in (0, 1, 2):
        params = parse_params({**BASE, "seed": seed})
        code = code_lookup(repository)("HEAD")
        keys[f"s{seed}"] = experiment_key(params, code=code, data="abc.dir")
        with tracking.open_run(params.experiment, start=repository) as run:
            run.log_params(params.model_dump())
            run.set_tags(tracking.provenance_tags(repository))
            if seed == 1:
                continue  # killed before it was scored
            run.log_metrics(METRICS | {"test.eer_micro_percent": 10.0 + seed})
            if seed == 2:  # a stage run again with other params: the run is not what its params say
                run.log_params({"score": {"seed": 7}})
    results = match_runs(keys, tracking.query_runs(repository), code_of=code_lookup(repository))
    assert set(results) == {"s0"}
    assert results["s0"].commit == git(repository, "rev-parse", "HEAD")
    rescored = {
        "s2": experiment_key(
            parse_params({**BASE, "seed": 2, "score": {**BASE["score"], "seed": 7}}),
            code=code,
            data="abc.dir",
        )
    }
    runs = tracking.query_runs(repository)
    result = match_runs(rescored, runs, code_of=code_lookup(repository))["s2"]
    assert result.metrics["test.eer_micro_percent"] == 12.0
    commit(repository, "README.md")
    assert set(match_runs(keys, runs, code_of=code_lookup(repository))) == {"s0"}


def test_recorded_runs_reads_all_pages_of_mlflow(repository, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("makermark.foundation.tracking.mlflow_store.PAGE_RUNS", 2)
    for number in range(5):
        with tracking.open_run(f"r{number}", start=repository) as run:
            run.log_metrics({"number": number})
    assert sorted(run.metrics["number"] for run in tracking.query_runs(repository)) == [0, 1, 2, 3, 4]


def test_read_dvc_results_finds_experiments_that_ran_without_a_store(repository):
    start = git(repository, "rev-parse", "HEAD")
    (repository / "metrics").mkdir()
    score = {
        "dev": {"eer_micro_percent": 9.0},
        "test": {"eer_micro_percent": 10.0, "eer_micro_ci95_percent": [8, 12]},
    }
    (repository / "metrics/score.json").write_text(json.dumps(score))
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "result")
    experiment = f"refs/exps/{start[:2]}/{start[2:]}/table1-x-s0-12345678"  # where DVC stores it
    git(repository, "update-ref", experiment, "HEAD")
    results = read_dvc_results(["table1-x-s0-12345678", "table1-x-s1-12345678"], repository)
    assert set(results) == {"table1-x-s0-12345678"}
    result = results["table1-x-s0-12345678"]
    assert (result.commit, result.metrics["test.eer_micro_ci95_percent.high"]) == (start, 12.0)
