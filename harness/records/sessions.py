"""Sessions, runs and acceptances read back from their JSON; what a later version added is left out."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.machine import Machine
from harness.records.latency import Acceptance, Conditions, ProcessRun, Session, Summary


def session_from_json(data: dict[str, Any]) -> Session:
    """Return the session that ``Session.to_json`` wrote. Raises TypeError, KeyError or ValueError for anything else.

    Fields that a later version added are left out.
    """
    fields = {**_fields_of(Session, data), "runs": tuple(run_from_json(run) for run in data["runs"])}
    return Session(
        **{**fields, "machine": Machine(**_fields_of(Machine, data["machine"])), "notes": _tuple(data, "notes")}
    )


def run_from_json(data: dict[str, Any]) -> ProcessRun:
    """Return the run that ``dataclasses.asdict`` made plain. Raises TypeError or KeyError for anything else."""
    times = ("gpu_ms", "end_to_end_ms", "enqueue_ms")
    summaries = {name: data[name] and Summary(**_fields_of(Summary, data[name])) for name in times}
    lists = {name: _tuple(data, name) for name in ("flags", "invalid")}
    conditions = Conditions(**_fields_of(Conditions, data["conditions"]))
    return ProcessRun(**{**_fields_of(ProcessRun, data), **summaries, **lists, "conditions": conditions})


def acceptance_from_json(data: dict[str, Any]) -> Acceptance:
    """Return the acceptance that ``Acceptance.to_json`` wrote. Raises TypeError or KeyError for anything else."""
    return Acceptance(**{**_fields_of(Acceptance, data), "sessions": tuple(data["sessions"])})


def _fields_of(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return those of the data that a dataclass has fields for."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def _tuple(data: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(data.get(name, ()))
