"""The whole pipeline as a user runs it: real engines, DVC, git and MLflow, on a small corpus."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torchaudio.functional import linear_fbanks
from torchaudio.transforms import Spectrogram

from makermark.foundation.manifest import read_manifest
from makermark.foundation.tracking import flatten_metrics
from makermark.models.checkpoint import load_checkpoint
from makermark.scoring.pairs import score_all_pairs
from staleness_support import drawn_points

pytest.importorskip("dvc", reason="the pipeline extra is not installed")
pytest.importorskip("mlflow", reason="the pipeline extra is not installed")
pytest.importorskip("espeakng_loader", reason="the local extra is not installed")

pytestmark = [pytest.mark.pipeline, pytest.mark.engines]

REPOSITORY = Path(__file__).parents[1]
SMALL = {
    "local": {
        "protocol": "small",
        "engines": ["espeak-ng", "pico"],
        "train_utterances": 8,
        "dev_utterances": 4,
        "test_utterances": 4,
    },
    "features": {"front_ends": ["fbank", "waveform"], "shard_utterances": 100},
    "train": {"epochs": 3, "warmup_epochs": 1.0, "crop_seconds": 0.5, "evaluate_every_epochs": 2},
    "samplers": {
        "balanced": {"batch_systems": 4, "utterances_per_system": 4},
        "random": {"batch_utterances": 16},
    },
    "score": {"bootstrap_samples": 50},
    "probe": {"epochs": 5, "min_per_class": 4, "frechet_halvings": 2},
    "trace": {
        "clip_seconds": [1.0, 2.0],
        "clips_per_system": 4,
        "enrol_clips": 2,
        "enrol_draws": 2,
        "bootstrap_samples": 20,
    },
}
STAGES = (
    "check",
    "download",
    "features",
    "train",
    "embed",
    "score",
    "probe",
    "fuse",
    "calibrate",
    "headline",
)
CURVES = {"plots/train/loss.csv": "loss", "plots/train/dev_eer.csv": "dev_eer_percent"}


def run(project, *command, check=True, **environment):
    """Run a command in the project as from an activated environment; return the finished process."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "PATH": path, "COLUMNS": "250", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=3600,  # only a hang lasts so long, on any machine
    )
    assert result.returncode == 0 or not check, result.stdout
    return result


def stages_run(output):
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def set_params(project, changes):
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def runs(project):
    """Return all runs of the project's MLflow store, newest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("makermark")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository in a folder with spaces, after one `dvc repro`."""
    project = tmp_path_factory.mktemp("pipeline") / "a project with spaces"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, project / name)
    set_params(project, SMALL)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "small"]):
        run(project, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *command)
    output = run(project, "dvc", "repro").stdout
    assert stages_run(output) == list(STAGES), output
    run(project, "git", "add", "-A")
    run(project, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "results")
    return project


def test_repro_writes_metrics_with_stable_names(project):
    score = json.loads((project / "metrics/score.json").read_text())
    for part in (score, *score["baselines"].values()):
        for split in ("dev", "test"):
            assert {
                "eer_micro_percent",
                "eer_macro_percent",
                "eer_micro_ci95_percent",
                "auc",
                "min_dcf",
            } <= set(part[split])
            assert len(part[split]["strata"]) == 4
            pairs = part[split]["utterances"] * (part[split]["utterances"] - 1) // 2
            assert part[split]["target_trials"] + part[split]["nontarget_trials"] == pairs
            assert part[split]["identification"]["centroid"]["utterances"] > 0
            assert 0 <= part[split]["out_of_domain"]["knn"]["auroc_percent"] <= 100
    assert set(score["baselines"]) == {"logmel_stats", "untrained"}
    assert json.loads((project / "metrics/fuse.json").read_text())["systems"] == []
    probe = json.loads((project / "metrics/probe.json").read_text())
    assert 0 <= probe["accuracy_percent"] <= 100
    trace = json.loads((project / "metrics/trace.json").read_text())
    assert set(trace["test"]) == {"1s", "2s", "whole"}
    assert trace["enrolment"]["systems"] > 0
    assert trace["bonafide"]["whole"]["clips"] > 0


