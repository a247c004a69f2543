"""A bisection whose time is over ends as an interrupted one, and says that it was its time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from bisecting import Bisect, require_honest
from planted import PLANTED, PlantedBackend

from harness import limits
from harness.bisect.screening import Screen
from harness.report.text import bisection_text
from harness.verify.references import References


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("option", ["--run-timeout", "--budget"])
@pytest.mark.parametrize(
    ("owner", "name", "call"), [(References, "reference", 1), (Screen, "rank", 1), (PlantedBackend, "build", 3)]
)
def test_a_bisection_out_of_time_keeps_what_it_verified(
    bisected: Bisect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, option: str
):
    whole, _ = bisected(PLANTED["growing_stream"])
    shutil.rmtree(tmp_path / "engines")
    function, calls = getattr(owner, name), []

    def ends(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            for limit in limits._applying():
                if limit.option == option:
                    limit.ends = time.monotonic() - 0.01
            limits.check()
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, ends)
    with limits.allowed(subject=900, budget=900):
        found, _ = bisected(PLANTED["growing_stream"])
    assert len(calls) >= call
    assert (found.limit, found.interrupted, found.complete) == (option, False, False)
    said = {
        "--budget": "the budget of 900 s was spent (--budget)",
        "--run-timeout": "longer than 900 s (--run-timeout)",
    }
    assert said[option] in " ".join(found.notes)
    assert "this is what was found so far" in bisection_text(found.to_json())
    require_honest(found, whole, interrupted=False)
