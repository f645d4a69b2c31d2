"""What else the embeddings hold, on vectors of which is known what they hold."""

import itertools

import numpy as np
import pandas as pd
import pytest

from makermark.confounds import language_held, readable
from makermark.errors import ScoringError
from makermark.probing import linear_probe, probe_within
from makermark.scoring import equal_error
from makermark.vectors import Embeddings

SETTINGS = {"epochs": 30, "learning_rate": 0.1, "batch_utterances": 32, "test_fraction": 0.2,
            "max_per_class": 300, "min_per_class": 10, "seed": 0}  # fmt: skip


def embeddings(*, system=0.0, language=0.0, voice=0.0, noise=0.3, tied=False):
    """4 systems x 2 languages x 2 voices x 20 utterances; each label moves the vectors by so much. `tied`: a system
    speaks one language."""
    rng = np.random.default_rng(0)
    rows = [
        (s, "de" if (s in "ab" if tied else german) else "en", f"{s}-{v}")
        for s, german, v, _ in itertools.product("abcd", (0, 1), (0, 1), range(20))
    ]
    labels = pd.DataFrame(rows, columns=["system", "language", "voice"])
    vectors = noise * rng.normal(size=(len(labels), 12))
    for what, size in {"system": system, "language": language, "voice": voice}.items():
        names, column = np.unique(labels[what].to_numpy(dtype=str), return_inverse=True)
        vectors += size * rng.normal(size=(len(names), 12))[column]
    return Embeddings(labels, vectors.astype(np.float32), None, {})


def test_a_language_in_the_vectors_is_read_and_a_voice_that_is_not_is_chance():
    told = readable(embeddings(system=1.0, language=2.0), **SETTINGS)
    assert told["language"]["balanced_accuracy_percent"] > 95
    assert told["language"]["chance_percent"] == 50
    assert told["language_within_system"]["balanced_accuracy_percent"] > 95
    assert told["voice_within_system"]["balanced_accuracy_percent"] == pytest.approx(50, abs=15)
    assert told["voice_within_system"]["systems"] == 4


def test_a_voice_in_the_vectors_is_read():
    told = readable(embeddings(system=1.0, voice=2.0), **SETTINGS)
    assert told["voice_within_system"]["balanced_accuracy_percent"] > 95
    assert told["voice_within_system"]["chance_percent"] == 50


def test_a_language_that_only_the_system_gives_away_is_not_read_within_systems():
    told = readable(embeddings(system=2.0, tied=True), **SETTINGS)
    assert told["language"]["balanced_accuracy_percent"] > 95  # by way of the system
    assert told["language_within_system"] is None


def test_the_mean_is_that_of_the_groups_own_probes():
    some = embeddings(voice=0.4)
    voices = some.labels["voice"].to_numpy(dtype=str)
    found = probe_within(some.vectors, voices, some.systems, **SETTINGS)
    alone = [
        linear_probe(some.vectors[some.systems == s], voices[some.systems == s], **SETTINGS) for s in "abcd"
    ]
    assert found.balanced_accuracy_percent == pytest.approx(
        np.mean([each.balanced_accuracy_percent for each in alone])
    )


def test_labels_that_are_not_known_are_left_out_and_vectors_that_are_not_finite_refused():
    some = embeddings(language=1.0)
    unknown = Embeddings(some.labels.assign(voice="", language=""), some.vectors, None, {})
    told = readable(unknown, **SETTINGS)
    assert told == {"language": None, "language_within_system": None, "voice_within_system": None}
    assert language_held(unknown, seed=0) is None
    some.vectors[3] = np.nan
    with pytest.raises(ScoringError, match="not finite"):
        readable(some, **SETTINGS)
    with pytest.raises(ScoringError, match="not finite"):
        probe_within(some.vectors, some.systems, some.systems, **SETTINGS)


def eer_of(part, rows):
    unit = part.vectors / np.linalg.norm(part.vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), k=1)
    scores = (unit[rows] @ unit[rows].T)[first, second]
    same = (part.systems[rows][:, None] == part.systems[rows])[first, second]
    return 100 * equal_error(scores[same], scores[~same])


def test_eers_in_one_language_are_those_of_its_pairs_counted_one_by_one():
    some = embeddings(system=0.5, language=0.8)
    told = language_held(some, seed=0)
    assert told["languages"] == 2
    of_language = {}
    for language in ("de", "en"):
        rows = np.flatnonzero(some.labels["language"] == language)
        of_language[language] = eer_of(some, rows)
        assert told["by_language"][language]["eer_percent"] == pytest.approx(of_language[language], abs=0.02)
        assert told["by_language"][language]["target_trials"] == 4 * 40 * 39 // 2
    assert told["eer_percent"] == pytest.approx(np.mean(list(of_language.values())), abs=0.02)
    assert told["eer_all_pairs_percent"] == pytest.approx(eer_of(some, np.arange(320)), abs=0.02)


def test_systems_told_apart_by_their_language_alone_are_not_told_apart_with_it_held():
    told = language_held(embeddings(language=3.0, tied=True), seed=0)
    assert told["eer_all_pairs_percent"] < 35
    assert told["eer_percent"] > 45
