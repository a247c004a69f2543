"""The operation that the export gets wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import quiet
from planted import PLANTED, install

from harness.bisect.export_check import export_fault
from harness.verify.prepare import prepare


@pytest.mark.parametrize("name", ["wrong_epsilon", "wrong_axis", "wrong_kernel"])
def test_the_operation_that_the_export_gets_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plant = PLANTED[name]
    install(monkeypatch, plant)
    fault = export_fault(prepare(plant.subject, quiet(tmp_path)), "one")
    if plant.kind == "export":
        assert fault is not None
        assert frozenset({fault.value.name}) == plant.answer
        assert fault.error > 0.1
    else:
        assert fault is None
