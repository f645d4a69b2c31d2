"""The tracer as a model of MLflow: written as a folder that serves itself, with its card, and registered."""

from makermark.registering.card import card
from makermark.registering.folder import register_tracer, write_model

__all__ = ["card", "register_tracer", "write_model"]
