"""A subject's graph, be it of a PyTorch module or of an ONNX file, and how it is computed here."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from harness import limits
from harness.errors import NoMemory, NotJudged, TookTooLong, UsageError, first_line
from harness.gpu_errors import gpu_failure
from harness.graph import Plan, Program, assign, file_dtypes, is_fp32, port_dtypes
from harness.lazy import onnx_ir as ir
from harness.reference import (
    CANNOT_RUN,
    Evaluator,
    Evaluators,
    HelperValues,
    KeptRun,
    ProgramEvaluator,
    RunGraph,
    RunNotes,
    run_graph,
)
from harness.sentences import Sentence
from harness.settings import Settings
from harness.tensors import Tensors
from harness.verify.value_range import first_beyond, held_wide, kept_for_range, terms_of

REPEATABLE = 2.0**-20
"""Largest distance of two FP32 runs of one program on one machine: the order of summation may change the last bits."""


Once = Callable[[str, Callable[[], tuple[str, ...]]], tuple[str, ...]]
"""Returns the lines that an earlier run computed of a graph, by what they are, or computes them."""


@dataclass(frozen=True, kw_only=True)
class GraphIdentity:
    """What a graph is made of: engines and references belong to it, and to no other."""

    weights_sha256: str
    program_sha256: str
    exporter: Mapping[str, str]
    """The exporter's options; nothing for a graph that was read from a file."""
    lines_sha256: str = ""
    """Hash of the lines of code that a module's operations come from: they are shown with its values."""
    foreign: tuple[str, ...] = ()
    """What shapes it by code of the user's, which no key holds: then nothing that is made of it is kept."""


