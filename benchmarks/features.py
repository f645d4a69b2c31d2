"""Log-mels from audio files to disk, in times real time: write_cache against a loop with one .pt file per utterance.

    python benchmarks/features.py [--manifest MANIFEST] [--utterances N] [--workers N] [--repeats N]
    python benchmarks/features.py --profile FILE [--manifest MANIFEST] [--utterances N]

Both variants read the same files from the page cache (every file is read once before) and take turns. The loop is
that of a typical training script: soundfile, torchaudio's MelSpectrogram, log, torch.save. Without --manifest the
files are harmonic tones of 2 to 8 s, as 16 kHz WAV and as FLAC. Then the reads of training are timed: opening the
cache and cutting batches of crops. Prints a Markdown table of medians. --profile writes a profile of one thread
that computes and writes shards instead (cProfile, by function).
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import io
import os
import platform
import pstats
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio

from makermark import features
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.features.shard import ExtractionConfig, Row, build_shard
from makermark.foundation.files import write_arrow
from makermark.foundation.manifest import Manifest, read_manifest
from makermark.foundation.params import read_params

PARAMS = read_params(Path(__file__).parents[1] / "params.yaml")
VERSIONS_OF = ("torch", "torchaudio", "numpy", "pyarrow", "soundfile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="manifest.parquet with the utterances")
    parser.add_argument("--utterances", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write a profile to this file and exit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # fastest for the loop: more threads slow down so little work
    if arguments.profile:
        with tempfile.TemporaryDirectory() as scratch:
            profile(
                arguments.profile,
                load_or_make_manifest(arguments.manifest, Path(scratch), "wav", arguments.utterances),
            )
        return
    print(f"{head_line()};")
    print(
        f"{arguments.workers} workers of one thread against a loop of one thread; medians of {arguments.repeats}\n"
    )
    print("| audio | work | x real time | times the loop | x real time of processor time, one core |")
    print("|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("manifest",) if arguments.manifest else ("wav", "flac"):
            manifest = load_or_make_manifest(
                arguments.manifest, Path(scratch, name), name, arguments.utterances
            )
            cache = compare(
                name, manifest, Path(scratch, "out"), workers=arguments.workers, repeats=arguments.repeats
            )
        reading(cache, repeats=20 * arguments.repeats)
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def compare(name: str, manifest: Manifest, out: Path, *, workers: int, repeats: int) -> FeatureCache:
    """Print the times of both variants for `manifest`; return the cache."""
    front_end = features.build("fbank", **PARAMS.settings("front_ends", "fbank"))
    files = [manifest.audio_path(path) for path in manifest.rows["path"]]
    seconds = sum(soundfile.info(path).duration for path in files)
    for path in files:
        path.read_bytes()

    def ours() -> None:
        write_cache(
            manifest, front_end, out, shard_utterances=PARAMS.features.shard_utterances // 4,
            max_bad_fraction=0, min_seconds=0.1, max_seconds=3600, workers=workers,
        )  # fmt: skip

    ways = {"write_cache": ours, "loop": lambda: per_file_loop(files, out)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats + 1):
        for way, work in ways.items():
            shutil.rmtree(out, ignore_errors=True)
            before = time.process_time()
            times[way].append(timed(work))
            busy[way].append(time.process_time() - before)
    fast, slow = (statistics.median(times[way][1:]) for way in ways)
    ours_busy, loop_busy = (seconds / statistics.median(busy[way][1:]) for way in ways)
    audio = f"{name}, {len(files)} files, {seconds / 60:.0f} min"
    print(f"| {audio} | per file: torchaudio, torch.save | {seconds / slow:.0f} | 1.0 | {loop_busy:.0f} |")
    print(f"| {audio} | write_cache | {seconds / fast:.0f} | {slow / fast:.1f} | {ours_busy:.0f} |")
    shutil.rmtree(out)
    ours()
    return FeatureCache.open(out / "fbank", front_end.parameters())


def per_file_loop(files: list[Path], out: Path) -> None:
    """Write one .pt file per utterance, one at a time."""
    settings = PARAMS.settings("front_ends", "fbank")
    out.mkdir(parents=True)
    mel = torchaudio.transforms.MelSpectrogram(
        settings["sample_rate_hz"], n_fft=settings["n_fft"], win_length=settings["win_length"],
        hop_length=settings["hop_length"], n_mels=settings["n_mels"], window_fn=torch.hamming_window,
    )  # fmt: skip
    for number, path in enumerate(files):
        waveform, _ = soundfile.read(path, dtype="float32")
        torch.save((mel(torch.from_numpy(waveform)) + settings["log_offset"]).log(), out / f"{number}.pt")


def reading(cache: FeatureCache, *, repeats: int) -> None:
    """Print the time to draw 128 crops of 2 s, and the padding in batches of whole utterances."""
    rng = np.random.default_rng(0)
    batches = iter([rng.integers(len(cache.frames), size=128) for _ in range(repeats + 1)])
    crops = [timed(lambda: cache.read_crops(next(batches), frames=200, rng=rng)) for _ in range(repeats + 1)]
    held = padded = 0
    for _, batch, lengths in cache.length_batches(np.arange(len(cache.frames)), max_frames=2000):
        held, padded = held + int(lengths.sum()), padded + batch.shape[0] * batch.shape[1]
    print(f"\n128 crops of 200 x {cache.width}: {1000 * statistics.median(crops[1:]):.2f} ms; ", end="")
    print(f"padding in whole-utterance batches of 20 s: {100 * (1 - held / padded):.1f} %")


def profile(file: Path, manifest: Manifest) -> None:
    """Write a profile of the second computation of the shards: the functions with the largest own time."""
    front_end = features.build("fbank", **PARAMS.settings("front_ends", "fbank"))
    recipe = ExtractionConfig(front_end=front_end, root=manifest.root, min_seconds=0.1, max_seconds=3600)
    rows = [Row(*row) for row in manifest.rows[["utterance_id", "path", "sha256"]].itertuples(index=False)]
    parts = [rows[first : first + 128] for first in range(0, len(rows), 128)]
    shard = file.with_suffix(".arrow")

    def make() -> None:
        for part in parts:
            write_arrow(shard, build_shard(part, recipe))

    make()
    profiler, report = cProfile.Profile(), io.StringIO()
    profiler.runcall(make)
    shard.unlink()
    pstats.Stats(profiler, stream=report).strip_dirs().sort_stats("tottime").print_stats(20)
    file.write_text(f"{head_line()}\n{report.getvalue()}")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def load_or_make_manifest(path: Path | None, folder: Path, suffix: str, utterances: int) -> Manifest:
    """Return the first utterances of a manifest, or a new manifest of tones."""
    if path is None:
        return tones(folder / "audio", suffix, utterances)
    manifest = read_manifest(path)
    return Manifest(manifest.corpus, manifest.root, manifest.rows.head(utterances))


def tones(folder: Path, suffix: str, utterances: int) -> Manifest:
    """Write 16-bit harmonic tones with varying pitch and level over low noise; return their manifest."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for number in range(utterances):
        t = np.arange(int(16000 * rng.uniform(2, 8))) / 16000
        phase = 2 * np.pi * np.cumsum(rng.uniform(90, 220) + 20 * np.sin(2 * np.pi * 3 * t)) / 16000
        tone = sum(np.sin(k * phase) / k for k in range(1, 9)) * (1 + np.sin(2 * np.pi * 4 * t))
        path = folder / f"{number}.{suffix}"
        soundfile.write(path, 0.15 * tone + 0.002 * rng.standard_normal(t.size), 16000, subtype="PCM_16")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({"utterance_id": f"{number:06d}", "path": path.name, "sha256": digest})
    return Manifest("tones", folder, pd.DataFrame(rows))


def head_line() -> str:
    """Machine, load and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS_OF)
    cores = f"{os.cpu_count()} logical cores, load {os.getloadavg()[0]:.1f}"
    return f"{processor()}, {cores}; Python {platform.python_version()}, {versions}"


def processor() -> str:
    """Its name as Linux gives it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
