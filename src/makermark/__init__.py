"""makermark: which TTS system made a synthetic voice."""

__version__ = "0.1.0"
