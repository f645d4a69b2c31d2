"""The same figures by brute force: every pair in memory, scikit-learn and SciPy."""

import numpy as np
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from makermark.scoring.layout import all_pairs, lay_out


def eer_percent(is_target, scores, weights=None):
    """None without trials of both kinds."""
    weights = np.ones(len(scores)) if weights is None else weights
    if weights[is_target].sum() == 0 or weights[~is_target].sum() == 0:
        return None
    fpr, tpr, _ = roc_curve(is_target, scores, sample_weight=weights, drop_intermediate=False)
    return 100 * brentq(lambda x: 1 - x - interp1d(fpr, tpr)(x), 0, 1, xtol=1e-14)


def min_dcf(is_target, scores, p_target):
    fpr, tpr, _ = roc_curve(is_target, scores, drop_intermediate=False)
    return np.min(p_target * (1 - tpr) + (1 - p_target) * fpr) / min(p_target, 1 - p_target)


class Trials:
    """All pairs of a set, in the scores of the package; systems and strata as the layout numbers them."""

    def __init__(self, vectors, systems, strata=None):
        layout = lay_out(vectors, systems, strata)
        self.scores, first, second = all_pairs(layout)
        self.systems, self.strata = layout.systems, layout.strata
        self.first, self.second = layout.system[first], layout.system[second]
        self.is_target = self.first == self.second
        self.stratum = np.where(layout.stratum[first] == layout.stratum[second], layout.stratum[first], -1)

    def inside(self, which):
        """Pairs of set `which`: None for all, or the index of a stratum."""
        return np.ones(len(self.scores), bool) if which is None else self.stratum == which

    def micro(self, which=None):
        inside = self.inside(which)
        return eer_percent(self.is_target[inside], self.scores[inside])

    def by_system(self, which=None):
        """EER by name, of the systems that have one."""
        eers = {}
        for number, name in enumerate(self.systems):
            mine = self.inside(which) & ((self.first == number) | (self.second == number))
            eer = eer_percent(self.is_target[mine], self.scores[mine])
            if eer is not None:
                eers[name] = eer
        return eers
