"""Frechet distances of a corpus, between sets and between systems."""

import numpy as np
import pandas as pd
from matplotlib.image import imread

from makermark.foundation.embeddings import EmbeddingTable
from makermark.reporting.probe_plots import plot_frechet
from makermark.scoring.frechet import corpus_frechet_distances, frechet_table_to_json


def make_corpus(*, unseen_at):
    rng = np.random.default_rng(0)
    rows = [(split, system) for split in ("train", "dev", "test") for system in "abn" for _ in range(40)]
    labels = pd.DataFrame(rows, columns=["split", "system"])
    labels = labels[(labels["split"] != "train") | (labels["system"] != "n")].reset_index(drop=True)
    labels["system_seen"] = labels["system"] != "n"
    centres = {"a": [1.0, 0, 0], "b": [0, 1.0, 0], "n": unseen_at}
    values = np.array([centres[s] for s in labels["system"]]) + 0.05 * rng.normal(size=(len(labels), 3))
    return EmbeddingTable(labels, values.astype(np.float32), None, {})


def test_unseen_systems_are_farther_from_train_than_seen_systems():
    distances = corpus_frechet_distances(make_corpus(unseen_at=[0, 0, 1.0]), split="test", halvings=3, seed=0)
    table = frechet_table_to_json(distances.sets)
    assert set(table) == {"train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"}
    assert table["train"]["to"]["test_unseen"] > 10 * table["train"]["to"]["test_seen"]
    assert table["train"]["to"]["test_unseen"] > 10 * table["test_unseen"]["floor"]
    assert table["test_seen"]["utterances"] == 80
    assert distances.systems.names == ["a", "b", "n"]


def test_system_of_one_utterance_is_left_out():
    whole = make_corpus(unseen_at=[0, 0, 1.0])
    systems, tests = whole.systems, (whole.labels["split"] == "test").to_numpy()
    lone = np.flatnonzero((systems == "b") & tests)[1:]
    rest = whole.take(np.setdiff1d(np.arange(len(systems)), lone))
    assert corpus_frechet_distances(rest, split="test", halvings=2, seed=0).systems.names == ["a", "n"]


def test_distances_do_not_depend_on_the_norm_of_embeddings():
    one = make_corpus(unseen_at=[0, 0, 1.0])
    other = EmbeddingTable(one.labels, 7 * one.embeddings, None, {})
    settings = {"split": "test", "halvings": 2, "seed": 0}
    first, second = (corpus_frechet_distances(e, **settings).systems.distances for e in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_frechet_heatmap_is_written(tmp_path):
    distances = corpus_frechet_distances(make_corpus(unseen_at=[0, 0, 1.0]), split="test", halvings=2, seed=0)
    plot_frechet(tmp_path / "frechet.png", distances.systems, title="test")
    assert imread(tmp_path / "frechet.png").ndim == 3
