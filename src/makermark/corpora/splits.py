"""Train, dev and test for a corpus without splits: held-out systems and languages, disjoint sentences and speakers.

As in the local corpus, dev and test contain the four strata (system and language seen in train or not), as far as the
corpus has the systems and languages for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from makermark.foundation.arrays import BoolArray, FloatArray, IntArray
from makermark.foundation.errors import CorpusError
from makermark.foundation.manifest import SPLITS

log = logging.getLogger(__name__)

TRAIN, DEV, TEST = range(3)  # columns of an array `allowed` (N rows, 3 splits): may the row be in the split?


def assign_splits(
    rows: pd.DataFrame,
    *,
    everything_in: str,
    seed: int,
    dev_unseen_systems: int,
    test_unseen_systems: int,
    dev_unseen_languages: int,
    test_unseen_languages: int,
    dev_fraction: float,
    test_fraction: float,
    disjoint: Sequence[str],
) -> pd.DataFrame:
    """Return the rows that fit into a split, with a column `split`. Depends on the seed, not on the row order.

    1. The unseen systems and languages of dev and of test are drawn; their rows are allowed in that split only.
    2. Every value of each column in `disjoint` gets one of the splits that its rows allow, in the proportions of the
       fractions. Rows that allow no split any more are dropped. "" is not a value; texts are compared with
       `normalise_sentences`.
    3. Files that still allow several splits are divided by the fractions, within each system and language. All rows
       of one file get the same split.

    `everything_in` names one split for all rows instead. Raises CorpusError if there are too few systems or
    languages, or if a split stays empty.
    """
    if everything_in:
        return rows.assign(split=everything_in)
    rng = np.random.default_rng(seed)
    rows = rows.sort_values("utterance_id")
    fractions = np.array([1 - dev_fraction - test_fraction, dev_fraction, test_fraction])
    allowed = _hold_out(rows["system"], dev_unseen_systems, test_unseen_systems, min_train=2, rng=rng)
    allowed &= _hold_out(rows["language"], dev_unseen_languages, test_unseen_languages, min_train=1, rng=rng)
    impossible = int((~allowed.any(axis=1)).sum())
    for column in disjoint:
        groups = rows["system"] if column == "voice" else pd.Series("", index=rows.index)
        values = normalise_sentences(rows[column]) if column == "text" else rows[column]
        allowed &= _divide(values, allowed, groups=groups, fractions=fractions, rng=rng)
    groups = rows["system"] + "\n" + rows["language"]
    allowed &= _divide(rows["path"], allowed, groups=groups, fractions=fractions, rng=rng)
    has_split: BoolArray = np.asarray(allowed.any(axis=1))
    assigned = rows.assign(split=[SPLITS[index] for index in allowed.argmax(axis=1)]).loc[has_split]
    dropped = int((~has_split).sum())
    log.info(
        "split: %d of %d rows have a split; dropped: %d with an unseen system of one split and an unseen language of "
        "the other, %d to keep disjoint: %s",
        len(assigned), len(rows), impossible, dropped - impossible, ", ".join(disjoint) or "nothing",
    )  # fmt: skip
    _check_splits(assigned, total=len(rows), disjoint=disjoint)
    return assigned


def normalise_sentences(texts: pd.Series) -> pd.Series:
    """Return the texts in lower case with single blanks, so that equal sentences are equal strings.

    An unknown text ("" or missing) becomes "".
    """
    return texts.fillna("").str.split().str.join(" ").str.casefold()


def _hold_out(
    values: pd.Series, dev: int, test: int, *, min_train: int, rng: np.random.Generator
) -> BoolArray:
    """Draw `dev` and `test` values to hold out; return the splits allowed for each row, shape (N, 3)."""
    known = sorted(set(values) - {""})
    if dev + test and len(known) - dev - test < min_train:
        raise CorpusError(
            f"split: {dev} + {test} unseen {values.name}s cannot be held out of {len(known)}: train needs {min_train} "
            f"or more; lower split.dev_unseen_{values.name}s and split.test_unseen_{values.name}s"
        )
    drawn = rng.permutation(known)
    allowed = np.ones((len(values), len(SPLITS)), dtype=np.bool_)
    allowed[values.isin(drawn[:dev])] = np.eye(3, dtype=np.bool_)[DEV]
    allowed[values.isin(drawn[dev : dev + test])] = np.eye(3, dtype=np.bool_)[TEST]
    return allowed


def _divide(
    values: pd.Series,
    allowed: BoolArray,
    *,
    groups: pd.Series,
    fractions: FloatArray,
    rng: np.random.Generator,
) -> BoolArray:
    """Give every value one split; return the splits allowed for each row, shape (N, 3).

    Values with the same group (that of their first row) and the same allowed splits (those of any of their rows) are
    divided by `fractions`.
    """
    result = np.ones_like(allowed)
    splits = pd.DataFrame(allowed, columns=range(3)).groupby(values.to_numpy()).any()
    group_of = pd.Series(groups.to_numpy()).groupby(values.to_numpy()).first()
    key = [group_of, splits[TRAIN], splits[DEV], splits[TEST]]
    split_of: dict[str, int] = {}
    for _, equal in splits[splits.any(axis=1)].groupby(key):
        names = rng.permutation(equal.index.to_numpy())
        weights = fractions * equal.iloc[0].to_numpy()
        split_of |= dict(zip(names, np.repeat(range(3), apportion(len(names), weights)), strict=True))
    for number, value in enumerate(values):
        if value and value in split_of:
            result[number] = np.eye(3, dtype=np.bool_)[split_of[value]]
    return result


def apportion(count: int, weights: FloatArray) -> IntArray:
    """Return whole numbers that sum to `count`, as near as possible to the proportions of `weights`.

    If `count` is large enough, every weight above zero gets at least one.
    """
    ideal = count * weights / weights.sum()
    shares: IntArray = np.floor(ideal).astype(np.int64)
    largest = np.argsort(shares - ideal, kind="stable")
    shares[largest[: count - shares.sum()]] += 1
    if count >= np.count_nonzero(weights):
        while ((shares == 0) & (weights > 0)).any():
            shares[shares.argmax()] -= 1
            shares[np.argmax((shares == 0) & (weights > 0))] += 1
    return shares


def _check_splits(assigned: pd.DataFrame, *, total: int, disjoint: Sequence[str]) -> None:
    for name in SPLITS:
        systems = assigned["system"][assigned["split"] == name].nunique()
        if systems < (2 if name == "train" else 1):
            raise CorpusError(
                f"split: {len(assigned)} of {total} rows have a split and {name} has {systems} system(s); change "
                "the seed, hold out fewer systems or languages, or remove columns from split.disjoint"
                + (f" ({', '.join(disjoint)})" if disjoint else "")
            )
