"""One fresh process that times one engine or PyTorch module: ``python -m harness.timing.worker REQUEST``.

It imports its modules, prints ``ready``, waits for a line ``go`` on its standard input, measures, and writes the
:class:`harness.records.ProcessRun` as JSON to the path in the request. A ParityError is written as
``{"error": ..., "kind": ..., "failure": ...}``, with exit status 3.

The request is a JSON file with the keys ``runner`` (``engine``, ``eager`` or ``compile``), ``backend``, ``engine``
(path), ``precision``, ``subject`` (for PyTorch: ``locator``, ``suites``), ``inputs`` (safetensors file),
``device``, ``graph``, ``l2``, ``throughput``, ``lock_clocks`` (MHz or null), ``result`` (path), and optionally
``sampling``, fields of :class:`harness.timing.sampling.Sampling`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors.torch import load_file

from harness import process
from harness.backends import BACKENDS
from harness.discovery import find_subject
from harness.errors import NoMemory, NotJudged, ParityError, first_line, unknown_name
from harness.pytorch import build_module, tf32_allowed
from harness.records import ProcessRun, plain
from harness.sentences import Sentence
from harness.subject import Subject
from harness.timing import TimingOptions, measure_engine, measure_module
from harness.timing.sampling import Sampling
from harness.timing.summary import summarise

Request = Mapping[str, Any]
Tensors = Mapping[str, torch.Tensor]
READY = "ready"
GO = "go"
STATUS_ERROR = 3
"""The exit status when the result is an error."""


def main(request_file: str) -> int:
    """Serve one request; return the exit status."""
    process.for_one_engine = True
    began = time.perf_counter() - _age_s()
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    out = _own_stdout()
    try:
        subject = prepare(request)
        print(READY, file=out, flush=True)
        waiting = time.perf_counter()
        if sys.stdin.readline().strip() != GO:  # the parent is gone
            return 1
        began += time.perf_counter() - waiting
        answer, status = plain(dataclasses.asdict(measure(request, subject, began=began))), 0
    except ParityError as error:
        answer = {"error": str(error), "kind": type(error).__name__, "failure": error.failure}
        status = STATUS_ERROR
    Path(request["result"]).write_text(json.dumps(answer), encoding="utf-8")
    return status


def prepare(request: Request) -> Subject | None:
    """Import all modules before this process has its turn; return the subject of a PyTorch runner.

    Nothing here uses the GPU: a waiting process must not hold a context on the GPU that is measured.
    """
    summarise([1.0] * 10)  # imports NumPy
    if request["runner"] == "engine":
        if request["backend"] not in BACKENDS:
            raise unknown_name("backend", request["backend"], BACKENDS)
        if reason := BACKENDS[request["backend"]].unavailable():
            raise NotJudged(reason)
        return None
    importlib.import_module("harness.verify")  # for the inputs of a module; an engine's process is spared it
    where = request["subject"]
    subject = find_subject(where["locator"], suites=Path(where["suites"]))
    if subject.build is None:
        raise NotJudged(Sentence("pytorch_onnx_file", onnx_file=subject.onnx_file))
    return subject


def measure(request: Request, subject: Subject | None, *, began: float | None = None) -> ProcessRun:
    """Load the engine or module of the request and time it. Raises NotJudged, UsageError or EngineFailed.

    ``began`` is when this process started, on ``time.perf_counter``, later by as long as it waited for its turn.
    """
    device = torch.device(request["device"])
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NotJudged(Sentence("no_gpu_for_pytorch"))
    options = TimingOptions(
        device=request["device"],
        graph=request["graph"],
        l2=request["l2"],
        throughput=request["throughput"],
        known_processes=(os.getppid(), *request.get("neighbours", ())),
        free_bytes=torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None,
        lock_mhz=request.get("lock_clocks"),
        began=began,
        sampling=Sampling(**request["sampling"]) if request.get("sampling") else None,
    )
    inputs = load_file(request["inputs"])
    try:
        if request["runner"] == "engine":
            return _measure_engine(request, inputs, options)
        assert subject is not None
        return _measure_module(request, subject, inputs, options)
    except torch.cuda.OutOfMemoryError as error:
        raise NoMemory(Sentence("out_of_gpu_memory", said=first_line(error))) from error


def _measure_engine(request: Request, inputs: Tensors, options: TimingOptions) -> ProcessRun:
    started = time.perf_counter()
    with BACKENDS[request["backend"]].load(Path(request["engine"])) as session:
        load_ms = (time.perf_counter() - started) * 1e3
        return measure_engine(session, inputs, options, load_ms=load_ms)


def _measure_module(request: Request, subject: Subject, inputs: Tensors, options: TimingOptions) -> ProcessRun:
    device, precision = torch.device(request["device"]), request["precision"]
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    inputs = {
        name: tensor.to(device, dtype if tensor.dtype is torch.float32 else tensor.dtype)
        for name, tensor in inputs.items()
    }
    with tf32_allowed(precision == "tf32"):
        started = time.perf_counter()
        module = build_module(subject).to(device, dtype)
        call = _compiled(module, subject) if request["runner"] == "compile" else _eager(module, subject)
        _first_run(call, inputs, f"{subject.name}: PyTorch ({request['runner']}, {precision})")
        load_ms = (time.perf_counter() - started) * 1e3
        return measure_module(call, inputs, options, load_ms=load_ms)


def _eager(module: Callable[..., Any], subject: Subject) -> Callable[[Tensors], Any]:
    from harness.verify import structured_inputs

    _, structure = structured_inputs(subject, next(iter(subject.cases)))
    return lambda inputs: module(**structure.build(inputs))


def _compiled(module: torch.nn.Module, subject: Subject) -> Callable[[Tensors], Any]:
    try:
        return _eager(torch.compile(module), subject)
    except RuntimeError as error:
        raise NotJudged(Sentence("no_torch_compile", name=subject.name, said=first_line(error))) from error


def _first_run(call: Callable[[Tensors], Any], inputs: Tensors, what: str) -> None:
    """Run once: torch.compile compiles then. Raises NotJudged for any other exception of the run."""
    try:
        with torch.inference_mode():
            call(inputs)
        if next(iter(inputs.values())).is_cuda:
            torch.cuda.synchronize()
    except (ParityError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # a compiler may raise any exception
        raise NotJudged(
            Sentence("what_raised", what=what, name=type(error).__name__, said=first_line(error))
        ) from error


def _age_s() -> float:
    """Return how long ago this process started, to 10 ms; 0 where the system does not tell."""
    try:
        started = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _own_stdout() -> TextIO:
    """Return standard output for this module alone; all other prints go to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


if __name__ == "__main__":
    status = main(sys.argv[1])
    # The next process waits for this one: the interpreter's own exit takes half a second, and the result is written.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
