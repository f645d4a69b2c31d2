"""What the vectors still hold: a linear probe, and a map to look at."""

from makermark.probing.linear import ProbeResult, linear_probe
from makermark.probing.map import umap_map

__all__ = ["ProbeResult", "linear_probe", "umap_map"]
