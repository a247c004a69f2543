"""ONNX files: opened and checked, their value table, and written."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError, first_line
from harness.files import check_is_content
from harness.graph.external_data import check_external_data
from harness.graph.ir import copy_model, graph_values, weight_bytes
from harness.graph.metadata import exported_list, source_line
from harness.graph.onnx_checks import check_graph, check_ranges
from harness.graph.onnx_inputs import dimensions, dtype_name
from harness.graph.types import infer_types
from harness.graph.values import Value
from harness.lazy import onnx_ir as ir

# protobuf cannot hold 2 GiB; weights beyond this go beside the graph.
EXTERNAL_DATA_BYTES = 1_500_000_000
# Weights beyond this reach ONNX Runtime through a file: 0.7 to 1.4 s for 500 MB, where protobuf takes 3 to 5 s.
INLINE_BYTES = 2**24


def open_onnx(path: Path | str) -> ir.Model:
    """Open an ONNX file; external weights are checked and stay on disk until they are read.

    Raises UsageError when it is missing, damaged, not ONNX, uses a value that nothing computes, or its external data is
    missing or too short.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
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
    _load_arrays(model, path)
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


def _load_arrays(model: ir.Model, path: Path) -> None:
    """Replace protobuf's tensors by arrays: each reading of one copies it, and the last one keeps the whole file."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, (ir.serde.TensorProtoTensor, ir.StringTensor)):
                value.const_value = _as_array(value.const_value, path)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.serde.TensorProtoTensor):
                    node.attributes[name] = ir.AttrTensor(name, _as_array(attribute.value, path))


def _as_array(tensor: ir.TensorProtocol, path: Path) -> ir.TensorProtocol:
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
    copy = copy_model(model)
    infer_types(copy)
    values = (_table_row(node, value) for node in copy.graph for value in node.outputs if value.name)
    return {value.name: value for value in values if value.op != "onnx.Constant"}


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
    """Write a model; its weights go beside it, into one file, where protobuf cannot hold them."""
    if weight_bytes(model) > EXTERNAL_DATA_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        # Weights that lie beside the user's file are loaded: this graph is written elsewhere.
        ir.save(ir.external_data.load_to_model(model), path)
