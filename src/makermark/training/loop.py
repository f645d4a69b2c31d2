"""The training loop: batches of crops in, the best and the last weights out.

Legend of axes: B batch, T frames, F bands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.backbones.base import Backbone, Learners, as_float
from makermark.device import autocast
from makermark.errors import TrainingError
from makermark.features.cache import FeatureCache
from makermark.losses.base import Loss
from makermark.training.mixing import Mixture, mix
from makermark.training.resume import ResumeFile, State, Weights
from makermark.training.schedule import learning_rate

Rows = NDArray[np.int64]
Epoch = dict[str, float]


class Batches(Protocol):
    """A sampler: positions into the training rows."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int) -> list[Rows]: ...


@dataclass(frozen=True)
class Best:
    """The weights with the lowest dev EER, as `backbone/NAME` and `loss/NAME`, and when that was."""

    epoch: int
    eer_percent: float
    weights: Weights


@dataclass(frozen=True)
class Trained:
    """The outcome of a run; `history` has one entry per epoch. The backbone holds the last weights."""

    best: Best
    history: list[Epoch]


def train(
    backbone: Backbone,
    loss: Loss,
    sampler: Batches,
    *,
    cache: FeatureCache,
    rows: Rows,
    labels: Rows,
    crop_frames: int,
    epochs: int,
    warmup_epochs: float,
    peak_learning_rate: float,
    weight_decay: float,
    evaluate: Callable[[Backbone], float],
    evaluate_every_epochs: int,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    resume: ResumeFile,
    report: Callable[[Epoch], None],
) -> Trained:
    """Train `backbone` and `loss` (it may learn too) with AdamW on random crops of `crop_frames` frames.

    `rows` (N,) are the cache rows of the training utterances and `labels` (N,) their system numbers;
    the sampler gives positions into both. `evaluate` returns the dev EER in percent and is called every
    `evaluate_every_epochs` and after the last epoch. (seed, epoch) decides all chance, and `resume` is
    written after every epoch: a killed run that is started again ends with the weights of an
    undisturbed one. `report` hears of every epoch, those before a resumption too.

    Raises TrainingError when the loss is no longer finite.
    """
    backbone.to(device)
    loss.to(device)
    modules = {"backbone": backbone, "loss": loss}
    learners = [*backbone.learners(peak_learning_rate), Learners([*loss.parameters()], peak_learning_rate)]
    groups = [{"params": g.parameters, "peak": g.peak_learning_rate} for g in learners if g.parameters]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    state = resume.restore(modules, optimizer) or State(0, [], 0, math.inf, {})
    for epoch in state.history:
        report(epoch)
    history, best = list(state.history), Best(state.best_epoch, state.best_eer_percent, state.best)
    for number in range(state.epoch, epochs):
        epoch = train_epoch(
            backbone, loss, sampler, optimizer, number=number, epochs=epochs, cache=cache, rows=rows,
            labels=labels, crop_frames=crop_frames, warmup_epochs=warmup_epochs,
            seed=seed, device=device, precision=precision,
        )  # fmt: skip
        if (number + 1) % evaluate_every_epochs == 0 or number + 1 == epochs:
            epoch["dev_eer_percent"] = evaluate(backbone.eval())
            if epoch["dev_eer_percent"] < best.eer_percent:
                best = Best(number + 1, epoch["dev_eer_percent"], weights_of(modules))
        history.append(epoch)
        resume.save(
            State(number + 1, history, best.epoch, best.eer_percent, best.weights), modules, optimizer
        )
        report(epoch)
    return Trained(best, history)


def train_epoch(
    backbone: Backbone,
    loss: Loss,
    sampler: Batches,
    optimizer: torch.optim.Optimizer,
    *,
    number: int,
    epochs: int,
    cache: FeatureCache,
    rows: Rows,
    labels: Rows,
    crop_frames: int,
    warmup_epochs: float,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
) -> Epoch:
    """One pass over the sampler's batches of epoch `number` (from 0); returns what history keeps of it."""
    rng = np.random.default_rng([seed, number, 2])  # 2: apart from the sampler's streams
    torch.manual_seed(int(rng.integers(2**63)))  # for backbones that draw (dropout)
    backbone.train()
    losses, utterances, waiting = [], 0, 0.0
    start = time.perf_counter()
    for step, batch in enumerate(sampler.batches(number), start=number * len(sampler)):
        before = time.perf_counter()
        crops = torch.from_numpy(cache.crops(rows[batch], frames=crop_frames, rng=rng))
        targets = torch.from_numpy(labels[batch])
        mixture = mix(crops, alpha=loss.mixing, rng=rng) if loss.mixing > 0 else None
        waiting += time.perf_counter() - before
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                step,
                peak=group["peak"],
                warmup_steps=warmup_epochs * len(sampler),
                total_steps=epochs * len(sampler),
            )
        with autocast(device, precision):
            value = cost(backbone, loss, crops.to(device), targets.to(device), mixture)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.detach())
        utterances += len(batch)
    mean = float(torch.stack(losses).double().mean())
    if not math.isfinite(mean):
        raise TrainingError(
            f"epoch {number + 1}: the loss is {mean}; lower train.learning_rate or set train.precision: float32, "
            "and run again"
        )
    seconds = time.perf_counter() - start
    return {
        "epoch": number + 1,
        "loss": mean,
        "learning_rate": optimizer.param_groups[-1]["lr"],
        "train_seconds": seconds,
        "data_wait_percent": 100 * waiting / seconds,
        "utterances_per_s": utterances / seconds,
    }


def cost(backbone: Backbone, loss: Loss, crops: Tensor, targets: Tensor, mixture: Mixture | None) -> Tensor:
    """The loss of crops (B, T, F) of systems `targets` (B,), with their mixture in the same pass, if there is one."""
    if mixture is None:
        return cast(Tensor, loss(backbone(crops), targets))
    mixed, partner, share = (part.to(crops.device) for part in mixture)
    clean, blended = backbone(torch.cat([as_float(crops), mixed])).chunk(2)
    return cast(Tensor, loss(clean, targets)) + loss.of_mixture(blended, targets, targets[partner], share)


def weights_of(modules: Mapping[str, nn.Module]) -> Weights:
    """Copies of all their weights, as `PART/NAME`."""
    return {
        f"{part}/{name}": tensor.detach().cpu().clone()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
