"""Exact scoring of a set of embeddings: every pair of utterances is a trial.

The train stage depends on this package alone. It therefore imports nothing else from `makermark.scoring`.
"""

from makermark.scoring.pairs.error_rates import equal_error_rate
from makermark.scoring.pairs.score_pairs import PairMetrics, SystemMetrics, metrics_to_json, score_all_pairs

__all__ = ["PairMetrics", "SystemMetrics", "equal_error_rate", "metrics_to_json", "score_all_pairs"]
