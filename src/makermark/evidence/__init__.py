"""All that is said of one clip, gathered as plain data and laid out as a page to read, listen to and print."""

from makermark.evidence.gathering import Clip, Evidence, gather
from makermark.evidence.page import html_report

__all__ = ["Clip", "Evidence", "gather", "html_report"]
