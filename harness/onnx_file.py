"""An ONNX file as a subject: opening it, its value table, its inputs, and running it without PyTorch.

There is no PyTorch module behind such a file, so the reference is ONNX Runtime in FP32 (:func:`run_fp32`), FP64 is
``onnx.reference`` (:func:`run_fp64`), and the floor is emulated (:func:`run_emulated`).
"""

from __future__ import annotations

import ast
import base64
import binascii
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotJudged, UsageError, first_line, unknown_name
from harness.precision import Plan, emulate, promote, to_float64
from harness.settings import print_progress
from harness.typed_graph import infer_types
from harness.values import Value

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir
    import torch
    from onnx.reference.op_run import OpRun

Run = Callable[[Mapping[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]
# protobuf cannot hold 2 GiB; weights beyond this go beside the graph.
EXTERNAL_DATA_BYTES = 1_500_000_000
Dims = tuple[int | str, ...]
UNKNOWN_DIM = "?"
# Weights beyond this reach ONNX Runtime through a file: 0.7 to 1.4 s for 500 MB, where protobuf takes 3 to 5 s.
_INLINE_BYTES = 2**24
_DTYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
_KEEPS_INDEX = {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"}


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One declared network input."""

    name: str
    """Its declared name."""
    dtype: str
    """``float32``, ``int64``, ..."""
    shape: Dims | None
    """Dimensions: a number, a symbol, ``?`` for one without a name; None when even the rank is open."""


def open_onnx(path: Path | str) -> ir.Model:
    """Open an ONNX file; external weights are checked and stay on disk until they are read.

    Raises UsageError when it is missing, damaged, not ONNX, or its external data is missing or too short.
    """
    import onnx_ir as ir
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"ONNX file {path} {what}; give the path of an .onnx file")
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
        what = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(
            f"{path} cannot be read as ONNX ({what}); if it is damaged, copy or export it again"
        ) from error
    if not model.opset_imports or not (len(model.graph) or model.graph.outputs):
        raise UsageError(f"{path} is not an ONNX model: it has no graph; give a file written by an ONNX exporter")
    _check_external_data(model, path)
    _take_arrays(model)
    return model


def _not_onnx(head: bytes, size: int) -> str | None:
    """Return what is wrong with a file by its first bytes, or None. An ONNX file starts with field 1, ir_version."""
    if not size:
        return "is empty; export it again"
    if head.startswith(b"PK"):
        return "is a zip archive, as PyTorch checkpoints are, not ONNX; export the model with torch.onnx.export"
    if head[0] != 0x08:
        return "is not an ONNX file: its first bytes are not those of a model; give a file written by an ONNX exporter"
    if size >= 2**31:
        return "is larger than the 2 GiB that protobuf can hold; save it with external data"
    return None


def _check_external_data(model: ir.Model, path: Path) -> None:
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            file = Path(tensor.path)
            if not file.is_file():
                raise UsageError(f"{path}: external data file {file} is missing (weight {value.name!r}); put it there")
            needed, found = (tensor.offset or 0) + tensor.nbytes, file.stat().st_size
            if found < needed:
                raise UsageError(
                    f"{path}: external data file {file} is truncated: weight {value.name!r} ends at byte {needed}, "
                    f"the file at {found}; copy it again"
                )
            try:
                tensor.numpy()
            except (OSError, ValueError) as error:
                raise UsageError(f"{path}: external data file {file} cannot be used: {error}") from error
            finally:
                tensor.release()


def _take_arrays(model: ir.Model) -> None:
    """Replace protobuf's tensors by arrays: each reading of one copies it, and the last one keeps the whole file."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.serde.TensorProtoTensor):
                value.const_value = _as_array(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.serde.TensorProtoTensor):
                    node.attributes[name] = ir.AttrTensor(name, _as_array(attribute.value))


def _as_array(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def value_table(model: ir.Model) -> dict[str, Value]:
    """Return the table of all values the graph computes (its constants excepted), in graph order.

    Module and origin come from the exporter's metadata where it left any, else the module from the node's name.
    """
    from onnx_ir.passes.common import InlinePass

    copy = model.clone()
    if copy.functions:
        copy = InlinePass()(copy).model
    infer_types(copy)
    values = (_table_row(node, value) for node in copy.graph for value in node.outputs if value.name)
    return {value.name: value for value in values if value.op != "onnx.Constant"}


def _table_row(node: ir.Node, value: ir.Value) -> Value:
    name = str(value.name)
    scopes, classes = (_metadata_list(node, f"pkg.torch.onnx.{key}") for key in ("name_scopes", "class_hierarchy"))
    origin = scopes[-1] if scopes else name
    op = classes[-1] if classes and origin == name else f"onnx.{node.op_type}"
    module = (scopes[-2] if len(scopes) > 1 else "") if scopes else _module_of(node.name or "")
    source = _last_line(node.metadata_props.get("pkg.torch.onnx.stack_trace", ""))
    dtype = "" if value.dtype is None else _dtype_name(value.dtype)
    return Value(name=name, origin=origin, op=op, module=module, source=source, dtype=dtype, shape=_dims(value.shape))


def _metadata_list(node: ir.Node, key: str) -> list[str]:
    """Return a list that the exporter wrote as its repr; empty when it is absent or something else."""
    try:
        items = ast.literal_eval(node.metadata_props.get(key, "[]"))
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in items] if isinstance(items, list) else []


def _module_of(node_name: str) -> str:
    """Return the module path in a node name: encoder.layer.0 from /encoder/layer.0/MatMul."""
    return ".".join(part for part in node_name.split("/")[:-1] if part)


def _last_line(stack_trace: str) -> str:
    lines = re.findall(r'File "([^"]+)", line (\d+)', stack_trace)
    return ":".join(lines[-1]) if lines else ""


def _dtype_name(dtype: ir.DataType) -> str:
    return _DTYPE_NAMES.get(dtype.name, dtype.name.lower())


def _dims(shape: ir.ShapeProtocol | None) -> Dims | None:
    return (
        None
        if shape is None
        else tuple(dim if isinstance(dim, int) else str(dim.value or UNKNOWN_DIM) for dim in shape)
    )


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """Return the declared network inputs, without weights that older files list among them."""
    import onnx_ir as ir

    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if not isinstance(value.type, ir.TensorType) or value.type.dtype == ir.DataType.STRING:
            raise UsageError(
                f"input {value.name!r} is not a tensor of numbers ({value.type}); such inputs are not supported"
            )
        specs.append(InputSpec(name=str(value.name), dtype=_dtype_name(value.type.dtype), shape=_dims(value.shape)))
    return tuple(specs)


def generate_inputs(
    model: ir.Model, *, shapes: Mapping[str, tuple[int, ...]], symbols: Mapping[str, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return seeded random inputs.

    Floats are standard normal; integers are below 10 and valid for the tables they index; masks are 0 or 1, with at
    least the first position set. ``shapes`` gives whole shapes by input, ``symbols`` sizes by dynamic dimension; a
    dimension named in one input holds for all. Raises UsageError for a dimension that nothing gives.
    """
    import torch

    specs = input_specs(model)
    known = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    _check_known("input", shapes, {spec.name for spec in specs})
    _check_known("dynamic dimension", symbols, known - {UNKNOWN_DIM})
    sizes = dict(symbols)
    for spec in specs:
        if spec.name in shapes:
            _bind(spec, shapes[spec.name], sizes, kind="--shape")
    generator = torch.Generator().manual_seed(seed)
    values = {str(value.name): value for value in model.graph.inputs}
    return {
        spec.name: _random(
            spec, shapes[spec.name] if spec.name in shapes else _resolve(spec, sizes), values[spec.name], generator
        )
        for spec in specs
    }


def _check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = set(known)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def _bind(spec: InputSpec, shape: Sequence[int], sizes: dict[str, int], *, kind: str) -> None:
    """Hold a shape against the declared one and record the sizes of its dynamic dimensions."""
    if spec.shape is None:
        return
    given, declared = list(shape), ", ".join(map(str, spec.shape))
    if len(given) != len(spec.shape):
        raise UsageError(f"input {spec.name!r}: {kind} has shape {given}, but the model declares [{declared}]")
    for size, dim in zip(given, spec.shape, strict=True):
        expected = sizes.setdefault(dim, size) if isinstance(dim, str) and dim != UNKNOWN_DIM else dim
        if dim != UNKNOWN_DIM and size != expected:
            where = f" (with {dim} = {expected})" if isinstance(dim, str) else ""
            raise UsageError(
                f"input {spec.name!r}: {kind} has shape {given}, but the model declares [{declared}]{where}"
            )


def _resolve(spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        raise UsageError(f"input {spec.name!r} has no declared shape; give --shape {spec.name}=1,3,224,224")
    shape = tuple(dim if isinstance(dim, int) else sizes.get(dim) for dim in spec.shape)
    resolved = tuple(size for size in shape if size is not None)
    if len(resolved) < len(shape):
        index = shape.index(None)
        which = "without a name" if spec.shape[index] == UNKNOWN_DIM else repr(spec.shape[index])
        dynamic = [dim for dim in spec.shape if isinstance(dim, str)]
        example = ",".join(
            str(2 if dim == dynamic[0] else 16) if isinstance(dim, str) else str(dim) for dim in spec.shape
        )
        raise UsageError(f"input {spec.name!r} has dynamic dimension {which}; give --shape {spec.name}={example}")
    return resolved


def _random(spec: InputSpec, shape: tuple[int, ...], value: ir.Value, generator: torch.Generator) -> torch.Tensor:
    import torch

    dtype = _torch_dtype(spec)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    if dtype == torch.bool or "mask" in spec.name.lower():
        bits = torch.randint(0, 2, shape, generator=generator)
        if "mask" in spec.name.lower() and bits.ndim:
            bits[..., :1] = 1  # a row without any position makes a softmax over nothing: NaN
        return bits.to(dtype)
    return torch.randint(0, _index_bound(value), shape, generator=generator).to(dtype)


def _index_bound(value: ir.Value) -> int:
    """Return 10, or the length of the shortest table that the value indexes (token types have a table of 2)."""
    bound = 10
    for node, position in value.uses():
        if node.op_type in _KEEPS_INDEX and position == 0:
            bound = min(bound, _index_bound(node.outputs[0]))
        table = node.inputs[0] if node.op_type == "Gather" and position == 1 else None
        if table is not None and table.shape is not None:
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
            length = table.shape[axis]
            bound = min(bound, length) if isinstance(length, int) else bound
    return max(bound, 1)


def _torch_dtype(spec: InputSpec) -> torch.dtype:
    import torch

    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"input {spec.name!r} has dtype {spec.dtype}, which PyTorch does not have")
    return dtype


def load_inputs(
    path: Path | str, specs: Sequence[InputSpec], *, say: Callable[[str], None] = print_progress
) -> dict[str, torch.Tensor]:
    """Read inputs from an .npz file or from what ``polygraphy run --save-inputs`` wrote, and check them.

    Polygraphy's file may be a list of iterations, or a folder of one file each; the first is used, and ``say`` is told
    so. Nothing is unpickled. Raises UsageError for a bad file and whatever :func:`check_inputs` raises.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"input file {path} does not exist; give an .npz file or Polygraphy's --save-inputs JSON")
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise UsageError(f"input folder {path} holds no .json file; give what polygraphy --save-inputs wrote")
        if len(files) > 1:
            say(f"{path} holds {len(files)} iterations; the first is used")
        arrays = _read_json(files[0], say)
    else:
        arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_json(path, say)
    inputs = {name: _tensor(array, f"{path}: input {name!r}") for name, array in arrays.items()}
    check_inputs(inputs, specs)
    return inputs


def _read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as .npz: {error}") from error


def _read_json(path: Path, say: Callable[[str], None]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is neither an .npz file nor JSON; give either as inputs") from error
    iterations = data if isinstance(data, list) else [data]
    if not iterations or not isinstance(iterations[0], dict):
        raise UsageError(f"{path} holds no inputs; give what polygraphy --save-inputs wrote")
    if len(iterations) > 1:
        say(f"{path} holds {len(iterations)} iterations; the first is used")
    return {name: _decode(item, f"{path}: input {name!r}") for name, item in iterations[0].items()}


def _decode(item: object, where: str) -> np.ndarray[Any, Any]:
    """Decode one array of Polygraphy's JSON: the base64 of a .npy file."""
    import numpy as np

    if isinstance(item, dict) and "tensor" in item:
        raise UsageError(f"{where} is a pickled torch tensor, which is never loaded; save the inputs as numpy arrays")
    if not isinstance(item, dict) or not isinstance(item.get("array"), str):
        raise UsageError(f"{where} is not an array as Polygraphy saves it")
    try:
        array = np.load(io.BytesIO(base64.b64decode(item["array"], validate=True)), allow_pickle=False)
    except (ValueError, OSError, EOFError, binascii.Error) as error:
        raise UsageError(f"{where} cannot be decoded: {error}") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{where} is an archive, not one array")
    return array


def _tensor(array: np.ndarray[Any, Any], where: str) -> torch.Tensor:
    import torch

    try:
        return torch.from_numpy(array.copy())
    except TypeError as error:
        raise UsageError(f"{where} has dtype {array.dtype}, which PyTorch does not have; save it as numbers") from error


def check_inputs(inputs: Mapping[str, torch.Tensor], specs: Sequence[InputSpec]) -> None:
    """Hold inputs against the declared ones.

    Raises UsageError for a missing, unknown, misshapen or mistyped input, NotJudged when one holds NaN or infinity.
    """
    names = {spec.name for spec in specs}
    _check_known("input", inputs, names)
    if missing := sorted(names - set(inputs)):
        raise UsageError(
            f"inputs are missing: {', '.join(map(repr, missing))}; the model declares {', '.join(sorted(names))}"
        )
    sizes: dict[str, int] = {}
    for spec in specs:
        tensor = inputs[spec.name]
        given = str(tensor.dtype).removeprefix("torch.")
        if given != spec.dtype:
            raise UsageError(f"input {spec.name!r} is {given}, but the model declares {spec.dtype}; convert it")
        _bind(spec, tuple(tensor.shape), sizes, kind="the given tensor")
        if tensor.dtype.is_floating_point and (found := _not_finite(tensor)):
            raise NotJudged(f"input {spec.name!r} holds {found}; no verdict can be given")


def _not_finite(tensor: torch.Tensor) -> str:
    nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return " and ".join(f"{count} {what}" for count, what in ((nan, "NaN"), (inf, "Inf")) if count)


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model; its weights go beside it, into one file, where protobuf cannot hold them."""
    import onnx_ir as ir

    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights > EXTERNAL_DATA_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        # Weights that lie beside the user's file are loaded: this graph is written elsewhere.
        ir.save(ir.external_data.load_to_model(model), path)


def run_fp32(model: ir.Model) -> Run:
    """Return a function that runs the model in FP32 on ONNX Runtime's CPU, without graph optimisation.

    float16 and bfloat16 in the file are promoted first; inputs are converted and outputs are float32.
    """
    return _ort_run(promote(model))


def run_emulated(model: ir.Model, plan: Plan, dtypes: Mapping[str, str]) -> Run:
    """Return a function that runs the model in FP32 arithmetic rounded like the plan: the floor of an ONNX file."""
    return _ort_run(emulate(model, dtypes, default=plan.compute_dtype, tf32=plan.tf32))


def _ort_run(model: ir.Model) -> Run:
    """Load a model into ONNX Runtime. Raises NotJudged when it refuses the graph."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        try:
            source = _serialized(model, Path(folder))
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise NotJudged(f"ONNX Runtime does not load the graph in FP32: {first_line(error)}") from error
    dtypes = {spec.name: _torch_dtype(spec) for spec in input_specs(model)}
    outputs = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        feeds = {name: inputs[name].detach().cpu().to(dtype).numpy() for name, dtype in dtypes.items()}
        try:
            results = session.run(outputs, feeds)
        except Exception as error:
            raise NotJudged(f"ONNX Runtime cannot run the graph in FP32: {first_line(error)}") from error
        return {name: torch.as_tensor(result) for name, result in zip(outputs, results, strict=True)}

    return run


def _serialized(model: ir.Model, folder: Path) -> bytes | str:
    """Return the model as bytes, or the path of a file in the folder when its weights are large or in other files."""
    import onnx_ir as ir

    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if size < _INLINE_BYTES and not any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        serialized: bytes = ir.to_proto(model).SerializeToString()
        return serialized
    path = folder / "model.onnx"
    ir.save(model, path, external_data="weights.bin")
    return str(path)


def run_fp64(model: ir.Model) -> Run:
    """Return a function that runs the model in FP64 with ``onnx.reference``; outputs are float64.

    Raises NotJudged, naming the op, when the evaluator lacks one, fails in one, or leaves FP64.
    """
    import torch
    from onnx.reference import ReferenceEvaluator

    doubled = to_float64(model)
    producers = {str(value.name): node.op_type for node in doubled.graph for value in node.outputs}
    floats = {str(value.name) for node in doubled.graph for value in node.outputs if str(value.dtype) == "DOUBLE"}
    outputs = [str(value.name) for value in doubled.graph.outputs]
    dtypes = {spec.name: _torch_dtype(spec) for spec in input_specs(doubled)}
    try:
        evaluator = ReferenceEvaluator(_proto(doubled), new_ops=[_gather_elements()])
    except Exception as error:
        raise NotJudged(f"onnx.reference cannot evaluate the graph in FP64: {first_line(error)}") from error

    def run(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        feeds = {name: inputs[name].detach().cpu().to(dtype).numpy() for name, dtype in dtypes.items()}
        try:
            results: dict[str, Any] = dict(evaluator.run(None, feeds, intermediate=True))
        except Exception as error:
            raise NotJudged(
                f"onnx.reference cannot evaluate {_failed_op(error)} in FP64: {first_line(error)}"
            ) from error
        for name in floats & set(results):
            if str(results[name].dtype) != "float64":
                raise NotJudged(
                    f"onnx.reference leaves FP64 in {producers[name]} (value {name!r}: {results[name].dtype})"
                )
        return {name: torch.as_tensor(results[name]) for name in outputs}

    return run


def _gather_elements() -> type[OpRun]:
    """Return GatherElements for ``onnx.reference``, whose own fails on tables of more than 64 rows (onnx 1.23)."""
    import torch
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        op_domain = ""

        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            length = data.shape[axis]
            positive = torch.from_numpy(indices.astype("int64") % length)
            return (torch.gather(torch.from_numpy(data.copy()), axis, positive).numpy(),)

    return GatherElements


def _proto(model: ir.Model) -> onnx.ModelProto:
    """Return the model as one protobuf object with its weights inside."""
    import onnx_ir as ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size >= 2**31:
        raise NotJudged(f"its weights are {size / 2**30:.3g} GiB in FP64, more than one protobuf object holds")
    ir.external_data.load_to_model(model)
    return ir.to_proto(model)


def _failed_op(error: BaseException) -> str:
    """Return the op type in whose evaluation an error arose."""
    op = "the graph"
    trace = error.__traceback__
    while trace is not None:
        node = getattr(trace.tb_frame.f_locals.get("self"), "onnx_node", None)
        op = getattr(node, "op_type", op)
        trace = trace.tb_next
    return op
