"""The inputs of an ONNX file: what it declares, random ones to fit, and those of a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.errors import NotJudged, UsageError, unknown_name
from harness.lazy import onnx_ir as ir
from harness.memory import available_bytes
from harness.sentences import Sentence, joined
from harness.structure import COMPARED

Dims = tuple[int | str, ...]
UNKNOWN_DIM = "?"
COPIES = 4
"""Of an input's bytes, at the least: itself, in FP64, and what is computed of both."""
_DTYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
_INDEXES_TABLE = {"Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND"}
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


def dtype_name(dtype: ir.DataType) -> str:
    """Return the name that PyTorch and NumPy have for an element type: ``float32`` for FLOAT."""
    return _DTYPE_NAMES.get(dtype.name, dtype.name.lower())


def dimensions(shape: ir.ShapeProtocol | None) -> Dims | None:
    """Return the sizes of a shape, dynamic ones by symbol and unnamed ones as ``?``; None where it is not known."""
    if shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else str(dim.value or UNKNOWN_DIM) for dim in shape)


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """Return the declared network inputs, without weights that older files list among them."""
    specs = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if not isinstance(value.type, ir.TensorType) or value.type.dtype == ir.DataType.STRING:
            raise UsageError(
                f"input {value.name!r} is not a tensor of numbers ({value.type}); such inputs are not supported"
            )
        specs.append(InputSpec(name=str(value.name), dtype=dtype_name(value.type.dtype), shape=dimensions(value.shape)))
    return tuple(specs)


def require_tensors(model: ir.Model) -> None:
    """Raise NotJudged for an output without numbers that can be compared: a sequence, an optional value, text, FP8."""
    for value in model.graph.outputs:
        if value.type is not None and (not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING):
            raise NotJudged(Sentence("output_no_numbers", name=value.name, type=value.type))
        if value.dtype is not None and getattr(torch, dtype_name(value.dtype), None) not in COMPARED:
            raise NotJudged(Sentence("output_not_compared", name=value.name, dtype=value.dtype))


def generate_inputs(
    model: ir.Model, *, shapes: Mapping[str, tuple[int, ...]], symbols: Mapping[str, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return seeded random inputs.

    Floats are standard normal; integers are below 10 and valid for the tables they index; masks are 0 or 1, with at
    least the first position set. ``shapes`` gives whole shapes by input, ``symbols`` sizes by dynamic dimension; a
    dimension named in one input holds for all. Raises UsageError for a dimension that nothing gives, and for an input
    that does not fit into memory.
    """
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
    inputs = {}
    for spec in specs:
        shape = shapes[spec.name] if spec.name in shapes else _resolve(spec, sizes)
        needed, free = COPIES * math.prod(shape) * torch_dtype(spec).itemsize, available_bytes()
        if needed > free:
            bytes_ = Sentence("takes_bytes", needed=needed, free=free)
            raise UsageError(f"input {spec.name!r} of shape {list(shape)} is too large: {bytes_}")
        inputs[spec.name] = _random(spec, shape, values[spec.name], generator)
    return inputs


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
    dtype = torch_dtype(spec)
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
        if position == 1 and node.op_type in _INDEXES_TABLE:
            bound = min([bound, *_indexed_lengths(node, value)])
    return max(bound, 1)


def _indexed_lengths(node: ir.Node, indices: ir.Value) -> list[int]:
    """Return the lengths of the dimensions that a node's second input indexes, as far as they are known."""
    table = node.inputs[0]
    if table is None or table.shape is None:
        return []
    sizes = list(table.shape)
    if node.op_type in ("GatherND", "ScatterND"):
        first = node.attributes["batch_dims"].as_int() if "batch_dims" in node.attributes else 0
        depth = indices.shape[-1] if indices.shape else 1
        sizes = sizes[first : first + depth] if isinstance(depth, int) else sizes
    else:
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        sizes = sizes[axis : axis + 1 or None]
    return [size for size in sizes if isinstance(size, int)]


def torch_dtype(spec: InputSpec) -> torch.dtype:
    """Return the dtype of a declared input. Raises UsageError for one whose numbers PyTorch cannot compare."""
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype) or dtype not in COMPARED:
        raise UsageError(f"input {spec.name!r} has dtype {spec.dtype}, which PyTorch does not have or cannot compare")
    return dtype


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
        _bind(spec, tuple(tensor.shape), sizes, kind=Sentence("given_tensor"))
        if tensor.dtype.is_floating_point and (found := _not_finite(tensor)):
            raise NotJudged(Sentence("input_holds", name=spec.name, found=found))


def undeclared_shapes(
    model: ir.Model, inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return a sentence for every output whose shape is not the declared one, with the sizes that the inputs give."""
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        declared = dimensions(value.shape)
        if declared is not None and value.name is not None and value.name in inputs:
            pairs = zip(declared, inputs[value.name].shape, strict=True)
            sizes |= {dim: size for dim, size in pairs if isinstance(dim, str) and dim != UNKNOWN_DIM}
    found: list[str] = []
    for value in model.graph.outputs:
        declared, shape = dimensions(value.shape), list(outputs[str(value.name)].shape)
        if declared is None:
            continue
        expected = [sizes.get(dim) if isinstance(dim, str) else dim for dim in declared]
        if len(expected) != len(shape) or any(e not in (None, s) for e, s in zip(expected, shape, strict=True)):
            known = {dim: sizes[dim] for dim in declared if isinstance(dim, str) and dim in sizes}
            given = joined((Sentence("dim_is", dim=dim, size=size) for dim, size in known.items()), "")
            declared_words = ", ".join(map(str, declared))
            found.append(
                Sentence("output_declared", name=value.name, declared_words=declared_words, given=given, shape=shape)
            )
    return found


def _not_finite(tensor: torch.Tensor) -> str:
    nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return " and ".join(
        Sentence("count_of", count=count, what=what) for count, what in ((nan, "NaN"), (inf, "Inf")) if count
    )
