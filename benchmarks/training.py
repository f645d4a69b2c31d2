"""Training of the thin ResNet-34 in utterances per second, against a peer or a plain loop.

    python benchmarks/training.py [--peer voxceleb_trainer=PATH] [--threads N] [--repeats N]
    python benchmarks/training.py --profile FILE [--precision float32]

Steps of 128 crops of 2 s, softmax over 24 systems. Every variant has its own process, and they take turns; medians.
The peer's network and loss, from its checkout at PATH, receive waveforms that are in memory. Without a peer, the
reference is the plain loop of this file: a DataLoader crops waveforms one by one, the step computes filterbanks,
float32. --profile writes the report of torch's profiler on 8 steps. benchmarks/gpu.sh measures training on a GPU.

On a GPU: epochs over 11,100 utterances of about 5 s, and what 300 would take; then the fine-tuned encoder of 315
million weights, as trained here and as a plain float32 loop.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from convolving import convolutions_alone
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from features import processor
from makermark.features.cache import FeatureCache
from makermark.features.shard import Shard
from makermark.foundation.device import keep_freed_memory, select_algorithms
from makermark.models import backbones, losses
from makermark.models.backbones import Backbone
from makermark.models.losses import Loss
from makermark.training.crops import HostCrops
from makermark.training.loop import ParamGroup, build_optimizer
from makermark.training.step import EagerStep, StepInputs, draw_inputs, take_step

BATCH, SYSTEMS, DIM, SAMPLES, FRAMES = 128, 24, 50, 32000, 200
LOG_MELS = {"front_end": "fbank", "normalise": "mean-variance"}
WARM_UP = 2
TimedStep = Callable[[], float]  # takes one step; returns the seconds spent waiting for data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", help="voxceleb_trainer=PATH, the path of its checkout")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", type=Path)
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of --profile"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{processor()}, {os.cpu_count()} logical cores, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}; "
    )
    print(f"Python {platform.python_version()}, torch {torch.__version__}; medians of {arguments.repeats}\n")
    if arguments.profile:
        profile(arguments.profile, arguments.precision)
    else:
        compare(arguments.peer, threads=arguments.threads, repeats=arguments.repeats)


def compare(peer: str | None, *, threads: int, repeats: int) -> None:
    """Print the table. Every variant runs in its own process; the processes take turns."""
    first = "voxceleb_trainer" if peer else "plain loop"
    variants: dict[str, Callable[[], TimedStep]] = {
        first: partial(PeerStep, Path(peer.removeprefix("voxceleb_trainer="))) if peer else PlainStep,
        "makermark, float32": partial(MakermarkStep, "float32"),
        "makermark, bfloat16": partial(MakermarkStep, "bfloat16"),
        "makermark, bfloat16, deterministic": partial(MakermarkStep, "bfloat16", deterministic=True),
    }
    spawning, ends = multiprocessing.get_context("spawn"), {}
    workers = []
    for name, make in variants.items():
        ends[name], theirs = spawning.Pipe()
        workers.append(spawning.Process(target=serve_steps, args=(make, theirs, threads), daemon=True))
        workers[-1].start()
        theirs.close()  # so that `recv` fails if the process has ended
    turns: dict[str, list[Turn]] = {name: [] for name in variants}
    for _ in range(WARM_UP + repeats):
        for name, end in ends.items():
            try:
                end.send(None)
                turns[name].append(end.recv())
            except (EOFError, ConnectionError):
                sys.exit(f"error: the process of {name} has ended; its error is above")
    for worker in workers:
        worker.terminate()
    print("| training step | utterances/s | times the first | waiting for data, % | peak memory, MB |")
    print("|---|---:|---:|---:|---:|")
    counted = {name: took[WARM_UP:] for name, took in turns.items()}
    slowest = statistics.median(turn.seconds for turn in counted[first])
    for name, took in counted.items():
        seconds, waited = (statistics.median(t[i] for t in took) for i in range(2))
        print(
            f"| {name} | {BATCH / seconds:.0f} | {slowest / seconds:.2f} | {100 * waited / seconds:.2f} | "
            f"{max(turn.peak_mb for turn in took)} |"
        )
    for precision in (torch.float32, torch.bfloat16):
        name, features = str(precision).removeprefix("torch."), torch.randn(BATCH, FRAMES, 40)
        seconds = convolutions_alone(
            small_net(), features, precision=precision, backward=True, repeats=repeats
        )
        print(f"| limit: its convolutions alone, in {name} | {BATCH / seconds:.0f} | | | |")


class Turn(NamedTuple):
    """The cost of one step."""

    seconds: float
    waited: float  # seconds of these, waiting for data
    peak_mb: int  # of the process since its start


def serve_steps(make: Callable[[], TimedStep], end: Connection, threads: int) -> None:
    """Take a step for every message and send back its Turn."""
    torch.set_num_threads(threads)
    step = make()
    while True:
        end.recv()
        start = time.perf_counter()
        waited = step()
        seconds = time.perf_counter() - start
        end.send(Turn(seconds, waited, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000))


class MakermarkStep:
    """A step of makermark's training on the CPU."""

    def __init__(self, precision: str, *, deterministic: bool = False) -> None:
        keep_freed_memory()
        device, self._deterministic = torch.device("cpu"), deterministic
        self._net, self._loss = small_net().train(), losses.build("softmax", num_systems=SYSTEMS, dim=DIM)
        self._crops = HostCrops(synthetic_cache(1000), np.arange(1000), frames=FRAMES)
        self._labels, self._rng = np.arange(1000) % SYSTEMS, np.random.default_rng(0)
        self._step = EagerStep(
            build_step_function(self._net, self._loss, self._crops, device, getattr(torch, precision)), device
        )

    def __call__(self) -> float:
        start = time.perf_counter()
        batch = self._rng.permutation(1000)[:BATCH]
        inputs = draw_inputs(self._crops, self._loss, batch, labels=self._labels, rng=self._rng)
        waited = time.perf_counter() - start
        with select_algorithms(deterministic=self._deterministic):
            self._step(inputs)
        return waited


