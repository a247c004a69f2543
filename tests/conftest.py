"""Tests of the harness itself: on the CPU, except those marked ``gpu``, shown as not run elsewhere."""

from __future__ import annotations

import pytest

NOT_RUN = "needs an NVIDIA GPU: not run"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` with a reason where there is no GPU."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NOT_RUN))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what did not run for want of a GPU, so that nobody takes a green run for more than it is."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NOT_RUN in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests marked gpu were not run: they need an NVIDIA GPU")
