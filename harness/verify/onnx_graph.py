"""The graph of an ONNX file, run in PyTorch; ONNX Runtime on the CPU is its witness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch

from harness import limits
from harness.compare import require_close
from harness.errors import NotJudged, NotRepeatable
from harness.graph import (
    Program,
    check_inputs,
    check_sizes,
    chosen_units,
    fold_bias,
    graph_sha256,
    in_floats,
    input_specs,
    onnx_values,
    open_onnx,
    order,
    plain_model,
    port_dtypes,
    promote,
    quantised_units,
    random_nodes,
    require_tensors,
    undeclared_shapes,
    weights_of,
    with_stored_noise,
)
from harness.lazy import onnx_ir as ir
from harness.reference import RunGraph, onnx_run_graph, run_onnxruntime
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import (
    REPEATABLE,
    GraphIdentity,
    Once,
    SubjectGraph,
    compute_device,
    noise_note,
    random_words,
)
from harness.verify.weights import require_no_nan

HALVES = (torch.float16, torch.bfloat16)
VALUES_A_RUN = 64
"""Values that ONNX Runtime shows in one run: each is held in memory until the run ends."""


def open_onnx_graph(subject: Subject, settings: Settings) -> tuple[OnnxGraph, CaseInputs]:
    """Read the file and return its graph and its checked inputs. Raises UsageError where it cannot be read."""
    settings.progress(f"{subject.name}: reading {subject.onnx_file}")
    graph = OnnxGraph(subject, device=compute_device(settings), seed_random=settings.seed_random)
    specs = input_specs(graph.program.model)

    def accept(inputs: Tensors, case: str) -> Tensors:
        halves = {name: it for name, it in port_dtypes(graph.given_inputs).items() if it in HALVES}
        inputs = {name: tensor.float() if tensor.dtype in HALVES else tensor for name, tensor in inputs.items()}
        check_inputs(inputs, specs)
        # What the file takes in FP16 holds no more than that: reference and engine are given the same numbers.
        inputs = {name: tensor.to(halves.get(name, tensor.dtype)).to(tensor.dtype) for name, tensor in inputs.items()}
        return {name: tensor.to(graph.device) for name, tensor in inputs.items()}

    return graph, CaseInputs(subject, accept)


def _partly_in_floats(model: ir.Model, subject: Subject) -> ir.Model:
    """Return a QDQ graph in which the operators that the subject names read floats.

    Weights that are there in codes alone come from the unquantised file, where there is one.
    """
    units = quantised_units(model)
    names = chosen_units(units, subject.quant_exclude, subject.name)
    against, weights = subject.against, {}
    if against is not None and against.onnx is not None and any(units[name].codes_only for name in names):
        weights = {str(it.name): it.numpy() for it in weights_of(open_onnx(against.onnx_file))}
    return in_floats(model, names, weights=weights)


class OnnxGraph(SubjectGraph):
    """An ONNX file's graph. Another implementation, ONNX Runtime, is the witness of what PyTorch computes."""

    computed_by, witness_name = "PyTorch", "ONNX Runtime"
    agreement_holds = True

    def __init__(self, subject: Subject, *, device: torch.device, seed_random: int | None) -> None:
        super().__init__()
        self.name, self.device = subject.name, device
        # Natively FP16 values are promoted: the reference is FP32, and a plan decides what is low.
        with limits.step("reading the file", subject=subject.name):
            self._file = plain_model(open_onnx(subject.onnx_file))
            self._file = fold_bias(self._file) if subject.fold_bias else self._file
            self._file = _partly_in_floats(self._file, subject) if subject.quant_exclude else self._file
            model = promote(self._file)
        require_tensors(model)
        self._is_promoted = model is not self._file
        if seed_random is not None:
            drawn = random_nodes(model)
            model = with_stored_noise(model, seed_random)
            self.notes = noise_note(drawn, seed_random)
        elif random := random_nodes(model):
            raise NotRepeatable(Sentence("is_random", name=subject.name, random_words=random_words(random)))
        self.output_names = tuple(dict.fromkeys(str(value.name) for value in model.graph.outputs))
        self._program = Program(
            name=subject.name,
            model=model,
            values=onnx_values(model),
            outputs={name: name for name in self.output_names},
        )
        check_sizes(self._program.values, subject.onnx_file)
        sha256 = graph_sha256(model)
        self.identity = GraphIdentity(weights_sha256=sha256, program_sha256=sha256, exporter={})

    def require_numbers(self, once: Once) -> None:
        """Raise NotJudged for a weight of the file that holds NaN."""

        def look() -> tuple[str, ...]:
            require_no_nan(self.name, self.run_graph.weights.items())
            return ()

        once("weights without NaN", look)

    @property
    def is_quantised(self) -> bool:
        """Whether there is a ``QuantizeLinear``, bodies of control flow excepted: no run graph is made to tell."""
        return any(node.op_type == "QuantizeLinear" for node in self._program.model.graph)

    @property
    def given_inputs(self) -> Sequence[ir.Value]:
        """The inputs as the file declares them."""
        return self._file.graph.inputs

    @property
    def file_model(self) -> ir.Model:
        """The file as it is; with stored noise, where that was asked for, and nothing had to be promoted for it."""
        if self.notes and self._is_promoted:
            raise NotJudged(Sentence("seed_fp16", name=self.name))
        return self._program.model if self.notes else self._file

    @property
    def program(self) -> Program:
        """The file, with FP16 and BF16 in it promoted to FP32."""
        return self._program

    @cached_property
    def run_graph(self) -> RunGraph:
        """The file's graph, in which values keep their names."""
        return onnx_run_graph(self.program.model)

    @cached_property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """The file's weights and constants, on the device."""
        weights = self.run_graph.weights
        return {name: it.to(self.device) if isinstance(it, torch.Tensor) else it for name, it in weights.items()}

    def remarks(self, inputs: Tensors, outputs: Tensors) -> tuple[str, ...]:
        """Add which outputs have not the declared shapes."""
        return (*self.notes, *undeclared_shapes(self.program.model, inputs, outputs))

    def witness(self, inputs: Tensors) -> Tensors | str:
        """Return the outputs of ONNX Runtime in FP32 on the CPU, without graph optimisation; two runs must agree."""
        try:
            first, second = run_onnxruntime(self.program.model, inputs, runs=2)
        except NotJudged as error:
            return str(error)

        def sentence(output: str, error: float) -> str:
            return Sentence("not_repeatable_ort", subject=self.name, name=output, error=error)

        require_close(second, first, limit=REPEATABLE, sentence=sentence, error_type=NotRepeatable)
        return {name: tensor.to(self.device) for name, tensor in first.items()}

    def witness_value_names(self) -> list[str]:
        """Return the values of the main graph whose type is known."""
        return [name for name in order(self.program.model) if self.program.values[name].dtype]

    def witness_values(self, inputs: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what ONNX Runtime gives for the values of the main graph, a few dozen a run."""
        names = self.witness_value_names()
        for start in range(0, len(names), VALUES_A_RUN):
            chosen = names[start : start + VALUES_A_RUN]
            (found,) = run_onnxruntime(self.program.model, inputs, also=chosen)
            yield from ((name, found[name].to(self.device)) for name in chosen)
