"""The training loop: batches of crops in, the best and the last weights out.

Legend of axes: N utterances, K variants of each.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from makermark.features.cache import FeatureCache
from makermark.foundation.arrays import IntArray
from makermark.foundation.device import select_algorithms
from makermark.foundation.errors import TrainingError
from makermark.models.backbones.base import Backbone, ParamGroup
from makermark.models.checkpoint import Weights, copy_weights
from makermark.models.losses.base import Loss
from makermark.training.crops import Crops, VariantCrops, build_crops
from makermark.training.cuda_graph import GraphedStep
from makermark.training.resume import ResumeFile, TrainingState
from makermark.training.samplers import Sampler
from makermark.training.step import EagerStep, StepFunction, draw_inputs, take_step

log = logging.getLogger(__name__)

EpochMetrics = dict[str, float]  # one entry of the history


@dataclass(frozen=True)
class BestWeights:
    """The weights at the lowest dev EER, named `backbone/NAME` and `loss/NAME`."""

    epoch: int
    eer_percent: float
    weights: Weights


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training; `history` has one entry per epoch. The backbone holds the last weights."""

    best: BestWeights
    history: list[EpochMetrics]


def train(
    backbone: Backbone,
    loss: Loss,
    sampler: Sampler,
    *,
    cache: FeatureCache,
    rows: IntArray,
    labels: IntArray,
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
    clean_fraction: float,
    deterministic: bool,
    resume: ResumeFile,
    report: Callable[[EpochMetrics], None],
) -> TrainingResult:
    """Train `backbone`, and the parameters of `loss`, with AdamW on random crops of `crop_frames` frames.

    - `rows` (N,) are the cache rows of the training utterances and `labels` (N,) their system numbers; the sampler
      yields positions into both. `rows` (K N,) may continue with augmented copies of all utterances in the same
      order: then each crop is of the utterance itself with probability `clean_fraction`, otherwise of a copy.
    - `evaluate` returns the dev EER in percent. It is called every `evaluate_every_epochs` and after the last epoch.
    - `features_on` is `auto`, `host` or `device`; see `build_crops`.
    - `deterministic` requests bit-identical results of a CUDA device; a CPU gives them in any case.
    - `resume` is written after every epoch. (seed, epoch) determines all random numbers: a killed training that is
      started again ends with the weights of an uninterrupted one.
    - `report` receives the metrics of every epoch, those before a resumption too.

    On a CUDA device the step of a backbone with `supports_cuda_graph` runs as a CUDA graph, and the host synchronises
    once per epoch. Raises TrainingError if the loss is not finite.
    """
    backbone.to(device)
    loss.to(device)
    modules = {"backbone": backbone, "loss": loss}
    graphed = device.type == "cuda" and backbone.supports_cuda_graph
    if device.type == "cuda" and not graphed:
        log.info("%s runs eagerly: its step cannot be captured as a CUDA graph", type(backbone).__name__)
    optimizer = build_optimizer(
        [*backbone.param_groups(peak_learning_rate), ParamGroup([*loss.parameters()], peak_learning_rate)],
        weight_decay=weight_decay,
        rate_on=device if graphed else None,
    )
    state = resume.restore(modules, optimizer) or TrainingState(0, [], 0, math.inf, {})
    for metrics in state.history:
        report(metrics)
    history, best = list(state.history), BestWeights(state.best_epoch, state.best_eer_percent, state.best)
    crops: Crops = build_crops(features_on, cache, rows, frames=crop_frames, device=device)
    if (variants := len(rows) // len(labels)) > 1:
        crops = VariantCrops(crops, utterances=len(labels), variants=variants, clean_fraction=clean_fraction)
    function = partial(take_step, backbone, loss, optimizer, crops, device=device, precision=precision)
    step: StepFunction = GraphedStep(function, device) if graphed else EagerStep(function, device)
    for epoch in range(state.epoch, epochs):
        backbone.train()
        with select_algorithms(deterministic=deterministic):
            metrics = train_epoch(
                step, loss, sampler, optimizer, crops, epoch=epoch, epochs=epochs, labels=labels,
                warmup_epochs=warmup_epochs, seed=seed,
            )  # fmt: skip
        if (epoch + 1) % evaluate_every_epochs == 0 or epoch + 1 == epochs:
            metrics["dev_eer_percent"] = evaluate(backbone.eval())
            if metrics["dev_eer_percent"] < best.eer_percent:
                best = BestWeights(epoch + 1, metrics["dev_eer_percent"], copy_weights(modules))
        history.append(metrics)
        resume.save(
            TrainingState(epoch + 1, history, best.epoch, best.eer_percent, best.weights), modules, optimizer
        )
        report(metrics)
    return TrainingResult(best, history)


def build_optimizer(
    groups: list[ParamGroup], *, weight_decay: float, rate_on: torch.device | None
) -> torch.optim.AdamW:
    """Build AdamW over the parameter groups, each with its `peak` learning rate.

    With `rate_on`, learning rates are tensors on that device: a captured step reads their current values.
    """
    settings = [
        {"params": group.parameters, "peak": group.peak_learning_rate}
        | ({} if rate_on is None else {"lr": torch.zeros((), device=rate_on)})
        for group in groups
        if group.parameters
    ]
    return torch.optim.AdamW(settings, weight_decay=weight_decay, fused=True, capturable=rate_on is not None)


def train_epoch(
    step: StepFunction,
    loss: Loss,
    sampler: Sampler,
    optimizer: torch.optim.Optimizer,
    crops: Crops,
    *,
    epoch: int,
    epochs: int,
    labels: IntArray,
    warmup_epochs: float,
    seed: int,
) -> EpochMetrics:
    """Train on the batches of `epoch`, counted from 0; return its metrics. Raises TrainingError."""
    rng = np.random.default_rng([seed, epoch, 2])  # 2: not a stream of the sampler
    torch.manual_seed(int(rng.integers(2**63)))  # for dropout
    losses, utterances, waiting = [], 0, 0.0
    start = time.perf_counter()
    for number, batch in enumerate(sampler.batches(epoch), start=epoch * len(sampler)):
        before = time.perf_counter()
        inputs = draw_inputs(crops, loss, batch, labels=labels, rng=rng)
        waiting += time.perf_counter() - before
        rate = set_learning_rates(
            optimizer,
            number,
            warmup_steps=warmup_epochs * len(sampler),
            total_steps=epochs * len(sampler),
        )
        losses.append(step(inputs))
        utterances += len(batch)
    mean = float(torch.stack(losses).double().mean())
    if not math.isfinite(mean):
        raise TrainingError(
            f"epoch {epoch + 1}: the loss is {mean}; lower train.learning_rate or set train.precision: float32, "
            "and run again"
        )
    seconds = time.perf_counter() - start
    return {
        "epoch": epoch + 1,
        "loss": mean,
        "learning_rate": rate,
        "train_seconds": seconds,
        "data_wait_percent": 100 * waiting / seconds,
        "utterances_per_s": utterances / seconds,
    }


def set_learning_rates(
    optimizer: torch.optim.Optimizer, step: int, *, warmup_steps: float, total_steps: int
) -> float:
    """Set the learning rate of every parameter group for `step`; return that of the last group."""
    for group in optimizer.param_groups:
        rate = learning_rate(step, peak=group["peak"], warmup_steps=warmup_steps, total_steps=total_steps)
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
    return rate


def learning_rate(step: int, *, peak: float, warmup_steps: float, total_steps: int) -> float:
    """Return the learning rate of `step`, counted from 0.

    Linear warm-up from 0 to `peak`, then half a cosine down to 0 (Loshchilov & Hutter 2017, eq. 5). The schedule is
    evaluated at the middle of the step, so that neither the first nor the last step has a rate of 0.
    """
    position = step + 0.5
    if position < warmup_steps:
        return peak * position / warmup_steps
    progress = (position - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
