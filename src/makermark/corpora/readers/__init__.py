"""Readers of corpora: one module for each published format."""
