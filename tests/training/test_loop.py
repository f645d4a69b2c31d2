"""The training loop: it learns, (seed, epoch) determines everything, and a killed run ends as an uninterrupted one.

The backbone is the smallest that has batch statistics: a step takes a sixth of the time of resnet34.
"""

import logging
import math
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from memory_caches import memory_cache
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from makermark.foundation.errors import TrainingError
from makermark.models import backbones, losses
from makermark.models.backbones.base import Backbone, ParamGroup
from makermark.models.extraction import embed_rows
from makermark.models.losses.base import Loss
from makermark.scoring.pairs import score_all_pairs
from makermark.training import loop, samplers
from makermark.training.crops import HostCrops
from makermark.training.loop import build_optimizer, train, train_epoch
from makermark.training.resume import ResumeFile, TrainingState
from tests_support import LOG_MELS

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
    backbone = backbones.build("ecapa", dim=8, width=40, **LOG_MELS, channels=16, pooling="mean")
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
        clean_fraction=0.5,
        deterministic=deterministic,
        resume=ResumeFile(folder / "resume.safetensors", identity=identity or {"seed": seed}),
        report=report,
    )
    weights = {**backbone.state_dict(), **{f"loss.{n}": t for n, t in objective.state_dict().items()}}
    return result, weights, reported


def are_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# One epoch, and the order of epochs, evaluations and states, with a network of one layer


class OneLayer(Backbone):
    """A linear layer on the mean over time of one band. It records the first value of every crop it is trained on."""

    front_end = "fbank"
    min_frames = 1
    supports_cuda_graph = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.trained_on = []

    def forward(self, features, lengths=None):
        assert self.training
        self.trained_on += features[:, 0, 0].tolist()
        return self.layer(features.float().mean(dim=1))


class SquaredLength(Loss):
    """The mean squared length of the embeddings; records the labels."""

    needs_groups = False

    def __init__(self):
        super().__init__()
        self.labels = []

    def forward(self, embeddings, systems):
        self.labels += systems.tolist()
        return embeddings.square().sum(dim=1).mean()


class FixedSampler:
    """The same batches in every epoch."""

    makes_groups = False

    def __init__(self, *batches):
        self._batches = [np.array(batch) for batch in batches]
        self.epochs = []

    def __len__(self):
        return len(self._batches)

    def batches(self, epoch):
        self.epochs.append(epoch)
        return self._batches


class States:
    """Stands for the resume file: restores a given state and stores those that are saved."""

    def __init__(self, restored=None):
        self.restored, self.saved, self.rates = restored, [], []

    def restore(self, modules, optimizer):
        return self.restored

    def save(self, state, modules, optimizer):
        self.saved.append(state)
        self.rates.append(optimizer.param_groups[0]["lr"])


def train_one_layer(*, rows, labels, epochs=3, every=2, eers=(), restored=None, reported=None):
    """Train OneLayer on frames that hold their row number; return (result, network, loss, states, evaluated)."""
    torch.manual_seed(0)
    network, loss, states, evaluated = OneLayer(), SquaredLength(), States(restored), []
    values = iter(eers)

    def evaluate(module):
        assert module is network
        assert not network.training
        evaluated.append({name: weight.clone() for name, weight in network.state_dict().items()})
        return next(values)

    result = train(
        network,
        loss,
        FixedSampler(range(len(labels)), range(len(labels))),
        cache=memory_cache(np.ones(2 * len(rows), int), width=1),
        rows=np.array(rows),
        labels=np.array(labels),
        crop_frames=1,
        epochs=epochs,
        warmup_epochs=0.0,
        peak_learning_rate=0.1,
        weight_decay=0.0,
        evaluate=evaluate,
        evaluate_every_epochs=every,
        seed=5,
        device=torch.device("cpu"),
        precision=torch.float32,
        features_on="host",
        clean_fraction=0.5,
        deterministic=False,
        resume=states,
        report=(reported if reported is not None else []).append,
    )
    return result, network, loss, states, evaluated


