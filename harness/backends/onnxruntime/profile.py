"""The time of each node of a model, from a profile that ONNX Runtime writes while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.backends.base import Session
from harness.temporary import temporary_folder

if TYPE_CHECKING:
    import torch


WARM_UP = 2
_KERNEL = "_kernel_time"


class ProfilingSession(Session, Protocol):
    """A session that was opened with a profile."""

    def end_profiling(self) -> str:
        """End the profile and return the path of its file."""


def profiled(
    open_session: Callable[[Path], ProfilingSession], inputs: Mapping[str, torch.Tensor], *, runs: int
) -> list[list[tuple[str, float]]]:
    """Return, for each run, the nodes after optimisation with their milliseconds.

    ``open_session`` is given what the path of the profile begins with.
    """
    with (
        temporary_folder() as folder,
        open_session(folder / "profile") as session,
    ):
        for _ in range(WARM_UP + runs):
            session.run(inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _node_times(events)[WARM_UP:]


def _node_times(events: Iterable[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
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
        (event["ts"], event["name"].removesuffix(_KERNEL), event["dur"] / 1e3)
        for event in events
        if event.get("cat") == "Node" and str(event.get("name")).endswith(_KERNEL)
    )
    return [[(name, ms) for start, name, ms in nodes if begin <= start < end] for begin, end in runs]
