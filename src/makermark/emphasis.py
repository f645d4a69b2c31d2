"""The first stage of a two-stage loss: the backbone learns bona fide from synthetic speech before it learns systems.

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
from numpy.typing import NDArray

from makermark.backbones import Backbone
from makermark.corpora import bonafide
from makermark.embedding import embed
from makermark.features.base import FrontEnd
from makermark.features.cache import FeatureCache
from makermark.inputs import usable
from makermark.losses.emphasis import BONAFIDE, SYNTHETIC, Emphasis
from makermark.params import Params
from makermark.sampling import BalancedSampler
from makermark.scoring import equal_error
from makermark.training import Epoch, ResumeFile, train


class Speech(NamedTuple):
    """Utterances of both classes."""

    rows: NDArray[np.int64]  # (N,) in the cache that holds both
    classes: NDArray[np.int64]  # (N,) BONAFIDE or SYNTHETIC


class FirstStage(NamedTuple):
    """What the first stage learns, and from what."""

    loss: Emphasis
    cache: FeatureCache  # of both classes
    learn: Speech
    dev: Speech
    identity: dict[str, str]  # what makes another training of it


def first_stage(
    loss: Emphasis,
    cache: FeatureCache,
    synthetic: Mapping[str, pd.DataFrame],
    *,
    human: Path,
    human_features: Path,
    front_end: FrontEnd,
) -> FirstStage:
    """The utterances of `synthetic`, manifest rows of train and dev whose features are in `cache`, beside the bona
    fide speech of the folder `human`, with its caches in `human_features`.

    Raises CorpusError with the reason where there is none, ManifestError where a split has none.
    """
    manifest = bonafide.read(human)
    human_cache = FeatureCache.open(human_features / front_end.name, front_end.parameters())
    human_cache.verify()
    both = cache.joined(human_cache)
    told, parts = [both.fingerprint], {}
    for split in ("train", "dev"):
        made = synthetic[split]["utterance_id"].tolist()
        said = usable(manifest, human_cache, split)["utterance_id"].tolist()
        classes = np.repeat([SYNTHETIC, BONAFIDE], [len(made), len(said)]).astype(np.int64)
        parts[split] = Speech(both.rows_of([*made, *said]), classes)
        told += said
    identity = {"bonafide": hashlib.sha256("\n".join(told).encode()).hexdigest()}
    return FirstStage(loss, both, parts["train"], parts["dev"], identity)


def emphasise(
    params: Params,
    backbone: Backbone,
    stage: FirstStage,
    *,
    front_end: FrontEnd,
    device: torch.device,
    precision: torch.dtype,
    resume: ResumeFile,
    report: Callable[[Epoch], None],
) -> list[Epoch]:
    """Train `backbone` for the epochs of the stage's loss, on the schedule that `params.train` gives; the history.

    Half of every batch is bona fide (fewer utterances than `batch_utterances`, where one class has fewer
    than half of that). `dev_eer_percent` is the EER of bona fide against synthetic speech, by the cosine to
    the learned direction. The backbone keeps the last weights.
    """
    loss, _, learn, dev, _ = stage
    per_class = min(loss.batch_utterances // 2, *np.bincount(learn.classes).tolist())
    sampler = BalancedSampler(
        learn.classes.tolist(), seed=params.seed, batch_systems=2, utterances_per_system=per_class
    )
    real = dev.classes == BONAFIDE
    frames = round(params.embed.batch_seconds * front_end.frames_per_second)

    def dev_eer(network: Backbone) -> float:
        vectors = embed(
            network, stage.cache, dev.rows, batch_frames=frames, device=device, precision=precision
        )
        with torch.inference_mode():
            realness = loss.realness(torch.from_numpy(vectors).to(device)).cpu().numpy()
        return 100 * equal_error(realness[real], realness[~real])

    return train(
        backbone,
        loss,
        sampler,
        cache=stage.cache,
        rows=learn.rows,
        labels=learn.classes,
        crop_frames=round(params.train.crop_seconds * front_end.frames_per_second),
        epochs=loss.epochs,
        warmup_epochs=min(params.train.warmup_epochs, loss.epochs),
        peak_learning_rate=params.train.learning_rate,
        weight_decay=params.train.weight_decay,
        evaluate=dev_eer,
        evaluate_every_epochs=params.train.evaluate_every_epochs,
        seed=params.seed,
        device=device,
        precision=precision,
        features_on=params.train.features_on,
        deterministic=params.train.deterministic,
        resume=resume,
        report=report,
    ).history
