"""The graph of a PyTorch module: traced and exported once, run op by op, and held against the module itself."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version

import torch

from harness.compare import require_close
from harness.errors import NotJudged, NotRepeatable, ParityError, UsageError, first_line
from harness.graph import Plan, Program, check_arguments, is_fp32, program_sha256, to_onnx, trace
from harness.pytorch import build_module, named_outputs, tf32_allowed
from harness.reference import (
    Evaluators,
    HelperValues,
    NodeRunner,
    ProgramEvaluator,
    RunNotes,
    run_program,
)
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import ComputedBy, GraphIdentity, value_dtypes

# Two FP32 runs of one program on one machine: summation order changes the last bits, an active dropout far more.
REPEATABLE = 2.0**-20


def open_torch_graph(subject: Subject, settings: Settings) -> tuple[TorchGraph, CaseInputs]:
    """Build the module, trace it on its largest case, and return its graph and its checked inputs.

    Raises UsageError or NotJudged where that is impossible.
    """
    device = compute_device(settings)
    settings.progress(f"{subject.name}: loading the module")
    module = build_module(subject).to(device)

    def accept(inputs: Tensors, case: str) -> Tensors:
        check_arguments(module, inputs, where=f"case {case!r} of {subject.name}")
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    inputs = CaseInputs(subject, accept)
    return TorchGraph(subject, module, inputs[inputs.largest()], device=device, settings=settings), inputs


def compute_device(settings: Settings) -> torch.device:
    """Return where PyTorch computes: what was asked for, else a GPU when there is one."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise NotJudged("no GPU that PyTorch can use; leave out --device cuda to compute on the CPU")
    return torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))


