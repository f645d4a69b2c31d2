"""Train, dev and test for a corpus that has none: systems and languages held out, no sentence or speaker in two.

As in the local corpus, dev and test each have the four strata: systems of train and new ones, languages of train and
new ones, as far as the corpus has them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from makermark.corpora.rows import SPLITS
from makermark.corpora.sentences import same_sentence
from makermark.errors import CorpusError

log = logging.getLogger(__name__)

TRAIN, DEV, TEST = range(3)
Possible = NDArray[np.bool_]  # (N rows, 3 splits): where a row may stand


def split(
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
    """The rows that could be placed, with their `split`; the seed decides all. Row order does not matter.

    First the unseen systems and languages of dev and of test are drawn: they stand in that split alone. Then every
    value of the columns `disjoint` is given one of the splits where its rows may stand, in the proportions that the
    fractions say, and rows that would need another are dropped; "" is no value, and texts are the same as sentences.py
    says. Files that may still stand in several splits are parted by the fractions, within each system and language; one
    that several rows name stands in one split. `everything_in` names one split for all rows instead.

    Raises CorpusError where there are not enough systems or languages, or a split stays empty.
    """
    if everything_in:
        return rows.assign(split=everything_in)
    rng = np.random.default_rng(seed)
    rows = rows.sort_values("utterance_id")
    fractions = np.array([1 - dev_fraction - test_fraction, dev_fraction, test_fraction])
    possible = _hold_out(rows["system"], dev_unseen_systems, test_unseen_systems, least=2, rng=rng)
    possible &= _hold_out(rows["language"], dev_unseen_languages, test_unseen_languages, least=1, rng=rng)
    impossible = int((~possible.any(axis=1)).sum())
    for column in disjoint:
        within = rows["system"] if column == "voice" else pd.Series("", index=rows.index)
        values = same_sentence(rows[column]) if column == "text" else rows[column]
        possible &= _part(values, possible, within=within, fractions=fractions, rng=rng)
    within = rows["system"] + "\n" + rows["language"]
    possible &= _part(rows["path"], possible, within=within, fractions=fractions, rng=rng)
    kept: NDArray[np.bool_] = np.asarray(possible.any(axis=1))
    placed = rows.assign(split=[SPLITS[place] for place in possible.argmax(axis=1)]).loc[kept]
    dropped = int((~kept).sum())
    log.info(
        "split: %d of %d rows placed; dropped: %d of an unseen system of one split in an unseen language of the other, "
        "%d to keep %s apart",
        len(placed), len(kept), impossible, dropped - impossible, " and ".join(disjoint) or "nothing",
    )  # fmt: skip
    _refuse_empty(placed, of=len(kept), disjoint=disjoint)
    return placed


def _hold_out(values: pd.Series, dev: int, test: int, *, least: int, rng: np.random.Generator) -> Possible:
    """Rows of `dev` and of `test` values, drawn at random, may stand there only; all others anywhere."""
    known = sorted(set(values) - {""})
    if dev + test and len(known) - dev - test < least:
        raise CorpusError(
            f"split: {dev} + {test} unseen {values.name}s are to be held out of {len(known)}, and train needs {least} "
            f"or more; lower split.dev_unseen_{values.name}s and split.test_unseen_{values.name}s"
        )
    drawn = rng.permutation(known)
    possible = np.ones((len(values), len(SPLITS)), dtype=np.bool_)
    possible[values.isin(drawn[:dev])] = np.eye(3, dtype=np.bool_)[DEV]
    possible[values.isin(drawn[dev : dev + test])] = np.eye(3, dtype=np.bool_)[TEST]
    return possible


def _part(
    values: pd.Series,
    possible: Possible,
    *,
    within: pd.Series,
    fractions: NDArray[np.float64],
    rng: np.random.Generator,
) -> Possible:
    """Each value's one split. Values are parted by `fractions` within those that have the same first row of `within`
    and may stand in the same splits (where any of their rows may)."""
    allowed = np.ones_like(possible)
    places = pd.DataFrame(possible, columns=range(3)).groupby(values.to_numpy()).any()
    groups = pd.Series(within.to_numpy()).groupby(values.to_numpy()).first()
    key = [groups, places[TRAIN], places[DEV], places[TEST]]
    given: dict[str, int] = {}
    for _, alike in places[places.any(axis=1)].groupby(key):
        names = rng.permutation(alike.index.to_numpy())
        weights = fractions * alike.iloc[0].to_numpy()
        given |= dict(zip(names, np.repeat(range(3), apportion(len(names), weights)), strict=True))
    for number, value in enumerate(values):
        if value and value in given:
            allowed[number] = np.eye(3, dtype=np.bool_)[given[value]]
    return allowed


def apportion(count: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers that sum to `count`, as near to the proportions of `weights` as can be; where there are enough, no
    weight above zero gets none."""
    ideal = count * weights / weights.sum()
    shares: NDArray[np.int64] = np.floor(ideal).astype(np.int64)
    largest = np.argsort(shares - ideal, kind="stable")
    shares[largest[: count - shares.sum()]] += 1
    if count >= np.count_nonzero(weights):
        while ((shares == 0) & (weights > 0)).any():
            shares[shares.argmax()] -= 1
            shares[np.argmax((shares == 0) & (weights > 0))] += 1
    return shares


def _refuse_empty(placed: pd.DataFrame, *, of: int, disjoint: Sequence[str]) -> None:
    for name in SPLITS:
        systems = placed["system"][placed["split"] == name].nunique()
        if systems < (2 if name == "train" else 1):
            raise CorpusError(
                f"split: {len(placed)} of {of} rows could be placed and {name} has {systems} system(s); change "
                "the seed, hold out fewer systems or languages, or take columns out of split.disjoint"
                + (f" ({', '.join(disjoint)})" if disjoint else "")
            )
