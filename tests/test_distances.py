"""Frechet distances of a model's embeddings, by set and by system."""

import numpy as np
import pandas as pd
from matplotlib.image import imread

from makermark.distances import as_json, distances_between
from makermark.reporting import plot_distances
from makermark.vectors import Embeddings


def embeddings(*, unseen_at):
    rng = np.random.default_rng(0)
    rows = [(split, system) for split in ("train", "dev", "test") for system in "abn" for _ in range(40)]
    labels = pd.DataFrame(rows, columns=["split", "system"])
    labels = labels[(labels["split"] != "train") | (labels["system"] != "n")].reset_index(drop=True)
    labels["system_seen"] = labels["system"] != "n"
    centres = {"a": [1.0, 0, 0], "b": [0, 1.0, 0], "n": unseen_at}
    vectors = np.array([centres[s] for s in labels["system"]]) + 0.05 * rng.normal(size=(len(labels), 3))
    return Embeddings(labels, vectors.astype(np.float32), None, {})


def test_unseen_systems_lie_farther_from_train_than_seen_ones_of_the_same_split():
    found = distances_between(embeddings(unseen_at=[0, 0, 1.0]), split="test", halvings=3, seed=0)
    told = as_json(found.sets)
    assert set(told) == {"train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"}
    assert told["train"]["to"]["test_unseen"] > 10 * told["train"]["to"]["test_seen"]
    assert told["train"]["to"]["test_unseen"] > 10 * told["test_unseen"]["floor"]
    assert told["test_seen"]["utterances"] == 80
    assert found.systems.names == ["a", "b", "n"]


def test_a_system_of_one_utterance_has_no_spread_and_is_left_out():
    whole = embeddings(unseen_at=[0, 0, 1.0])
    systems, tests = whole.systems, (whole.labels["split"] == "test").to_numpy()
    lone = np.flatnonzero((systems == "b") & tests)[1:]
    rest = whole.take(np.setdiff1d(np.arange(len(systems)), lone))
    assert distances_between(rest, split="test", halvings=2, seed=0).systems.names == ["a", "n"]


def test_the_length_of_vectors_decides_nothing():
    one = embeddings(unseen_at=[0, 0, 1.0])
    other = Embeddings(one.labels, 7 * one.vectors, None, {})
    settings = {"split": "test", "halvings": 2, "seed": 0}
    first, second = (distances_between(e, **settings).systems.distances for e in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_picture_is_drawn(tmp_path):
    found = distances_between(embeddings(unseen_at=[0, 0, 1.0]), split="test", halvings=2, seed=0)
    plot_distances(tmp_path / "frechet.png", found.systems, title="test")
    assert imread(tmp_path / "frechet.png").ndim == 3
