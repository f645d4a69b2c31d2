"""GPU benchmarks and tests in one command, each part in its own process with its own time limit.

    benchmarks/gpu.sh [--small] [--out FOLDER] [--part NAME ...]

Parts (PARTS gives their time limits, 8 minutes together):

- tests: the tests marked `gpu`
- projection: an epoch of 11,100 utterances, the size of MLAADv5's train split, and the projection to 300 epochs
- graph: a training step as a CUDA graph against the same step run eagerly
- encoder: wav2vec2-aasist with 315 M parameters, fine-tuned by makermark's step and by a plain float32 loop
- parallel: several small trainings at once on one device
- scoring: the EER of every pair of 1,000,000 embeddings with 50 dimensions

The parts need neither DVC nor MLflow. A part whose packages are missing is skipped; the reason is in the table. Data
and weights are random: the times do not depend on them. Without a CUDA device use --small: small sizes on the CPU,
which show that the parts run and nothing else. Writes results.json and results.md; exit status 1 if a part fails.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parents[1]
DIM, BANDS, CROP_FRAMES, SYSTEMS = 50, 40, 200, 24
LOG_MELS = {"front_end": "fbank", "normalise": "mean-variance"}
SMALL_LIMIT_FACTOR = 5  # a busy CPU needs a minute to import torch
Measurements = dict[str, float | str]


class Sizes(NamedTuple):
    """Sizes of all parts."""

    utterances: int
    batch: int
    batch_systems: int
    timed_epochs: int
    timed_steps: int
    encoder_width: int
    encoder_layers: int
    encoder_batch: int
    encoder_seconds: int
    runs: int
    run_seconds: float
    embeddings: int


FULL = Sizes(11_100, 128, 12, 5, 100, 1024, 24, 32, 4, 4, 8.0, 1_000_000)
SMALL = Sizes(96, 16, 6, 1, 3, 64, 2, 2, 1, 2, 2.0, 4_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="small sizes, on the CPU if there is no GPU")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="only this part; may be repeated"
    )
    parser.add_argument("--run", choices=list(PARTS), help=argparse.SUPPRESS)  # in the process of a part
    arguments = parser.parse_args()
    if arguments.run:
        return print(json.dumps(PARTS[arguments.run].function(SMALL if arguments.small else FULL)))
    out = arguments.out or Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="makermark-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "small": arguments.small, "parts": {}}
    for name in arguments.part or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results["parts"][name] = run_part(name, small=arguments.small)
        (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (out / "results.md").write_text(format_results(results), encoding="utf-8")
    print(format_results(results))
    print(f"written: {out}/results.json, {out}/results.md", file=sys.stderr)
    sys.exit(any(part["status"] in ("failed", "timed out") for part in results["parts"].values()))


def run_part(name: str, *, small: bool) -> dict[str, Any]:
    """Run a part in a process of its own; return its status, seconds and measurements."""
    command = [sys.executable, str(Path(__file__).resolve()), "--run", name, *(["--small"] if small else [])]
    limit_s = PARTS[name].limit_s * (SMALL_LIMIT_FACTOR if small else 1)
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.communicate()
        return {"status": "timed out", "seconds": limit_s, "measurements": {}}
    result: dict[str, Any] = {
        "status": "done",
        "seconds": round(time.perf_counter() - start, 1),
        "measurements": {},
    }
    if process.returncode == 0:
        return result | {"measurements": json.loads(stdout.splitlines()[-1])}
    error = (stderr.strip().splitlines() or ["no output"])[-1]
    is_missing = error.startswith(("ModuleNotFoundError:", "ImportError:"))
    return result | {"status": "skipped" if is_missing else "failed", "error": error, "log": stderr[-4000:]}


def format_results(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    head = ", ".join(f"{value}" for value in results["machine"].values())
    lines = [f"{head}{'; small sizes, not a measurement of a GPU' if results['small'] else ''}", ""]
    lines += ["| part | s | measurement | value |", "|---|---:|---|---:|"]
    for name, part in results["parts"].items():
        rows = part["measurements"] or {part["status"]: part.get("error", "").replace("|", "/")}
        for number, (title, value) in enumerate(rows.items()):
            shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
            first = f"{name} | {part['seconds']:.0f}" if number == 0 else " | "
            lines.append(f"| {first} | {title} | {shown} |")
    return "\n".join(lines) + "\n"


def machine() -> dict[str, str]:
    import torch

    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    return {
        "device": name,
        "cores": f"{os.cpu_count()} CPU cores",
        "python": f"Python {platform.python_version()}",
        "torch": f"torch {torch.__version__}",
        "commit": f"commit {commit or 'unknown'}",
    }


def run_tests(sizes: Sizes) -> Measurements:
    """Run the tests marked `gpu`, one pytest for each file: a file whose imports fail is reported as skipped."""
    results: Measurements = {}
    for file in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        if "mark.gpu" not in file.read_text(encoding="utf-8"):
            continue
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(file)]
        process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        output = process.stdout + process.stderr
        missing = re.search(r"(ModuleNotFoundError|ImportError): .*", output)
        if process.returncode and missing is None:
            sys.exit(f"{output[-3000:]}\n{file.name}: tests failed")
        summary = (process.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
        results[str(file.relative_to(REPOSITORY))] = f"skipped: {missing[0]}" if missing else summary
    return results


def project_training(sizes: Sizes) -> Measurements:
    """Time epochs of the thin ResNet-34 with the random and the balanced sampler; project 300 epochs."""
    measurements: Measurements = {}
    for name, sampler, settings, loss in (
        (f"random, batches of {sizes.batch}, aamsoftmax", "random", {"batch_utterances": sizes.batch}, "aamsoftmax"),
        (
            f"balanced, {sizes.batch_systems} systems x 2, ge2e",
            "balanced",
            {"batch_systems": sizes.batch_systems, "utterances_per_system": 2},
            "ge2e",
        ),
    ):  # fmt: skip
        training = Training(sizes, loss, graphed=True)
        sampler_ = training.sampler(sampler, **settings)
        epochs = [training.epoch(sampler_, number) for number in range(1 + sizes.timed_epochs)]
        seconds = statistics.median(epochs[1:])  # the first one chooses algorithms and captures the graph
        measurements[f"{name}: s per epoch of {sizes.utterances:,} utterances"] = seconds
        measurements[f"{name}: projected minutes of 300 epochs"] = 300 * seconds / 60
    return measurements


def compare_graph(sizes: Sizes) -> Measurements:
    """Time the same training steps as a CUDA graph and eagerly."""
    import torch

    kinds = {"eager": False} | ({"CUDA graph": True} if torch.cuda.is_available() else {})
    seconds, losses = {}, {}
    for name, graphed in kinds.items():
        training = Training(sizes, "aamsoftmax", graphed=graphed)
        losses[name] = [training.step(number) for number in range(5)]
        seconds[name] = training.time_steps(sizes.timed_steps)
    measurements: Measurements = {f"{name}: ms per step": 1000 * value for name, value in seconds.items()}
    if "CUDA graph" not in seconds:
        return measurements | {"CUDA graph": "skipped: needs a CUDA device"}
    difference = max(abs(a - b) for a, b in zip(losses["eager"], losses["CUDA graph"], strict=True))
    measurements["CUDA graph: times faster"] = seconds["eager"] / seconds["CUDA graph"]
    return measurements | {"largest difference of the loss in the first 5 steps": difference}


class Training:
    """A training of the thin ResNet-34 on random log-mels that lie on the device."""

    def __init__(self, sizes: Sizes, loss: str, *, graphed: bool) -> None:
        import numpy as np
        import torch

        from makermark.models import backbones, losses
        from makermark.models.backbones.base import ParamGroup
        from makermark.training.crops import DeviceCrops
        from makermark.training.cuda_graph import GraphedStep
        from makermark.training.loop import build_optimizer
        from makermark.training.step import EagerStep, take_step

        self._sizes, self._device = sizes, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        is_cuda = self._device.type == "cuda"
        torch.manual_seed(0)
        settings = {
            "aamsoftmax": {"margin": 0.2, "scale": 30.0},
            "ge2e": {"scale": 10.0, "bias": -5.0, "variant": "wan2018"},
        }[loss]
        net = (
            backbones.build(
                "resnet34", dim=DIM, width=BANDS, **LOG_MELS, pooling="sap", stem_order="norm-relu"
            )
            .to(self._device)
            .train()
        )
        self._loss = losses.build(loss, num_systems=SYSTEMS, dim=DIM, **settings).to(self._device)
        rows = np.arange(sizes.utterances)
        self.labels = rows % SYSTEMS
        self._crops = DeviceCrops(
            random_cache(sizes.utterances), rows, frames=CROP_FRAMES, device=self._device
        )
        groups = [*net.param_groups(1e-4), ParamGroup([*self._loss.parameters()], 1e-4)]
        self._optimizer = build_optimizer(
            groups, weight_decay=0.0, rate_on=self._device if graphed and is_cuda else None
        )
        precision = torch.bfloat16 if is_cuda else torch.float32

        def function(inputs: Any) -> Any:
            return take_step(
                net,
                self._loss,
                self._optimizer,
                self._crops,
                inputs,
                device=self._device,
                precision=precision,
            )

        self._step = (GraphedStep if graphed and is_cuda else EagerStep)(function, self._device)
        self._rng = np.random.default_rng(0)

    def sampler(self, name: str, **settings: int) -> Any:
        from makermark.training import samplers

        return samplers.build(name, self.labels.tolist(), seed=0, **settings)

    def epoch(self, sampler: Any, number: int) -> float:
        """Train one epoch of 300; return its seconds."""
        from makermark.foundation.device import select_algorithms
        from makermark.training.loop import train_epoch

        with select_algorithms(deterministic=False):
            metrics = train_epoch(
                self._step, self._loss, sampler, self._optimizer, self._crops, epoch=number, epochs=300,
                labels=self.labels, warmup_epochs=10, seed=0,
            )  # fmt: skip
        return metrics["train_seconds"]

    def step(self, number: int) -> float:
        """Take one step on the batch of that number; return its loss."""
        import numpy as np

        from makermark.training.loop import set_learning_rates
        from makermark.training.step import draw_inputs

        first = number * self._sizes.batch
        batch = np.arange(first, first + self._sizes.batch) % self._sizes.utterances
        inputs = draw_inputs(self._crops, self._loss, batch, labels=self.labels, rng=self._rng)
        set_learning_rates(self._optimizer, number, warmup_steps=10, total_steps=10_000)
        return float(self._step(inputs))

    def time_steps(self, count: int) -> float:
        """Return the median seconds of `count` steps; the value of the loss, which is read, waits for the device."""
        times = []
        for number in range(count):
            start = time.perf_counter()
            self.step(number)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def random_cache(utterances: int) -> Any:
    """Return a feature cache in memory: noise of 3 to 7 s per utterance."""
    import numpy as np

    from makermark.features.cache import FeatureCache
    from makermark.features.shard import Shard

    rng = np.random.default_rng(0)
    frames = rng.integers(300, 700, utterances).astype(np.int32)
    noise = rng.standard_normal((100_003, BANDS), np.float32).astype(np.float16)
    values = np.resize(noise, (int(frames.sum()), BANDS))
    names = [f"{number:06d}" for number in range(utterances)]
    shard = Shard(
        path=Path(), identity="", checksum=0, quarantine=[], utterance_ids=names, frames=frames, values=values
    )
    return FeatureCache([shard], {})


def compare_encoder(sizes: Sizes) -> Measurements:
    """Fine-tune wav2vec2-aasist by makermark's step (bfloat16) and by a plain float32 loop."""
    import torch

    ours, parameters = encoder_seconds(sizes, plain=False)
    plain, _ = encoder_seconds(sizes, plain=True)
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return {
        "parameters, millions": parameters / 1e6,
        f"makermark's step, crops of {sizes.encoder_seconds} s: utterances/s": sizes.encoder_batch / ours,
        "plain float32 loop: utterances/s": sizes.encoder_batch / plain,
        "times faster": plain / ours,
        "peak memory, GB": peak,
    }  # fmt: skip


