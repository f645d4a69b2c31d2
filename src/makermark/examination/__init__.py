"""Examination of one clip: attribution of the similarity to time and frequency, and an HTML report."""
