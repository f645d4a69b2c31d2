"""The learning rate over the steps of a run."""

from __future__ import annotations

import math


def learning_rate(step: int, *, peak: float, warmup_steps: float, total_steps: int) -> float:
    """Linear warm-up from 0 to `peak`, then half a cosine down to 0 (Loshchilov & Hutter 2017, eq. 5).

    `step` counts from 0; the rate of a step is that of its middle, so that neither the first nor the
    last step has a rate of 0.
    """
    place = step + 0.5
    if place < warmup_steps:
        return peak * place / warmup_steps
    progress = (place - warmup_steps) / (total_steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
