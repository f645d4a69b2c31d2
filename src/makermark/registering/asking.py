"""The function that models registered by version 0.1 import."""

from makermark.serving.registered_model.predict import predict_clips as answer

__all__ = ["answer"]
