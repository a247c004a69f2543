"""From a PyTorch module to a graph: the exported program, the ONNX model and the value table, one name per value."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from keyword import iskeyword
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from harness import limits
from harness.dimensions import Dimension, dimension
from harness.errors import NotJudged, ParityError, UsageError, ends_test, no_exit, unknown_name
from harness.graph.aten_graph import AtenGraph
from harness.graph.folding import computing_node, folded_into, merge_copies
from harness.graph.metadata import exported_list, module_path, source_line
from harness.graph.naming import name_ends, name_parts, output_nodes
from harness.graph.quantiser_modules import plain_quantisers
from harness.graph.subgraph import order
from harness.graph.values import Value
from harness.lazy import onnx_ir
from harness.sentences import Sentence
from harness.structure import flatten_outputs
from harness.subject import Subject
from harness.tensors import Tensors


@dataclass(frozen=True, kw_only=True)
class Program:
    """A subject as a graph."""

    name: str
    """The subject's name."""
    model: onnx_ir.Model
    """The FP32 graph in ONNX; its weights are lazy views of the module's."""
    values: Mapping[str, Value]
    """Every value of the graph by ONNX name, and by FX name where ONNX has folded it away."""
    outputs: Mapping[str, str]
    """Declared output name -> the value that becomes it (an FX node for a PyTorch subject)."""
    exported: ExportedProgram | None = None
    """The decomposed exported program; None for an ONNX file, and where an earlier run exported it."""
    kept: AtenGraph | None = None
    """What is run of it, where an earlier run exported it."""

    @cached_property
    def aten(self) -> AtenGraph | None:
        """What PyTorch runs of a module; None for an ONNX file."""
        return self.kept if self.exported is None else AtenGraph.of(self.exported)

    def depths(self) -> dict[str, int]:
        """Return the position in dataflow order of every value: of its FX node, helpers first, or of its ONNX node."""
        if self.aten is None:
            return {name: depth for depth, name in enumerate(order(self.model))}
        nodes = {node.name: index for index, node in enumerate(self.aten.graph.nodes)}
        ranked = sorted(
            self.values.values(), key=lambda value: (nodes.get(value.origin, -1), value.name == value.origin)
        )
        return {value.name: depth for depth, value in enumerate(ranked)}


def trace(
    subject: Subject,
    module: torch.nn.Module,
    inputs: Tensors,
    arguments: Callable[[Tensors], dict[str, Any]] = dict,
) -> ExportedProgram:
    """Return the module as PyTorch traces it with one case's inputs: it takes tensors by :func:`by_keyword`.

    ``arguments`` makes the keyword arguments of ``forward`` of inputs by path; the program returns outputs by path.
    Raises NotJudged when it cannot be traced.
    """
    shapes, names = _dynamic_shapes(subject, inputs), keywords(inputs)
    with _exporting(subject, "tracing the module"), _flat_forward(module, names, arguments), plain_quantisers(module):
        traced = torch.export.export(
            module, (), kwargs=by_keyword(inputs), dynamic_shapes={names[path]: shape for path, shape in shapes.items()}
        )
    _require_dynamic(subject, traced, names)
    return traced


def traced_outputs(traced: ExportedProgram) -> list[str]:
    """Return the paths of a traced program's outputs, in their order."""
    spec = traced.call_spec.out_spec
    assert spec is not None
    return list(spec.unflatten(range(spec.num_leaves)))


def keywords(inputs: Collection[str]) -> dict[str, str]:
    """Return the name that a traced module has for each input: the path, or what Python takes in its place."""
    found: dict[str, str] = {}
    for path in inputs:
        name = path if path.isidentifier() and not iskeyword(path) else "_" + re.sub(r"\W", "_", path)
        while name != path and (name in inputs or name in found.values()):
            name += "_"
        found[path] = name
    return found


def by_keyword(inputs: Tensors) -> Tensors:
    """Return inputs as a traced module takes them."""
    return {name: inputs[path] for path, name in keywords(inputs).items()}


