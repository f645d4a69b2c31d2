"""One run of benchmarks/generalisation.py: the training on some of the systems, and the EERs of the model."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from generalisation_plan import (
    OTHER_NETWORKS,
    STANDARD_NETWORK,
    STATISTICS,
    Run,
    batch_shape,
    choose_utterances,
)

from makermark.experiments.external_corpus import LABEL_SEPARATOR, read_external_corpus
from makermark.features.cache import FeatureCache
from makermark.features.cache_writer import write_cache
from makermark.foundation.arrays import Float32Array, IntArray
from makermark.foundation.device import choose_precision, keep_freed_memory
from makermark.foundation.manifest import read_manifest
from makermark.foundation.params import Params, parse_params, read_yaml
from makermark.models.backbones import Backbone
from makermark.models.embed_corpus import log_mel_statistics, standardise
from makermark.models.extraction import embed_rows
from makermark.models.feature_spec import (
    BASELINE_FRONT_END,
    build_front_end,
    front_end_name,
    log_energy_bands,
    select_cached_rows,
)
from makermark.scoring.pairs import PairMetrics, score_all_pairs
from makermark.scoring.within import WithinMetrics, score_within
from makermark.training.components import build_backbone, build_loss, crop_frames
from makermark.training.loop import train
from makermark.training.resume import ResumeFile
from makermark.training.samplers import BalancedSampler, Sampler

CHANNELS = 128  # of the ECAPA-TDNN
BATCH_UTTERANCES, BATCH_SYSTEMS = 48, 12
CROP_SECONDS = 1.0
BOOTSTRAP_SAMPLES = 200  # over the scored systems
SAVED_EVERY = 10  # times in a training, for its resumption
WARMUP = 0.1  # of the steps
LABEL, WITHIN, MIN_UTTERANCES = ("system", "source"), "page", 4  # of the clips of published systems
MAX_CLIPS = 5  # of a label, drawn at random, the same in all runs
REPORTED = (
    "eer_micro_percent",
    "eer_macro_percent",
    "eer_micro_ci95_percent",
    "eer_macro_ci95_percent",
    "utterances",
    "systems",
)
CLIP_LABELS = "clips.parquet"
CPU = torch.device("cpu")
Embed = Callable[[FeatureCache, pd.Series], Float32Array]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The files of a run. `clips` is the table of clips of published systems, or None; `work` gets their features."""

    params: Path
    corpus: Path  # manifest.parquet
    features: Path
    clips: Path | None
    work: Path


def read_network_params(path: Path, *, seed: int, network: tuple[str, str, str] = STANDARD_NETWORK) -> Params:
    """Return the params with the network and the loss of this benchmark; the rest is that of params.yaml."""
    backbone, front_end, normalise = network
    content = read_yaml(path)
    content |= {"backbone": backbone, "loss": "ge2e", "seed": seed, "augment": "none"}
    content["backbones"][backbone]["front_end"] = front_end
    if normalise:
        content["backbones"][backbone]["normalise"] = normalise
    content["backbones"]["ecapa"]["channels"] = CHANNELS
    content["train"]["crop_seconds"] = CROP_SECONDS
    content["score"]["bootstrap_samples"] = BOOTSTRAP_SAMPLES
    return parse_params(content)


def network_settings(path: Path) -> dict[str, Any]:
    """Return what the results of two runs must have in common to be compared."""
    params = read_network_params(path, seed=0)
    return {
        "backbone": f"{params.backbone} {dict(params.settings('backbones', params.backbone))}",
        "loss": f"{params.loss} {dict(params.settings('losses', params.loss))}",
        "dim": params.dim,
        "batch": [BATCH_UTTERANCES, BATCH_SYSTEMS],
        "crop_seconds": params.train.crop_seconds,
        "learning_rate": params.train.learning_rate,
        "weight_decay": params.train.weight_decay,
        "bootstrap_samples": params.score.bootstrap_samples,
        "max_clips": MAX_CLIPS,
    }


