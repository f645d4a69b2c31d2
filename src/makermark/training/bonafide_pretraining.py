"""Pre-training for two-stage losses: the backbone learns bona fide against synthetic speech before it learns systems.

Legend of axes: N utterances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from makermark.features.cache import FeatureCache
from makermark.features.front_end import FrontEnd
from makermark.foundation.arrays import Float32Array, IntArray
from makermark.foundation.manifest import read_bonafide_manifest
from makermark.foundation.params import Params
from makermark.models.backbones import Backbone
from makermark.models.feature_spec import select_cached_rows
from makermark.models.losses.real_vs_spoof import BONAFIDE, SYNTHETIC, RealVsSpoof
from makermark.scoring.pairs import equal_error_rate
from makermark.training.loop import EpochMetrics, TrainingResult
from makermark.training.resume import ResumeFile
from makermark.training.samplers import BalancedSampler


class ClassRows(NamedTuple):
    """Utterances of both classes."""

    rows: IntArray  # (N,) of the cache that holds both classes
    classes: IntArray  # (N,) BONAFIDE or SYNTHETIC


class PretrainingData(NamedTuple):
    """The utterances of the pre-training."""

    cache: FeatureCache  # of both classes
    train: ClassRows
    dev: ClassRows
    digest: str  # changes with the features and with the bona fide utterances


def read_pretraining_data(
    cache: FeatureCache,
    synthetic: Mapping[str, pd.DataFrame],
    *,
    bonafide_folder: Path,
    bonafide_features: Path,
    front_end: FrontEnd,
) -> PretrainingData:
    """Join the `synthetic` utterances, manifest rows of train and dev with features in `cache`, with bona fide ones.

    The bona fide utterances are those of `bonafide_folder`; their caches are in `bonafide_features`. Raises
    CorpusError with the reason if there are none, ManifestError if a split has none.
    """
    manifest = read_bonafide_manifest(bonafide_folder)
    bonafide_cache = FeatureCache.open(bonafide_features / front_end.name, front_end.parameters())
    bonafide_cache.verify()
    joined = cache.concatenate(bonafide_cache)
    identifiers, parts = [joined.fingerprint], {}
    for split in ("train", "dev"):
        synthetic_ids = synthetic[split]["utterance_id"].tolist()
        bonafide_ids = select_cached_rows(manifest, bonafide_cache, split)["utterance_id"].tolist()
        classes = np.repeat([SYNTHETIC, BONAFIDE], [len(synthetic_ids), len(bonafide_ids)]).astype(np.int64)
        parts[split] = ClassRows(joined.find_rows([*synthetic_ids, *bonafide_ids]), classes)
        identifiers += bonafide_ids
    digest = hashlib.sha256("\n".join(identifiers).encode()).hexdigest()
    return PretrainingData(joined, parts["train"], parts["dev"], digest)


def pretrain(
    params: Params,
    backbone: Backbone,
    loss: RealVsSpoof,
    data: PretrainingData,
    *,
    run_loop: Callable[..., TrainingResult],
    embed: Callable[[Backbone, FeatureCache, IntArray], Float32Array],
    resume: ResumeFile,
    report: Callable[[EpochMetrics], None],
) -> list[EpochMetrics]:
    """Train `backbone` for `loss.epochs` epochs; return the history. The backbone keeps the last weights.

    `run_loop` is `loop.train` and `embed` is `extraction.embed_rows`, both with the settings of the experiment.

    Half of every batch is bona fide; a batch is smaller than `loss.batch_utterances` if a class has fewer utterances
    than half of that. `dev_eer_percent` is the EER of bona fide against synthetic speech, scored by the cosine to the
    learned direction.
    """
    per_class = min(loss.batch_utterances // 2, *np.bincount(data.train.classes).tolist())
    sampler = BalancedSampler(
        data.train.classes.tolist(), seed=params.seed, batch_systems=2, utterances_per_system=per_class
    )
    is_bonafide = data.dev.classes == BONAFIDE

    def dev_eer(network: Backbone) -> float:
        embeddings = torch.from_numpy(embed(network, data.cache, data.dev.rows))
        with torch.inference_mode():
            scores = loss.bonafide_score(embeddings.to(loss.direction.device)).cpu().numpy()
        return 100 * equal_error_rate(scores[is_bonafide], scores[~is_bonafide])

    return run_loop(
        backbone,
        loss,
        sampler,
        cache=data.cache,
        rows=data.train.rows,
        labels=data.train.classes,
        epochs=loss.epochs,
        warmup_epochs=min(params.train.warmup_epochs, loss.epochs),
        evaluate=dev_eer,
        resume=resume,
        report=report,
    ).history