def test_repro_writes_complete_plots_checkpoints_and_caches(project):
    pictures = sorted((project / "plots").rglob("*.png"))
    assert len(pictures) == 13
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert json.loads((project / "models/best.json").read_text())["weights_sha256"] == digest(
        project / "models/best.safetensors"
    )
    assert not (project / "models/resume.safetensors").exists()
    assert list((project / "data/features/waveform").glob("*.arrow"))
    assert not list(project.rglob("*.draft*"))


def log_energies(waveform: torch.Tensor, *, n_fft: int, hop: int, bands: int) -> torch.Tensor:
    power = Spectrogram(n_fft, hop_length=hop, window_fn=torch.hamming_window)
    filters = linear_fbanks(n_fft // 2 + 1, 0.0, 8000.0, bands, 16000)
    return (power(waveform).T @ filters + 1e-6).log()


def float32_features(waveform: torch.Tensor) -> torch.Tensor:
    """Return what front end linear-fbank-changes computes, (T, 136), in float32 with torchaudio."""
    frames = len(waveform) // 256
    parts = [log_energies(waveform, n_fft=1024, hop=256, bands=80)[:frames]]
    for window, bands in ((64, 8), (128, 20)):
        levels = log_energies(waveform, n_fft=window, hop=window // 4, bands=bands)
        steps = 1024 // window
        change = levels[: frames * steps + 1].diff(dim=0).reshape(frames, steps, bands)
        for values in (change, change.diff(dim=1)):
            parts.append((values.square().mean(dim=1) + 1e-3).log())
    return torch.cat(parts, dim=1)


def test_float16_features_do_not_change_the_eer(project):
    """The model on float32 features, computed with torchaudio, and rounded as in the cache."""
    manifest = read_manifest(project / "data/corpus/manifest.parquet")
    rows = manifest.rows[manifest.rows["split"] == "test"]
    network = load_checkpoint(project / "models/best").backbone
    exact, rounded = [], []
    with torch.inference_mode():
        for path in rows["path"]:
            waveform, _ = soundfile.read(manifest.audio_path(path), dtype="float32")
            features = float32_features(torch.from_numpy(waveform))[None]
            exact.append(network(features)[0].numpy())
            rounded.append(network(features.half().float())[0].numpy())
    systems = rows["system"].to_numpy(dtype=str)
    in_float32, in_float16 = (
        score_all_pairs(np.stack(vectors), systems, bootstrap_samples=0, seed=0).eer_micro_percent
        for vectors in (exact, rounded)
    )
    assert not np.array_equal(exact, rounded)
    assert in_float16 == pytest.approx(in_float32, abs=0.1)
    eer = json.loads((project / "metrics/score.json").read_text())["test"]["eer_micro_percent"]
    assert eer == pytest.approx(in_float32, abs=0.2)


def test_run_in_mlflow_has_model_scores_and_commit(project):
    (mlflow_run,) = [
        r for r in runs(project) if r.info.run_name == "spectral-statistics-ge2e-balanced-50-s0-e3"
    ]
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.data.tags["makermark.model_sha256"] == digest(project / "models/best.safetensors")
    assert mlflow_run.data.tags["git.commit"] == run(project, "git", "rev-parse", "HEAD~1").stdout.strip()
    assert (mlflow_run.data.tags["git.dirty"], mlflow_run.data.tags["git.changed"]) == ("false", "")
    threads = mlflow_run.data.tags["torch.threads"]
    assert threads == str(json.loads((project / "models/best.json").read_text())["threads"]) == "1"
    score = json.loads((project / "metrics/score.json").read_text())
    assert mlflow_run.data.metrics["test.eer_micro_percent"] == pytest.approx(
        score["test"]["eer_micro_percent"]
    )
    headline = flatten_metrics(json.loads((project / "metrics/headline.json").read_text()))
    assert headline.items() <= mlflow_run.data.metrics.items()
    assert set(mlflow_run.data.metrics) - set(headline) == {
        *(
            "loss",
            "learning_rate",
            "dev_eer_percent",
            "train_seconds",
            "data_wait_percent",
            "utterances_per_s",
        ),
        *("best.dev_eer_percent", "best.epoch"),
    }
    assert mlflow_run.data.params["loss"] == "ge2e"
    assert len(mlflow_run.data.params) <= 90
    contexts = {i.tags[0].value: i.dataset.name for i in mlflow_run.inputs.dataset_inputs}
    assert contexts == dict.fromkeys(("training", "validation", "testing"), "local")
    artifacts = Path(mlflow_run.info.artifact_uri)
    for name in ("headline", "score", "probe", "trace"):
        assert (artifacts / f"metrics/{name}.json").read_bytes() == (
            project / f"metrics/{name}.json"
        ).read_bytes()
    assert (artifacts / "params.yaml").read_bytes() == (project / "params.yaml").read_bytes()


def test_status_is_silent_and_plots_have_all_points_after_repro(project):
    assert run(project, "dvc", "status").stdout.strip() == "Data and pipelines are up to date."
    points = drawn_points(project)
    history = json.loads((project / "models/history.json").read_text())
    for plot, name in CURVES.items():
        drawn = {int(point["epoch"]): float(point[name]) for point in points[plot]}
        assert drawn == {epoch["epoch"]: epoch[name] for epoch in history if name in epoch}
    assert sorted(points["plots/train/dev_eer.csv"], key=lambda p: int(p["epoch"]))[-1]["epoch"] == "3"
    assert all(points.values()), {name: len(values) for name, values in points.items()}
    assert set(points) == {
        *CURVES, "plots/score/det_dev.csv", "plots/score/det_test.csv", "plots/probe/confusion.csv"
    }  # fmt: skip


def test_second_repro_runs_no_stage(project):
    assert stages_run(run(project, "dvc", "repro").stdout) == []


def test_stage_runs_in_a_folder_with_non_ascii_letters(project, tmp_path):
    copy = tmp_path / "mein Projekt für höhere Töne"
    shutil.copytree(project, copy, symlinks=True)
    (copy / "metrics/score.json").unlink()
    assert stages_run(run(copy, "dvc", "repro", "--force", "--single-item", "score").stdout) == ["score"]
    assert (copy / "metrics/score.json").read_bytes() == (project / "metrics/score.json").read_bytes()


def test_commands_show_results_trace_and_info(project):
    results = run(project, "makermark", "results").stdout
    assert "unseen" in results
    assert "log-mel" in results
    assert "Conclusions of the tracer for whole utterances of test" in results
    clip = read_manifest(project / "data/corpus/manifest.parquet")
    trace = run(
        project, "makermark", "trace", str(clip.audio_path(clip.rows["path"].iloc[-1])), "--json"
    ).stdout
    assert json.loads(trace.splitlines()[-1])["model_sha256"] == digest(project / "models/best.safetensors")
    info = run(project, "makermark", "info").stdout
    assert "spectral-statistics-ge2e-balanced-50-s0-e3" in info
    assert "local:" in info


def test_check_stage_refuses_a_loss_that_its_sampler_cannot_serve(project):
    result = run(project, "dvc", "exp", "run", "-S", "loss=ge2e", "-S", "sampler=random", check=False)
    assert result.returncode != 0
    assert stages_run(result.stdout) == ["check"]
    assert "error: loss 'ge2e' compares utterances of one system within a batch" in result.stdout
    assert "Traceback" not in result.stdout
    run(project, "git", "checkout", "-q", ".")


def test_another_loss_reruns_training_and_later_stages_only(project):
    output = run(project, "dvc", "exp", "run", "-S", "loss=softmax", "-S", "sampler=random").stdout
    assert stages_run(output) == [stage for stage in STAGES if stage not in ("download", "features")]
    shown = list(csv.DictReader(run(project, "dvc", "exp", "show", "--csv").stdout.splitlines()))
    assert {"ge2e", "softmax"} <= {row["loss"] for row in shown}
    headline = json.loads((project / "metrics/headline.json").read_text())
    assert float(shown[0]["test.eer_micro_percent"]) == pytest.approx(headline["test"]["eer_micro_percent"])
    assert not [name for name in shown[0] if ".strata." in name]
    assert "eer_micro_percent" in run(project, "dvc", "metrics", "diff").stdout
    assert "spectral-statistics-softmax-random-50-s0-e3" in [r.info.run_name for r in runs(project)]
    run(project, "git", "checkout", "-q", ".")
    run(project, "dvc", "checkout")


def test_queued_and_temporary_experiments_are_recorded_in_the_same_store(project):
    """Both run in a copy of the repository that is deleted. The first leaves out the stages probe and fuse, which a run
    in the workspace has in another test. The second only scores the model of the workspace again."""
    run(project, "dvc", "exp", "run", "--queue", "-S", "loss=amsoftmax", "headline")
    run(project, "dvc", "exp", "run", "--run-all", "--jobs", "1")
    by_name = {r.info.run_name: r for r in runs(project)}
    mlflow_run = by_name["spectral-statistics-amsoftmax-balanced-50-s0-e3"]
    assert mlflow_run.info.status == "FINISHED"
    assert "test.eer_micro_percent" in mlflow_run.data.metrics
    artifacts = Path(mlflow_run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "checkpoint/best.safetensors").exists()
    before = len(runs(project))
    output = run(project, "dvc", "exp", "run", "--temp", "-S", "score.p_target=0.3").stdout
    assert stages_run(output) == ["check", "score", "fuse", "headline"]
    assert len(runs(project)) == before
    (scored,) = [r for r in runs(project) if r.info.run_name == "spectral-statistics-ge2e-balanced-50-s0-e3"]
    stored = Path(scored.info.artifact_uri.removeprefix("file://"), "metrics/score.json").read_bytes()
    assert stored != (project / "metrics/score.json").read_bytes()  # another prior, another min_dcf


def test_scoring_again_adds_to_the_run_of_the_model(project):
    before = len(runs(project))
    output = run(project, "dvc", "exp", "run", "-S", "score.p_target=0.2").stdout
    assert stages_run(output) == ["check", "score", "fuse", "headline"]
    assert len(runs(project)) == before
    run(project, "git", "checkout", "-q", ".")
    run(project, "dvc", "checkout")


def test_killed_training_resumes_and_ends_with_the_same_weights(project):
    command = ["python", "stages/train.py", "data/corpus/manifest.parquet", "data/bonafide", "data/features"]
    environment = {"PYTHONPATH": "src", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [*command, "killed", "killed"], cwd=project, env={**os.environ, "PATH": path, **environment}
    )
    deadline = time.monotonic() + 900
    while not (project / "killed/resume.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    output = run(project, *command, "killed", "killed", **environment).stdout
    assert (
        output.count("the run continues without it") == 1
    )  # MLflow is down: one warning, training continues
    assert digest(project / "killed/best.safetensors") == digest(project / "models/best.safetensors")
    assert digest(project / "killed/last.safetensors") == digest(project / "models/last.safetensors")


def test_log_run_records_a_run_that_mlflow_missed(project):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/later.db"}
    assert "recorded as run" in run(project, "makermark", "log-run", **store).stdout
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store["MLFLOW_TRACKING_URI"])
    (mlflow_run,) = client.search_runs([client.get_experiment_by_name("makermark").experiment_id])
    assert mlflow_run.data.metrics["test.eer_micro_percent"] > 0


def test_damaged_shard_is_named_and_repaired_by_the_features_stage(project):
    shard = next((project / "data/features/linear-fbank-changes").glob("*.arrow"))
    whole = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(whole[: len(whole) // 2])
    command = ["python", "stages/train.py", "data/corpus/manifest.parquet", "data/bonafide", "data/features"]
    command += ["other", "other"]
    result = run(project, *command, check=False, PYTHONPATH="src")
    assert result.returncode == 1
    assert result.stdout.startswith("error: ")
    assert shard.name in result.stdout
    assert "run the features stage" in result.stdout
    run(project, "makermark", "features")
    assert shard.read_bytes() == whole