def encoder_seconds(sizes: Sizes, *, plain: bool) -> tuple[float, int]:
    """Return the median seconds of a step and the number of parameters; the weights are random."""
    import torch
    import torch.nn.functional as F

    from makermark.models import losses
    from makermark.models.backbones.base import ParamGroup
    from makermark.training.loop import build_optimizer
    from makermark.training.step import StepInputs, take_step

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_encoder_network(sizes).to(device).train()
    loss = losses.build("softmax", num_systems=SYSTEMS, dim=DIM).to(device)
    classifier = torch.nn.Linear(DIM, SYSTEMS).to(device)
    shape = (sizes.encoder_batch, 16000 * sizes.encoder_seconds, 1)
    waveforms = torch.randint(-3000, 3000, shape, dtype=torch.int16)
    labels = torch.arange(sizes.encoder_batch) % SYSTEMS
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    adam = torch.optim.Adam([*net.parameters(), *classifier.parameters()], lr=1e-5)
    adamw = build_optimizer(
        [*net.param_groups(1e-5), ParamGroup([*loss.parameters()], 1e-5)], weight_decay=0.0, rate_on=None
    )

    def plain_step() -> Any:
        adam.zero_grad()
        value = F.cross_entropy(classifier(net(waveforms.to(device))), labels.to(device))
        value.backward()
        adam.step()
        return value

    def our_step() -> Any:
        inputs = StepInputs((waveforms.to(device),), labels.to(device), None)
        return take_step(net, loss, adamw, KeptCrops(), inputs, device=device, precision=precision)

    times = []
    warm_up = min(3, sizes.timed_epochs)
    for _ in range(warm_up + sizes.timed_epochs):
        start = time.perf_counter()
        float(plain_step() if plain else our_step())
        times.append(time.perf_counter() - start)
    return statistics.median(times[warm_up:]), sum(parameter.numel() for parameter in net.parameters())


