"""The tracer in a real MLflow registry on SQLite: loaded by every kind of URI, used in process and over HTTP."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from makermark.cli.main import app
from makermark.foundation import tracking
from makermark.foundation.embeddings import read_embeddings
from makermark.foundation.errors import TracerError, TrackingError
from makermark.foundation.files import read_json, write_json
from makermark.foundation.tracking.mlflow_store import open_store
from makermark.scoring.evaluation import evaluate_embeddings
from makermark.serving.registered_model.package import register_tracer
from makermark.serving.registered_model.predict import predict_clips
from makermark.tracing import Tracer
from makermark.tracing.enrolment_evaluation import evaluate_enrolment
from makermark.tracing.evaluation import evaluate_tracer
from tracer_support import make_world

pytest.importorskip("mlflow", reason="the pipeline extra is not installed")


@pytest.fixture(autouse=True)
def without_settings_of_the_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project as after `dvc repro`, with its run in MLflow."""
    folder = tmp_path_factory.mktemp("registering") / "a project"
    folder.mkdir()
    world = make_world(folder)
    built = world.built
    metrics = evaluate_embeddings(
        read_embeddings(folder / "model.arrow"), bootstrap_samples=0, seed=0, p_target=0.05
    ).metrics
    write_json(folder / "metrics/score.json", metrics | {"baselines": {}})
    write_json(
        folder / "metrics/trace.json",
        {
            "model_sha256": built.tracer.model_sha256,
            "test": evaluate_tracer(built.tracer, built.test, bootstrap_samples=5, seed=0),
            "enrolment": evaluate_enrolment(
                built.tracer, built.test, clips=3, draws=1, bootstrap_samples=5, seed=0
            ),
        },
    )
    tracking.log_run(
        "vowels",
        model_sha256=built.tracer.model_sha256,
        params={},
        history=[],
        metrics={},
        tags={},
        artifacts=[
            (
                folder / "models" / name,
                "checkpoint" if (folder / "models" / name).is_file() else "checkpoint/tracer",
            )
            for name in ("best.json", "best.safetensors", "tracer")
        ],
        start=folder,
    )
    register_tracer(folder / "models", folder / "metrics", name="makermark", alias="champion", start=folder)
    return world


def client(world):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking.tracking_uri(world.folder))


def run_id(world):
    store = client(world)
    (run,) = store.search_runs([store.get_experiment_by_name("makermark").experiment_id])
    return run.info.run_id


def encode(path):
    return base64.b64encode(Path(path).read_bytes()).decode()


@pytest.mark.parametrize(
    "uri",
    [
        "models:/makermark@champion",
        "models:/makermark/1",
        "runs:/{run}/checkpoint",
        "runs:/{run}/registered/1",
    ],
)
def test_tracer_loaded_by_uri_equals_the_tracer_of_the_folder(world, uri, monkeypatch):
    monkeypatch.chdir(world.folder)
    clip = world.of("slow")[0]
    assert Tracer.load(uri.format(run=run_id(world)), device="cpu").trace(clip) == world.built.tracer.trace(
        clip
    )


@pytest.mark.parametrize(
    "uri", ["models:/makermark@champion", "models:/makermark/1", "runs:/{run}/checkpoint"]
)
def test_tracer_is_loaded_in_a_copy_of_the_project_whose_origin_is_gone(world, uri, tmp_path, monkeypatch):
    uri, clip = uri.format(run=run_id(world)), world.of("slow")[0]
    expected = world.built.tracer.trace(clip)
    copy, away = tmp_path / "copy", world.folder.with_name("away")
    shutil.copytree(world.folder, copy)
    monkeypatch.chdir(copy)
    world.folder.rename(away)
    try:
        tracer = Tracer.load(uri, device="cpu")
    finally:
        away.rename(world.folder)
    assert tracer.trace(clip) == expected


