"""The training loop: batches of crops in, the best and the last weights out.

Legend of axes: B batch, T frames, F bands.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from makermark.backbones.base import Backbone, Learners, as_float
from makermark.device import algorithms, autocast
from makermark.errors import TrainingError
from makermark.features.cache import FeatureCache
from makermark.losses.base import Groups, Loss
from makermark.training.crops import AmongCopies, Crops, crops_from
from makermark.training.mixing import Mixture, draw_mixture, mix
from makermark.training.resume import ResumeFile, State, Weights
from makermark.training.schedule import learning_rate
from makermark.training.stepping import Captured, CudaGraph, Eager, Parts, Step

log = logging.getLogger(__name__)

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
    features_on: str,
    deterministic: bool,
    resume: ResumeFile,
    report: Callable[[Epoch], None],
) -> Trained:
    """Train `backbone` and `loss` (it may learn too) with AdamW on random crops of `crop_frames` frames.

    `rows` (N,) are the cache rows of the training utterances and `labels` (N,) their system numbers;
    the sampler gives positions into both. Where `rows` (K N,) go on with copies of all of them, in the same order,
    each time an utterance is taken one of the K is drawn. `evaluate` returns the dev EER in percent and is called every
    `evaluate_every_epochs` and after the last epoch. (seed, epoch) decides all chance, and `resume` is
    written after every epoch: a killed run that is started again ends with the weights of an
    undisturbed one. `report` hears of every epoch, those before a resumption too.

    `features_on` is one of crops.FEATURES_ON. On a CUDA device the step of a backbone that is `capturable` is
    recorded and replayed (stepping.Captured), and the host waits for the device once an epoch. `deterministic`
    asks of a CUDA device what a processor does in any case: the same bits again.

    Raises TrainingError when the loss is no longer finite.
    """
    backbone.to(device)
    loss.to(device)
    modules = {"backbone": backbone, "loss": loss}
    captured = device.type == "cuda" and backbone.capturable
    if device.type == "cuda" and not captured:
        log.info("%s runs step by step: it cannot be recorded as a CUDA graph", type(backbone).__name__)
    optimizer = build_optimizer(
        [*backbone.learners(peak_learning_rate), Learners([*loss.parameters()], peak_learning_rate)],
        weight_decay=weight_decay,
        rate_on=device if captured else None,
    )
    state = resume.restore(modules, optimizer) or State(0, [], 0, math.inf, {})
    for epoch in state.history:
        report(epoch)
    history, best = list(state.history), Best(state.best_epoch, state.best_eer_percent, state.best)
    crops: Crops = crops_from(features_on, cache, rows, frames=crop_frames, device=device)
    if (variants := len(rows) // len(labels)) > 1:
        crops = AmongCopies(crops, utterances=len(labels), variants=variants)
    work = partial(take_step, backbone, loss, optimizer, crops, device=device, precision=precision)
    step: Step = Captured(work, device, record=CudaGraph) if captured else Eager(work, device)
    for number in range(state.epoch, epochs):
        backbone.train()
        with algorithms(deterministic=deterministic):
            epoch = train_epoch(
                step, loss, sampler, optimizer, crops, number=number, epochs=epochs, labels=labels,
                warmup_epochs=warmup_epochs, seed=seed,
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


def build_optimizer(
    learners: list[Learners], *, weight_decay: float, rate_on: torch.device | None
) -> torch.optim.AdamW:
    """AdamW over the learners' parameters, each group with its `peak`; with `rate_on` the learning rates are tensors
    there, which a recorded step reads anew each time."""
    groups = [
        {"params": g.parameters, "peak": g.peak_learning_rate}
        | ({} if rate_on is None else {"lr": torch.zeros((), device=rate_on)})
        for g in learners
        if g.parameters
    ]
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True, capturable=rate_on is not None)


def train_epoch(
    step: Step,
    loss: Loss,
    sampler: Batches,
    optimizer: torch.optim.Optimizer,
    crops: Crops,
    *,
    number: int,
    epochs: int,
    labels: Rows,
    warmup_epochs: float,
    seed: int,
) -> Epoch:
    """One pass over the sampler's batches of epoch `number` (from 0); returns what history keeps of it."""
    rng = np.random.default_rng([seed, number, 2])  # 2: apart from the sampler's streams
    torch.manual_seed(int(rng.integers(2**63)))  # for backbones that draw (dropout)
    losses, utterances, waiting = [], 0, 0.0
    start = time.perf_counter()
    for place, batch in enumerate(sampler.batches(number), start=number * len(sampler)):
        before = time.perf_counter()
        parts = draw(crops, loss, batch, labels=labels, rng=rng)
        waiting += time.perf_counter() - before
        for group in optimizer.param_groups:
            rate = learning_rate(
                place,
                peak=group["peak"],
                warmup_steps=warmup_epochs * len(sampler),
                total_steps=epochs * len(sampler),
            )
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
        losses.append(step(parts))
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
        "learning_rate": rate,
        "train_seconds": seconds,
        "data_wait_percent": 100 * waiting / seconds,
        "utterances_per_s": utterances / seconds,
    }


def draw(crops: Crops, loss: Loss, batch: Rows, *, labels: Rows, rng: np.random.Generator) -> Parts:
    """All that a step on the utterances at positions `batch` needs, as tensors of the host: crops, labels, mixture."""
    drawn = crops.draw(batch, rng)
    arranged = loss.arrange(torch.from_numpy(labels[batch]))
    mixture = draw_mixture(len(batch), alpha=loss.mixing, rng=rng) if loss.mixing > 0 else ()
    return drawn, arranged if isinstance(arranged, Groups) else (arranged,), mixture


def take_step(
    backbone: Backbone,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    crops: Crops,
    parts: Parts,
    *,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """Move the weights once by what `draw` gave; returns the loss before."""
    drawn, labels, mixture = parts
    targets = labels[0] if len(labels) == 1 else Groups(*labels)
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, precision):
        value = cost(backbone, loss, crops.cut(drawn), targets, Mixture(*mixture) if mixture else None)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def cost(
    backbone: Backbone, loss: Loss, crops: Tensor, targets: Tensor | Groups, mixture: Mixture | None
) -> Tensor:
    """The loss of crops (B, T, F) of systems `targets`, with their mixture in the same pass, if there is one."""
    if mixture is None:
        return cast(Tensor, loss(backbone(crops), targets))
    systems = targets.systems if isinstance(targets, Groups) else targets
    clean, blended = backbone(torch.cat([as_float(crops), mix(crops, mixture)])).chunk(2)
    mixed = loss.of_mixture(blended, systems, systems[mixture.partner], mixture.share)
    return cast(Tensor, loss(clean, targets)) + mixed


def weights_of(modules: Mapping[str, nn.Module]) -> Weights:
    """Copies of all their weights, as `PART/NAME`."""
    return {
        f"{part}/{name}": tensor.detach().cpu().clone()
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
