"""The profile that ONNX Runtime writes: which node of which run took how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KERNEL = "_kernel_time"


def node_times(events: Iterable[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
    """Return, for each run in a profile, its nodes in execution order with their milliseconds.

    ``events`` are those of the trace-event format: a run is an event ``model_run`` of the category ``Session``, a node
    one of the category ``Node`` that lies inside it and whose name ends with ``_kernel_time``; times are microseconds.
    """
    events = list(events)
    runs = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "Session" and event.get("name") == "model_run"
    )
    nodes = sorted(
        (event["ts"], event["name"].removesuffix(KERNEL), event["dur"] / 1e3)
        for event in events
        if event.get("cat") == "Node" and str(event.get("name")).endswith(KERNEL)
    )
    return [[(name, ms) for start, name, ms in nodes if begin <= start < end] for begin, end in runs]
