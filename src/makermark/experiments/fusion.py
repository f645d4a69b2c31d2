"""Fusion of experiments: of their embeddings, of their scores with weights learned on dev, or of both."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from makermark.experiments import dvc_experiments
from makermark.foundation.arrays import Float32Array, RealArray
from makermark.foundation.embeddings import EmbeddingTable, l2_normalise, read_embeddings
from makermark.foundation.errors import FilesError, ParamsError
from makermark.scoring.fusion import concatenate, fit_fusion_weights, project

WORKSPACE = "this"  # the name of the workspace's model
FILE = "model.arrow"
METHODS = ("concatenation", "score_fusion", "both")


@dataclass(frozen=True)
class Fusion:
    """The fused models, all with the same utterances in the same order, and the learned weights."""

    parts: Mapping[str, EmbeddingTable]
    fused: Mapping[str, EmbeddingTable]  # by method; the cosine of two embeddings is the fused score
    weights: Mapping[str, Mapping[str, float]]  # by method and part


def gather(names: Sequence[str], *, workspace: Path, folder: Path) -> dict[str, EmbeddingTable]:
    """Read the embeddings of each name, with the utterances in the order of the first.

    - `names`: `this` for the embeddings in `workspace`, a folder relative to `folder`, or a DVC experiment.
    - `folder`: the main repository.

    Raises ParamsError for a name that is none of these, that appears twice, or that is the name of a method, and if
    two names are the same model. Raises FilesError if the models did not embed the same utterances.
    """
    if len(set(names)) != len(names):
        raise ParamsError(f"fuse.systems {list(names)}: a name appears twice; name different models")
    if reserved := sorted(set(names) & set(METHODS)):
        raise ParamsError(
            f"fuse.systems: {reserved[0]!r} is the name of a fusion method; write a folder as ./{reserved[0]}"
        )
    embeddings = {name: _read(name, workspace, folder) for name in names}
    models: dict[str, str] = {}
    for name, part in embeddings.items():
        twin = models.setdefault(part.metadata["model_sha256"], name)
        if twin != name:
            raise ParamsError(
                f"fuse.systems: {name} and {twin} are the same model; after dvc exp run the workspace holds the "
                "experiment: makermark baseline restore brings back the model of make repro"
            )
    return _align(embeddings)


def fuse(
    parts: Mapping[str, EmbeddingTable], *, projection: str, dim: int, max_utterances: int, seed: int
) -> Fusion:
    """Fuse the parts by all METHODS.

    - `concatenation`: of length-normalised embeddings, projected as fitted on train;
    - `score_fusion`: weighted sum of cosines, weights learned on dev;
    - `both`: score fusion of the parts and of their concatenation.

    If every part has a classifier, the fused logits are the mean of their log probabilities (product rule, Kittler et
    al. 1998).
    """
    labels = next(iter(parts.values())).labels
    train, dev = ((labels["split"] == split).to_numpy() for split in ("train", "dev"))
    systems = labels["system"].to_numpy(dtype=str)
    embeddings = [part.embeddings.astype(np.float64) for part in parts.values()]
    joined = concatenate(embeddings)
    joined = project(joined, fitted_on=joined[train], labels=systems[train], projection=projection, dim=dim)

    def fuse_scores(members: Mapping[str, RealArray]) -> tuple[RealArray, dict[str, float]]:
        arrays = list(members.values())
        weights = fit_fusion_weights(
            [array[dev] for array in arrays], systems[dev], max_utterances=max_utterances, seed=seed
        )
        return concatenate(arrays, weights), dict(zip(members, weights.tolist(), strict=True))

    members: dict[str, RealArray] = dict(zip(parts, embeddings, strict=True))
    scores, score_weights = fuse_scores(members)
    both, both_weights = fuse_scores({**members, "concatenation": joined})
    logits = fuse_logits([part.logits for part in parts.values()])
    metadata = {"fused": " + ".join(parts)}
    fused = {
        method: EmbeddingTable(
            labels, l2_normalise(array).astype(np.float32), logits, metadata | {"vectors": method}
        )
        for method, array in zip(METHODS, (joined, scores, both), strict=True)
    }
    return Fusion(parts, fused, {"score_fusion": score_weights, "both": both_weights})


def fuse_logits(logits: Sequence[Float32Array | None]) -> Float32Array | None:
    """Return the mean log probabilities (N, C); None unless all parts have logits of the same shape."""
    present = [array for array in logits if array is not None]
    if len(present) < len(logits) or len({array.shape for array in present}) != 1:
        return None
    return np.asarray(np.mean([log_softmax(array, axis=1) for array in present], axis=0), dtype=np.float32)


def _read(name: str, workspace: Path, folder: Path) -> EmbeddingTable:
    if name == WORKSPACE:
        return read_embeddings(workspace / FILE)
    if (folder / name).is_dir():
        return read_embeddings(folder / name / FILE)
    experiments = dvc_experiments.list_experiments(folder)
    if name not in experiments:
        raise ParamsError(
            f"fuse.systems: {name!r} is neither {WORKSPACE!r}, nor a folder, nor a DVC experiment "
            f"({sorted(experiments) or 'there are none'}); see dvc exp list"
        )
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "embeddings"
        dvc_experiments.download(experiments[name], "data/embeddings", path, folder)
        return read_embeddings(path / FILE)


def _align(embeddings: Mapping[str, EmbeddingTable]) -> dict[str, EmbeddingTable]:
    """Return all embeddings in the order of utterances of the first."""
    first, *_ = embeddings
    ids = embeddings[first].labels["utterance_id"]
    aligned = {}
    for name, part in embeddings.items():
        part_ids = part.labels["utterance_id"]
        if difference := sorted(set(part_ids) ^ set(ids)):
            raise FilesError(
                f"{name} and {first} did not embed the same utterances ({difference[0]!r} is in one only); embed both "
                "on the same corpus and features"
            )
        if part.metadata["utterances_sha256"] != embeddings[first].metadata["utterances_sha256"]:
            raise FilesError(
                f"{name} and {first} embedded utterances of the same names with other audio, systems or splits; embed "
                "both on the same corpus"
            )
        order = pd.Index(part_ids).get_indexer(pd.Index(ids)).astype(np.int64)
        aligned[name] = part.take(order)
    return aligned
