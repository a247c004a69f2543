"""Recorded documents for the tests of reports, made of the dataclasses that the commands write, with known figures."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.machine.identity import Machine
from harness.records import reader as records
from harness.records import writer as report
from harness.records.accuracy import MetricResult, OutputResult, Provenance, Result, overall
from harness.records.bisection import Advice, Bisection, Price, Question, Trial
from harness.records.bringup import BringUp, ModelPart
from harness.records.diagnosis import Culprit, Diagnosis, ErrorShape
from harness.records.latency import Comparison, KernelTime, Measured, ProcessRun, Session, Summary
from harness.records.stats import ErrorStats
from harness.records.study import Picture, StudyResult, VariantResult
from harness.sentences import Sentence

FINE = Sentence(
    "error_loses", relative_l2=1e-3, loses=Sentence("loses_by", what="PyTorch fp16", relative_l2=9e-4), limit=""
)
LOST = Sentence("then_no_bit_left", text="y")
ENVIRONMENT: dict[str, Any] = {
    "gpus": [{"name": "NVIDIA H200", "memory_bytes": 150109880320, "compute_capability": "9.0"}],
    "no_gpu": "", "driver": "580.1", "cuda": "13.0", "cpu": "A CPU", "cpu_count": 16, "platform": "Linux",
    "python": "CPython 3.12.3", "packages": {"torch": "2.11.0", "trt-parity": None}, "variables": {},
    "commit": "c0ffee", "engines": "engines", "references": "reference_outputs",
    "backends": {"rtx": {"version": "1.6.1.120", "unavailable": None, "cannot_run": None}}, "cudnn": "9.15.1",
    "cublas": "13.1.0.3", "memory_bytes": 137438953472, "container": "",
}  # fmt: skip


def stats(relative_l2: float = 1e-3, **changes: Any) -> ErrorStats:
    """Return the distance of an FP16 output, with changes; where the error is no number, all of the output is NaN."""
    count = changes.get("elements", 1000)
    bad = 0 if math.isfinite(relative_l2) else count
    errors = {"max": 8 * relative_l2, "mean": 2 * relative_l2, "median": relative_l2, "p99": 5 * relative_l2}
    return ErrorStats(**{
        "shape": (2, 8), "dtype": "float16", "absolute": errors, "relative": {**errors, "undefined": 0},
        "relative_l2": relative_l2, "cosine": math.nan if bad else 0.999, "snr_db": math.nan if bad else 60.0,
        "effective_bits": math.nan if bad else 9.0, "bias": 0.0, "elements": count, "compared": count - bad,
        "rms_expected": 1.0, "std_actual": 1.0, "std_expected": 1.0,
        "max_expected": 4.0, "zero_actual": False, "zero_expected": False, "constant_actual": False,
        "constant_expected": False, "nonfinite_actual": bad, "nonfinite_expected": 0, "nan_actual": bad,
        "nan_expected": 0, "mismatched_nonfinite": bad,
        "first_nonfinite": (0,) * len(changes.get("shape", (2, 8))) if bad else None, "worst": (), **changes,
    })  # fmt: skip


def output(name: str = "y", verdict: Any = "pass", **changes: Any) -> OutputResult:
    """Return one judged output."""
    fields = {"reason": FINE, "stats": stats(), "floor": stats(9e-4), "allowed": {"relative_l2": 3e-3}, **changes}
    return OutputResult(name=name, verdict=verdict, **fields)


def result(verdict: Any = "pass", **changes: Any) -> Result:
    """Return the verdict on one engine."""
    provenance = Provenance(
        weights="random", weights_source="seed 0", weights_sha256="w", inputs="random", inputs_sha256="i",
        program_sha256="p", commit="c0ffee", device="NVIDIA H200",
        reference=Sentence("reference_computed", dtype="FP32", device="cuda"),
    )  # fmt: skip
    fields: dict[str, Any] = {
        "subject": "net", "case": "one", "backend": "rtx", "precision": "fp16", "reason": FINE,
        "provenance": provenance, "outputs": (output(verdict=verdict),), **changes,
    }  # fmt: skip
    return Result(verdict=verdict, **fields)


def summary(ms: float) -> Summary:
    """Return a sample of times around ``ms``."""
    return Summary(n=1000, median=ms, low=0.99 * ms, high=1.01 * ms, mean=ms, minimum=0.9 * ms, cv=0.01, p99=1.2 * ms)


def session(ms: float = 2.0, **changes: Any) -> Session:
    """Return a session of three processes, by default of an engine on a GPU."""
    runs = tuple(
        ProcessRun(
            started_at="2026-01-02T00:00:00Z", gpu_ms=summary(ms * factor), end_to_end_ms=summary(1.5 * ms * factor),
            enqueue_ms=None, throughput_per_s=1200.0 / ms, graph=True,
        )
        for factor in (0.99, 1.0, 1.02)
    )  # fmt: skip
    return Session(**{
        "id": f"{ms}-{sorted(changes.items())}", "recorded_at": "2026-01-02T00:00:00Z", "subject": "net",
        "case": "one", "backend": "rtx", "precision": "fp16", "graph": True, "runs": runs,
        "machine": Machine(key="machine1234", class_key="class", facts={}), "weights": "random", "inputs": "random",
        "device": "NVIDIA H200", "commit": "c0ffee", **changes,
    })  # fmt: skip


def measured(ms: float = 2.0, *, speed_up: float | None = 4.0, **changes: Any) -> Measured:
    """Return a session with its verdict and its speed-up over eager FP32."""
    named = {} if speed_up is None else {"eager fp32": speed_up, "eager fp16": speed_up / 2}
    intervals = {name: (0.98 * factor, 1.02 * factor) for name, factor in named.items()}
    kernels = (
        KernelTime(name="gemm", ms=ms / 2, share=0.6, module="body.0"),
        KernelTime(name="softmax", ms=0.1, share=0.1),
    )
    return Measured(
        session=session(ms, **changes), speed_up=named, speed_up_intervals=intervals, kernels=kernels,
        comparison=Comparison(verdict="no_baseline", ratio=None, low=None, high=None),
    )  # fmt: skip


def sweep(symbol: str = "batch", steps: Sequence[int] = (1, 2, 4, 8), **changes: Any) -> list[Measured]:
    """Return engine and PyTorch over sizes."""
    found = []
    for size in steps:
        named = {**changes, "sizes": {**changes.get("sizes", {}), symbol: size}}
        found.append(measured(0.5 + 0.4 * size, speed_up=5.0 - 0.3 * size, **named))
        pytorch = {**named, "backend": "torch", "precision": "fp32", "runner": "eager", "graph": False}
        found.append(replace(measured(2.5 + 1.5 * size, speed_up=None, **pytorch), kernels=()))
    return found


def diagnosis(**changes: Any) -> Diagnosis:
    """Return one culprit that explains everything."""
    gelu = Culprit(
        value="gelu", op="aten.gelu.default", module="body.1", source="net.py:7", error=0.02, floor=1e-4,
        explains=0.999, looks_like=ErrorShape(kind="another_function", explained=0.99), alone=1,
    )  # fmt: skip
    return Diagnosis(**{
        "culprits": (gelu,), "right_before": 3, "wrong_later": 2, "compared": 6, "left": 1e-3, "complete": True,
        "observed": "unchanged", **changes,
    })  # fmt: skip


def bisection(**changes: Any) -> Bisection:
    """Return a fault of an engine, with a plan and a reproducer."""
    wrong = output(verdict="fail", stats=stats(0.03), reason="relative error 0.03")
    right = changes.get("kind") == "none"
    return Bisection(**{
        "subject": "net", "case": "one", "backend": "rtx", "precision": "fp16", "kind": "engine",
        "finding": Sentence("engine_wrong", where="gelu; ", computes_in="fp16", backend="rtx", why="", unknown=""),
        "advice": (
            Advice(
                indicator=Sentence("engine_seen", precision="fp16"), meaning=Sentence("engine_means", backend="rtx"),
                action=Sentence("keep_pattern", every="op:aten.gelu.default"),
            ),
        ),
        "commands": ("parity verify net -b rtx -p reports/net.toml", "python reports/net-reproducer/reproduce.py"),
        "result": None if right else result("fail", outputs=(wrong,)), "diagnosis": None if right else diagnosis(),
        "gates": (
            Question(question=Sentence("q_repeatable"), answer="yes", detail=Sentence("runs_same_bits", runs=2)),
        ),
        "region": ("gelu",), "plan": ("op:aten.gelu.default",), "plan_file": "reports/net.toml",
        "reproducer": "reports/net-reproducer",
        "price": Price(device="NVIDIA H200", plan_ms=0.99, low_ms=0.98, fp32_ms=1.5),
        "trials": (
            Trial(keep_fp32=("body.0",), where="engine", passed=False, error=0.03, reason=LOST),
            Trial(keep_fp32=("op:aten.gelu.default",), where="engine", passed=True, error=3e-3),
        ),
        "builds": 5, "max_builds": 30, **changes,
    })  # fmt: skip


def part(module: str = "layers.0", verdict: Any = "pass", **changes: Any) -> ModelPart:
    """Return one part of a model."""
    fields = {"kind": "Block", "reason": FINE, "output": "output", "error": 2e-3, "floor": 1e-3, "ratio": 2.0,
              "shapes": {"x": (2, 8)}}  # fmt: skip
    return ModelPart(**{"module": module, "verdict": verdict, **fields, **changes})


def brought_up(*parts: ModelPart, **changes: Any) -> BringUp:
    """Return a model that was brought up part by part."""
    found = parts or (part(), part("layers.1"))
    fields: dict[str, Any] = {
        "subject": "net", "case": "one", "backend": "rtx", "precision": "fp16", "prefix": "layers", "upto": "",
        "verdict": overall(one.verdict for one in found), "weights": "random",
        "reason": Sentence("parts_passed", passed=2, count=2),
        "inputs": "random", "device": "CPU", "parts": found,
    }  # fmt: skip
    return BringUp(**{**fields, **changes})


def variant(name: str, latency_ms: float | None, verdict: Any = "pass", **changes: Any) -> VariantResult:
    """Return one variant of a study."""
    metrics = (MetricResult(name="pd max", verdict="pass", reason="", actual=3.5, expected=0.0, allowed=12.0),)
    fields: dict[str, Any] = {"settings": {"precision": name, "steps": 20}, "reason": "", "metrics": metrics, **changes}
    return VariantResult(name=name, verdict=verdict, latency_ms=latency_ms, speed_up=2.0, score=90.0, **fields)


def study(**changes: Any) -> StudyResult:
    """Return a study of four variants: one helps, one is slower, one fails."""
    picture = Picture(
        case="a", prompt="p", seed=1, files={"sheet": "pictures/a.png"}, metrics={"pd": 3.5}, latency_ms=9.0
    )
    return StudyResult(**{
        "name": "canny2image", "weights": "random", "weights_source": "seed 0", "inputs": "real",
        "device": "NVIDIA H200", "score_rule": Sentence("contest_formula"),
        "variants": (
            variant("fp32", 100.0), variant("fp16", 60.0, pictures=(picture,)), variant("slower", 120.0),
            variant("wrong", 50.0, "fail", reason=Sentence("pd_above", worst=14.0, mean=13.0, pd_limit=12.0)),
        ),
        "charts": {"pd against latency": "charts/pareto.png"}, **changes,
    })  # fmt: skip


def document(
    folder: Path,
    name: str = "all.json",
    *,
    results: Sequence[Result] = (),
    bench: Sequence[Measured] = (),
    bisect: Bisection | None = None,
    studied: StudyResult | None = None,
    parts: Sequence[BringUp] = (),
    environment: dict[str, Any] | None = None,
    command: str = "parity verify net --json all.json",
    **changes: Any,
) -> Path:
    """Write a document as the commands do, and return its path."""
    rows = [one.to_json() for one in results]
    data = report.document(rows, environment=ENVIRONMENT if environment is None else environment, command=command)
    data |= {"bench": [one.to_json() for one in bench]} if bench else {}
    data |= {"bisect": bisect.to_json()} if bisect else {}
    data |= {"parts": [one.to_json() for one in parts]} if parts else {}
    data |= {"study": studied.to_json()} if studied else {}
    report.save_json({**data, **changes}, folder / name)
    return folder / name


def load(folder: Path, **parts: Any) -> records.Records:
    """Write a document as ``document`` does, and return what the reports read of it."""
    return records.load([document(folder, **parts)])


def cells(markdown: str, *first: str) -> list[str]:
    """Return the cells of the first row of a Markdown table that begins with ``first``, without those."""
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in markdown.split("\n") if line[:1] == "|"]
    return next(row for row in rows if row[: len(first)] == list(first))[len(first) :]


def banner(page: str) -> str:
    """Return the tone of an HTML page's banner."""
    shown = re.search(r'<p class="banner (\w+)"', page)
    assert shown
    return shown[1]


def picture(path: Path) -> None:
    """Write a PNG of one pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + zlib.compress(b"\x00\x80"), b"IEND")
    chunks = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def everything(folder: Path) -> Path:
    """Write one document of every kind of record into a folder, with the pictures of the study."""
    studied = study()
    for file in ("pictures/a.png", "charts/pareto.png"):
        picture(folder / file)
    document(folder, results=[result(), result(case="two")], bench=sweep(), bisect=bisection(), studied=studied)
    return folder