@contextlib.contextmanager
def _flat_forward(
    module: torch.nn.Module, names: Mapping[str, str], arguments: Callable[[Tensors], dict[str, Any]]
) -> Iterator[None]:
    """Let a module take tensors by keyword and return tensors by path; in another module its parts had other paths.

    Its own hooks see what it takes and returns itself.
    """

    def forward(**given: torch.Tensor) -> Tensors:
        swap(inner)
        try:
            outputs = module._call_impl(  # type: ignore[no-untyped-call]
                **arguments({path: given[name] for path, name in names.items()})
            )
        finally:
            swap(outer)
        return flatten_outputs(outputs, taken=names)

    def swap(attributes: Mapping[str, Any]) -> None:
        module.__dict__.pop("forward", None)
        module.__dict__.update(attributes)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names.values()]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    outer = {"forward": forward, "_forward_hooks": {}, "_forward_pre_hooks": {}}
    inner = {name: module.__dict__[name] for name in outer if name in module.__dict__}
    swap(outer)
    try:
        yield
    finally:
        swap(inner)


def to_onnx(subject: Subject, traced: ExportedProgram, inputs: Tensors, names: list[str]) -> Program:
    """Translate a traced program to ONNX, with these output names.

    Raises NotJudged when an operation has no translation, UsageError when an output is named like an input.
    """
    if clash := sorted(set(names) & set(inputs)):
        raise UsageError(f"subject {subject.name!r}: {clash[0]!r} is both an input and an output; rename one of them")
    ours: dict[str, Any] = {
        "kwargs": by_keyword(inputs), "dynamo": True, "verbose": False, "optimize": True,
        "input_names": [f"__input_{index}__" for index in range(len(inputs))],
        "output_names": [f"__output_{index}__" for index in range(len(names))],
    }  # fmt: skip
    known = inspect.signature(torch.onnx.export).parameters.keys() - {"model", "args", *ours}
    for name in subject.options:
        if name not in known:
            raise UsageError(f"{subject.name}: {unknown_name('option of torch.onnx.export', name, known)}")
    with _exporting(subject, "exporting to ONNX"):
        onnx_program = torch.onnx.export(traced, (), **ours, **subject.options)
    assert onnx_program is not None
    decomposed = onnx_program.exported_program
    assert decomposed is not None
    name_parts(decomposed, onnx_program.model)
    merge_copies(decomposed, onnx_program.model)
    name_ends(decomposed, onnx_program.model, list(inputs), names)
    outputs = dict(zip(names, output_nodes(decomposed), strict=True))
    return Program(
        name=subject.name,
        model=onnx_program.model,
        values=value_table(decomposed, onnx_program.model, outputs),
        outputs=outputs,
        exported=decomposed,
    )


def check_arguments(module: torch.nn.Module, names: Collection[str], inputs: Tensors, *, where: str) -> None:
    """Raise when arguments do not fit ``forward`` (UsageError), or inputs hold NaN or infinities (NotJudged).

    ``names`` are those of the arguments, ``inputs`` their tensors by path.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters]
        if unknown := sorted(set(names) - set(known)):
            raise UsageError(f"{where}: forward() has no input {unknown[0]!r}; it takes {', '.join(known)}")
        required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        if missing := [name for name in required if name not in names]:
            raise UsageError(f"{where}: input {missing[0]!r} is missing; forward() takes {', '.join(known)}")
    for name, tensor in inputs.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
            raise NotJudged(Sentence("inputs_not_finite", where=where, name=name, nan=nan, infinite=infinite))


def _dynamic_shapes(subject: Subject, inputs: Tensors) -> dict[str, Any]:
    dims = {name: Dim(name, min=low, max=high) for name, (low, high) in subject.ranges.items()}
    shapes: dict[str, Any] = {}
    for name in inputs:
        declared = subject.dynamic.get(name, {})
        sizes = {axis: dimension(text) for axis, text in declared.items()}
        shapes[name] = {
            axis: Dim.AUTO if size is None else _derived(dims[size.symbol], size) for axis, size in sizes.items()
        } or None
    return shapes


def _derived(dim: Any, size: Dimension) -> Any:
    """Return a dimension that follows from another as the exporter takes it."""
    found = dim if size.factor == 1 else size.factor * dim
    return found + size.offset if size.offset > 0 else found - -size.offset if size.offset else found


def _require_dynamic(subject: Subject, traced: ExportedProgram, names: Collection[str]) -> None:
    """Raise NotJudged where the exporter made a constant of a dimension that was left to it."""
    values = {node.name: node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"}
    for name, placeholder in zip(names, traced.graph_signature.user_inputs, strict=True):
        for axis, text in subject.dynamic.get(name, {}).items():
            size = values[placeholder].shape[axis]
            if text is None and str(size).isdigit():  # a symbol that is known to be a number prints as that
                raise NotJudged(Sentence("dimension_constant", name=subject.name, axis=axis, name_2=name, size=size))


@contextlib.contextmanager
def _exporting(subject: Subject, doing: str) -> Iterator[None]:
    """Turn whatever the exporter raises into a sentence."""
    try:
        # With gradients, an attention whose bias is learned is traced for one kernel and decomposed for another, and
        # the exporter cannot view the one's memory as the other's (pytorch/pytorch#141107).
        with _quiet(), torch.no_grad(), no_exit(), limits.step(doing, subject=subject.name):
            yield
    except (ParityError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # forward() may end the process
        if ends_test(error):
            raise
        raise NotJudged(Sentence("could_not_export", name=subject.name, problem=_problem(error))) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's messages (missing torchvision, deprecations in its own code) off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _problem(error: BaseException) -> str:
    """Return what was wrong and what to do: the exporter wraps the deepest cause in pages of advice and colour."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if sizes := re.search(r"Suggested fixes:\n((?: +.+\n?)+)", text):
        takes = [re.sub(r" = Dim\(.*?\)", _range, line.strip()) for line in sizes[1].splitlines()]
        follows = Sentence("follows_in_dynamic") if "_" in "".join(takes) else ""
        return Sentence("not_all_sizes", takes=list(takes), follows=follows)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Sentence("export_stopped", name=type(error).__name__, lines=lines[0] if lines else "no message")


