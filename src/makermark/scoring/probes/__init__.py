"""Probes: which labels a linear classifier reads from embeddings, and which systems simple audio properties predict."""
