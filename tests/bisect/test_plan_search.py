"""What a plan costs: three engines timed in turns."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from harness import Target
from harness.bisect import plan_search
from harness.records import Price


def test_a_host_that_is_slow_for_a_while_changes_no_price(monkeypatch: pytest.MonkeyPatch):
    low, plan, opened = Target("rtx", "fp16"), Target("rtx", "plan.toml"), []
    medians = iter([9.0, 2.0, 3.0, 3.0, 2.5, 1.0])  # plan, low, FP32, FP32, low, plan

    def target(timed: Target) -> Any:
        opened.append(timed)
        return nullcontext(SimpleNamespace(load=lambda: None, device_name="GPU"))

    monkeypatch.setattr(plan_search, "plan_target", lambda *_: plan)
    monkeypatch.setattr(plan_search, "median_ms", lambda *_: next(medians))
    context: Any = SimpleNamespace(
        say=lambda *_: None,
        case="one",
        prepared=SimpleNamespace(inputs={"one": {}}),
        run=SimpleNamespace(target=target),
    )
    assert plan_search.price(context, low, ["op:gelu"]) == Price(device="GPU", plan_ms=1, low_ms=2, fp32_ms=3)
    assert opened == [plan, low, Target("rtx", "fp32"), Target("rtx", "fp32"), low, plan]
