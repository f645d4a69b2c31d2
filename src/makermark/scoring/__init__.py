"""How well vectors tell systems apart: everything is computed from the cosines of all pairs."""

from makermark.scoring.results import SetScores, SystemScore, as_metrics
from makermark.scoring.sets import score_set

__all__ = ["SetScores", "SystemScore", "as_metrics", "score_set"]
