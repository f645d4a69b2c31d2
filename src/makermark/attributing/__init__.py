"""What the network looked at: which bands and moments of a clip speak for a system, and whether they matter."""

from makermark.attributing.axes import band_centres_hz
from makermark.attributing.deleting import UNITS, Deletion, delete
from makermark.attributing.likeness import Likeness
from makermark.attributing.methods import (
    METHODS,
    Map,
    grad_cam,
    integrated_gradients,
    methods_for,
    whole_and_baseline,
)

__all__ = [
    "METHODS",
    "UNITS",
    "Deletion",
    "Likeness",
    "Map",
    "band_centres_hz",
    "delete",
    "grad_cam",
    "integrated_gradients",
    "methods_for",
    "whole_and_baseline",
]
