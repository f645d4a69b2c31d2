"""Source tracing: which system made a clip, how certain the attribution is, and open-set rejection."""

from makermark.tracing.decision import Candidate, Comparison, Trace, Window
from makermark.tracing.gallery import (
    Gallery,
    lock_gallery,
    read_enrolled_systems,
    read_gallery,
    write_gallery,
)
from makermark.tracing.tracer import Tracer

__all__ = [
    "Candidate",
    "Comparison",
    "Gallery",
    "Trace",
    "Tracer",
    "Window",
    "lock_gallery",
    "read_enrolled_systems",
    "read_gallery",
    "write_gallery",
]
