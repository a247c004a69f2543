"""One page of HTML from all records: tables, charts and pictures, readable without a network."""

from __future__ import annotations

from harness.report.html.page import save_page

__all__ = ["save_page"]
