"""The steps of benchmarks/scale.py: every step runs one command and returns its cost as JSON values."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import scale_parts
import scale_tree
import yaml
from scale_process import Spent, measure

REPOSITORY = Path(__file__).resolve().parents[1]
KILL_AT = (0.2, 0.6)  # share of finished shards
MAKERMARK = "from makermark.cli.main import main; main()"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Folders and size of a run."""

    folder: Path  # working folder of the stages
    tree: Path
    audio: Path
    protocol: Path
    embed_share: float

    def stage(self, name: str) -> list[str]:
        """Return the command of dvc.yaml with the script of the repository."""
        line = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]["cmd"]
        _, _, script, *arguments = shlex.split(line)
        return [sys.executable, str(REPOSITORY / script), *arguments]

    def measure(self, name: str, command: list[str], kill_when: Callable[[], bool] | None = None) -> Spent:
        """Run the command in `folder` with its output in logs/NAME.log; exit if it fails without being killed."""
        log = self.folder / "logs" / f"{name}.log"
        store = f"sqlite:///{self.folder}/mlflow.db"
        settings = {"PYTHONPATH": str(REPOSITORY / "src"), "MLFLOW_TRACKING_URI": store}
        spent = measure(
            command, folder=self.folder, environment=os.environ | settings, log=log, kill_when=kill_when
        )
        if spent.status and not spent.killed:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            sys.exit(f"error: {name} ended with status {spent.status}: {' '.join(last)} (its output: {log})")
        return spent

    def drop_audio_cache(self) -> bool:
        return scale_tree.drop_from_page_cache(
            self.tree / path for path in scale_tree.paths_of(self.protocol)
        )

    def drop_feature_cache(self) -> bool:
        return scale_tree.drop_from_page_cache((self.folder / "data/features/fbank").glob("*.arrow"))


def tree(run: Run) -> Figures:
    """An audio file at every path."""
    start = time.perf_counter()
    written = run_isolated(scale_tree.build_tree, run.tree, scale_tree.paths_of(run.protocol), run.audio)
    work = f"{written['files']:,} files, {written['hours']:.2f} h, {written['bytes'] / 1e9:.2f} GB"
    return written | {
        "wall_s": time.perf_counter() - start,
        "work": f"{work}; {written['written']:,} files written now",
    }


def download(run: Run) -> Figures:
    """Existing copy: every file's length and SHA-256, the manifest."""
    shutil.rmtree(run.folder / "data/corpus", ignore_errors=True)
    cold = run.drop_audio_cache()
    spent = run.measure("download", run.stage("download")).figures()
    rows, hours = run_isolated(scale_parts.manifest_size, run.folder)
    work = f"{rows:,} rows, {rows / spent['wall_s']:,.0f} files/s"
    return spent | {"rows": rows, "hours": hours, "cold": cold, "work": work}


def download_again(run: Run) -> Figures:
    """Repeated without changes."""
    return run.measure("download-again", run.stage("download")).figures() | {"work": "no file is read"}


def audit(run: Run) -> Figures:
    """makermark audit."""
    outputs = ["--json", "audit.json", "--markdown", "audit.md"]
    spent = run.measure("audit", [sys.executable, "-c", MAKERMARK, "audit", "data/corpus", *outputs])
    findings = json.loads((run.folder / "audit.json").read_text(encoding="utf-8"))["findings"]
    return spent.figures() | {"work": f"{len(findings)} findings"}


def audit_audio(run: Run) -> Figures:
    """makermark audit --audio."""
    outputs = ["--audio", "--json", "audio.json"]
    spent = run.measure("audit-audio", [sys.executable, "-c", MAKERMARK, "audit", "data/corpus", *outputs])
    shortcuts = json.loads((run.folder / "audio.json").read_text(encoding="utf-8"))["shortcuts"]
    return spent.figures() | {"work": f"{shortcuts['files']:,} files read, of {shortcuts['systems']} systems"}


def features(run: Run) -> Figures:
    """Log-mels, reading and writing included."""
    shutil.rmtree(run.folder / "data/features", ignore_errors=True)
    cold = run.drop_audio_cache()
    spent = run.measure("features", run.stage("features")).figures()
    hours = scale_tree.hours_of(scale_tree.paths_of(run.protocol))
    shards = list((run.folder / "data/features/fbank").glob("*.arrow"))
    size = sum(shard.stat().st_size for shard in shards)
    speed = 3600 * hours / spent["wall_s"]
    work = f"{hours:.2f} h at {speed:,.0f} x real time; {len(shards)} shards, {size / 1e9:.2f} GB"
    return spent | {
        "times_real_time": speed,
        "shards": len(shards),
        "bytes": size,
        "cold": cold,
        "work": work,
    }


