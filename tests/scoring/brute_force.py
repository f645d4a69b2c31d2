"""Reference metrics by brute force: every pair in memory, scikit-learn and SciPy."""

import numpy as np
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from makermark.scoring.pairs.tiling import all_pairs, tile_embeddings


def eer_percent(is_target, scores, weights=None):
    """Return the EER in percent, or None without trials of both kinds."""
    weights = np.ones(len(scores)) if weights is None else weights
    if weights[is_target].sum() == 0 or weights[~is_target].sum() == 0:
        return None
    fpr, tpr, _ = roc_curve(is_target, scores, sample_weight=weights, drop_intermediate=False)
    return 100 * brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1, xtol=1e-14)


def min_dcf(is_target, scores, p_target):
    """Return the minimum normalised detection cost over all thresholds."""
    fpr, tpr, _ = roc_curve(is_target, scores, drop_intermediate=False)
    return np.min(p_target * (1 - tpr) + (1 - p_target) * fpr) / min(p_target, 1 - p_target)


class Trials:
    """All pairs of a set, with the scores of the package, and systems and strata numbered as in the tiling."""

    def __init__(self, embeddings, systems, strata=None):
        tiling = tile_embeddings(embeddings, systems, strata)
        self.scores, first, second = all_pairs(tiling)
        self.systems, self.strata = tiling.systems, tiling.strata
        self.first, self.second = tiling.system[first], tiling.system[second]
        self.is_target = self.first == self.second
        self.stratum = np.where(tiling.stratum[first] == tiling.stratum[second], tiling.stratum[first], -1)

    def inside(self, stratum):
        """Return which pairs are inside a stratum (its index), or inside the whole set (None)."""
        return np.ones(len(self.scores), bool) if stratum is None else self.stratum == stratum

    def micro(self, stratum=None):
        """Return the EER over all trials."""
        inside = self.inside(stratum)
        return eer_percent(self.is_target[inside], self.scores[inside])

    def by_system(self, stratum=None):
        """Return the EERs by system name, without systems that have none."""
        eers = {}
        for number, name in enumerate(self.systems):
            mine = self.inside(stratum) & ((self.first == number) | (self.second == number))
            eer = eer_percent(self.is_target[mine], self.scores[mine])
            if eer is not None:
                eers[name] = eer
        return eers
