"""The examiner's side: who made this clip, how sure that is, and when it is none of the systems known."""

from makermark.tracing.explaining import Explanation, explain_clip
from makermark.tracing.gallery import Gallery, read_gallery, write_gallery
from makermark.tracing.tracer import Comparison, Tracer, enrolled_in
from makermark.tracing.verdict import Candidate, Trace, Window

__all__ = [
    "Candidate",
    "Comparison",
    "Explanation",
    "Gallery",
    "Trace",
    "Tracer",
    "Window",
    "enrolled_in",
    "explain_clip",
    "read_gallery",
    "write_gallery",
]
