"""Builds one TensorRT engine. A program of its own, so that a crash of the builder does not take the run with it.

Standard input carries one line of JSON, the request, and stays open: when it closes, the parent is gone and so is the
build. The engine and the report (JSON) are written to the paths in the request; standard output gets a line every few
seconds with the phase the builder is in, standard error every message of severity ERROR.

Request: ``module``, ``onnx``, ``engine``, ``report``, ``tf32``, ``taps`` (mark unfused tensors as debug tensors),
``shapes`` (input name -> [minimum, optimum, maximum]).
Report: ``error`` (None when all went well), ``written`` (False when the engine was built and not written),
``network_layers``, ``warnings``, ``options``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.sentences import Sentence

PHASE_INTERVAL_S = 2.0
_NO_DRIVER = "CUDA driver version is insufficient"
_MOOT = "has Int64 binding"  # a warning for every INT64 input, not needed: the session checks dtypes


class BuildError(Exception):
    """The builder said no; the text says why, without naming the backend."""


class NotWritten(BuildError):
    """The engine was built and its file cannot be written."""


def main() -> None:
    """Read the request, build, write the report."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    report: dict[str, Any] = {"error": None, "written": True, "network_layers": None, "warnings": [], "options": {}}
    try:
        report |= build(importlib.import_module(request["module"]), request)
    except BuildError as error:
        report |= {"error": str(error), "written": not isinstance(error, NotWritten)}
    Path(request["report"]).write_text(json.dumps(report), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without the builder's destructors: nothing is left to free, and they may crash


def build(trt: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the engine and return the report's fields.

    Raises BuildError when the graph cannot be parsed, built or written.
    """
    log = make_log(trt, echo=True)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(request["onnx"]):
        raise BuildError(_parser_errors(parser) or last_lines(log.errors))
    if request["taps"] and not _mark_unfused(network):
        raise BuildError(Sentence("no_debug_tensors"))
    config = _configure(trt, builder, network, request, log)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None and _allow_allocation(trt, config):
        log.errors.clear()
        serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BuildError(last_lines(log.errors))
    try:
        with Path(request["engine"]).open("wb") as file:
            file.write(serialized)
    except OSError as error:
        raise NotWritten(Sentence("engine_not_written", engine=request["engine"], strerror=error.strerror)) from error
    options = {
        "strongly_typed": True,
        "tf32": config.get_flag(trt.BuilderFlag.TF32),
        "profiling_verbosity": "DETAILED",
        "user_allocation": _requires_user_allocation(trt, config),
        "optimization_profiles": config.num_optimization_profiles,
    }
    return {"network_layers": network.num_layers, "warnings": log.warnings, "options": options}


def _mark_unfused(network: Any) -> bool:
    """Mark the tensors between kernels as debug tensors, which leaves fusion as it is; return whether that worked."""
    return hasattr(network, "mark_unfused_tensors_as_debug_tensors") and bool(
        network.mark_unfused_tensors_as_debug_tensors()
    )


def make_log(trt: Any, *, echo: bool = False) -> Any:
    """Return a TensorRT logger that keeps errors and distinct warnings, and prints errors if ``echo``."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
                if echo:
                    print(message, file=sys.stderr, flush=True)
            elif severity == trt.ILogger.WARNING and message not in self.warnings and _MOOT not in message:
                self.warnings.append(message)

    return Log()


def last_lines(messages: Iterable[str], count: int = 3) -> str:
    """Return the last messages on one line; without those that any error brings on a machine without a GPU."""
    lines = [" ".join(message.split()) for message in messages]
    telling = [line for line in lines if _NO_DRIVER not in line] or lines
    return "; ".join(telling[-count:]) or Sentence("no_reason_given")


def _network_flags(trt: Any) -> int:
    """Return STRONGLY_TYPED where it still is an option; newer versions have no other kind of network."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def _parser_errors(parser: Any) -> str:
    return "; ".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))


def _parser_error(parser_error: Any) -> str:
    reason = last_lines(line for line in parser_error.desc().splitlines() if _NO_DRIVER not in line)
    if reason in ("false", "it gave no reason"):
        reason = str(parser_error.code())
    op = parser_error.node_operator() if hasattr(parser_error, "node_operator") else ""
    name = parser_error.node_name() if hasattr(parser_error, "node_name") else f"number {parser_error.node()}"
    return Sentence("op_of_node", op=op, name=name, reason=reason) if op else reason


def _configure(trt: Any, builder: Any, network: Any, request: Mapping[str, Any], log: Any) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # TensorRT sets TF32 by default.
    (config.set_flag if request["tf32"] else config.clear_flag)(trt.BuilderFlag.TF32)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _make_monitor(trt)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    ranges = _dynamic_ranges(
        {network_input.name: tuple(network_input.shape) for network_input in inputs}, request["shapes"]
    )
    for network_input in inputs:
        if network_input.is_shape_tensor:
            raise BuildError(Sentence("shapes_by_values", name=network_input.name))
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION") and not ranges:
        # TensorRT for RTX: an engine that may allocate memory while it runs cannot be captured into a CUDA graph.
        # With dynamic shapes, 1.6.1.120 ends the process (SIGSEGV) when it runs an engine built so.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if ranges:
        profile = builder.create_optimization_profile()
        for name, (minimum, optimum, maximum) in ranges.items():
            profile.set_shape(name, minimum, optimum, maximum)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(Sentence("ranges_not_accepted", ranges=ranges, errors=last_lines(log.errors)))
    return config


def _requires_user_allocation(trt: Any, config: Any) -> bool:
    flag = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    return flag is not None and bool(config.get_flag(flag))


def _allow_allocation(trt: Any, config: Any) -> bool:
    """Let the engine allocate while it runs, as shapes that depend on data need; return whether it might not before."""
    if not _requires_user_allocation(trt, config):
        return False
    config.clear_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    return True


def _dynamic_ranges(
    inputs: Mapping[str, tuple[int, ...]], shapes: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, list[tuple[int, ...]]]:
    """Return the range of every dynamic input, once all ranges are found to fit the graph."""
    if unknown := sorted(set(shapes) - set(inputs)):
        raise BuildError(Sentence("shapes_unknown", unknown=unknown, inputs=sorted(inputs)))
    ranges = {}
    for name, shape in inputs.items():
        limits = [tuple(limit) for limit in shapes.get(name, [])]
        dynamic = -1 in shape
        if dynamic and not limits:
            raise BuildError(Sentence("input_without_range", name=name, shape=shape))
        for limit in limits:
            if len(limit) != len(shape) or any(
                size not in (-1, wanted) for size, wanted in zip(shape, limit, strict=True)
            ):
                raise BuildError(Sentence("limit_not_fit", name=name, shape=shape, limit=limit))
        if dynamic:
            ranges[name] = limits
    return ranges


def _make_monitor(trt: Any) -> Any:
    """Return a monitor that prints the builder's current phase now and then; the builder calls it from many threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.printed = time.monotonic()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            self.show(phase)

        def step_complete(self, phase: str, step: int) -> bool:
            self.show(f"{phase}, step {step + 1} of {self.steps.get(phase, '?')}")
            return True

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

        def show(self, line: str) -> None:
            if time.monotonic() - self.printed >= PHASE_INTERVAL_S:
                self.printed = time.monotonic()
                print(line, flush=True)

    return Monitor()


def _leave_with_parent() -> None:
    """Stop at once when standard input closes: the parent process has ended."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
