"""Training: a backbone and a loss over batches of crops; see loop.py."""

from makermark.training.loop import Best, Epoch, Trained, train, weights_of
from makermark.training.resume import ResumeFile

__all__ = ["Best", "Epoch", "ResumeFile", "Trained", "train", "weights_of"]
