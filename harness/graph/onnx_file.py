"""ONNX files: opened and checked, their value table, and written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

from harness.errors import UsageError, first_line
from harness.files import check_is_content
from harness.graph.external_data import check_external_data
from harness.graph.ir import copy_model, graph_values, lacks_types, plain_model, weight_bytes, weights_of
from harness.graph.metadata import exported_list, source_line
from harness.graph.onnx_checks import check_graph, check_ranges
from harness.graph.onnx_inputs import dimensions, dtype_name
from harness.graph.types import infer_types
from harness.graph.values import Value
from harness.lazy import onnx_ir as ir
from harness.stamps import Stamp, stamp_of, stamps_of

# protobuf cannot hold 2 GiB; weights beyond this go beside the graph.
EXTERNAL_DATA_BYTES = 1_500_000_000
# Weights beyond this reach ONNX Runtime through a file: 0.7 to 1.4 s for 500 MB, where protobuf takes 3 to 5 s.
INLINE_BYTES = 2**24
# Shapes, axes and scalars stay in the graph, where every reader looks for them.
INLINE_TENSOR_BYTES = 2**10


def open_onnx(path: Path | str) -> ir.Model:
    """Open an ONNX file; external weights are checked and stay on disk until they are read.

    The model is only read: who opens the same file again has the same model, while that is held and nothing of the file
    or of its weights has changed. Raises UsageError when it is missing, damaged, not ONNX, uses a value that nothing
    computes, or its external data is missing or too short.
    """
    path = Path(path)
    for model, stamps in _opened.items():
        if path.absolute() in stamps and stamps == stamps_of(stamps):
            return model
    before = stamp_of(path)
    model = _read(path)
    now = stamps_of([path.absolute(), *_files_of_weights(model)])
    if now is not None and now[path.absolute()] == before:
        _opened[model] = now
    return model


_opened: WeakKeyDictionary[ir.Model, Mapping[Path, Stamp]] = WeakKeyDictionary()
"""The models that somebody holds, with the stamps of the files that they were read from."""


def _files_of_weights(model: ir.Model) -> set[Path]:
    return {Path(tensor.path) for tensor in weights_of(model) if isinstance(tensor, ir.ExternalTensor)}


def _read(path: Path) -> ir.Model:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"ONNX file {path} {what}; give the path of an .onnx file")
    check_is_content(path)
    with path.open("rb") as file:
        head = file.read(4)
    if problem := _not_onnx(head, path.stat().st_size):
        raise UsageError(f"{path} {problem}")
    try:
        model = ir.load(path, format="protobuf")
    except (MemoryError, OSError):
        raise
    except DecodeError as error:
        raise UsageError(
            f"{path} is truncated or damaged: it cannot be parsed as ONNX; copy or export it again"
        ) from error
    except Exception as error:  # a dtype or a field that onnx_ir does not know, each in its own way
        cause: BaseException = error
        while (
            deeper := cause.__cause__ or cause.__context__
        ):  # onnx_ir wraps the reason in an error per level of a file
            cause = deeper
        what = f"{type(cause).__name__}: {first_line(cause)}"
        raise UsageError(
            f"{path} cannot be read as ONNX ({what}); if it is damaged, copy or export it again"
        ) from error
    if not (len(model.graph) or model.graph.outputs):
        raise UsageError(f"{path} is not an ONNX model: it has no graph; give a file written by an ONNX exporter")
    if not model.opset_imports:
        raise UsageError(f"{path} is not a valid ONNX model: it imports no opset; export it again")
    check_graph(model, path)
    check_external_data(model, path)
    load_arrays(model, path)
    check_ranges(model, path)
    _tidy(model.graph)
    return model


def _not_onnx(head: bytes, size: int) -> str | None:
    """Return what is wrong with a file by its first bytes, or None. An ONNX file starts with field 1, ir_version."""
    if not size:
        return "is empty; export it again"
    if head.startswith(b"PK"):
        return "is a zip archive, as PyTorch checkpoints are, not ONNX; export the model with torch.onnx.export"
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip; unpack it with gunzip"
    if head[0] != 0x08:
        return "is not an ONNX file: its first bytes are not those of a model; give a file written by an ONNX exporter"
    if size >= 2**31:
        return "is larger than the 2 GiB that protobuf can hold; save it with external data"
    return None


def _tidy(graph: ir.Graph) -> None:
    """Name every output and node once, and leave dimensions open that a file declares as -1."""
    outputs = list(dict.fromkeys(graph.outputs))
    if len(outputs) < len(graph.outputs):
        graph.outputs.clear()
        graph.outputs.extend(outputs)
    taken: set[str] = set()
    for node in graph.all_nodes():  # ONNX Runtime refuses two of one name
        number, name = 1, node.name
        while node.name and node.name in taken:
            number += 1
            node.name = f"{name}_{number}"
        taken.add(node.name or "")
    for value in graph_values(graph):
        if value.shape is not None and any(isinstance(size, int) and size < 0 for size in value.shape):
            value.shape = ir.Shape([None if isinstance(size, int) and size < 0 else size for size in value.shape])


def load_arrays(model: ir.Model, path: Path | str) -> None:
    """Replace protobuf's tensors by arrays: each reading of one copies it, and the last one keeps the whole file."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, (ir.serde.TensorProtoTensor, ir.StringTensor)):
                value.const_value = _as_array(value.const_value, path)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.serde.TensorProtoTensor):
                    node.attributes[name] = ir.AttrTensor(name, _as_array(attribute.value, path))


