"""Fusion of experiments: read by folder or by name, aligned by utterance, learned on dev only."""

import dataclasses
import subprocess

import numpy as np
import pandas as pd
import pytest

from makermark.experiments.fusion import fuse, fuse_logits, gather
from makermark.foundation.embeddings import read_embeddings, write_embeddings
from makermark.foundation.errors import FilesError, ParamsError
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns
from makermark.scoring.pairs import score_all_pairs

SYSTEMS = ("a", "b", "c")
UTTERANCES = 10  # of a system in a split


def rows_of():
    splits = [split for split in ("train", "dev", "test") for _ in range(UTTERANCES * len(SYSTEMS))]
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(len(splits))] for name in INPUT_SCHEMA.names})
    return add_seen_columns(table.assign(split=splits, system=list(SYSTEMS) * (len(splits) // len(SYSTEMS))))


def write_model(folder, *, spread, seed, rows=None):
    """Write a model.arrow whose embeddings lie around one centre per system; return `folder`."""
    rows = rows_of() if rows is None else rows
    rng = np.random.default_rng(seed)
    centres = dict(zip(SYSTEMS, rng.normal(size=(3, 5)), strict=True))
    vectors = np.stack([centres[s] for s in rows["system"]]) + spread * rng.normal(size=(len(rows), 5))
    folder.mkdir(parents=True)
    write_embeddings(
        folder / "model.arrow", rows, vectors.astype(np.float32), metadata={"model_sha256": str(seed)}
    )
    return folder


def eer(part):
    vectors, test = part.embeddings, (part.labels["split"] == "test").to_numpy()
    systems = part.labels["system"].to_numpy(dtype=str)
    return score_all_pairs(vectors[test], systems[test], bootstrap_samples=0, seed=0).eer_micro_percent


def test_gather_reads_the_workspace_and_folders(tmp_path):
    this = write_model(tmp_path / "data/embeddings", spread=0.5, seed=1)
    other = write_model(tmp_path / "other", spread=0.5, seed=2)
    embeddings = gather(["this", str(other)], workspace=this, folder=tmp_path)
    assert [part.metadata["model_sha256"] for part in embeddings.values()] == ["1", "2"]


def test_gather_aligns_utterances_by_their_ids(tmp_path):
    first = write_model(tmp_path / "first", spread=0.5, seed=1)
    second = write_model(
        tmp_path / "second", spread=0.5, seed=2, rows=rows_of().iloc[::-1].reset_index(drop=True)
    )
    embeddings = gather([str(first), str(second)], workspace=first, folder=tmp_path)
    one, other = embeddings.values()
    assert list(one.labels["utterance_id"]) == list(other.labels["utterance_id"])
    np.testing.assert_array_equal(other.embeddings, read_embeddings(second / "model.arrow").embeddings[::-1])


def test_gather_raises_for_other_utterances(tmp_path):
    first = write_model(tmp_path / "first", spread=0.5, seed=1)
    second = write_model(
        tmp_path / "second", spread=0.5, seed=2, rows=rows_of().iloc[1:].reset_index(drop=True)
    )
    with pytest.raises(FilesError, match="did not embed the same utterances"):
        gather([str(first), str(second)], workspace=first, folder=tmp_path)


def test_gather_raises_for_other_audio_of_the_same_names(tmp_path):
    rows = rows_of()
    first = write_model(tmp_path / "first", spread=0.5, seed=1)
    second = write_model(tmp_path / "second", spread=0.5, seed=2, rows=rows.assign(sha256="other"))
    with pytest.raises(FilesError, match="with other audio, systems or splits"):
        gather([str(first), str(second)], workspace=first, folder=tmp_path)


def test_gather_raises_for_the_name_of_a_method(tmp_path):
    with pytest.raises(ParamsError, match="'both' is the name of a fusion method"):
        gather(["this", "both"], workspace=tmp_path, folder=tmp_path)


def test_gather_raises_for_an_unknown_or_repeated_name(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    this = write_model(tmp_path / "this", spread=0.5, seed=1)
    with pytest.raises(ParamsError, match="'nobody' is neither 'this', nor a folder"):
        gather(["this", "nobody"], workspace=this, folder=tmp_path)
    with pytest.raises(ParamsError, match="appears twice"):
        gather(["this", "this"], workspace=this, folder=tmp_path)


def test_gather_raises_for_one_model_under_two_names(tmp_path):
    this, copy = (write_model(tmp_path / name, spread=0.5, seed=1) for name in ("this", "copy"))
    with pytest.raises(ParamsError, match="are the same model; after dvc exp run the workspace"):
        gather(["this", str(copy)], workspace=this, folder=tmp_path)


@pytest.mark.parametrize("projection", ["none", "lda", "pca"])
def test_fuse_beats_its_parts_if_their_errors_differ(tmp_path, projection):
    folders = [write_model(tmp_path / str(seed), spread=0.7, seed=seed) for seed in (3, 4, 5)]
    parts = gather([str(folder) for folder in folders], workspace=folders[0], folder=tmp_path)
    fused = fuse(parts, projection=projection, dim=4, max_utterances=500, seed=0)
    best = min(map(eer, parts.values()))
    for method, fusion in fused.fused.items():
        assert eer(fusion) < best, method
    assert list(fused.weights["score_fusion"]) == list(parts)
    assert sum(fused.weights["both"].values()) == pytest.approx(1)


def test_fuse_learns_nothing_from_test(tmp_path):
    """Noise in place of the test embeddings changes nothing that is learned on train and dev."""
    folders = [write_model(tmp_path / str(seed), spread=1.0, seed=seed) for seed in (3, 4)]
    parts = gather([str(folder) for folder in folders], workspace=folders[0], folder=tmp_path)
    settings = {"projection": "lda", "dim": 4, "max_utterances": 500, "seed": 0}
    before = fuse(parts, **settings)
    test = (next(iter(parts.values())).labels["split"] == "test").to_numpy()
    noise = np.random.default_rng(0).normal(size=(test.sum(), 5)).astype(np.float32)
    changed = {}
    for name, part in parts.items():
        vectors = part.embeddings.copy()
        vectors[test] = noise
        changed[name] = dataclasses.replace(part, embeddings=vectors)
    after = fuse(changed, **settings)
    assert after.weights == before.weights
    for method in before.fused:
        np.testing.assert_array_equal(
            after.fused[method].embeddings[~test], before.fused[method].embeddings[~test]
        )


def test_fuse_logits_returns_mean_log_probabilities_or_none():
    one, other = np.array([[2.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    expected = (np.log(np.exp(one) / np.exp(one).sum()) + np.log(np.exp(other) / np.exp(other).sum())) / 2
    np.testing.assert_allclose(fuse_logits([one, other]), expected, rtol=1e-6)
    assert fuse_logits([one, None]) is None
    assert fuse_logits([one, np.zeros((1, 3), np.float32)]) is None