def test_register_command_adds_a_version_that_trace_loads_by_alias(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    first = CliRunner().invoke(app, ["register", "--alias", "next", "--name", "vowels"])
    assert "vowels version 1" in first.stdout
    second = CliRunner().invoke(app, ["register", "--alias", "next", "--name", "vowels"])
    assert "vowels version 2" in second.stdout
    assert int(client(world).get_model_version_by_alias("vowels", "next").version) == 2
    clip = str(world.of("slow")[0])
    traced = CliRunner().invoke(app, ["trace", "--model", "models:/vowels@next", clip, "--json"])
    assert json.loads(traced.stdout)["model_sha256"] == world.built.tracer.model_sha256


def test_load_reports_a_missing_model_in_one_line(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    for uri in ("models:/makermark@nobody", "models:/makermark/99", "runs:/0123/checkpoint"):
        with pytest.raises(TrackingError, match=f"{uri}: MLflow ") as raised:
            Tracer.load(uri)
        assert "\n" not in str(raised.value)


def test_registered_model_has_no_pickle_and_a_complete_card(world):
    version = client(world).get_model_version("makermark", "1")
    folder = Path(
        tracking.download_artifact("models:/makermark/1", world.folder / "copy", start=world.folder)
    )
    assert not list(folder.rglob("*.pkl"))
    card = (folder / "README.md").read_text()
    assert version.description == card
    assert client(world).get_registered_model("makermark").description == card
    for text in (
        "## Training data",
        "| slow | vowel | train |",
        "| seen | seen |",
        "## Limits",
        "## Licence",
        "0.5s",
    ):
        assert text in card
    assert "torch==" in (folder / "requirements.txt").read_text()
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert example["dataframe_split"]["columns"] == ["name", "audio"]


def test_register_tracer_rejects_metrics_of_another_model(world, tmp_path):
    shutil.copytree(world.folder / "metrics", tmp_path / "metrics")
    write_json(
        tmp_path / "metrics/trace.json", read_json(tmp_path / "metrics/trace.json") | {"model_sha256": "f"}
    )
    with pytest.raises(TracerError, match="metrics of another model"):
        register_tracer(world.folder / "models", tmp_path / "metrics", name="m", alias="", start=world.folder)


def test_register_tracer_needs_the_run_of_the_model(world, tmp_path):
    def register():
        register_tracer(world.folder / "models", world.folder / "metrics", name="m", alias="", start=tmp_path)

    with pytest.raises(TrackingError, match=r"there is no MLflow store; .* makermark log-run"):
        register()
    assert list(tmp_path.iterdir()) == []
    open_store(tmp_path, experiment="makermark")
    with pytest.raises(TrackingError, match=r"has no run of model .* `makermark log-run`"):
        register()


@pytest.mark.parametrize(
    ("name", "alias"), [("a/b", "x"), ("m", "latest"), ("m", "v3"), ("m", "a b"), ("", "x")]
)
def test_register_rejects_an_invalid_name_or_alias(tmp_path, name, alias):
    with pytest.raises(TrackingError, match="is not a valid "):
        tracking.register_model(
            tmp_path, name=name, alias=alias, description="", model_sha256="", start=tmp_path
        )


def test_predictions_are_in_the_order_of_the_clips_with_unreadable_ones(world):
    clip = world.of("slow")[0]
    clips = pd.DataFrame({"audio": [encode(clip), "!", base64.b64encode(b"RIFF").decode(), None]})
    rows = predict_clips(world.built.tracer, clips).to_dict("records")
    assert rows[0]["conclusion"] == rows[0]["verdict"] == world.built.tracer.trace(clip).conclusion
    assert [row["verdict"] for row in rows[1:]] == ["could not be heard"] * 3
    assert [row["posterior"] for row in rows[1:]] == [None] * 3
    assert "not Base64" in rows[1]["reason"]
    assert "/tmp" not in rows[2]["reason"]
    assert rows[3]["reason"] == "the row has neither audio nor samples"


def test_predictions_from_samples_equal_those_from_the_file(world):
    clip = world.of("slow")[0]
    samples, rate_hz = soundfile.read(clip)
    by_samples = predict_clips(
        world.built.tracer, pd.DataFrame({"samples": [samples.tolist()], "rate_hz": [rate_hz]})
    )
    by_file = predict_clips(world.built.tracer, pd.DataFrame({"audio": [encode(clip)]}))
    assert by_samples.to_dict("records") == by_file.to_dict("records")
    without = predict_clips(world.built.tracer, pd.DataFrame({"samples": [samples.tolist()]})).iloc[0]
    assert "rate_hz is missing" in without["reason"]


def test_prediction_uses_the_prior_of_the_tracer(world):
    tracer = world.built.tracer.with_settings(false_accept_rate=0.9)  # so that a system is named
    low_prior = tracer.with_settings(prior_known=0.9)
    clip = next(clip for clip in world.of("slow") if low_prior.trace(clip).name)
    clips = pd.DataFrame({"audio": [encode(clip)]})
    low, high = (predict_clips(tracer.with_settings(prior_known=p), clips).iloc[0] for p in (0.9, 0.99))
    assert (low["prior_known"], high["prior_known"]) == (0.9, 0.99)
    assert low["posterior_unknown"] > high["posterior_unknown"]


def test_mlflow_serves_the_registered_model(world, tmp_path):
    """The server runs without makermark's source on its path: the model contains it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/makermark@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": tracking.tracking_uri(world.folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        clip = world.of("slow")[0]
        body = {
            "dataframe_records": [{"name": "a.flac", "audio": encode(clip)}, {"name": "b", "audio": "AAAA"}]
        }
        readable, unreadable = predict_over_http(port, body | {"params": {"prior_known": 0.2}})
        expected = world.built.tracer.with_settings(prior_known=0.2).trace(clip)
        assert (readable["clip"], readable["verdict"], readable["maker"]) == (
            "a.flac",
            expected.conclusion,
            expected.name,
        )
        if expected.posterior_unknown is None:  # nothing is named
            assert readable["posterior_unknown"] is None
        else:
            assert readable["posterior_unknown"] == pytest.approx(expected.posterior_unknown, rel=1e-3)
        assert readable["prior_known"] == 0.2
        assert (unreadable["verdict"], unreadable["posterior"]) == ("could not be heard", None)
        samples, rate_hz = soundfile.read(clip)
        (by_samples,) = predict_over_http(
            port, {"dataframe_records": [{"samples": samples.tolist(), "rate_hz": rate_hz}]}
        )
        assert by_samples["candidates"][0]["system"] == expected.candidates[0].system
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=600)


def wait_until_ready(url, server, log):
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


def predict_over_http(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.loads(response.read(), parse_constant=pytest.fail)["predictions"]
