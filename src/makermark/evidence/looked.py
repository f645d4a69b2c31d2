"""A picture of what speaks for a system and what against it, over the filterbank that the model reads.

Legend of axes: T frames, F bands.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from scipy.ndimage import gaussian_filter

from makermark.evidence.sounds import as_png
from makermark.reporting.style import COLOURS
from makermark.tracing.explaining import Explanation

FOR, AGAINST = COLOURS[5], COLOURS[4]
SMOOTHED = (4.0, 1.0)  # standard deviations in frames and bands
FULL = 99.5  # percentile of the sizes that has its full colour
DARKEST, BRIGHTEST = 2, 98  # percentiles of the filterbank
GREY = 0.55  # the brightest one


def draw(told: Explanation) -> bytes:
    """The filterbank in grey; over it, smoothed, what speaks for the system (FOR) and against it (AGAINST). PNG."""
    low, high = np.percentile(told.log_mel, (DARKEST, BRIGHTEST))
    grey = GREY * np.clip((told.log_mel - low) / max(high - low, 1e-9), 0, 1)[..., None]
    smooth = gaussian_filter(told.attribution.astype(np.float64), SMOOTHED)
    size = np.clip(np.abs(smooth) / max(float(np.percentile(np.abs(smooth), FULL)), 1e-12), 0, 1)[..., None]
    colour = np.where(smooth[..., None] > 0, to_rgb(FOR), to_rgb(AGAINST))
    return as_png(((1 - size) * grey + size * colour).swapaxes(0, 1))
