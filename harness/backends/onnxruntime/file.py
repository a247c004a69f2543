"""The engine file of ONNX Runtime: one line of JSON, the ONNX model and its external weights, in one file."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from harness.backends.base import BuildRequest
from harness.errors import EngineRefused
from harness.sentences import Sentence

if TYPE_CHECKING:
    import onnx


MAGIC = b"parity-onnxruntime/1\n"
WEIGHTS = "weights"
BLOCK_BYTES = 2**24
ALIGNMENT = 64


def pack(request: BuildRequest, engine: Path) -> bool:
    """Write the graph and its external weights into one file, without holding the weights in memory.

    Returns whether the graph casts to FP16 or has FP16 inputs or constants.
    """
    import onnx

    source = request.onnx
    model = onnx.load(source, load_external_data=False)
    tensors = [tensor for tensor in _tensors(model.graph) if onnx.external_data_helper.uses_external_data(tensor)]
    parts = _point_to_weights(tensors, source.parent, request.weights)
    data = model.SerializeToString()
    header = {"model": len(data), "tf32": request.tf32, "weights": sum(part.length + _padding(part) for part in parts)}
    with engine.open("wb") as out:
        out.write(MAGIC + json.dumps(header).encode() + b"\n")
        out.write(data)
        for part in parts:
            _copy(part, out)
    return _holds_float16(model.graph)


class _Part(NamedTuple):
    """Bytes of a file that hold a tensor."""

    file: Path
    offset: int
    length: int


def _point_to_weights(tensors: list[onnx.TensorProto], folder: Path, links: Mapping[str, Path]) -> list[_Part]:
    """Make every external tensor refer to the parts of the external files one after another; return these in order."""
    starts: dict[_Part, int] = {}
    size = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = (folder / entries["location"]).resolve()
        is_ours = path.is_relative_to(folder.resolve()) or links.get(entries["location"]) == path
        if not is_ours or not path.is_file():
            raise EngineRefused(
                f"the weights of {tensor.name!r} are in {entries['location']!r}, which is no file beside the model"
            )
        offset = int(entries.get("offset", 0))
        part = _Part(path, offset, int(entries.get("length", path.stat().st_size - offset)))
        if part not in starts:
            starts[part] = size
            size += part.length + _padding(part)
        del tensor.external_data[:]
        for key, value in {"location": WEIGHTS, "offset": str(starts[part]), "length": str(part.length)}.items():
            tensor.external_data.add(key=key, value=value)
    return list(starts)


def _padding(part: _Part) -> int:
    """Return how many bytes follow a tensor, so that the next one begins where processors like numbers to begin."""
    return -part.length % ALIGNMENT


def _copy(part: _Part, out: BinaryIO) -> None:
    with part.file.open("rb") as source:
        source.seek(part.offset)
        left = part.length
        while left and (block := source.read(min(left, BLOCK_BYTES))):
            out.write(block)
            left -= len(block)
    if left:
        raise EngineRefused(Sentence("weights_cut_short", file=part.file, left=left))
    out.write(bytes(_padding(part)))


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
        raise EngineRefused(Sentence("no_engine_of_backend", name=name, file=file))
    header: dict[str, Any] = json.loads(source.readline(4096))
    if source.tell() + header["model"] + header["weights"] != file.stat().st_size:
        raise EngineRefused(Sentence("engine_cut_short", name=name, file=file))
    return header


def map_weights(options: Any, source: BinaryIO, header: Mapping[str, Any], name: str) -> mmap.mmap | None:
    """Hand the external weights, which follow the model, to ONNX Runtime; return the memory map to close later."""
    if not header["weights"]:
        return None
    if not hasattr(options, "add_external_initializers_from_files_in_memory"):
        raise EngineRefused(Sentence("no_external_weights", name=name))
    start = source.tell()
    mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    weights = memoryview(mapped)[start:]
    options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [header["weights"]])
    weights.release()
    return mapped