class TorchGraph:
    """A module's graph. The module itself, run as it is, is the witness of its own export."""

    def __init__(
        self, subject: Subject, module: torch.nn.Module, example: Tensors, *, device: torch.device, settings: Settings
    ) -> None:
        self.subject, self.module, self.device = subject, module, device
        self._example, self._progress = example, settings.progress
        self.output_names = tuple(self.witness(example))
        self._progress(f"{subject.name}: tracing the module")
        with self._on_cpu() as inputs:
            self._traced = trace(subject, module, inputs)
        self._refused: NotJudged | None = None
        self._program: Program | None = None
        self.identity = GraphIdentity(
            weights_sha256=sha256_of(module.state_dict()),
            program_sha256=program_sha256(self._traced),
            exporter={
                **{name: version(name) for name in ("torch", "onnxscript", "onnx-ir")},
                "outputs": repr(list(self.output_names)),
                "options": repr(dict(subject.options)),
            },
        )
        where = {name: f"computed in {name.upper()} on {device.type}" for name in ("fp32", "fp64")}
        self.computed_by = ComputedBy(reference=where, floor="PyTorch", fp32_floor="PyTorch", fp64="PyTorch")

    @property
    def program(self) -> Program:
        """The traced program as ONNX, with its value table; exported once, and a refusal is kept too."""
        if self._refused is not None:
            raise self._refused
        if self._program is None:
            self._progress(f"{self.subject.name}: exporting to ONNX")
            try:
                with self._on_cpu() as inputs:
                    self._program = to_onnx(self.subject, self._traced, inputs, list(self.output_names))
            except NotJudged as error:
                self._refused = error
                raise
        return self._program

    @contextlib.contextmanager
    def _on_cpu(self) -> Iterator[Tensors]:
        """Hold the module on the CPU and give the example inputs there, so that every machine exports the same graph.

        On a GPU the tracer specialises for its kernels: attention wants lengths that are multiples of 8, and a dynamic
        length then violates its constraints.
        """
        self.module.cpu()
        try:
            yield {name: tensor.cpu() for name, tensor in self._example.items()}
        finally:
            self.module.to(self.device)

    def run(
        self, inputs: Tensors, *, dtype: str, dtypes: Mapping[str, str] | None = None, tf32: bool = False
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the exported program's outputs, computed op by op in PyTorch, and what the run had to emulate."""
        if tf32 and self.device.type != "cuda":
            raise NotJudged("TF32 exists only on NVIDIA GPUs, and there is no GPU here")
        notes = RunNotes()
        try:
            outputs = run_program(
                self.program,
                inputs,
                dtype=getattr(torch, dtype),
                dtypes=_torch_dtypes(dtypes),
                allow_tf32=tf32,
                weights=self.module.state_dict(),
                notes=notes,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"{self.subject.name}: out of GPU memory in PyTorch {dtype} ({error})") from error
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            where = f"{self.subject.name}: PyTorch could not run the exported program in torch.{dtype}"
            raise NotJudged(f"{where}: {type(error).__name__}: {first_line(error)}") from error
        return outputs, notes.lines()

    def witness(self, inputs: Tensors) -> Tensors:
        """Return what the module itself gives in FP32; two runs must agree."""
        name = self.subject.name
        with torch.inference_mode(), tf32_allowed(False):
            try:
                first = named_outputs(self.module(**inputs))
                second = named_outputs(self.module(**inputs))
            except torch.cuda.OutOfMemoryError as error:
                raise NotJudged(f"{name}: out of GPU memory in PyTorch FP32 ({error})") from error
            except ParityError:
                raise
            except Exception as error:
                raise UsageError(f"{name}: forward() raised {type(error).__name__}: {error}") from error
        sentence = f"{name} is not repeatable: two PyTorch runs of {{name!r}} differ by {{error}}"
        require_close(second, first, limit=REPEATABLE, sentence=sentence, error_type=NotRepeatable)
        for output, tensor in first.items():
            if tensor.numel() == 0:
                raise NotJudged(f"{name}: output {output!r} is empty, shape {list(tensor.shape)}")
        return first

    def evaluators(self, inputs: Tensors, plan: Plan, asked: Collection[str]) -> Evaluators:
        """Return the evaluators to hold an engine's values against."""
        high = torch.float64 if is_fp32(plan) else torch.float32
        low = getattr(torch, plan.compute_dtype)
        outputs, helpers = self.program.outputs, self._helpers

        def canonical(name: str) -> str:
            return outputs.get(name, name)

        uses = {
            name: tuple(map(canonical, (name, *(helpers.needs(name) if name in helpers else ())))) for name in asked
        }
        names = {used for several in uses.values() for used in several}
        dtypes = _torch_dtypes(value_dtypes(self, plan))

        def evaluator(dtype: torch.dtype, *, typed: bool) -> ProgramEvaluator:
            return ProgramEvaluator(
                self.program, inputs, dtype=dtype, dtypes=dtypes if typed else None, asked=names,
                allow_tf32=typed and plan.tf32, weights=self.module.state_dict(), helpers=helpers,
            )  # fmt: skip

        return Evaluators(
            reference=evaluator(high, typed=False), floor=evaluator(low, typed=True),
            replay=evaluator(high, typed=False), replay_low=evaluator(low, typed=True),
            canonical=canonical, uses=uses,
        )  # fmt: skip

    def evaluator(self, inputs: Tensors) -> ProgramEvaluator:
        """Return one evaluator in FP32, to see what a change of one value does to the outputs."""
        weights = self.module.state_dict()
        return ProgramEvaluator(self.program, inputs, dtype=torch.float32, weights=weights, helpers=self._helpers)

    @cached_property
    def _helpers(self) -> HelperValues:
        known = {node.name for node in self.program.exported.graph.nodes} if self.program.exported else set()
        return HelperValues(self.program.model, known, NodeRunner(), aliases=self.program.outputs)


def _torch_dtypes(dtypes: Mapping[str, str] | None) -> dict[str, torch.dtype]:
    return {name: getattr(torch, dtype) for name, dtype in (dtypes or {}).items()}
