"""Scores of embeddings: trials over all pairs, open-set detection, calibration, Frechet distances and probes."""
