"""Fusing experiments: their embeddings side by side, or their scores with weights learned on dev, or both."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax

from makermark import kept
from makermark.errors import FilesError, ParamsError
from makermark.scoring.fusion import Vectors, concatenate, learn_weights, project, unit
from makermark.vectors import Embeddings, read_embeddings

HERE = "this"  # the model of the workspace
FILE = "model.arrow"
WAYS = ("concatenation", "score_fusion", "both")


@dataclass(frozen=True)
class Fusion:
    """The parts in the same order of utterances, each way of fusing them, and the weights learned."""

    parts: Mapping[str, Embeddings]
    fused: Mapping[str, Embeddings]  # the cosine of its vectors is the fused score
    weights: Mapping[str, Mapping[str, float]]  # of the ways that learn some: by part


def gather(names: Sequence[str], *, workspace: Path, folder: Path) -> dict[str, Embeddings]:
    """The embeddings of each system: `this` for those in `workspace`, a folder, or a DVC experiment's name.

    `folder` is the main repository, where relative paths start. Utterances come in the order of the first system.
    Raises ParamsError for a name that is none of these, appears twice or is that of a way of fusing, and for one
    model under two names; FilesError for systems that did not embed the same utterances.
    """
    if len(set(names)) != len(names):
        raise ParamsError(f"fuse.systems {list(names)}: one appears twice; name different systems")
    if taken := sorted(set(names) & set(WAYS)):
        raise ParamsError(
            f"fuse.systems: {taken[0]!r} is what a way of fusing is called; give the folder's path as ./{taken[0]}"
        )
    found = {name: _embeddings(name, workspace, folder) for name in names}
    models: dict[str, str] = {}
    for name, embeddings in found.items():
        twin = models.setdefault(embeddings.metadata["model_sha256"], name)
        if twin != name:
            raise ParamsError(
                f"fuse.systems: {name} and {twin} are the same model; after dvc exp run the workspace holds what it "
                "ran: go back with git restore params.yaml dvc.lock metrics && dvc checkout"
            )
    return _aligned(found)


def fuse(
    parts: Mapping[str, Embeddings], *, projection: str, dim: int, max_utterances: int, seed: int
) -> Fusion:
    """Three ways: `concatenation` of length-normalised embeddings (projected as fitted on train), `score_fusion`
    with weights learned on dev, and `both`: score fusion of the parts and their concatenation. Where every
    part has a classifier, the fused logits are the mean of their log probabilities (the product rule of Kittler
    et al. 1998)."""
    labels = next(iter(parts.values())).labels
    train, dev = ((labels["split"] == split).to_numpy() for split in ("train", "dev"))
    systems = labels["system"].to_numpy(dtype=str)
    vectors = [part.vectors.astype(np.float64) for part in parts.values()]
    joined = concatenate(vectors)
    joined = project(joined, fitted_on=joined[train], labels=systems[train], projection=projection, dim=dim)

    def weighted(members: Mapping[str, Vectors]) -> tuple[Vectors, dict[str, float]]:
        each = list(members.values())
        weights = learn_weights(
            [m[dev] for m in each], systems[dev], max_utterances=max_utterances, seed=seed
        )
        return concatenate(each, weights), dict(zip(members, weights.tolist(), strict=True))

    members: dict[str, Vectors] = dict(zip(parts, vectors, strict=True))
    scores, of_scores = weighted(members)
    both, of_both = weighted({**members, "concatenation": joined})
    ways = dict(zip(WAYS, (joined, scores, both), strict=True))
    logits = fuse_logits([part.logits for part in parts.values()])
    told = {"fused": " + ".join(parts)}
    fused = {
        way: Embeddings(labels, unit(found).astype(np.float32), logits, told | {"vectors": way})
        for way, found in ways.items()
    }
    return Fusion(parts, fused, {"score_fusion": of_scores, "both": of_both})


def fuse_logits(each: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """(N, C): the mean of the log probabilities of all; None unless every system has logits, of the same systems."""
    there = [logits for logits in each if logits is not None]
    if len(there) < len(each) or len({logits.shape for logits in there}) != 1:
        return None
    return np.asarray(np.mean([log_softmax(logits, axis=1) for logits in there], axis=0), dtype=np.float32)


def _embeddings(name: str, workspace: Path, folder: Path) -> Embeddings:
    if name == HERE:
        return read_embeddings(workspace / FILE)
    if (folder / name).is_dir():
        return read_embeddings(folder / name / FILE)
    there = kept.experiments(folder)
    if name not in there:
        raise ParamsError(
            f"fuse.systems: {name!r} is neither {HERE!r}, nor a folder, nor one of the experiments that DVC keeps "
            f"({sorted(there) or 'none'}); see dvc exp list"
        )
    with tempfile.TemporaryDirectory() as scratch:
        kept.fetch(there[name], "data/embeddings", Path(scratch) / "embeddings", folder)
        return read_embeddings(Path(scratch) / "embeddings" / FILE)


def _aligned(found: Mapping[str, Embeddings]) -> dict[str, Embeddings]:
    first, *_ = found
    ids = found[first].labels["utterance_id"]
    aligned = {}
    for name, embeddings in found.items():
        mine = embeddings.labels["utterance_id"]
        if set(mine) != set(ids):
            one = sorted(set(mine) ^ set(ids))[0]
            raise FilesError(
                f"{name} and {first} did not embed the same utterances ({one!r} is in one only); embed both on the "
                "same corpus and features"
            )
        if embeddings.metadata["utterances_sha256"] != found[first].metadata["utterances_sha256"]:
            raise FilesError(
                f"{name} and {first} embedded utterances of the same names, but other audio, systems or splits; embed "
                "both on the same corpus"
            )
        order = pd.Index(mine).get_indexer(pd.Index(ids)).astype(np.int64)
        aligned[name] = embeddings.take(order)
    return aligned
