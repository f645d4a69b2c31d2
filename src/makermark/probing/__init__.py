"""What the vectors still hold: a linear probe, and a map to look at."""

from makermark.probing.linear import ProbeResult, linear_probe
from makermark.probing.map import umap_map
from makermark.probing.within import WithinResult, probe_within

__all__ = ["ProbeResult", "WithinResult", "linear_probe", "probe_within", "umap_map"]
