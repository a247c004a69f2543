"""One page of HTML from all records: tables, charts and pictures, readable without a network."""

from __future__ import annotations

from harness.report.html.page import save_page
from harness.report.html.words import WORDS

__all__ = ["WORDS", "save_page"]
