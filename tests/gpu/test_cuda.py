"""Training, features and pair scoring on a CUDA device against the CPU. benchmarks/gpu.sh runs these tests.

They need no audio library, no DVC and no MLflow.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from makermark.features.cache import FeatureCache
from makermark.features.shard import Shard
from makermark.foundation.device import select_algorithms
from makermark.models import backbones, losses
from makermark.models.backbones.base import ParamGroup
from makermark.scoring.pairs import metrics_to_json, score_all_pairs
from makermark.training.crops import DeviceCrops, HostCrops
from makermark.training.cuda_graph import CudaGraph, GraphedStep
from makermark.training.loop import build_optimizer
from makermark.training.step import EagerStep, draw_inputs, take_step
from tests_support import LOG_MELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SETTINGS = {
    "aamsoftmax": {"margin": 0.2, "scale": 30.0},
    "ge2e": {"scale": 10.0, "bias": -5.0, "variant": "wan2018"},
}
UTTERANCES, FRAMES = 48, 60


def random_cache():
    rng = np.random.default_rng(0)
    frames = rng.integers(FRAMES, 2 * FRAMES, UTTERANCES).astype(np.int32)
    values = rng.standard_normal((int(frames.sum()), 40)).astype(np.float16)
    names = [str(number) for number in range(UTTERANCES)]
    shard = Shard(
        path=Path(), identity="", checksum=0, quarantine=[], utterance_ids=names, frames=frames, values=values
    )
    return FeatureCache([shard], {})


def train_steps(loss_name, build_step):
    """Take eight steps on the CUDA device, on features that lie there; return the losses and the final weights."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    network = backbones.build("resnet34", dim=8, width=40, **LOG_MELS, pooling="mean").to(device).train()
    loss = losses.build(loss_name, num_systems=4, dim=8, **SETTINGS[loss_name]).to(device)
    groups = [*network.param_groups(1e-3), ParamGroup([*loss.parameters()], 1e-3)]
    optimizer = build_optimizer(groups, weight_decay=0.0, rate_on=device)
    for group in optimizer.param_groups:
        group["lr"].fill_(1e-3)
    crops = DeviceCrops(random_cache(), np.arange(UTTERANCES), frames=FRAMES, device=device)
    labels, rng = np.arange(UTTERANCES) % 4, np.random.default_rng(0)
    step = build_step(
        partial(take_step, network, loss, optimizer, crops, device=device, precision=torch.float32), device
    )
    values = []
    with select_algorithms(deterministic=True):
        for number in range(8):
            batch = np.arange(16) + 16 * (number % 3)
            values.append(step(draw_inputs(crops, loss, batch, labels=labels, rng=rng)).item())
    return values, [*network.parameters(), *network.buffers()]


@pytest.mark.parametrize("loss", list(SETTINGS))
def test_graphed_steps_equal_eager_steps(loss):
    captures = []

    def capture(function):
        captures.append(CudaGraph(function))
        return captures[-1]

    eager_losses, eager_weights = train_steps(loss, EagerStep)
    graph_losses, graph_weights = train_steps(loss, partial(GraphedStep, capture=capture))
    assert len(captures) == 1
    np.testing.assert_allclose(graph_losses, eager_losses, rtol=1e-4)
    for graph, eager in zip(graph_weights, eager_weights, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-3, atol=1e-5)


def test_device_crops_equal_host_crops():
    cache, rows = random_cache(), np.arange(UTTERANCES)
    device = DeviceCrops(cache, rows, frames=FRAMES, device=torch.device("cuda"))
    host = HostCrops(cache, rows, frames=FRAMES)
    batch = np.array([5, 0, 47, 5, 20])
    drawn = device.draw(batch, np.random.default_rng(3))
    on_device = device.cut(tuple(tensor.cuda() for tensor in drawn))
    on_host = host.cut(host.draw(batch, np.random.default_rng(3)))
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), on_host)


def test_pair_scoring_equals_the_cpu_where_scores_are_exact():
    rng = np.random.default_rng(0)
    embeddings = rng.choice([-1.0, 1.0], size=(3000, 4)).astype(np.float32)  # cosines are multiples of 1/2
    systems, strata = rng.choice(list("abcdef"), 3000), rng.choice(list("xy"), 3000)
    settings = {"bootstrap_samples": 20, "seed": 0, "sample_utterances": 10}
    on_gpu = score_all_pairs(embeddings, systems, strata, device="cuda", **settings)
    on_cpu = score_all_pairs(embeddings, systems, strata, **settings)
    assert metrics_to_json(on_gpu) == metrics_to_json(on_cpu)


def test_pair_scoring_equals_the_cpu_on_gaussian_embeddings():
    rng = np.random.default_rng(0)
    systems = np.arange(4000) % 16
    embeddings = rng.standard_normal((16, 50))[systems] + 1.1 * rng.standard_normal((4000, 50))
    settings = {"bootstrap_samples": 0, "seed": 0}
    on_gpu = score_all_pairs(embeddings.astype(np.float32), systems, None, device="cuda", **settings)
    on_cpu = score_all_pairs(embeddings.astype(np.float32), systems, None, **settings)
    assert on_gpu.eer_micro_percent == pytest.approx(on_cpu.eer_micro_percent, abs=1e-3)