class KeptCrops:
    """Crops that are cut already."""

    def cut(self, drawn: Any) -> Any:
        return drawn[0]


def build_encoder_network(sizes: Sizes) -> Any:
    """Return wav2vec2-aasist with random weights; at full size those of wav2vec2-xls-r-300m with AASIST."""
    import torch
    from transformers import Wav2Vec2Config

    from makermark.features import encoders
    from makermark.models import backbones

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=sizes.encoder_width, num_hidden_layers=sizes.encoder_layers,
        num_attention_heads=sizes.encoder_width // 64, intermediate_size=4 * sizes.encoder_width,
        feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, layerdrop=0.0, apply_spec_augment=False,
    )  # fmt: skip
    architecture = encoders.Architecture(
        config=config.to_dict(), width=sizes.encoder_width, normalise=True, weighted=False, final_norm=True
    )
    return backbones.build(
        "wav2vec2-aasist", dim=DIM, width=1, encoder=encoders.build(architecture), frame_width=128,
        freeze="none", weighted=False, learning_rate=1e-5, gradient_checkpointing=False,
    )  # fmt: skip


def compare_parallel_runs(sizes: Sizes) -> Measurements:
    """Time one training, then several at once in processes of their own."""
    alone = sum(steps_of_runs(sizes, 1))
    together = steps_of_runs(sizes, sizes.runs)
    return {
        "one run: steps/s": alone,
        f"{sizes.runs} runs at once: steps/s of all": sum(together),
        f"{sizes.runs} runs at once: steps/s of the slowest": min(together),
        "throughput of all against one run": sum(together) / alone,
    }


