"""How well vectors tell systems apart: everything is computed from the cosines of all pairs."""

from makermark.scoring.openset import Evidence, choose_on_dev, open_set, open_set_by_head
from makermark.scoring.outofdomain import Rates
from makermark.scoring.rates import equal_error
from makermark.scoring.results import SetScores, SystemScore, as_metrics
from makermark.scoring.sets import score_set

__all__ = [
    "Evidence",
    "Rates",
    "SetScores",
    "SystemScore",
    "as_metrics",
    "choose_on_dev",
    "equal_error",
    "open_set",
    "open_set_by_head",
    "score_set",
]
