"""Corpora: each makes the same manifest (see rows.py)."""