def _as_array(tensor: ir.TensorProtocol, path: Path | str) -> ir.TensorProtocol:
    what = f"{path} is not a valid ONNX model: tensor {tensor.name!r} of shape {list(tensor.shape)}"
    if any(not isinstance(size, int) or size < 0 for size in tensor.shape):
        raise UsageError(f"{what}, which no tensor has; export it again")
    try:
        array = tensor.numpy()
    except Exception as error:  # onnx_ir asserts some of it
        raise UsageError(f"{what} has other bytes than that needs ({first_line(error)}); export it again") from error
    if isinstance(tensor, ir.StringTensor):
        return tensor
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def onnx_values(model: ir.Model) -> dict[str, Value]:
    """Return the table of all values the graph computes (its constants excepted), in graph order.

    Module and origin come from the exporter's metadata where it left any, else the module from the node's name.
    """
    if lacks_types(plain := plain_model(model)):
        plain = copy_model(model)
        infer_types(plain)
    values = (_table_row(node, value) for node in plain.graph for value in node.outputs if value.name)
    return {value.name: value for value in values if value.op != "onnx.Constant"}


def node_names(path: Path) -> dict[str, str]:
    """Return the names of an ONNX file's nodes by the values that they make; a node without a name makes none.

    Raises UsageError for a file that is missing or is no ONNX model.
    """
    return {str(value.name): node.name for node in open_onnx(path).graph for value in node.outputs
            if value.name and node.name}  # fmt: skip


def _table_row(node: ir.Node, value: ir.Value) -> Value:
    name = str(value.name)
    scopes, classes = (exported_list(node, key) for key in ("name_scopes", "class_hierarchy"))
    origin = scopes[-1] if scopes else name
    op = classes[-1] if classes and origin == name else f"onnx.{node.op_type}"
    module = (scopes[-2] if len(scopes) > 1 else "") if scopes else _module_of(node.name or "")
    source = source_line(node.metadata_props.get("pkg.torch.onnx.stack_trace", ""))
    dtype = "" if value.dtype is None else dtype_name(value.dtype)
    return Value(
        name=name, origin=origin, op=op, module=module, source=source, dtype=dtype, shape=dimensions(value.shape)
    )


def _module_of(node_name: str) -> str:
    """Return the module path in a node name: encoder.layer.0 from /encoder/layer.0/MatMul."""
    return ".".join(part for part in node_name.split("/")[:-1] if part)


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model to keep; its weights go beside it, into one file, where protobuf cannot hold them."""
    if weight_bytes(model) > EXTERNAL_DATA_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        # Weights that lie beside the user's file are loaded: this graph is written elsewhere.
        ir.save(ir.external_data.load_to_model(model), path)


def save_for_now(model: ir.Model, path: Path, *, linked: bool = False) -> dict[str, Path]:
    """Write a model into a temporary folder of ours; it is as it was afterwards.

    Weights in memory go into one file beside the graph if they are large: protobuf takes several times as long for
    them. Weights that lie in a file already go there too, or with ``linked`` are not written again: a link to their
    file stands beside the graph. Returns these files by the names of their links, for who does not follow one.
    """
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    before = [value.const_value for value in values]
    links: dict[str, Path] = {}
    try:
        for value in values:
            if isinstance(value.const_value, ir.ExternalTensor):
                tensor = value.const_value
                value.const_value = _linked(tensor, path.parent, links) if linked else _loaded(tensor)
        in_memory = [(value, it) for value in values if (it := value.const_value) is not None and not _is_file(it)]
        large = [(value, tensor) for value, tensor in in_memory if tensor.nbytes > INLINE_TENSOR_BYTES]
        if sum(tensor.nbytes for _, tensor in large) > INLINE_BYTES:
            tensors = [tensor for _, tensor in large]
            written = ir.external_data.convert_tensors_to_external(tensors, path.parent, f"{path.name}.data")
            for (value, _), tensor in zip(large, written, strict=True):
                value.const_value = tensor
        ir.save(model, path)
    finally:
        for value, unchanged in zip(values, before, strict=True):
            value.const_value = unchanged
    return links


def _is_file(tensor: ir.TensorProtocol) -> bool:
    return isinstance(tensor, ir.ExternalTensor)


def _loaded(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    (loaded,) = ir.external_data.convert_tensors_from_external([tensor])
    return loaded


def _linked(tensor: ir.ExternalTensor, folder: Path, links: dict[str, Path]) -> ir.ExternalTensor:
    """Return a tensor as it lies in a folder, which gets a link to its file."""
    file = Path(tensor.path).resolve()
    link = folder / f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}.data"
    if link.name not in links:
        link.symlink_to(file)
        links[link.name] = file
    return ir.ExternalTensor(
        link.name, tensor.offset, tensor.length, tensor.dtype,
        shape=tensor.shape, name=str(tensor.name), base_dir=folder,
    )  # fmt: skip
