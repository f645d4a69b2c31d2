"""Probes: which labels a linear classifier reads from embeddings."""