def run_epoch(*, epoch=2, seed=0, values=(1.0, 4.0)):
    """Run one of four epochs of 3 + 4 utterances, with a step that returns `values`; return what it received."""
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": [w], "peak": p} for w, p in zip(weights, (1.0, 0.2), strict=True)]
    )
    received, values = [], iter(values)

    def step(inputs):
        rates = [group["lr"] for group in optimizer.param_groups]
        received.append(
            (rates, inputs.targets.tolist(), inputs.crops[0].flatten().tolist(), torch.initial_seed())
        )
        return torch.tensor(next(values))

    sampler = FixedSampler([0, 1, 2], [3, 4, 5, 6])
    crops = HostCrops(memory_cache(np.full(14, 50), width=1), np.arange(7), frames=2)
    metrics = train_epoch(
        step, SquaredLength(), sampler, optimizer, crops, epoch=epoch, epochs=4, labels=np.arange(7) + 10,
        warmup_epochs=1.5, seed=seed,
    )  # fmt: skip
    assert sampler.epochs == [epoch]
    return metrics, received


def test_epoch_worked_by_hand(monkeypatch):
    """The third epoch has the steps 4 and 5 of 8, after a warm-up of 3. Every look at the clock is a second later.

    The clock is read at the start, before and after the inputs of two batches, and at the end.
    """
    clock = count(100)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    metrics, received = run_epoch()
    first, second = 0.5 * (1 + math.cos(0.3 * math.pi)), 0.5
    assert [rates for rates, *_ in received] == [
        pytest.approx([first, 0.2 * first]), pytest.approx([second, 0.2 * second])
    ]  # fmt: skip
    assert [targets for _, targets, *_ in received] == [[10, 11, 12], [13, 14, 15, 16]]
    assert metrics == {
        "epoch": 3, "loss": 2.5, "learning_rate": pytest.approx(0.1), "train_seconds": 5,
        "data_wait_percent": 40, "utterances_per_s": pytest.approx(7 / 5),
    }  # fmt: skip


def test_epoch_draws_from_seed_and_epoch():
    """The crops and the seed of torch's generator are others in another epoch and with another seed."""
    received, again, later, other = (
        run_epoch(epoch=epoch, seed=seed)[1] for epoch, seed in ((2, 0), (2, 0), (3, 0), (2, 1))
    )
    assert received == again
    for different in (later, other):
        assert received[0][2] != different[0][2]
        assert received[0][3] != different[0][3]


def test_epochs_seed_dropout_with_63_bits_of_their_generator():
    """With few bits, two epochs would draw the same masks. With another generator, a later version could not repeat a
    training."""
    seeds = [run_epoch(epoch=epoch, seed=9)[1][0][3] for epoch in range(20)]
    assert seeds == [int(np.random.default_rng([9, epoch, 2]).integers(2**63)) for epoch in range(20)]
    assert len(set(seeds)) == 20


@pytest.mark.parametrize("values", [(1.0, math.nan), (math.inf, 1.0)])
def test_epoch_with_a_loss_that_is_not_finite_raises(values):
    with pytest.raises(TrainingError, match=r"epoch 3: the loss is (nan|inf); lower train.learning_rate"):
        run_epoch(values=values)


def test_train_evaluates_at_the_interval_and_at_the_end_and_saves_every_state():
    reported = []
    result, network, _, states, evaluated = train_one_layer(
        rows=[0, 1], labels=[7, 8], epochs=5, eers=[4.0, 3.0, 3.0], reported=reported
    )
    eers = [metrics.get("dev_eer_percent") for metrics in result.history]
    assert eers == [None, 4.0, None, 3.0, 3.0]
    assert [metrics["epoch"] for metrics in reported] == [1, 2, 3, 4, 5]
    assert reported == result.history
    assert [state.epoch for state in states.saved] == [1, 2, 3, 4, 5]
    assert [state.best_epoch for state in states.saved] == [0, 2, 2, 4, 4]
    assert [state.best_eer_percent for state in states.saved] == [math.inf, 4.0, 4.0, 3.0, 3.0]
    assert states.saved[-1].history == result.history
    assert (result.best.epoch, result.best.eer_percent) == (4, 3.0)
    for name, weight in evaluated[1].items():
        assert torch.equal(result.best.weights[f"backbone/{name}"], weight)
    assert any(
        not torch.equal(a, b) for a, b in zip(evaluated[1].values(), evaluated[2].values(), strict=True)
    )
    assert all(torch.equal(evaluated[2][name], weight) for name, weight in network.state_dict().items())


