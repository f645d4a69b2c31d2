"""Fusing experiments: named by folder or by experiment, aligned by utterance, learned on dev only."""

import dataclasses
import subprocess

import numpy as np
import pandas as pd
import pytest

from makermark.corpora.rows import GIVEN, derive_seen
from makermark.errors import FilesError, ParamsError
from makermark.fusing import fuse, fuse_logits, gather
from makermark.scoring import score_set
from makermark.vectors import read_embeddings, write_embeddings

SYSTEMS = ("a", "b", "c")
EACH = 10  # utterances of a system in a split


def rows_of():
    splits = [split for split in ("train", "dev", "test") for _ in range(EACH * len(SYSTEMS))]
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(len(splits))] for name in GIVEN.names})
    return derive_seen(table.assign(split=splits, system=list(SYSTEMS) * (len(splits) // len(SYSTEMS))))


def write_system(folder, *, spread, seed, rows=None):
    """A model.arrow in `folder` whose vectors lie around one centre per system."""
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
    vectors, test = part.vectors, (part.labels["split"] == "test").to_numpy()
    systems = part.labels["system"].to_numpy(dtype=str)
    return score_set(vectors[test], systems[test], bootstrap_samples=0, seed=0).eer_micro_percent


def test_systems_are_named_by_folder_or_as_this_workspaces(tmp_path):
    this = write_system(tmp_path / "data/embeddings", spread=0.5, seed=1)
    other = write_system(tmp_path / "other", spread=0.5, seed=2)
    found = gather(["this", str(other)], workspace=this, folder=tmp_path)
    assert [part.metadata["model_sha256"] for part in found.values()] == ["1", "2"]


def test_utterances_are_aligned_by_their_names(tmp_path):
    first = write_system(tmp_path / "first", spread=0.5, seed=1)
    second = write_system(
        tmp_path / "second", spread=0.5, seed=2, rows=rows_of().iloc[::-1].reset_index(drop=True)
    )
    found = gather([str(first), str(second)], workspace=first, folder=tmp_path)
    one, other = found.values()
    assert list(one.labels["utterance_id"]) == list(other.labels["utterance_id"])
    np.testing.assert_array_equal(other.vectors, read_embeddings(second / "model.arrow").vectors[::-1])


def test_other_utterances_are_refused(tmp_path):
    first = write_system(tmp_path / "first", spread=0.5, seed=1)
    second = write_system(
        tmp_path / "second", spread=0.5, seed=2, rows=rows_of().iloc[1:].reset_index(drop=True)
    )
    with pytest.raises(FilesError, match="did not embed the same utterances"):
        gather([str(first), str(second)], workspace=first, folder=tmp_path)


def test_the_same_names_for_other_audio_are_refused(tmp_path):
    rows = rows_of()
    first = write_system(tmp_path / "first", spread=0.5, seed=1)
    second = write_system(tmp_path / "second", spread=0.5, seed=2, rows=rows.assign(sha256="other"))
    with pytest.raises(FilesError, match="but other audio, systems or splits"):
        gather([str(first), str(second)], workspace=first, folder=tmp_path)


def test_a_system_is_not_called_as_a_way_of_fusing(tmp_path):
    with pytest.raises(ParamsError, match="'both' is what a way of fusing is called"):
        gather(["this", "both"], workspace=tmp_path, folder=tmp_path)


def test_an_unknown_or_repeated_name_is_refused(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    this = write_system(tmp_path / "this", spread=0.5, seed=1)
    with pytest.raises(ParamsError, match="'nobody' is neither 'this', nor a folder"):
        gather(["this", "nobody"], workspace=this, folder=tmp_path)
    with pytest.raises(ParamsError, match="appears twice"):
        gather(["this", "this"], workspace=this, folder=tmp_path)


def test_one_model_under_two_names_is_refused(tmp_path):
    this, copy = (write_system(tmp_path / name, spread=0.5, seed=1) for name in ("this", "copy"))
    with pytest.raises(ParamsError, match="are the same model; after dvc exp run the workspace"):
        gather(["this", str(copy)], workspace=this, folder=tmp_path)


@pytest.mark.parametrize("projection", ["none", "lda", "pca"])
def test_each_way_beats_its_parts_where_they_err_apart(tmp_path, projection):
    folders = [write_system(tmp_path / str(seed), spread=0.7, seed=seed) for seed in (3, 4, 5)]
    parts = gather([str(folder) for folder in folders], workspace=folders[0], folder=tmp_path)
    fused = fuse(parts, projection=projection, dim=4, max_utterances=500, seed=0)
    best = min(map(eer, parts.values()))
    for way, whole in fused.fused.items():
        assert eer(whole) < best, way
    assert list(fused.weights["score_fusion"]) == list(parts)
    assert sum(fused.weights["both"].values()) == pytest.approx(1)


def test_test_utterances_teach_nothing(tmp_path):
    """With the vectors of test replaced by noise, what is learned on train and dev stays as it was."""
    folders = [write_system(tmp_path / str(seed), spread=1.0, seed=seed) for seed in (3, 4)]
    parts = gather([str(folder) for folder in folders], workspace=folders[0], folder=tmp_path)
    settings = {"projection": "lda", "dim": 4, "max_utterances": 500, "seed": 0}
    before = fuse(parts, **settings)
    test = (next(iter(parts.values())).labels["split"] == "test").to_numpy()
    noise = np.random.default_rng(0).normal(size=(test.sum(), 5)).astype(np.float32)
    changed = {}
    for name, part in parts.items():
        vectors = part.vectors.copy()
        vectors[test] = noise
        changed[name] = dataclasses.replace(part, vectors=vectors)
    after = fuse(changed, **settings)
    assert after.weights == before.weights
    for way in before.fused:
        np.testing.assert_array_equal(after.fused[way].vectors[~test], before.fused[way].vectors[~test])


def test_fused_logits_are_mean_log_probabilities_and_need_a_classifier_in_every_part():
    one, other = np.array([[2.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    expected = (np.log(np.exp(one) / np.exp(one).sum()) + np.log(np.exp(other) / np.exp(other).sum())) / 2
    np.testing.assert_allclose(fuse_logits([one, other]), expected, rtol=1e-6)
    assert fuse_logits([one, None]) is None
    assert fuse_logits([one, np.zeros((1, 3), np.float32)]) is None
