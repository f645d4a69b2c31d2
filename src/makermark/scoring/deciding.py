"""Thresholds with a promise: a false-accept rate on systems that are not known, sets that hold the true system."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]


def accept_threshold(unknown: Numbers, *, rate: float) -> float:
    """The lowest threshold above which at most a share `rate` of the scores (N,) of unknown systems lie.

    Raises ValueError without scores, or for a rate outside 0 to 1 (1 excluded).
    """
    if not len(unknown) or not 0 <= rate < 1:
        raise ValueError(
            f"{len(unknown)} scores at rate {rate}: there must be some, and a rate of 0 or more below 1"
        )
    allowed = int(np.floor(rate * len(unknown) + 1e-9))
    return float(np.sort(unknown)[::-1][allowed])


def conformal_margin(margins: Numbers, *, coverage: float) -> float:
    """How far behind the best a system may lie and still belong to the set: split conformal prediction (Vovk et al.
    2005; Lei et al. 2018).

    margins (N,): by how much the true system's score lies behind the best, of utterances that nothing was fitted to.
    The set of all systems within the margin then holds the true one with probability `coverage` or more, where clips
    are exchangeable with these; infinite where N is too small for the promise.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; it lies between 0 and 1, both excluded")
    rank = int(np.ceil((len(margins) + 1) * coverage - 1e-9))
    return float(np.sort(margins)[rank - 1]) if rank <= len(margins) else float("inf")