class PeerStep:
    """A step of voxceleb_trainer: ResNetSE34L and softmax on waveforms in memory, Adam."""

    def __init__(self, checkout: Path) -> None:
        sys.path.insert(0, str(checkout))
        from loss.softmax import LossFunction
        from models.ResNetSE34L import MainModel

        with contextlib.redirect_stdout(io.StringIO()):
            self._net = MainModel(nOut=DIM, encoder_type="SAP", n_mels=40, log_input=True).train()
            self._loss = LossFunction(nOut=DIM, nClasses=SYSTEMS)
        self._optimizer = torch.optim.Adam([*self._net.parameters(), *self._loss.parameters()], lr=1e-3)
        self._waveforms, self._labels = torch.randn(BATCH, SAMPLES + 240), torch.arange(BATCH) % SYSTEMS

    def __call__(self) -> float:
        self._optimizer.zero_grad()
        value, _ = self._loss(self._net(self._waveforms), self._labels)
        value.backward()
        self._optimizer.step()
        return 0.0


class Waveforms(Dataset[tuple[Tensor, int]]):
    """1,000 utterances of 5 s; an item is a random crop of an utterance."""

    def __init__(self) -> None:
        self._waveforms = np.random.default_rng(0).standard_normal((200, 5 * 16000), np.float32)

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        start = np.random.randint(5 * 16000 - SAMPLES)
        return torch.from_numpy(self._waveforms[item % 200, start : start + SAMPLES]), item % SYSTEMS


