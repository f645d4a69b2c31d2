"""The tracer in a real MLflow registry on SQLite: loaded by every kind of URI, asked in place and over HTTP."""

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

from makermark import tracking
from makermark.cli import app
from makermark.errors import TracerError, TrackingError
from makermark.files import read_json, write_json
from makermark.judging import judge
from makermark.registering import register_tracer
from makermark.registering.asking import answer
from makermark.tracing import Tracer
from makermark.tracing.measuring import measure, measure_enrolment
from makermark.vectors import read_embeddings
from tracer_support import make_world

pytest.importorskip("mlflow", reason="the pipeline extra is not installed")
pytestmark = pytest.mark.xdist_group("registering")


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DVC_EXP_NAME", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project as the pipeline leaves it, its run in MLflow."""
    folder = tmp_path_factory.mktemp("registering") / "a project"
    folder.mkdir()
    world = make_world(folder)
    made = world.made
    figures = judge(
        read_embeddings(folder / "model.arrow"), bootstrap_samples=0, seed=0, p_target=0.05
    ).figures
    write_json(folder / "metrics/score.json", figures | {"baselines": {}})
    write_json(
        folder / "metrics/trace.json",
        {
            "model_sha256": made.tracer.model_sha256,
            "test": measure(made.tracer, made.test, bootstrap_samples=5, seed=0),
            "enrolment": measure_enrolment(
                made.tracer, made.test, clips=3, draws=1, bootstrap_samples=5, seed=0
            ),
        },
    )
    tracking.log_run(
        "tones",
        model_sha256=made.tracer.model_sha256,
        params={},
        history=[],
        metrics={},
        tags={},
        artefacts=[
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


def run_of(world):
    store = client(world)
    (run,) = store.search_runs([store.get_experiment_by_name("makermark").experiment_id])
    return run.info.run_id


def encoded(path):
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
def test_the_tracer_of_a_uri_says_what_that_of_the_folder_says(world, uri, monkeypatch):
    monkeypatch.chdir(world.folder)
    clip = world.of("slow")[0]
    assert Tracer.load(uri.format(run=run_of(world)), device="cpu").trace(clip) == world.made.tracer.trace(
        clip
    )


def test_the_command_line_registers_a_further_version_and_traces_by_its_alias(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    told = CliRunner().invoke(app, ["register", "--alias", "next", "--name", "tones"])
    assert "tones version 1" in told.stdout
    again = CliRunner().invoke(app, ["register", "--alias", "next", "--name", "tones"])
    assert "tones version 2" in again.stdout
    assert int(client(world).get_model_version_by_alias("tones", "next").version) == 2
    clip = str(world.of("slow")[0])
    traced = CliRunner().invoke(app, ["trace", "--model", "models:/tones@next", clip, "--json"])
    assert json.loads(traced.stdout)["model_sha256"] == world.made.tracer.model_sha256


def test_what_the_registry_does_not_have_is_told_in_one_line(world, monkeypatch):
    monkeypatch.chdir(world.folder)
    for uri in ("models:/makermark@nobody", "models:/makermark/99", "runs:/0123/checkpoint"):
        with pytest.raises(TrackingError, match=f"{uri}: MLflow ") as told:
            Tracer.load(uri)
        assert "\n" not in str(told.value)


def test_the_registered_model_holds_no_pickle_and_its_card_says_what_it_is(world):
    version = client(world).get_model_version("makermark", "1")
    folder = Path(tracking.download("models:/makermark/1", world.folder / "copy", start=world.folder))
    assert not list(folder.rglob("*.pkl"))
    card = (folder / "README.md").read_text()
    assert version.description == card
    assert client(world).get_registered_model("makermark").description == card
    for said in (
        "## Training data",
        "| slow | tone | train |",
        "| seen | seen |",
        "## Limits",
        "## Licence",
        "0.5s",
    ):
        assert said in card
    assert "torch==" in (folder / "requirements.txt").read_text()
    told = json.loads((folder / "serving_input_example.json").read_text())
    assert told["dataframe_split"]["columns"] == ["name", "audio"]


def test_figures_of_another_model_are_no_card_of_this(world, tmp_path):
    shutil.copytree(world.folder / "metrics", tmp_path / "metrics")
    write_json(
        tmp_path / "metrics/trace.json", read_json(tmp_path / "metrics/trace.json") | {"model_sha256": "f"}
    )
    with pytest.raises(TracerError, match="figures of another model"):
        register_tracer(world.folder / "models", tmp_path / "metrics", name="m", alias="", start=world.folder)


def test_a_model_without_a_run_is_told_how_to_get_one(world, tmp_path):
    with pytest.raises(TrackingError, match="makermark log-run"):
        register_tracer(world.folder / "models", world.folder / "metrics", name="m", alias="", start=tmp_path)


@pytest.mark.parametrize(
    ("name", "alias"), [("a/b", "x"), ("m", "latest"), ("m", "v3"), ("m", "a b"), ("", "x")]
)
def test_what_is_no_name_or_alias_is_refused(tmp_path, name, alias):
    with pytest.raises(TrackingError, match="is no "):
        tracking.register(tmp_path, name=name, alias=alias, description="", model_sha256="", start=tmp_path)


def test_answers_stand_in_the_order_of_the_clips_and_bad_ones_among_them(world):
    clip = world.of("slow")[0]
    asked = pd.DataFrame({"audio": [encoded(clip), "!", base64.b64encode(b"RIFF").decode(), None]})
    told = answer(world.made.tracer, asked).to_dict("records")
    assert told[0]["verdict"] == world.made.tracer.trace(clip).verdict
    assert [row["verdict"] for row in told[1:]] == ["could not be heard"] * 3
    assert [row["posterior"] for row in told[1:]] == [None] * 3
    assert "not Base64" in told[1]["reason"]
    assert "/tmp" not in told[2]["reason"]
    assert told[3]["reason"] == "neither audio nor samples are given"


def test_samples_are_answered_as_their_file_is(world):
    clip = world.of("slow")[0]
    samples, rate_hz = soundfile.read(clip)
    by_samples = answer(
        world.made.tracer, pd.DataFrame({"samples": [samples.tolist()], "rate_hz": [rate_hz]})
    )
    by_file = answer(world.made.tracer, pd.DataFrame({"audio": [encoded(clip)]}))
    assert by_samples.to_dict("records") == by_file.to_dict("records")
    without = answer(world.made.tracer, pd.DataFrame({"samples": [samples.tolist()]})).iloc[0]
    assert "rate_hz is missing" in without["reason"]


def test_the_prior_is_what_was_asked(world):
    asked = pd.DataFrame({"audio": [encoded(world.of("slow")[0])]})
    low, high = (answer(world.made.tracer.with_settings(prior_known=p), asked).iloc[0] for p in (0.01, 0.99))
    assert (low["prior_known"], high["prior_known"]) == (0.01, 0.99)
    assert low["posterior_unknown"] > high["posterior_unknown"]


def test_mlflow_serves_it(world, tmp_path):
    """A real server on the loopback address, without makermark's source on its path: the model brings it."""
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
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        clip = world.of("slow")[0]
        body = {
            "dataframe_records": [{"name": "a.flac", "audio": encoded(clip)}, {"name": "b", "audio": "AAAA"}]
        }
        good, bad = ask(port, body | {"params": {"prior_known": 0.2}})
        wanted = world.made.tracer.with_settings(prior_known=0.2).trace(clip)
        assert (good["clip"], good["verdict"], good["maker"]) == ("a.flac", wanted.verdict, wanted.name)
        assert good["posterior_unknown"] == pytest.approx(wanted.posterior_unknown, rel=1e-3)
        assert good["prior_known"] == 0.2
        assert (bad["verdict"], bad["posterior"]) == ("could not be heard", None)
        samples, rate_hz = soundfile.read(clip)
        (by_samples,) = ask(port, {"dataframe_records": [{"samples": samples.tolist(), "rate_hz": rate_hz}]})
        assert by_samples["candidates"][0]["system"] == wanted.candidates[0].system
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def wait_for(url, server, log):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


def ask(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answered:
        return json.loads(answered.read(), parse_constant=pytest.fail)["predictions"]
