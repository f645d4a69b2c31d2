"""How well a label is read where another is held constant: a probe inside each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.errors import ScoringError
from makermark.probing.linear import ProbeResult, Vectors, check, linear_probe


@dataclass(frozen=True)
class WithinResult:
    """The probes of the groups that have two classes to tell apart, and the means over these groups, each alike."""

    groups: Mapping[str, ProbeResult]
    balanced_accuracy_percent: float
    chance_percent: float


def probe_within(
    vectors: Vectors, labels: NDArray[np.str_], groups: NDArray[np.str_], **settings: Any
) -> WithinResult | None:
    """Probe vectors (N, D) for labels (N,) inside each of the groups (N,), so that the group itself cannot be what is
    read. `settings` are those of `linear_probe`, per group. None where no group has two classes."""
    check(vectors, labels)
    probed = {}
    for name in np.unique(groups):
        rows = groups == name
        try:
            probed[str(name)] = linear_probe(vectors[rows], labels[rows], **settings)
        except ScoringError:  # fewer than two classes of this size
            continue
    if not probed:
        return None
    return WithinResult(
        groups=probed,
        balanced_accuracy_percent=float(np.mean([p.balanced_accuracy_percent for p in probed.values()])),
        chance_percent=float(np.mean([p.chance_percent for p in probed.values()])),
    )