class PlainStep:
    """A step of the same network in a plain loop."""

    def __init__(self) -> None:
        self._net, self._classifier = PlainNet().train(), nn.Linear(DIM, SYSTEMS)
        self._mel = torchaudio.transforms.MelSpectrogram(
            16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, window_fn=torch.hamming_window
        )
        self._optimizer = torch.optim.Adam([*self._net.parameters(), *self._classifier.parameters()], lr=1e-3)
        self._loader = DataLoader(Waveforms(), batch_size=BATCH, shuffle=True, drop_last=True)
        self._batches = iter(self._loader)

    def __call__(self) -> float:
        start = time.perf_counter()
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        waited = time.perf_counter() - start
        with torch.no_grad():
            mels = F.instance_norm((self._mel(batch[0]) + 1e-6).log())
        self._optimizer.zero_grad()
        F.cross_entropy(self._classifier(self._net(mels.unsqueeze(1))), batch[1]).backward()
        self._optimizer.step()
        return waited


class PlainNet(nn.Module):
    """The thin ResNet-34 of Chung et al. 2020 in PyTorch's default memory order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 7, (2, 1), 3, bias=False)
        self.norm = nn.BatchNorm2d(16)
        sizes = zip((16, 16, 32, 64), (16, 32, 64, 128), (3, 4, 6, 3), (1, 2, 2, 1), strict=True)
        self.blocks = nn.Sequential(
            *(
                PlainBlock(inputs if index == 0 else filters, filters, stride if index == 0 else 1)
                for inputs, filters, count, stride in sizes
                for index in range(count)
            )
        )
        self.attention, self.query = nn.Linear(128, 128), nn.Linear(128, 1, bias=False)
        self.embedding = nn.Linear(128, DIM)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(images)))).mean(dim=2).transpose(1, 2)  # (B, T, C)
        weights = F.softmax(self.query(torch.tanh(self.attention(x))), dim=1)
        embeddings: Tensor = self.embedding((weights * x).sum(dim=1))
        return embeddings


class PlainBlock(nn.Module):
    """A basic residual block with squeeze-and-excitation."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)
        self.gates = nn.Sequential(
            nn.Linear(filters, filters // 8), nn.ReLU(), nn.Linear(filters // 8, filters), nn.Sigmoid()
        )
        same = stride == 1 and inputs == filters
        projection = (nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        self.shortcut = nn.Identity() if same else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.norm1(F.relu(self.conv1(x)))))
        return F.relu(out * self.gates(out.mean(dim=(2, 3)))[..., None, None] + self.shortcut(x))


def profile(path: Path, precision: str) -> None:
    """Write the 15 operators with the largest own time in 8 steps."""
    step = MakermarkStep(precision)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(8):
            step()
    table = profiler.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=50
    )
    path.write_text("\n".join(line.rstrip() for line in table.splitlines()) + "\n")


def build_step_function(
    net: Backbone, loss: Loss, crops: HostCrops, device: torch.device, precision: torch.dtype
):
    """Return the function of one step, with its own optimizer."""
    learners = [*net.param_groups(1e-3), ParamGroup([*loss.parameters()], 1e-3)]
    optimizer = build_optimizer(learners, weight_decay=0.0, rate_on=None)

    def step(inputs: StepInputs) -> Tensor:
        return take_step(net, loss, optimizer, crops, inputs, device=device, precision=precision)

    return step


def small_net() -> Backbone:
    torch.manual_seed(0)
    return backbones.build("resnet34", dim=DIM, width=40, **LOG_MELS, pooling="sap", stem_order="norm-relu")


def synthetic_cache(utterances: int) -> FeatureCache:
    """Return a cache in memory: noise of 3 to 7 s per utterance."""
    rng = np.random.default_rng(0)
    frames = rng.integers(300, 700, utterances).astype(np.int32)
    values = rng.standard_normal((int(frames.sum()), 40), np.float32).astype(np.float16)
    names = [f"{number:06d}" for number in range(utterances)]
    shard = Shard(
        path=Path(), identity="", checksum=0, quarantine=[], utterance_ids=names, frames=frames, values=values
    )
    return FeatureCache([shard], {})


if __name__ == "__main__":
    main()