def write_clip_features(inputs: Inputs) -> None:
    """Write the labels of the clips and their features into the work folder; existing features are reused."""
    if inputs.clips is None:
        return
    params = read_network_params(inputs.params, seed=0)
    limits = params.features
    clips = read_external_corpus(
        inputs.clips,
        label=LABEL_SEPARATOR.join(LABEL),
        within=[WITHIN],
        folder=inputs.work / "clips",
        workers=1,
    )
    clips = dataclasses.replace(clips, rows=clips.rows.groupby("system").sample(frac=1, random_state=0))
    clips = dataclasses.replace(clips, rows=clips.rows.groupby("system").head(MAX_CLIPS).sort_index())
    for name in {BASELINE_FRONT_END, *(front_end for _, front_end, _ in (STANDARD_NETWORK, *OTHER_NETWORKS))}:
        write_cache(
            clips,
            build_front_end(params, name),
            inputs.work,
            shard_utterances=limits.shard_utterances,
            min_seconds=limits.min_seconds,
            max_seconds=limits.max_seconds,
            max_bad_fraction=1.0,
            workers=1,
        )
    clips.rows[["utterance_id", "system", WITHIN]].to_parquet(inputs.work / CLIP_LABELS)


def execute(run: Run, inputs: Inputs) -> dict[str, Any]:
    """Carry out a run; return its result as JSON values. A killed training continues from its last tenth."""
    start = time.process_time()
    keep_freed_memory()
    params = read_network_params(inputs.params, seed=run.draw, network=run.network)
    name = BASELINE_FRONT_END if run.kind == STATISTICS else front_end_name(params)
    front_end = build_front_end(params, name)
    manifest = read_manifest(inputs.corpus)
    cache = FeatureCache.open(inputs.features / front_end.name, front_end.parameters())
    backbone = build_backbone(params, width=front_end.width, bands=log_energy_bands(front_end), encoder=None)
    result: dict[str, Any] = {}
    if run.systems:
        rows = select_training_rows(select_cached_rows(manifest, cache, "train"), run)
        frames = crop_frames(params, front_end, backbone)
        result = train_backbone(params, backbone, cache, rows, run, frames=frames, work=inputs.work)
    batch_frames = round(params.embed.batch_seconds * front_end.frames_per_second)

    def embed(source: FeatureCache, utterance_ids: pd.Series) -> Float32Array:
        at = source.find_rows(utterance_ids)
        if run.kind == STATISTICS:
            statistics = log_mel_statistics(source, at)
            return standardise(statistics, reference=statistics)
        return embed_rows(backbone, source, at, batch_frames=batch_frames, device=CPU)

    test = select_cached_rows(manifest, cache, "test")
    result |= score_test(params, embed, cache, test[~test["system_seen"].astype(bool)])
    if inputs.clips is not None:
        clips = FeatureCache.open(inputs.work / front_end.name, front_end.parameters())
        result |= score_clips(params, embed, clips, pd.read_parquet(inputs.work / CLIP_LABELS))
    return result | {"cpu_seconds": round(time.process_time() - start, 1)}


