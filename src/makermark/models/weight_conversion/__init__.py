"""Conversion of published weights to files that makermark loads."""
