"""Memory layout of the thin ResNet-34 on a CPU: error of the gradient against float64, and time of a step.

    python benchmarks/layout.py [--batch 48] [--frames 200] [--repeats 5]

The network computes in channels-last layout, which saves reordering images around every convolution. In that layout
PyTorch's batch normalisation adds all positions of a channel one after the other in float32; makermark computes the
statistics itself (`models/backbones/batch_norm.py`). `reference` is the written-out network of the tests, with the same
weights and PyTorch's batch normalisation.

The error of a gradient g is |g - g64| / |g64| over all weights, with g64 from the same network and batch in float64.
bfloat16 is measured where the processor multiplies it. The variants take turns; medians.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from features import processor
from makermark.foundation.device import choose_precision
from makermark.models import backbones, losses
from makermark.models.losses import Loss

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/models/backbones"))

from reference_resnet import ReferenceResNet
from test_resnet import reference_weights

from tests_support import LOG_MELS

DIM, SYSTEMS = 50, 24
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels-last"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=48, help="crops in a batch")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}")
    print(f"{arguments.batch} crops of {arguments.frames} frames, GE2E; medians of {arguments.repeats}\n")
    torch.manual_seed(0)
    features = 3 * torch.randn(arguments.batch, arguments.frames, 40) - 5
    labels = torch.arange(arguments.batch) % (arguments.batch // 4)
    net = backbones.build("resnet34", dim=DIM, width=40, **LOG_MELS, pooling="sap", stem_order="norm-relu")
    reference = ReferenceResNet(DIM, pooling="sap", norm_first=True)
    reference.load_state_dict(reference_weights(net))
    in_float64 = ReferenceResNet(DIM, pooling="sap", norm_first=True).double()
    in_float64.load_state_dict(reference.state_dict())
    loss = losses.build("ge2e", num_systems=SYSTEMS, dim=DIM, scale=10.0, bias=-5.0, variant="wan2018")
    names = list(reference_weights(net))
    exact = gradient(in_float64, loss.double(), features.double(), labels, names)
    loss.float()
    precisions = dict.fromkeys([torch.float32, choose_precision("auto", torch.device("cpu"))])
    print("| network | layout | precision | gradient error | step, ms |")
    print("|---|---|---|---:|---:|")
    variants: list[tuple[str, nn.Module, str]] = [
        ("makermark", net, CHANNELS_LAST),
        ("reference", reference, CONTIGUOUS),
        ("reference", copy.deepcopy(reference), CHANNELS_LAST),
    ]
    for name, network, layout in variants:
        if name == "reference":
            chosen = torch.channels_last if layout == CHANNELS_LAST else torch.contiguous_format
            network.to(memory_format=chosen)
    seconds: dict[tuple[int, torch.dtype], list[float]] = {}
    errors: dict[tuple[int, torch.dtype], float] = {}
    for _ in range(arguments.repeats):
        for number, (_, network, _) in enumerate(variants):
            for precision in precisions:
                start = time.perf_counter()
                computed = gradient(network, loss, features, labels, names, precision=precision)
                seconds.setdefault((number, precision), []).append(time.perf_counter() - start)
                errors[number, precision] = ((computed - exact).norm() / exact.norm()).item()
    for (number, precision), error in errors.items():
        name, _, layout = variants[number]
        milliseconds = 1000 * statistics.median(seconds[number, precision])
        print(
            f"| {name} | {layout} | {str(precision).removeprefix('torch.')} | {100 * error:.2f} % "
            f"| {milliseconds:.0f} |"
        )


def gradient(
    network: nn.Module,
    loss: Loss,
    features: Tensor,
    labels: Tensor,
    names: list[str],
    *,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Return the gradient of all weights as one float64 vector, in the order of the reference's `names`."""
    network.train().zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        embeddings = network(features)
    loss(embeddings, labels).backward()
    if isinstance(network, ReferenceResNet):
        weights = dict(network.named_parameters())
        parameters = [weights[name] for name in names if name in weights]
    else:
        own = dict(network.named_parameters())
        parameters = [own[name] for name in network.state_dict() if name in own]
    return torch.cat([parameter.grad.flatten().double() for parameter in parameters])


if __name__ == "__main__":
    main()