def steps_of_runs(sizes: Sizes, count: int) -> list[float]:
    """Return the steps per second of `count` trainings that run at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [context.Process(target=train_for, args=(sizes, barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    rates = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    if errors := [rate for rate in rates if isinstance(rate, str)]:
        sys.exit(errors[0])
    return rates


def train_for(sizes: Sizes, barrier: Any, queue: Any) -> None:
    """Train for `run_seconds` once all runs are ready; put the steps per second, or the error, into `queue`."""
    try:
        training = Training(
            sizes._replace(utterances=min(sizes.utterances, 2000)), "aamsoftmax", graphed=True
        )
        for number in range(5):
            training.step(number)
        barrier.wait()
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < sizes.run_seconds:
            training.step(steps)
            steps += 1
        queue.put(steps / (time.perf_counter() - start))
    except Exception as error:
        barrier.abort()
        queue.put(f"{type(error).__name__}: {error}")


def score_pairs(sizes: Sizes) -> Measurements:
    """Time the EER of every pair of the embeddings, on the GPU if there is one."""
    import numpy as np
    import torch

    from makermark.scoring.pairs import score_all_pairs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    systems = np.arange(sizes.embeddings) % 64
    embeddings = rng.normal(size=(64, DIM)).astype(np.float32)[systems]
    embeddings += np.float32(1.1) * rng.standard_normal((sizes.embeddings, DIM), np.float32)
    start = time.perf_counter()
    scores = score_all_pairs(embeddings, systems, None, bootstrap_samples=0, seed=0, device=device)
    seconds = time.perf_counter() - start
    pairs = sizes.embeddings * (sizes.embeddings - 1) / 2
    return {
        f"{sizes.embeddings:,} x {DIM} on {device}: s, first call": seconds,
        "pairs per second": pairs / seconds,
        "EER, %": float(scores.eer_micro_percent),
        "peak memory of torch on the device, GB": torch.cuda.max_memory_reserved() / 1e9 if device == "cuda" else 0.0,
    }  # fmt: skip


class Part(NamedTuple):
    """A function that measures, and the seconds it may take."""

    function: Callable[[Sizes], Measurements]
    limit_s: float


PARTS = {
    "tests": Part(run_tests, 100),
    "projection": Part(project_training, 90),
    "graph": Part(compare_graph, 50),
    "encoder": Part(compare_encoder, 90),
    "parallel": Part(compare_parallel_runs, 60),
    "scoring": Part(score_pairs, 75),
}

if __name__ == "__main__":
    main()