class SubjectGraph(ABC):
    """A subject's graph: PyTorch runs it op by op in any precision, with every value."""

    name: str
    """The subject's."""
    identity: GraphIdentity
    device: torch.device
    """Where it is computed."""
    output_names: tuple[str, ...]
    """The declared outputs, in their order."""
    computed_by: str
    """What computes the reference, in a sentence: ``the exported program``."""
    witness_name: str
    """What computes it a second time: ``the module``."""
    helpers: HelperValues | None = None
    """Values that only the ONNX graph has, where PyTorch runs another."""
    notes: tuple[str, ...] = ()
    """What is to be said of the graph with every result."""

    def __init__(self) -> None:
        self._kept: dict[str, frozenset[str]] = {}
        self._too_long: list[tuple[Tensors, TookTooLong]] = []
        """Inputs on which a run was not over in time: one without an end has none in another precision either."""
        self.cases: Callable[[], Iterable[tuple[str, Tensors]]] = tuple
        """The names and inputs of all cases: an engine serves them all."""
        self.counted: Callable[[str, Tensors], Tensors] = lambda case, outputs: outputs
        """Return outputs of a case with 0 for what does not count."""
        self.recall: Callable[[str, Callable[[], frozenset[str]]], frozenset[str]] = lambda what, compute: compute()
        """Return what an earlier run computed of this graph and these cases, or compute it."""

    @property
    def file_model(self) -> ir.Model:
        """The ONNX file typed as it is. Raises NotJudged where there is none that engines could be built from."""
        raise NotJudged(Sentence("typing_no_onnx", name=self.name))

    @property
    def is_quantised(self) -> bool:
        """Whether an ONNX file has a ``QuantizeLinear``, so that rounding can make codes flip."""
        return False

    @property
    def input_dtypes(self) -> Mapping[str, torch.dtype]:
        """What the inputs of ``file_model`` are, by name."""
        return port_dtypes(self.file_model.graph.inputs)

    @property
    def output_dtypes(self) -> Mapping[str, torch.dtype]:
        """What the outputs of ``file_model`` are, by name."""
        return port_dtypes(self.file_model.graph.outputs)

    agreement_holds = False
    """Whether the identity says all that the witness depends on: an agreement with it then holds for later runs."""
    module_state = ""
    """``built``; ``not rebuilt`` where an earlier run's module stands for it; ``built, not traced``, where that was
    built for its weights alone; empty for a file."""
    built_from = ""
    """The digest of everything that a module was built from; empty where that is not known."""

    def require_numbers(self, once: Once) -> None:
        """Raise NotJudged for a weight that holds NaN, ``once`` for weights that no earlier run has seen."""
        return None

    @property
    @abstractmethod
    def program(self) -> Program:
        """The FP32 graph with named values; made when an engine has to be built or a plan names values."""

    @property
    def sorts(self) -> bool:
        """Whether anything is put in order: a sort, or the best so many."""
        return any(node.op_type == "TopK" for node in self.program.model.graph)

    @property
    @abstractmethod
    def run_graph(self) -> RunGraph:
        """What the interpreter runs."""

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, torch.Tensor]:
        """The weights, on the device."""

    @abstractmethod
    def witness(self, inputs: Tensors) -> Tensors | str:
        """Return the outputs of an independent FP32 computation, or why there is none.

        Raises NotRepeatable when two such computations differ.
        """

    @abstractmethod
    def witness_value_names(self) -> list[str]:
        """Return the names of the values that the witness can show, in the order of the graph."""

    @abstractmethod
    def witness_values(self, inputs: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield values of the independent computation by name, in the order of the graph."""

    def forward(self, inputs: Tensors) -> Tensors:
        """Return the outputs in FP32, TF32 off, from one run of what is fastest. Raises UsageError or NotJudged."""
        return self.run(inputs, dtype="float32")[0]

    def remarks(self, inputs: Tensors, outputs: Tensors) -> tuple[str, ...]:
        """Return what is to be said of the graph and of what it gives for these inputs."""
        return self.notes

    def run(
        self,
        inputs: Tensors,
        *,
        dtype: str,
        dtypes: Mapping[str, str] | None = None,
        tf32: bool = False,
        kept: KeptRun | None = None,
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the outputs by name, computed op by op in PyTorch, and notes on what the run had to emulate.

        Every FP32 value is computed in ``dtype`` (``float64``, ``float32``, ``float16``, ``bfloat16``), or as
        ``dtypes`` says by value name. ``kept`` has what runs that differ in their ``dtypes`` alone have in
        common. Raises NotJudged where that cannot be computed here.
        """
        if tf32 and self.device.type != "cuda":
            raise NotJudged(Sentence("tf32_no_gpu"))
        notes = RunNotes()

        def look(name: str, value: torch.Tensor) -> None:
            operator = self.run_graph.ordered.get(name)
            if operator and value.is_floating_point() and (count := int(value.isnan().sum())):
                raise NotJudged(Sentence("orders_nan", name=self.name, operator=operator, name_2=name, count=count))

        is_reference = dtypes is None and dtype in ("float32", "float64")
        try:
            with self._once_too_long(lambda: [inputs]):
                outputs = run_graph(
                    self.run_graph, inputs, dtype=getattr(torch, dtype), device=self.device,
                    dtypes=torch_dtypes(dtypes), allow_tf32=tf32, weights=self.weights, notes=notes,
                    on_value=look if is_reference else None, kept=kept,
                )  # fmt: skip
        except torch.cuda.OutOfMemoryError as error:
            raise NoMemory(Sentence("no_gpu_memory", name=self.name, dtype=dtype, error=error)) from error
        except CANNOT_RUN as error:
            where = Sentence("could_not_run_dtype", name=self.name, dtype=dtype)
            text = f"{where}: {type(error).__name__}: {first_line(error)}"
            raise NotJudged(text, failure=gpu_failure(str(error))) from error
        return outputs, notes.lines()

    def kept_for_range(self, plan: Plan) -> frozenset[str]:
        """Return the nodes that stay in FP32 since the range of the plan's format would change the result."""
        if plan.dtype == "fp32" or plan.as_file:
            return frozenset()
        dtype = plan.compute_dtype

        def compute() -> frozenset[str]:
            several = [inputs for _, inputs in self.cases()]
            with self._once_too_long(lambda: several), limits.step(f"looking for what {dtype} cannot hold"):
                return kept_for_range(
                    self.run_graph, getattr(torch, dtype), self.cases, counted=self.counted, weights=self.weights,
                    device=self.device,
                )  # fmt: skip

        if dtype not in self._kept:
            self._kept[dtype] = self.recall(Sentence("what_cannot_hold", dtype=dtype), compute)
        return self._kept[dtype]

    @contextlib.contextmanager
    def _once_too_long(self, several: Callable[[], Iterable[Tensors]]) -> Iterator[None]:
        """Raise at once what an earlier run on one of these inputs raised that was not over in time."""
        for known, error in self._too_long:
            if any(inputs is known for inputs in several()):
                raise error
        limits.about(self.name)
        try:
            yield
        except TookTooLong as error:
            self._too_long += [(inputs, error) for inputs in several()]
            raise

    def evaluators(self, inputs: Tensors, plan: Plan, asked: Collection[str]) -> Evaluators:
        """Return the evaluators to hold an engine's values against; ``asked`` names the values that will be needed."""
        high = torch.float64 if is_fp32(plan) else torch.float32
        low = getattr(torch, plan.compute_dtype)
        outputs, helpers = self.run_graph.outputs, self.helpers

        def canonical(name: str) -> str:
            return outputs.get(name, name)

        uses = {
            name: tuple(map(canonical, (name, *(helpers.needs(name) if helpers and name in helpers else ()))))
            for name in asked
        }
        names = {used for several in uses.values() for used in several}
        dtypes = torch_dtypes(value_dtypes(self, plan))

        def evaluator(dtype: torch.dtype, *, typed: bool) -> ProgramEvaluator:
            return ProgramEvaluator(
                self.run_graph, inputs, dtype=dtype, device=self.device, dtypes=dtypes if typed else None, asked=names,
                allow_tf32=typed and plan.tf32, weights=self.weights, helpers=helpers,
            )  # fmt: skip

        return Evaluators(
            reference=evaluator(high, typed=False), floor=evaluator(low, typed=True),
            replay=evaluator(high, typed=False), replay_low=evaluator(low, typed=True),
            canonical=canonical, uses=uses,
        )  # fmt: skip

    def first_beyond(self, inputs: Tensors, plan: Plan) -> str:
        """Return which value the plan's precision cannot hold first, and why; empty where it holds all."""
        return first_beyond(self.run_graph, partial(self._both, inputs, plan))

    def held_wide(self, inputs: Tensors, plan: Plan) -> frozenset[str]:
        """Return the nodes that must stay in FP32 so that PyTorch in the plan's precision holds all values."""
        return held_wide(self.run_graph, *self._both(inputs, plan, self.run_graph.floats))

    def _both(self, inputs: Tensors, plan: Plan, names: Collection[str]) -> tuple[Evaluator, Evaluator]:
        evaluators = self.evaluators(inputs, plan, names)
        return evaluators.reference, evaluators.floor

    def terms_of(self, inputs: Tensors, output: str) -> float:
        """Return the largest magnitude of the terms that cancel in an output of zeros."""
        return terms_of(self.run_graph, output, lambda names: self.evaluator(inputs, asked=names))

    def evaluator(self, inputs: Tensors, *, asked: Collection[str] = ()) -> ProgramEvaluator:
        """Return one evaluator in FP32, to see what a change of one value does to the outputs."""
        return ProgramEvaluator(
            self.run_graph, inputs, dtype=torch.float32, device=self.device, asked=asked, weights=self.weights,
            helpers=self.helpers,
        )  # fmt: skip


def random_words(random: Sequence[str]) -> str:
    """Return which operators are random, and what can be done about it."""
    others = Sentence("and_others") if len(random) > 3 else ""
    return Sentence("random_nodes", random=list(random[:3]), others=others)


def noise_note(random: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return the note on random operators that were replaced."""
    return (Sentence("stored_noise", seed=seed, random=list(random)),) if random else ()


def compute_device(settings: Settings) -> torch.device:
    """Return where PyTorch computes: what was asked for, else a GPU when there is one.

    Raises UsageError where CUDA was asked for and there is none.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch can use no GPU here; leave it out to compute on the CPU")
    return torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def value_dtypes(graph: SubjectGraph, plan: Plan) -> dict[str, str]:
    """Return the compute dtype of every value by name; nothing for a plan that treats all values alike.

    Raises UsageError for a plan that names nothing.
    """
    if plan.as_file:
        return file_dtypes(graph.file_model)
    dtypes = assign(plan, graph.program.values) if plan.keep_fp32 else {}
    kept = graph.kept_for_range(plan)
    by_origin = {name for name, value in graph.program.values.items() if value.origin in kept} if kept else set()
    return dtypes | dict.fromkeys(sorted(kept | by_origin), "float32")


def torch_dtypes(dtypes: Mapping[str, str] | None) -> dict[str, torch.dtype]:
    """Return dtypes by name as PyTorch's."""
    return {name: getattr(torch, dtype) for name, dtype in (dtypes or {}).items()}