def test_train_continues_after_the_restored_epoch_and_reports_the_earlier_ones():
    earlier = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "dev_eer_percent": 1.5}]
    reported = []
    result, _, loss, states, _ = train_one_layer(
        rows=[0, 1], labels=[7, 8], epochs=3, eers=[2.0], reported=reported,
        restored=TrainingState(2, earlier, 2, 1.5, {"backbone/layer.bias": torch.ones(2)}),
    )  # fmt: skip
    assert [metrics["epoch"] for metrics in reported] == [1, 2, 3]
    assert reported[:2] == earlier
    assert len(loss.labels) == 4  # one epoch of two batches
    assert (result.best.epoch, result.best.eer_percent) == (2, 1.5)
    assert result.best.weights["backbone/layer.bias"].tolist() == [1, 1]
    assert [state.epoch for state in states.saved] == [3]


@pytest.mark.parametrize(
    ("rows", "pairs"),
    [
        ([0, 1], {(0, 7), (1, 8)}),
        ([0, 1, 2, 3], {(0, 7), (2, 7), (1, 8), (3, 8)}),
        ([0, 1, 2, 3, 4, 5], {(0, 7), (2, 7), (4, 7), (1, 8), (3, 8), (5, 8)}),
    ],
)
def test_train_draws_every_variant_of_an_utterance_with_its_label(rows, pairs):
    """The first two rows are the utterances; each further two are augmented copies of them."""
    _, network, loss, _, _ = train_one_layer(rows=rows, labels=[7, 8], epochs=16, every=99, eers=[1.0])
    assert set(zip(network.trained_on, loss.labels, strict=True)) == pairs


def test_train_on_a_cpu_captures_no_graph_and_has_plain_learning_rates(monkeypatch, caplog):
    """Nor does it say that the step cannot be captured, which matters on a GPU only."""
    caplog.set_level(logging.INFO, logger=loop.__name__)

    def refuse(*_):
        raise AssertionError("a graph on a CPU")

    monkeypatch.setattr(loop, "GraphedStep", refuse)
    states = train_one_layer(rows=[0], labels=[7], epochs=1, eers=[1.0])[3]
    assert isinstance(states.rates[0], float)
    assert not caplog.records


# Whole trainings


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


def test_optimizer_with_rates_on_a_device_reads_them_from_there_at_every_step():
    """A captured step repeats the kernels with the values of the capture: what changes has to be in a tensor."""
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = build_optimizer([ParamGroup([weight], 0.1)], weight_decay=0.5, rate_on=torch.device("cpu"))
    (group,) = optimizer.param_groups
    assert group["capturable"]  # without it, torch refuses a capture
    rate = group["lr"]
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == 2.0  # the rate is 0 until it is set
    for value in (0.1, 0.2):
        rate.fill_(value)
        optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) * (1 - 0.2 * 0.5))


class OperationCount(TorchDispatchMode):
    """Counts the operations of torch inside a `with` block."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_optimizer_updates_all_weights_of_a_group_in_the_same_operations():
    """A loop over the weights would take more operations for more of them, and more time on small ones."""
    counts = []
    for number in (1, 10):
        weights = [nn.Parameter(torch.ones(2)) for _ in range(number)]
        optimizer = build_optimizer([ParamGroup(weights, 0.1)], weight_decay=0.5, rate_on=None)
        for _ in range(2):  # the first step also creates the moments of every weight
            for weight in weights:
                weight.grad = torch.ones(2)
            with OperationCount() as operations:
                optimizer.step()
        counts.append(operations.count)
    assert counts[0] == counts[1]


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
