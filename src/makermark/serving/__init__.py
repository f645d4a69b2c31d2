"""The examiner's page and the REST beside it: one process, one tracer, one gallery."""

from makermark.serving.application import application
from makermark.serving.desk import Desk
from makermark.serving.listening import serve

__all__ = ["Desk", "application", "serve"]