def select_training_rows(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Return the training rows of the systems of a run, and at most its number of utterances."""
    rows = rows[rows["system"].isin(run.systems)]
    if run.utterances is None:
        return rows
    return rows.iloc[choose_utterances(rows["system"].tolist(), run.utterances, draw=run.draw)]


class FixedSteps:
    """The batches of a sampler, with `steps` of them in every epoch."""

    makes_groups: ClassVar[bool] = True
    minimum: ClassVar[Mapping[str, int]] = {}

    def __init__(self, sampler: Sampler, steps: int) -> None:
        self._sampler, self._steps = sampler, steps

    def __len__(self) -> int:
        return self._steps

    def batches(self, epoch: int) -> list[IntArray]:
        first, skipped = divmod(epoch * self._steps, len(self._sampler))
        batches = itertools.chain.from_iterable(map(self._sampler.batches, itertools.count(first)))
        return list(itertools.islice(batches, skipped, skipped + self._steps))


def train_backbone(
    params: Params,
    backbone: Backbone,
    cache: FeatureCache,
    rows: pd.DataFrame,
    run: Run,
    *,
    frames: int,
    work: Path,
) -> dict[str, Any]:
    """Train the backbone for the steps of the run; return what describes the training set, and the last loss.

    The last weights are used: no checkpoint is chosen on dev, whose unseen systems are no part of the training set.
    """
    systems, labels = np.unique(rows["system"].to_numpy(dtype=str), return_inverse=True)
    counts = np.bincount(labels).tolist()
    batch_systems, of_each = batch_shape(counts, batch=BATCH_UTTERANCES, systems=BATCH_SYSTEMS)
    loss = build_loss(params, num_systems=len(systems))
    sampler = BalancedSampler(
        labels.tolist(), seed=run.draw, batch_systems=batch_systems, utterances_per_system=of_each
    )
    name = "-".join(str(part) for part in run.key).replace(" ", "-").replace("/", "-")
    resume = ResumeFile(work / f"{name}.safetensors", identity={"run": list(run.key), "steps": run.steps})
    result = train(
        backbone,
        loss,
        FixedSteps(sampler, run.steps // SAVED_EVERY),
        cache=cache,
        rows=cache.find_rows(rows["utterance_id"]),
        labels=labels.astype(np.int64),
        crop_frames=frames,
        epochs=SAVED_EVERY,
        warmup_epochs=WARMUP * SAVED_EVERY,
        peak_learning_rate=params.train.learning_rate,
        weight_decay=params.train.weight_decay,
        evaluate=lambda network: math.nan,
        evaluate_every_epochs=SAVED_EVERY,
        seed=run.draw,
        device=CPU,
        precision=choose_precision(params.train.precision, CPU),
        features_on="host",
        clean_fraction=1.0,
        deterministic=False,
        resume=resume,
        report=lambda metrics: None,
    )
    resume.remove()
    return {
        "systems": len(systems),
        "utterances": len(rows),
        "generators": int(rows["acoustic_model"].nunique()),
        "waveform_makers": int(rows["vocoder"].nunique()),
        "batch": [batch_systems, of_each],
        "loss": result.history[-1]["loss"],
        "trained_on": systems.tolist(),
    }


def score_test(params: Params, embed: Embed, cache: FeatureCache, test: pd.DataFrame) -> dict[str, Any]:
    """Return the EERs over all pairs of these utterances of test, and the EER of every system."""
    metrics = score_all_pairs(
        embed(cache, test["utterance_id"]), test["system"].to_numpy(dtype=str), **scoring_settings(params)
    )
    per_system = {system.system: system.eer_percent for system in metrics.per_system}
    return {"test": reported(metrics), "test_per_system": per_system}


def score_clips(params: Params, embed: Embed, cache: FeatureCache, rows: pd.DataFrame) -> dict[str, Any]:
    """Return the EERs over all pairs of the clips, and over the pairs of one page, as the stage `foreign` does."""
    rows = rows[rows["utterance_id"].isin(cache.utterance_ids)]
    embeddings, systems = embed(cache, rows["utterance_id"]), rows["system"].to_numpy(dtype=str)
    settings = scoring_settings(params)
    pooled = score_all_pairs(embeddings, systems, **settings)
    pages = rows[WITHIN].fillna("").to_numpy(dtype=str)
    within = score_within(embeddings, systems, pages, min_utterances=MIN_UTTERANCES, **settings)
    return {"clips": {"pooled": reported(pooled), "within_page": reported(within)}}


def scoring_settings(params: Params) -> dict[str, int]:
    return {
        "bootstrap_samples": params.score.bootstrap_samples,
        "seed": params.score.seed,
        "threads": torch.get_num_threads(),
    }


def reported(metrics: PairMetrics | WithinMetrics) -> dict[str, Any]:
    """Return the EERs and their intervals as JSON values."""
    values = {name: getattr(metrics, name) for name in REPORTED}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
