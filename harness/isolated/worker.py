"""The process that computes: ``python -m harness.isolated.worker``; it loads and runs models until its input closes.

Arguments are libraries that it imports before the first request comes.

Requests and answers are those of :mod:`harness.isolated.wire`. A request has an ``id`` and ``do``: ``load``, ``run``,
``infer``, ``end_profiling`` or ``close``.

``load`` takes ``library`` (``onnxruntime`` or ``onnx.reference``) and ``model`` (bytes), or ``path``, with ``start``
and ``bytes`` where the file holds more, and ``weights`` (bytes that follow) for external data named ``weights``;
further ``threads``, ``optimise``, and ``profile``, what the path of a profile begins with that ``end_profiling`` ends.
The answer has ``inputs`` and ``outputs``: lists of name, type and shape.

``run`` takes ``feeds`` by name, ``names`` of outputs or none for all, and ``times``; the answer has ``results``, one
list for each time. With ``raw`` a feed is its bytes, the number of its ONNX type and its shape, and so is a result.

``infer`` takes ``model``, ``values`` (whether shapes may follow from them) and ``most_bytes``; it gives a ``model``.

An answer with ``error`` says what was raised, and ``memory`` whether that was for want of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness import memory
from harness.isolated import wire

WEIGHTS = "weights"
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2, 17: 1, 19: 1}
"""By the number of an ONNX type."""
Request = Mapping[str, Any]


def main() -> None:
    """Serve requests until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    for library in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the request that needs it says so
            importlib.import_module(library)
    models: dict[int, Any] = {}
    source = sys.stdin.buffer
    while line := source.readline(wire.LARGEST_HEADER):
        request = wire.receive(line, lambda size: _exactly(source, size))
        try:
            memory.limit_process(os.getpid())
            answer = _ACTIONS[request["do"]](models, request)
        except MemoryError as error:
            answer = {"error": str(error) or "MemoryError", "memory": True}
        except Exception as error:
            text = f"{error}" or type(error).__name__
            answer = {"error": text, "memory": memory.is_out_of_memory(text)}
        wire.send(out, answer)


def _load(models: dict[int, Any], request: Request) -> dict[str, Any]:
    load = _onnx_reference if request["library"] == "onnx.reference" else _onnxruntime
    model = models[request["id"]] = load(request)
    if request["library"] == "onnx.reference":
        return {}
    ports = {"inputs": model.get_inputs(), "outputs": model.get_outputs()}
    return {kind: [[it.name, it.type, list(it.shape)] for it in several] for kind, several in ports.items()}


def _onnxruntime(request: Request) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures reach the user as exceptions
    if not request["optimise"]:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.inter_op_num_threads = options.intra_op_num_threads = request["threads"]
    if request.get("profile"):
        options.enable_profiling, options.profile_file_prefix = True, request["profile"]
    if "bytes" not in request:
        model = request.get("path") or request["model"].tobytes()
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with Path(request["path"]).open("rb") as file:
        file.seek(request["start"])
        model = file.read(request["bytes"])
        if not request["weights"]:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        weights = memoryview(mapped)[file.tell() :]
        options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [request["weights"]])
        weights.release()
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        finally:
            del options
            mapped.close()


def _onnx_reference(request: Request) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load_from_string(request["model"].tobytes()))


def _run(models: dict[int, Any], request: Request) -> dict[str, Any]:
    model, names = models[request["id"]], request["names"]
    if request["raw"]:
        return {"results": [_run_raw(model, request["feeds"], names) for _ in range(request["times"])]}
    results = [model.run(names, request["feeds"]) for _ in range(request["times"])]
    return {"results": [[_plain(value) for value in result] for result in results]}


def _plain(value: Any) -> Any:
    # onnx.reference gives views that run backwards.
    return [_plain(item) for item in value] if isinstance(value, list) else np.asarray(value, order="C")


def _run_raw(session: Any, feeds: Mapping[str, Any], names: list[str]) -> list[Any]:
    binding = session.io_binding()
    for name, (data, number, shape) in feeds.items():
        binding.bind_input(name, "cpu", 0, number, shape, data.ctypes.data)
    for name in names:
        binding.bind_output(name, "cpu", 0)
    session.run_with_iobinding(binding)
    return [_raw(value) for value in binding.get_outputs()]


def _raw(value: Any) -> list[Any]:
    number, shape = value.element_type(), list(value.shape())
    size = math.prod(shape) * _ITEM_BYTES[number]
    if not size:
        return [np.empty(0, np.uint8), number, shape]
    memory_of: Any = (ctypes.c_ubyte * size).from_address(value.data_ptr())
    memory_of.owner = value  # it is sent from where it lies, and freed after that
    return [np.frombuffer(memory_of, np.uint8), number, shape]


def _end_profiling(models: dict[int, Any], request: Request) -> dict[str, Any]:
    return {"path": models[request["id"]].end_profiling()}


def _infer(models: dict[int, Any], request: Request) -> dict[str, Any]:
    import onnx

    proto = onnx.load_from_string(request["model"].tobytes())
    with memory.limited_to(request["most_bytes"]):
        found = onnx.shape_inference.infer_shapes(proto, strict_mode=False, data_prop=request["values"])
    return {"model": np.frombuffer(found.SerializeToString(), np.uint8)}


def _close(models: dict[int, Any], request: Request) -> dict[str, Any]:
    models.pop(request["id"], None)
    return {}


_ACTIONS: Mapping[str, Callable[[dict[int, Any], Request], dict[str, Any]]] = {
    "load": _load,
    "run": _run,
    "infer": _infer,
    "end_profiling": _end_profiling,
    "close": _close,
}


def _exactly(source: BinaryIO, size: int) -> wire.Bytes:
    data = wire.buffer(size)
    view, read = data.data, 0
    while read < size:
        count = source.readinto(view[read:])  # type: ignore[attr-defined]
        if not count:
            sys.exit(1)  # the parent is gone
        read += count
    return data


def _end_with_parent(parent: int) -> None:
    """Stop when the parent has: a model without an end would never see that the input is closed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main()
