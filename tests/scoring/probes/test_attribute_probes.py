"""Probes for language and voice, on embeddings with known content."""

import itertools

import numpy as np
import pandas as pd
import pytest

from makermark.foundation.embeddings import EmbeddingTable
from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs import equal_error_rate
from makermark.scoring.probes.attribute_probes import probe_attributes, probe_within_groups, same_language_eer
from makermark.scoring.probes.linear import linear_probe

SETTINGS = {"epochs": 30, "learning_rate": 0.1, "batch_utterances": 32, "test_fraction": 0.2,
            "max_per_class": 300, "min_per_class": 10, "seed": 0}  # fmt: skip


def make_embeddings(*, system=0.0, language=0.0, voice=0.0, noise=0.3, tied=False):
    """Return 4 systems x 2 languages x 2 voices x 20 utterances.

    The arguments are the sizes of the shifts by system, language, voice and noise. `tied`: a system has one language.
    """
    rng = np.random.default_rng(0)
    rows = [
        (s, "de" if (s in "ab" if tied else german) else "en", f"{s}-{v}")
        for s, german, v, _ in itertools.product("abcd", (0, 1), (0, 1), range(20))
    ]
    labels = pd.DataFrame(rows, columns=["system", "language", "voice"])
    values = noise * rng.normal(size=(len(labels), 12))
    for label, size in {"system": system, "language": language, "voice": voice}.items():
        names, column = np.unique(labels[label].to_numpy(dtype=str), return_inverse=True)
        values += size * rng.normal(size=(len(names), 12))[column]
    return EmbeddingTable(labels, values.astype(np.float32), None, {})


def test_probe_reads_the_language_and_is_at_chance_for_an_absent_voice():
    metrics = probe_attributes(make_embeddings(system=1.0, language=2.0), **SETTINGS)
    assert metrics["language"]["balanced_accuracy_percent"] > 95
    assert metrics["language"]["chance_percent"] == 50
    assert metrics["language_within_system"]["balanced_accuracy_percent"] > 95
    assert metrics["voice_within_system"]["balanced_accuracy_percent"] == pytest.approx(50, abs=15)
    assert metrics["voice_within_system"]["systems"] == 4


def test_probe_reads_the_voice():
    metrics = probe_attributes(make_embeddings(system=1.0, voice=2.0), **SETTINGS)
    assert metrics["voice_within_system"]["balanced_accuracy_percent"] > 95
    assert metrics["voice_within_system"]["chance_percent"] == 50


def test_language_implied_by_the_system_is_not_read_within_systems():
    metrics = probe_attributes(make_embeddings(system=2.0, tied=True), **SETTINGS)
    assert metrics["language"]["balanced_accuracy_percent"] > 95  # through the system
    assert metrics["language_within_system"] is None


def test_grouped_probe_is_the_mean_of_the_probes_of_its_groups():
    part = make_embeddings(voice=0.4)
    voices = part.labels["voice"].to_numpy(dtype=str)
    grouped = probe_within_groups(part.embeddings, voices, part.systems, **SETTINGS)
    alone = [
        linear_probe(part.embeddings[part.systems == s], voices[part.systems == s], **SETTINGS)
        for s in "abcd"
    ]
    assert grouped.balanced_accuracy_percent == pytest.approx(
        np.mean([probe.balanced_accuracy_percent for probe in alone])
    )


def test_unlabelled_utterances_are_left_out_and_embeddings_that_are_not_finite_raise():
    part = make_embeddings(language=1.0)
    unknown = EmbeddingTable(part.labels.assign(voice="", language=""), part.embeddings, None, {})
    metrics = probe_attributes(unknown, **SETTINGS)
    assert metrics == {"language": None, "language_within_system": None, "voice_within_system": None}
    assert same_language_eer(unknown, seed=0) is None
    part.embeddings[3] = np.nan
    with pytest.raises(ScoringError, match="not finite"):
        probe_attributes(part, **SETTINGS)
    with pytest.raises(ScoringError, match="not finite"):
        probe_within_groups(part.embeddings, part.systems, part.systems, **SETTINGS)


def compute_eer(part, rows):
    """Return the EER in percent over all pairs of these rows."""
    normalised = part.embeddings / np.linalg.norm(part.embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), k=1)
    scores = (normalised[rows] @ normalised[rows].T)[first, second]
    same = (part.systems[rows][:, None] == part.systems[rows])[first, second]
    return 100 * equal_error_rate(scores[same], scores[~same])


def test_same_language_eer_equals_brute_force():
    part = make_embeddings(system=0.5, language=0.8)
    metrics = same_language_eer(part, seed=0)
    assert metrics["languages"] == 2
    expected = {}
    for language in ("de", "en"):
        rows = np.flatnonzero(part.labels["language"] == language)
        expected[language] = compute_eer(part, rows)
        assert metrics["by_language"][language]["eer_percent"] == pytest.approx(expected[language], abs=0.02)
        assert metrics["by_language"][language]["target_trials"] == 4 * 40 * 39 // 2
    assert metrics["eer_percent"] == pytest.approx(np.mean(list(expected.values())), abs=0.02)
    assert metrics["eer_all_pairs_percent"] == pytest.approx(compute_eer(part, np.arange(320)), abs=0.02)


def test_same_language_eer_is_high_if_only_the_language_separates_systems():
    metrics = same_language_eer(make_embeddings(language=3.0, tied=True), seed=0)
    assert metrics["eer_all_pairs_percent"] < 35
    assert metrics["eer_percent"] > 45
