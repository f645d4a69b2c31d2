"""The training loop: it learns, (seed, epoch) determines everything, and a killed run ends as an uninterrupted one.

The backbone is the smallest that has batch statistics: a step takes a sixth of the time of resnet34.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from makermark.foundation.errors import TrainingError
from makermark.models import backbones, losses
from makermark.models.backbones.base import ParamGroup
from makermark.models.extraction import embed_rows
from makermark.scoring.pairs import score_all_pairs
from makermark.training import samplers
from makermark.training.loop import build_optimizer, train
from makermark.training.resume import ResumeFile, TrainingState

EPOCHS = 4


class Killed(BaseException):
    """Stands for the end of the process."""


def run_training(
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
    weight_decay=0.0,
    dropout=0.0,
    dev_eers=None,
):
    """Train, or resume from `folder`; return the result, all weights at the end and the numbers of reported epochs.

    `dropout` is applied before the last layer; `dev_eers` are returned by the evaluations instead of the real ones.
    """
    manifest, cache = corpus
    rows = {split: manifest.rows[manifest.rows["split"] == split] for split in ("train", "dev")}
    systems, labels = np.unique(rows["train"]["system"].to_numpy(dtype=str), return_inverse=True)
    torch.manual_seed(seed)
    backbone = backbones.build("ecapa", dim=8, width=40, channels=16, pooling="mean")
    if dropout:
        backbone.embedding = nn.Sequential(nn.Dropout(dropout), backbone.embedding)
    settings = {"scale": 10.0, "bias": -5.0, "variant": "wan2018"} if loss == "ge2e" else {}
    objective = losses.build(loss, num_systems=len(systems), dim=8, **settings)
    sampler = samplers.build("balanced", labels.tolist(), seed=seed, batch_systems=3, utterances_per_system=4)
    dev_rows = cache.find_rows(rows["dev"]["utterance_id"])
    reported = []

    def dev_eer(network):
        if dev_eers is not None:
            return next(dev_eers)
        embeddings = embed_rows(network, cache, dev_rows, batch_frames=1000, device=torch.device("cpu"))
        return score_all_pairs(
            embeddings, rows["dev"]["system"].to_numpy(dtype=str), bootstrap_samples=0, seed=0
        ).eer_micro_percent

    def report(metrics):
        reported.append(metrics["epoch"])
        if metrics["epoch"] == kill_after:
            raise Killed

    result = train(
        backbone,
        objective,
        sampler,
        cache=cache,
        rows=cache.find_rows(rows["train"]["utterance_id"]),
        labels=labels.astype(np.int64),
        crop_frames=crop,
        epochs=epochs,
        warmup_epochs=1.0,
        peak_learning_rate=rate,
        weight_decay=weight_decay,
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
    return result, weights, reported


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    return run_training(corpus, tmp_path_factory.mktemp("uninterrupted"))


def test_train_lowers_the_loss_and_the_dev_eer(corpus, tmp_path):
    result, _, _ = run_training(corpus, tmp_path, epochs=16)
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    assert result.best.eer_percent < 25


def test_train_keeps_the_weights_of_the_lowest_dev_eer(uninterrupted):
    result, _, reported = uninterrupted
    assert reported == [1, 2, 3, 4]
    eers = {e["epoch"]: e["dev_eer_percent"] for e in result.history if "dev_eer_percent" in e}
    assert list(eers) == [2, 4]
    assert result.best.eer_percent == min(eers.values()) == eers[result.best.epoch]


@pytest.mark.parametrize(
    ("eers", "epoch"), [([5.0, 5.0], 2), ([5.0, 4.0], 4), ([4.0, 5.0], 2), ([100.0, 100.0], 2)]
)
def test_train_keeps_the_earliest_of_equal_dev_eers(corpus, tmp_path, eers, epoch):
    result, weights, _ = run_training(corpus, tmp_path, dev_eers=iter(eers))
    assert (result.best.epoch, result.best.eer_percent) == (epoch, min(eers))
    assert [e.get("dev_eer_percent") for e in result.history] == [None, eers[0], None, eers[1]]
    is_last = all(
        torch.equal(tensor, weights[name.removeprefix("backbone/").replace("loss/", "loss.")])
        for name, tensor in result.best.weights.items()
    )
    assert is_last == (epoch == EPOCHS)


def test_train_draws_dropout_from_seed_and_epoch_only(corpus, tmp_path):
    """The second process has not drawn the numbers of the first epoch; only a seed per epoch gives the same ones."""
    whole = run_training(corpus, tmp_path / "whole", epochs=2, dropout=0.5)[1]
    with pytest.raises(Killed):
        run_training(corpus, tmp_path / "killed", epochs=2, dropout=0.5, kill_after=1)
    assert are_equal(run_training(corpus, tmp_path / "killed", epochs=2, dropout=0.5)[1], whole)
    without = run_training(corpus, tmp_path / "without", epochs=2, dropout=1e-9)[1]
    assert not are_equal(without, whole)


def test_optimizer_decays_weights_towards_zero_at_the_learning_rate():
    """AdamW without a gradient of the loss: every step multiplies a weight by 1 - rate * decay."""
    weight, other = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([4.0]))
    groups = [ParamGroup([weight], 0.1), ParamGroup([], 0.5), ParamGroup([other], 0.2)]
    optimizer = build_optimizer(groups, weight_decay=0.5, rate_on=None)
    assert [group["peak"] for group in optimizer.param_groups] == [0.1, 0.2]
    weight.grad, other.grad = torch.zeros(1), torch.zeros(1)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))
    assert other.item() == pytest.approx(4.0 * (1 - 0.2 * 0.5))


def test_train_passes_weight_decay_and_learning_rates_on(corpus, tmp_path):
    """A decay of 1 / rate per step at the peak would set weights to zero; strong decay makes them smaller."""
    plain = run_training(corpus, tmp_path / "plain", epochs=1)[1]
    decayed = run_training(corpus, tmp_path / "decayed", epochs=1, weight_decay=100.0)[1]
    for name in ("embedding.weight", "stem.weight", "blocks.2.after.weight"):
        assert decayed[name].norm() < 0.9 * plain[name].norm()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_train_killed_after_any_epoch_ends_with_the_same_bits(corpus, tmp_path, uninterrupted, epoch):
    with pytest.raises(Killed):
        run_training(corpus, tmp_path, kill_after=epoch)
    result, weights, reported = run_training(corpus, tmp_path)
    assert reported == [1, 2, 3, 4]  # the earlier epochs are reported again
    assert are_equal(weights, uninterrupted[1])
    assert are_equal(result.best.weights, uninterrupted[0].best.weights)
    assert [e["loss"] for e in result.history] == [e["loss"] for e in uninterrupted[0].history]


def test_train_with_features_on_the_device_gives_the_same_bits_after_a_kill(corpus, tmp_path, uninterrupted):
    with pytest.raises(Killed):
        run_training(corpus, tmp_path, kill_after=2, features_on="device")
    assert are_equal(run_training(corpus, tmp_path, features_on="device")[1], uninterrupted[1])


def test_train_deterministic_changes_no_bits_on_a_cpu(corpus, tmp_path, uninterrupted):
    assert are_equal(run_training(corpus, tmp_path, deterministic=True)[1], uninterrupted[1])


def test_train_resumes_with_a_loss_without_parameters(corpus, tmp_path):
    whole = run_training(corpus, tmp_path / "whole", loss="proto", epochs=2)[1]
    with pytest.raises(Killed):
        run_training(corpus, tmp_path / "killed", loss="proto", epochs=2, kill_after=1)
    resumed = run_training(corpus, tmp_path / "killed", loss="proto", epochs=2)[1]
    assert are_equal(whole, resumed)


def test_train_depends_on_the_seed_only(corpus, tmp_path, uninterrupted):
    assert are_equal(run_training(corpus, tmp_path / "same")[1], uninterrupted[1])
    assert not are_equal(run_training(corpus, tmp_path / "other", seed=1)[1], uninterrupted[1])


def test_resume_file_ignores_the_state_of_another_identity(corpus, tmp_path, caplog):
    with pytest.raises(Killed):
        run_training(corpus, tmp_path, kill_after=1, identity={"experiment": "a"})
    resume = ResumeFile(tmp_path / "resume.safetensors", identity={"experiment": "b"})
    assert "is of a training with other experiment: training starts from the beginning" in caplog.text
    assert resume.restore({}, torch.optim.AdamW([nn.Parameter(torch.zeros(1))])) is None


def test_train_warns_about_a_damaged_resume_file_and_starts_anew(corpus, tmp_path, uninterrupted, caplog):
    (tmp_path / "resume.safetensors").write_bytes(b"half a file")
    assert are_equal(run_training(corpus, tmp_path)[1], uninterrupted[1])
    assert "is damaged" in caplog.text


def test_resume_file_stores_the_run_id_of_the_tracker(tmp_path):
    layer = nn.Linear(2, 2)
    resume = ResumeFile(tmp_path / "resume.safetensors", identity={})
    resume.run_id = "abc"
    state = TrainingState(1, [], 0, math.inf, {})
    resume.save(state, {"backbone": layer}, torch.optim.AdamW(layer.parameters()))
    assert ResumeFile(tmp_path / "resume.safetensors", identity={}).run_id == "abc"
    assert ResumeFile(tmp_path / "resume.safetensors", identity={"other": 1}).run_id is None


def test_train_stops_with_one_line_if_the_loss_is_not_finite(corpus, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch \d: the loss is (nan|inf); lower train.learning_rate"):
        run_training(corpus, tmp_path, rate=1e30, loss="softmax", epochs=6)


def test_train_repeats_utterances_shorter_than_a_crop(corpus, tmp_path):
    result, _, _ = run_training(corpus, tmp_path, crop=400, epochs=1)
    assert math.isfinite(result.history[0]["loss"])
