"""Serving: the page and REST interface of `makermark serve`, and the registered MLflow model."""
