"""The examiner's side: who made this clip, how sure that is, and when it is none of the systems known."""

from makermark.tracing.gallery import Gallery, changing, read_gallery, write_gallery
from makermark.tracing.tracer import Comparison, Tracer, enrolled_in
from makermark.tracing.verdict import Candidate, Trace, Window

__all__ = [
    "Candidate",
    "Comparison",
    "Gallery",
    "Trace",
    "Tracer",
    "Window",
    "changing",
    "enrolled_in",
    "read_gallery",
    "write_gallery",
]