def _range(dimension: re.Match[str]) -> str:
    """Return `` from 64 to 128`` for `` = Dim('h', min=64, max=128)``."""
    ends = {"from": r"min=(\d+)", "to": r"max=(\d+)"}
    found = {word: re.search(end, dimension[0]) for word, end in ends.items()}
    return "".join(f" {word} {size[1]}" for word, size in found.items() if size)


def value_table(program: ExportedProgram, model: onnx_ir.Model, outputs: Mapping[str, str]) -> dict[str, Value]:
    """Return the value table of an exported program and the ONNX model made from it."""
    table = {node.name: _fx_value(node) for node in program.graph.nodes if node.op == "call_function"}
    exported = {outputs.get(str(value.name), str(value.name)) for node in model.graph for value in node.outputs}
    folded = folded_into(program, exported, table)
    table |= {name: replace(table[name], folded=modules) for name, modules in folded.items()}
    for node in model.graph:
        origin_hint = next(reversed(exported_list(node, "name_scopes")), "")
        for output in node.outputs:
            name = output.name or ""
            origin = outputs.get(name) or (name if name in table else origin_hint or _made_from(node, table) or name)
            parent = table.get(origin)
            table[name] = Value(
                name=name,
                origin=origin,
                op=parent.op if parent and name in (origin, *outputs) else f"onnx.{node.op_type}",
                module=parent.module if parent else "",
                source=parent.source if parent else "",
                dtype=output.dtype.numpy().name if output.dtype else "",
                shape=_dimensions(output.shape),
                folded=folded.get(origin, ()) if name in (origin, *outputs) else (),
            )
    return table


def _made_from(node: onnx_ir.Node, table: Mapping[str, Value]) -> str:
    """Return the origin of what a node reads, for one that an optimiser made without saying what for."""
    read = [value for value in node.inputs if value is not None]
    computed = [table[str(value.name)].origin for value in reversed(read) if value.name in table]
    given = [str(value.name) for value in read if value.is_graph_input()]
    return next(iter(computed + given), "")


def _fx_value(node: torch.fx.Node) -> Value:
    meta = node.meta.get("val")
    tensor = meta if isinstance(meta, torch.Tensor) else None
    return Value(
        name=node.name,
        origin=node.name,
        op=str(computing_node(node).target),
        module=module_path(node),
        source=source_line(node.meta.get("stack_trace") or ""),
        dtype=str(tensor.dtype).removeprefix("torch.") if tensor is not None else "",
        shape=_dimensions(None if tensor is None else tensor.shape),
    )


def _dimensions(shape: Any) -> tuple[int | str, ...] | None:
    return None if shape is None else tuple(size if isinstance(size, int) else str(size) for size in shape)
