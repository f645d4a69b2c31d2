"""Augmentation of speech: fixed conditions for robustness tests, and random augmentation for training.

Waveforms are (T,) float32 at 16 kHz. All randomness comes from the generator in the `AugmentationContext`.
"""
