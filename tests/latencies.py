"""Sessions and measurements with figures that are made up, for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.machine.identity import Machine
from harness.records.latency import Comparison, Conditions, KernelTime, Measured, ProcessRun, Session, Summary

CPU = Machine(key="cpu0123456789", class_key="cpu", facts={"cpu": "A CPU"})
GPU = Machine(key="gpu0123456789", class_key="gpu", facts={"gpu": "NVIDIA H200"})


def summary(ms: float, **changes: Any) -> Summary:
    """Return a summary of a hundred samples around ``ms``."""
    fields = {"n": 100, "median": ms, "low": ms, "high": ms, "mean": ms, "minimum": ms, "cv": 0.001, **changes}
    return Summary(**fields)


def process(ms: float, *, gpu: bool = False, **changes: Any) -> ProcessRun:
    """Return a process whose median is ``ms``; on a GPU end to end takes twice as long and a launch a tenth."""
    fields: dict[str, Any] = {
        "started_at": "2026-01-01T00:00:00+00:00",
        "gpu_ms": summary(ms, p90=ms * 1.1, p99=ms * 1.2) if gpu else None,
        "end_to_end_ms": summary(ms * 2 if gpu else ms),
        "enqueue_ms": summary(ms / 10) if gpu else None,
        "throughput_per_s": 1e3 / ms,
        "graph": gpu,
        "device_bytes": 2**30 if gpu else None,
        "conditions": Conditions(sm_mhz=1980.0 if gpu else None),
    }
    return ProcessRun(**{**fields, **changes})


def session(times: Sequence[float] = (1.0, 1.01, 0.99), *, gpu: bool = False, **changes: Any) -> Session:
    """Return a session of one process per time."""
    name = "".join(f"{time:g}" for time in times)
    fields: dict[str, Any] = {
        "id": f"id-{name}",
        "recorded_at": "2026-01-01T00:00:00+00:00",
        "subject": "clip",
        "case": "short",
        "backend": "rtx" if gpu else "ort-cpu",
        "precision": "fp16",
        "graph": gpu,
        "runs": tuple(process(time, gpu=gpu) for time in times),
        "machine": GPU if gpu else CPU,
        "engine_sha256": "abcdef0123456789",
        "weights": "trained",
        "inputs": "real",
        "device": "NVIDIA H200" if gpu else "CPU",
    }
    return Session(**{**fields, **changes})


def comparison(verdict: Any = "no_baseline", ratio: float | None = None, **changes: Any) -> Comparison:
    """Return a comparison whose interval is one percent to each side."""
    ends = {"low": ratio and ratio * 0.99, "high": ratio and ratio * 1.01}
    rule = changes.pop("rule", "the rule")
    return Comparison(verdict=verdict, ratio=ratio, **ends, rule=rule, **changes)


def measured(one: Session | None = None, verdict: Any = "no_baseline", **changes: Any) -> Measured:
    """Return a session with a verdict."""
    given = changes.pop("comparison", None) or comparison(verdict)
    return Measured(session=one or session(), comparison=given, **changes)


def eager(times: Sequence[float] = (2.0, 2.1, 1.9), **changes: Any) -> Session:
    """Return a session of PyTorch eager FP32."""
    fields = {"backend": "torch", "precision": "fp32", "runner": "eager", "engine_sha256": "", "graph": False}
    return session(times, **{**fields, **changes})


KERNELS = (
    KernelTime(name="gemm_1", ms=0.6, share=0.6, module="encoder.layers.0.mlp", nodes=("node_a", "node_b")),
    KernelTime(name="gemm_2", ms=0.3, share=0.3, module="encoder.layers.1.mlp", nodes=("node_c",)),
    KernelTime(name="copy", ms=0.1, share=0.1),
)
