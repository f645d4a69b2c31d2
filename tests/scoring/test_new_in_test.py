"""The block `new_in_test`: pairs of the systems that neither train nor dev contains, against brute force."""

import numpy as np
import pandas as pd
import pytest
from brute_force import Trials

from makermark.foundation.embeddings import read_embeddings, write_embeddings
from makermark.foundation.manifest import INPUT_SCHEMA, add_seen_columns
from makermark.scoring.evaluation import evaluate_embeddings, select_new_in_test


def write_corpus(path, systems):
    """Write random embeddings of the systems (one letter for each utterance) of every split, and read them back."""
    split, system = zip(*((split, name) for split, row in systems.items() for name in row), strict=True)
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(len(split))] for name in INPUT_SCHEMA.names})
    rows = add_seen_columns(rows.assign(split=split, system=system, language="en", family=""))
    rng = np.random.default_rng(0)
    centres = dict(zip("abxyzw", np.eye(6), strict=True))
    vectors = np.stack([centres[name] for name in system]) + 0.4 * rng.normal(size=(len(system), 6))
    write_embeddings(path, rows, vectors.astype(np.float32), metadata={})
    return read_embeddings(path)


def evaluate(embeddings):
    return evaluate_embeddings(embeddings, bootstrap_samples=30, seed=0, p_target=0.05).metrics


def test_new_in_test_has_the_pairs_of_systems_that_are_in_neither_train_nor_dev(tmp_path):
    """x is in dev and test; y (4 utterances), z (3) and w (2) are in test only: 6 + 3 + 1 of 36 pairs are target."""
    systems = {"train": "aaabbb", "dev": "aabbxxx", "test": "aaabbbxxxxxyyyyzzzww"}
    embeddings = write_corpus(tmp_path / "e.arrow", systems)
    metrics = evaluate(embeddings)
    block = metrics["test"]["new_in_test"]
    assert (block["utterances"], block["systems"]) == (9, 3)
    assert (block["target_trials"], block["nontarget_trials"]) == (10, 26)
    part = embeddings.take(np.flatnonzero(np.isin(embeddings.systems, list("yzw"))))
    trials = Trials(part.embeddings, part.systems)
    assert block["eer_micro_percent"] == pytest.approx(trials.micro(None), abs=1e-9)
    assert block["eer_macro_percent"] == pytest.approx(
        np.mean(list(trials.by_system(None).values())), abs=1e-9
    )
    low, high = block["eer_macro_ci95_percent"]
    assert low <= high
    assert "strata" not in block
    assert "new_in_test" not in metrics["dev"]


@pytest.mark.parametrize("dev", ["aabbzz", "aabb", "aabbww"])
def test_without_a_system_new_in_both_there_is_no_block(tmp_path, dev):
    """The unseen systems of test, x and y, are then those of its strata."""
    embeddings = write_corpus(
        tmp_path / "e.arrow", {"train": "aaabbb", "dev": dev + "zw", "test": "aabbxxyy"}
    )
    assert select_new_in_test(embeddings) is None
    assert "new_in_test" not in evaluate(embeddings)["test"]


@pytest.mark.parametrize("new", ["", "y", "yz", "yyy"])
def test_block_is_none_without_target_or_without_nontarget_trials(tmp_path, new):
    systems = {"train": "aaabbb", "dev": "aabbxx", "test": "aabbxx" + new}
    embeddings = write_corpus(tmp_path / "e.arrow", systems)
    assert select_new_in_test(embeddings).systems.tolist() == list(new)
    assert evaluate(embeddings)["test"]["new_in_test"] is None
