"""The engine file of ONNX Runtime: one line of JSON, the ONNX model and its external weights, in one file."""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.backends.base import BuildRequest
from harness.errors import EngineRefused

if TYPE_CHECKING:
    import onnx


MAGIC = b"parity-onnxruntime/1\n"
WEIGHTS = "weights"


def pack(request: BuildRequest, engine: Path) -> bool:
    """Write the graph and its external weights into one file, without holding the weights in memory.

    Returns whether the graph casts to FP16 or has FP16 inputs or constants.
    """
    import onnx

    source = request.onnx
    model = onnx.load(source, load_external_data=False)
    tensors = [tensor for tensor in _tensors(model.graph) if onnx.external_data_helper.uses_external_data(tensor)]
    files = _point_to_weights(tensors, source.parent)
    data = model.SerializeToString()
    header = {"model": len(data), "tf32": request.tf32, "weights": sum(path.stat().st_size for path in files)}
    with engine.open("wb") as out:
        out.write(MAGIC + json.dumps(header).encode() + b"\n")
        out.write(data)
        for path in files:
            with path.open("rb") as part:
                shutil.copyfileobj(part, out, 2**24)
    return _holds_float16(model.graph)


def _point_to_weights(tensors: list[onnx.TensorProto], folder: Path) -> list[Path]:
    """Make every external tensor refer to the concatenation of all external files; return these in order."""
    starts: dict[Path, int] = {}
    size = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = (folder / entries["location"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise EngineRefused(
                f"the weights of {tensor.name!r} are in {entries['location']!r}, which is no file beside the model"
            )
        if path not in starts:
            starts[path] = size
            size += path.stat().st_size
        length = entries.get("length", str(path.stat().st_size - int(entries.get("offset", 0))))
        offset = starts[path] + int(entries.get("offset", 0))
        del tensor.external_data[:]
        for key, value in {"location": WEIGHTS, "offset": str(offset), "length": length}.items():
            tensor.external_data.add(key=key, value=value)
    return list(starts)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _holds_float16(graph: onnx.GraphProto) -> bool:
    import onnx

    half = onnx.TensorProto.FLOAT16
    casts = (a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to")
    inputs = (value.type.tensor_type.elem_type for value in graph.input)
    return half in {*casts, *inputs, *(tensor.data_type for tensor in _tensors(graph))}


def read_header(source: BinaryIO, file: Path, name: str) -> dict[str, Any]:
    """Read the first lines and return ``model`` and ``weights`` (sizes in bytes) and ``tf32``.

    Raises EngineRefused for a file that is something else or cut short.
    """
    if source.read(len(MAGIC)) != MAGIC:
        raise EngineRefused(f"{name} cannot load {file}: not an engine of this backend; delete it and build it again")
    header: dict[str, Any] = json.loads(source.readline(4096))
    if source.tell() + header["model"] + header["weights"] != file.stat().st_size:
        raise EngineRefused(f"{name} cannot load {file}: the file is cut short; delete it and build it again")
    return header


def map_weights(options: Any, source: BinaryIO, header: Mapping[str, Any], name: str) -> mmap.mmap | None:
    """Hand the external weights, which follow the model, to ONNX Runtime; return the memory map to close later."""
    if not header["weights"]:
        return None
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise EngineRefused(f"{name}: this onnxruntime cannot load external weights from memory; install a newer one")
    start = source.tell()
    mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    weights = memoryview(mapped)[start:]
    options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [header["weights"]])
    weights.release()
    return mapped
