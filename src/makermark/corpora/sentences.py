"""When two texts are the same sentence: one rule for who keeps sentences apart, and for who looks whether they are."""

from __future__ import annotations

import pandas as pd


def same_sentence(texts: pd.Series) -> pd.Series:
    """The texts in a form that is equal for the same sentence: case and the kind and number of blanks do not count.
    "" (not known) stays ""."""
    return texts.fillna("").str.split().str.join(" ").str.casefold()
