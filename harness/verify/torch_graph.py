"""The graph of a PyTorch module: traced and exported once, run op by op, and held against the module itself."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch

from harness import limits
from harness.compare import bitwise_equal, require_close
from harness.errors import NoMemory, NotJudged, NotRepeatable, UsageError, suite_code
from harness.graph import (
    Program,
    Unkept,
    Unstable,
    by_keyword,
    check_arguments,
    foreign_code,
    lines_sha256,
    pack_program,
    program_sha256,
    random_calls,
    stable_text,
    to_onnx,
    trace,
    traced_outputs,
    with_noise_stored,
)
from harness.pytorch import build_module, tf32_allowed
from harness.reference import HelperValues, RunGraph, exported_run_graph
from harness.sentences import Sentence
from harness.settings import Settings
from harness.structure import flatten_outputs
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.exported import Packed, kept_program
from harness.verify.inputs import CaseInputs, check_sizes
from harness.verify.subject_graph import (
    REPEATABLE,
    GraphIdentity,
    SubjectGraph,
    compute_device,
    noise_note,
    random_words,
)
from harness.verify.weights import require_no_nan

_SORTS = ("aten.topk.", "aten.sort.", "aten.argsort.", "aten.msort.", "aten.kthvalue.")


def build_torch_graph(subject: Subject, settings: Settings) -> tuple[TorchGraph, CaseInputs]:
    """Build and trace the module. Raises UsageError or NotJudged where that is impossible."""
    device = compute_device(settings)
    settings.progress(f"{subject.name}: loading the module")
    module = build_module(subject).to(device)
    require_no_nan(subject.name, (*module.named_parameters(), *module.named_buffers()))

    def accept(inputs: Tensors, case: str) -> Tensors:
        where = f"case {case!r} of {subject.name}"
        check_arguments(module, inputs_of.structure.keys, inputs, where=where)
        check_sizes(subject, inputs, where=where)
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    inputs_of = CaseInputs(subject, accept)
    example = inputs_of[inputs_of.largest()]

    return TorchGraph(subject, module, inputs_of.nested, example, device=device, settings=settings), inputs_of


class TorchGraph(SubjectGraph):
    """A module's graph. The module itself, run as it is, is the witness of its own export."""

    computed_by, witness_name = "the exported program", "the module"
    module_state = "built"

    def __init__(
        self,
        subject: Subject,
        module: torch.nn.Module,
        arguments: Callable[[Tensors], dict[str, Any]],
        example: Tensors,
        *,
        device: torch.device,
        settings: Settings,
    ) -> None:
        super().__init__()
        self.subject, self.name, self.module, self.device = subject, subject.name, module, device
        self._arguments, self._example, self._settings = arguments, example, settings
        if settings.seed_random is not None:
            with self._on_cpu() as inputs:
                traced = trace(subject, module, inputs, self._arguments)
                self.notes = noise_note(random_calls(traced), settings.seed_random)
                self.module = with_noise_stored(traced, settings.seed_random)
            self._arguments = by_keyword
            self.module.to(device)
        self.output_names = ()
        self._witnessed: tuple[Tensors, Tensors] | None = None
        try:
            self.output_names = tuple(self.witness(example))
        except NotRepeatable as error:
            raise self._random(error) from error
        settings.progress(f"{subject.name}: tracing the module")
        with self._on_cpu() as inputs:
            self._traced = trace(subject, self.module, inputs, self._arguments)
        traced_names = traced_outputs(self._traced)
        self._require_names(traced_names, self.output_names, when=Sentence("when_traced"))
        self.output_names = tuple(traced_names)
        self._refused: NotJudged | None = None
        self._program: Program | None = None
        self.identity = self._identity()

    def _identity(self) -> GraphIdentity:
        foreign = foreign_code(self._traced)
        try:
            options = stable_text(dict(self.subject.options))
        except Unstable as error:
            options = ""
            foreign.append(f"options= of {self.name}: {error}")
        return GraphIdentity(
            weights_sha256=sha256_of(self._traced.state_dict),
            program_sha256=program_sha256(self._traced),
            exporter={
                "inputs": repr(list(self._example)),
                "outputs": repr(list(self.output_names)),
                "options": options,
            },
            lines_sha256=lines_sha256(self._traced),
            foreign=tuple(foreign),
        )

    def as_found(self) -> dict[str, Any]:
        """Return what a later run needs that does not build the module, as JSON data."""
        return {
            "weights": self.identity.weights_sha256, "program": self.identity.program_sha256,
            "exporter": dict(self.identity.exporter), "outputs": list(self.output_names), "notes": list(self.notes),
            "sorts": self.sorts, "lines": self.identity.lines_sha256,
        }  # fmt: skip

    def _random(self, error: NotRepeatable) -> NotRepeatable:
        """Return the refusal of a module whose runs differ, with the random operators in it."""
        try:
            with self._on_cpu() as inputs:
                random = random_calls(trace(self.subject, self.module, inputs, self._arguments))
        except NotJudged:  # it cannot be traced either
            return error
        why = random_words(random) if random else Sentence("not_random_state")
        return NotRepeatable(Sentence("it_is", error=error, why=why))

    @property
    def program(self) -> Program:
        """The traced program as ONNX, with its value table; exported once, or by an earlier run; a refusal is kept."""
        if self._refused is not None:
            raise self._refused
        if self._program is None:
            try:
                self._program = kept_program(
                    self.name, self.identity, self._settings, lambda: self.weights, self.export
                )
            except NotJudged as error:
                self._refused = error
                raise
        return self._program

    def export(self) -> tuple[Program, Packed | Unkept]:
        """Return the program as ONNX, and as data for a later run."""
        self._settings.progress(f"{self.name}: exporting to ONNX")
        with self._on_cpu() as inputs:
            program = to_onnx(self.subject, self._traced, inputs, list(self.output_names))
            try:
                return program, pack_program(program, self.weights)
            except Unkept as error:
                return program, error

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

    def _call(self, inputs: Tensors) -> Tensors:
        """Return the module's outputs by path."""
        return flatten_outputs(self.module(**self._arguments(inputs)), taken=inputs)

    def _require_names(self, found: Iterable[str], names: Iterable[str], *, when: str = "") -> None:
        """Raise NotJudged where ``forward`` returned other outputs than in another run."""
        if (one := sorted(found)) != (other := sorted(names)):
            raise NotJudged(
                Sentence("forward_other_outputs", name=self.name, one=list(one), when=when, other=list(other))
            )

    def witness(self, inputs: Tensors) -> Tensors:
        """Return what the module itself gives in FP32; two runs must agree. The last inputs are not run again."""
        if self._witnessed is None or self._witnessed[0] is not inputs:
            self._witnessed = inputs, self._run_twice(inputs)
        outputs = self._witnessed[1]
        self._require_names(outputs, self.output_names or outputs)
        return dict(outputs)

    def forward(self, inputs: Tensors) -> Tensors:
        """Return what the module gives in FP32, from one run."""
        with torch.no_grad(), self._running():
            outputs = self._call(inputs)
        self._require_names(outputs, self.output_names)
        return {name: outputs[name] for name in self.output_names}

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Run the module in FP32, without TF32; whatever ``forward`` raises is a sentence."""
        try:
            in_time = limits.step("forward()", subject=self.name)
            with tf32_allowed(False), suite_code(f"{self.name}: forward()", UsageError), in_time:
                yield
        except UsageError as error:
            if isinstance(error.__cause__, torch.cuda.OutOfMemoryError):
                raise NoMemory(Sentence("no_gpu_memory_fp32", name=self.name, cause=error.__cause__)) from error
            raise

    def _run_twice(self, inputs: Tensors) -> Tensors:
        name = self.subject.name
        with torch.inference_mode(), self._running():
            given = {path: tensor.clone() for path, tensor in inputs.items()}
            # Clones: what forward() keeps and returns would be the outputs of both runs.
            first = {path: tensor.clone() for path, tensor in self._call(given).items()}
            if changed := [path for path, tensor in inputs.items() if not bitwise_equal(given[path], tensor)]:
                raise NotJudged(Sentence("forward_changes_input", name=name, changed=changed[0]))
            before = {path: buffer.clone() for path, buffer in self.module.named_buffers()}
            second = self._call(given)

        def sentence(output: str, error: float) -> str:
            return Sentence("not_repeatable_torch", subject=name, name=output, error=error)

        self._require_names(second, list(first))
        for path, buffer in self.module.named_buffers():
            if path not in before or not bitwise_equal(buffer, before[path]):
                raise NotJudged(Sentence("forward_changes_buffer", name=name, path=path))
        require_close(second, first, limit=REPEATABLE, sentence=sentence, error_type=NotRepeatable)
        return first

    @property
    def sorts(self) -> bool:
        """Whether the traced program puts anything in order; known before it is exported."""
        return any(str(node.target).startswith(_SORTS) for node in self._traced.graph.nodes)

    def witness_value_names(self) -> list[str]:
        """Return the value that each submodule gives: the last that is computed in it."""
        return list(dict.fromkeys(self._module_values.values()))

    def witness_values(self, inputs: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield what the module's own submodules give, in the order of their ends."""
        found: list[tuple[str, torch.Tensor]] = []
        calls: Counter[str] = Counter()

        def note(path: str, result: Any) -> None:
            calls[path] += 1
            name = self._module_values.get(path if calls[path] == 1 else f"{path}#{calls[path]}")
            if name is not None and isinstance(result, torch.Tensor):
                found.append((name, result.detach()))

        hooks = [
            module.register_forward_hook(lambda _, __, result, path=path: note(path, result))
            for path, module in self.module.named_modules()
            if path
        ]
        try:
            with torch.inference_mode(), tf32_allowed(False), limits.step("forward()", subject=self.name):
                self.module(**self._arguments(inputs))
        finally:
            for hook in hooks:
                hook.remove()
        yield from found

    @cached_property
    def _module_values(self) -> dict[str, str]:
        """The last value computed in each submodule, by its path with the number of a later call."""
        depths = self.program.depths()
        known = [name for name, value in self.program.values.items() if name == value.origin and value.module]
        return {self.program.values[name].module: name for name in sorted(known, key=lambda it: depths.get(it, -1))}

    @cached_property
    def run_graph(self) -> RunGraph:
        """The decomposed exported program."""
        return exported_run_graph(self.program)

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """The module's own."""
        return self.module.state_dict()

    @cached_property
    def helpers(self) -> HelperValues:  # type: ignore[override]
        """Values that only the ONNX graph has."""
        return helpers_of(self.program)


def helpers_of(program: Program) -> HelperValues:
    """Return the values that only the ONNX graph of a module has."""
    assert program.aten is not None
    return HelperValues(program.model, {node.name for node in program.aten.graph.nodes}, aliases=program.outputs)