def kill(run: Run) -> Figures:
    """Features killed and restarted."""
    *command, _ = run.stage("features")
    folder = run.folder / "data/killed"
    shutil.rmtree(folder, ignore_errors=True)
    settings = yaml.safe_load((run.folder / "params.yaml").read_text(encoding="utf-8"))["features"]
    shards = -(-len(scale_tree.paths_of(run.protocol)) // settings["shard_utterances"])
    finished_before: dict[str, int] = {}
    recomputed, finished = 0, []
    for share in (*KILL_AT, None):
        target = None if share is None else round(share * shards)
        spent = run.measure(
            "kill",
            [*command, str(folder)],
            None if target is None else lambda target=target: len(finished_shards(folder)) >= target,
        )
        if spent.killed != (share is not None):
            sys.exit(
                f"error: the features stage ended before it could be killed at {target} shards; raise --share"
            )
        now = finished_shards(folder)
        recomputed += sum(now.get(name) != number for name, number in finished_before.items())
        finished_before = now
        finished.append(len(now))
    same = (folder / "fbank/index.json").read_bytes() == (
        run.folder / "data/features/fbank/index.json"
    ).read_bytes()
    shutil.rmtree(folder)
    work = (
        f"SIGKILL at {' and '.join(map(str, finished[:-1]))} of {shards} shards: {recomputed} finished shards "
        f"recomputed, {settings['workers']} in progress at most; the cache is {'identical' if same else 'DIFFERENT'}"
    )
    figures = spent.figures() | {"made_again": recomputed, "in_flight": settings["workers"], "same": same}
    return figures | {"finished_when_killed": finished[:-1], "work": work}


def finished_shards(folder: Path) -> dict[str, int]:
    """Return the inode of every finished shard; it changes if the file is written again."""
    return {shard.name: shard.stat().st_ino for shard in folder.glob("fbank/shard-*.arrow")}


def opening(run: Run) -> Figures:
    """The Arrow cache opened, memory-mapped."""
    cold = run.drop_feature_cache()
    seconds, utterances = run_isolated(scale_parts.time_opening, run.folder)
    return {"wall_s": seconds, "cold": cold, "work": f"{utterances:,} utterances; without imports"}


def embed(run: Run) -> Figures:
    """Embeddings by the network and by the baselines."""
    run_isolated(scale_parts.write_model, run.folder)
    command, rows = run.stage("embed"), len(scale_tree.paths_of(run.protocol))
    if run.embed_share < 1:
        rows = run_isolated(scale_parts.write_part, run.folder, run.embed_share)
        command = [*command[:2], "data/part/manifest.parquet", *command[3:-1], "data/part/embeddings"]
    cold = run.drop_feature_cache()
    spent = run.measure("embed", command).figures()
    if run.embed_share < 1:
        run_isolated(scale_parts.draw_embeddings, run.folder)
    work = f"{rows:,} utterances, {rows / spent['wall_s']:,.0f}/s"
    return spent | {"utterances": rows, "share": run.embed_share, "cold": cold, "work": work}


def score(run: Run) -> Figures:
    """Dev and test, all strata, micro and macro, by system and by family, open set, plots."""
    spent = run.measure("score", run.stage("score")).figures()
    metrics = json.loads((run.folder / "metrics/score.json").read_text(encoding="utf-8"))
    parts = {split: sorted(metrics[split]) for split in ("dev", "test")}
    work = (
        f"{1 + len(metrics['baselines'])} sets of embeddings, {len(metrics['test']['strata'])} strata in test"
    )
    work += "" if run.embed_share == 1 else "; random embeddings"
    return spent | {"parts": parts, "families": "families" in metrics["test"], "work": work}


STEPS: dict[str, Callable[[Run], Figures]] = {
    "tree": tree,
    "download": download,
    "download-again": download_again,
    "audit": audit,
    "audit-audio": audit_audio,
    "features": features,
    "kill": kill,
    "open": opening,
    "embed": embed,
    "score": score,
}


def run_isolated(function: Callable[..., Any], *arguments: object) -> Any:
    """Run `function` in a process of its own, so that its imports do not add to a measured process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
