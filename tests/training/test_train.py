"""Training: it learns, (seed, epoch) decides everything, and a killed run ends as an undisturbed one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from makermark import backbones, losses, sampling
from makermark.embedding import embed
from makermark.errors import TrainingError
from makermark.scoring import score_set
from makermark.training import ResumeFile, train

EPOCHS = 4


class Killed(BaseException):
    """Stands for the end of the process."""


def run(
    corpus,
    folder,
    *,
    seed=0,
    epochs=EPOCHS,
    loss="ge2e",
    kill_after=None,
    identity=None,
    rate=2e-3,
    crop=50,
    features_on="host",
    deterministic=False,
):
    """Train afresh, or go on where `folder` says; returns the outcome and all weights at the end."""
    manifest, cache = corpus
    rows = {split: manifest.rows[manifest.rows["split"] == split] for split in ("train", "dev")}
    systems, labels = np.unique(rows["train"]["system"].to_numpy(dtype=str), return_inverse=True)
    torch.manual_seed(seed)
    backbone = backbones.build("resnet34", dim=8, width=40, pooling="sap")
    settings = {"scale": 10.0, "bias": -5.0} if loss == "ge2e" else {}
    objective = losses.build(loss, num_systems=len(systems), dim=8, **settings)
    sampler = sampling.build("balanced", labels.tolist(), seed=seed, batch_systems=3, utterances_per_system=4)
    dev_rows = cache.rows_of(rows["dev"]["utterance_id"])
    heard = []

    def dev_eer(network):
        vectors = embed(network, cache, dev_rows, batch_frames=1000, device=torch.device("cpu"))
        return score_set(
            vectors, rows["dev"]["system"].to_numpy(dtype=str), bootstrap_samples=0, seed=0
        ).eer_micro_percent

    def report(epoch):
        heard.append(epoch["epoch"])
        if epoch["epoch"] == kill_after:
            raise Killed

    trained = train(
        backbone,
        objective,
        sampler,
        cache=cache,
        rows=cache.rows_of(rows["train"]["utterance_id"]),
        labels=labels.astype(np.int64),
        crop_frames=crop,
        epochs=epochs,
        warmup_epochs=1.0,
        peak_learning_rate=rate,
        weight_decay=0.0,
        evaluate=dev_eer,
        evaluate_every_epochs=2,
        seed=seed,
        device=torch.device("cpu"),
        precision=torch.float32,
        features_on=features_on,
        deterministic=deterministic,
        resume=ResumeFile(folder / "resume.safetensors", identity=identity or {"seed": seed}),
        report=report,
    )
    weights = {**backbone.state_dict(), **{f"loss.{n}": t for n, t in objective.state_dict().items()}}
    return trained, weights, heard


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("undisturbed"))


def test_it_learns_to_tell_systems_apart(corpus, tmp_path):
    trained, _, _ = run(corpus, tmp_path, epochs=16)
    assert trained.history[-1]["loss"] < 0.7 * trained.history[0]["loss"]
    assert trained.best.eer_percent < 25


def test_the_best_weights_are_those_of_the_lowest_dev_eer(undisturbed):
    trained, _, heard = undisturbed
    assert heard == [1, 2, 3, 4]
    scored = {e["epoch"]: e["dev_eer_percent"] for e in trained.history if "dev_eer_percent" in e}
    assert list(scored) == [2, 4]
    assert trained.best.eer_percent == min(scored.values()) == scored[trained.best.epoch]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_killed_after_any_epoch_ends_with_the_same_bits(corpus, tmp_path, undisturbed, epoch):
    with pytest.raises(Killed):
        run(corpus, tmp_path, kill_after=epoch)
    trained, weights, heard = run(corpus, tmp_path)
    assert heard == [1, 2, 3, 4]  # the tracker hears of the earlier epochs again
    assert same(weights, undisturbed[1])
    assert same(trained.best.weights, undisturbed[0].best.weights)
    assert [e["loss"] for e in trained.history] == [e["loss"] for e in undisturbed[0].history]


def test_features_on_the_device_give_the_same_bits_also_after_a_kill(corpus, tmp_path, undisturbed):
    with pytest.raises(Killed):
        run(corpus, tmp_path, kill_after=2, features_on="device")
    assert same(run(corpus, tmp_path, features_on="device")[1], undisturbed[1])


def test_asking_for_the_same_bits_changes_none_on_a_processor(corpus, tmp_path, undisturbed):
    assert same(run(corpus, tmp_path, deterministic=True)[1], undisturbed[1])


def test_a_loss_that_learns_nothing_trains_and_resumes_the_same(corpus, tmp_path):
    whole = run(corpus, tmp_path / "whole", loss="proto", epochs=2)[1]
    with pytest.raises(Killed):
        run(corpus, tmp_path / "killed", loss="proto", epochs=2, kill_after=1)
    resumed = run(corpus, tmp_path / "killed", loss="proto", epochs=2)[1]
    assert same(whole, resumed)


def test_the_seed_decides_everything(corpus, tmp_path, undisturbed):
    assert same(run(corpus, tmp_path / "same")[1], undisturbed[1])
    assert not same(run(corpus, tmp_path / "other", seed=1)[1], undisturbed[1])


def test_another_experiment_does_not_go_on_with_this_ones_state(corpus, tmp_path):
    with pytest.raises(Killed):
        run(corpus, tmp_path, kill_after=1, identity={"experiment": "a"})
    resume = ResumeFile(tmp_path / "resume.safetensors", identity={"experiment": "b"})
    assert resume.restore({}, torch.optim.AdamW([nn.Parameter(torch.zeros(1))])) is None


def test_a_damaged_state_is_told_and_training_begins_anew(corpus, tmp_path, undisturbed, caplog):
    (tmp_path / "resume.safetensors").write_bytes(b"half a file")
    assert same(run(corpus, tmp_path)[1], undisturbed[1])
    assert "is damaged" in caplog.text


def test_the_run_id_of_the_tracker_is_kept_with_the_state(tmp_path):
    layer = nn.Linear(2, 2)
    resume = ResumeFile(tmp_path / "resume.safetensors", identity={})
    resume.run_id = "abc"
    from makermark.training.resume import State

    resume.save(State(1, [], 0, math.inf, {}), {"backbone": layer}, torch.optim.AdamW(layer.parameters()))
    assert ResumeFile(tmp_path / "resume.safetensors", identity={}).run_id == "abc"
    assert ResumeFile(tmp_path / "resume.safetensors", identity={"other": 1}).run_id is None


def test_a_loss_that_is_no_longer_finite_stops_with_one_line(corpus, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch \d: the loss is (nan|inf); lower train.learning_rate"):
        run(corpus, tmp_path, rate=1e30, loss="softmax", epochs=6)


def test_utterances_shorter_than_a_crop_are_repeated(corpus, tmp_path):
    trained, _, _ = run(corpus, tmp_path, crop=400, epochs=1)
    assert math.isfinite(trained.history[0]["loss"])
