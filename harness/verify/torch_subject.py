"""A PyTorch module made ready: checked, exported and held against its own export."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch.export import ExportedProgram

from harness import compare, reference
from harness.backends import ShapeRange
from harness.errors import NotJudged, ParityError, UsageError, first_line
from harness.graph import (
    Plan,
    Program,
    assign,
    check_arguments,
    is_fp32,
    load_plan,
    named_outputs,
    program_sha256,
    to_onnx,
    trace,
)
from harness.reference import (
    HelperValues,
    Identity,
    Lane,
    Lanes,
    NodeRunner,
    OutputCache,
    ProgramLane,
    ReferenceStore,
    RunNotes,
    Stored,
    run_program,
)
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.prepared import Floor, case_inputs, compute_device, named_values

# Two FP32 runs of one program on one machine: summation order moves the last bits, a live dropout moves everything.
REPEATABLE = 2.0**-20
# An exported program against the module it came from, both FP32: other kernels, other order, the same mathematics.
FAITHFUL = 2.0**-14
_FORMATS = {"fp32": torch.float32, "fp64": torch.float64}
_Outputs = tuple[Tensors, tuple[str, ...]]


class PreparedTorch:
    """A PyTorch subject: the module is checked, exported and held against its own export before anything else."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject, self.settings = subject, settings
        self.device = compute_device(settings)
        self.store = ReferenceStore(settings.references)
        self._inputs: dict[str, Tensors] = {}
        self._outputs = OutputCache(settings.engines / "outputs", enabled=settings.engine_cache)
        self._computed: dict[tuple[str, str, str], _Outputs] = {}
        self._faithful: set[str] = set()
        self._stored: dict[str, Stored | None] = {}
        settings.progress(f"{subject.name}: loading the module")
        self.module = self._build()
        self.weights_sha256 = sha256_of(self.module.state_dict())
        self._example = self._largest_case()
        self._names = list(self._eager(self._example))
        self._traced = self._trace()
        self._program: Program | NotJudged | None = None
        self.program_sha256 = program_sha256(self._traced)

    def _build(self) -> torch.nn.Module:
        assert self.subject.build is not None
        torch.manual_seed(0)  # a subject with random weights gets the same ones every time
        try:
            module = self.subject.build()
        except ParityError:
            raise
        except Exception as error:
            raise NotJudged(f"{self.subject.name}: build() raised {type(error).__name__}: {error}") from error
        if not isinstance(module, torch.nn.Module):
            raise UsageError(f"{self.subject.name}: build() returned a {type(module).__name__}, not a torch.nn.Module")
        if training := next((name for name, child in module.named_modules() if child.training), None):
            raise NotJudged(f"{self.subject.name}: module {training!r} is in training mode; call .eval() in build()")
        if module.training:
            raise NotJudged(f"{self.subject.name}: the module is in training mode; call .eval() in build()")
        return module.to(self.device)

    def _largest_case(self) -> str:
        # A dimension of size 1 in the example would be taken for a constant.
        return max(self.subject.cases, key=lambda name: sum(t.numel() for t in self.inputs(name).values()))

    @contextlib.contextmanager
    def _on_cpu(self) -> Iterator[Tensors]:
        """Hold the module on the CPU and give the example inputs there, so that every machine exports the same graph.

        On a GPU the tracer specialises for its kernels: attention wants lengths that are multiples of 8, and a dynamic
        length then violates its constraints.
        """
        self.module.cpu()
        try:
            yield {name: tensor.cpu() for name, tensor in self.inputs(self._example).items()}
        finally:
            self.module.to(self.device)

    def _trace(self) -> ExportedProgram:
        self.settings.progress(f"{self.subject.name}: tracing the module")
        with self._on_cpu() as inputs:
            return trace(self.subject, self.module, inputs)

    @property
    def program(self) -> Program:
        """The traced program as ONNX, with its value table; what keeps it from being made is found out once."""
        if isinstance(self._program, NotJudged):
            raise self._program
        if self._program is None:
            self.settings.progress(f"{self.subject.name}: exporting to ONNX")
            try:
                with self._on_cpu() as inputs:
                    self._program = to_onnx(self.subject, self._traced, inputs, self._names)
            except NotJudged as error:
                self._program = error
                raise
        return self._program

    def exporter(self) -> dict[str, str]:
        """Return the versions of the exporter's packages, the output names and the subject's export options."""
        versions = {name: version(name) for name in ("torch", "onnxscript", "onnx-ir")}
        return {**versions, "outputs": repr(self._names), "options": repr(dict(self.subject.options))}

    def dtypes(self, plan: Plan) -> dict[str, str]:
        """Return the plan's assignment; a plain precision needs none."""
        return assign(plan, self.program.values) if plan.keep_fp32 else {}

    def _eager(self, case: str) -> Tensors:
        """Return what the module itself gives in FP32; two runs must agree."""
        inputs = self.inputs(case)
        with torch.inference_mode(), reference.tf32(False):
            try:
                first = named_outputs(self.module(**inputs))
                second = named_outputs(self.module(**inputs))
            except torch.cuda.OutOfMemoryError as error:
                raise NotJudged(f"{self.subject.name}: out of GPU memory in PyTorch FP32 ({error})") from error
            except ParityError:
                raise
            except Exception as error:
                raise UsageError(f"{self.subject.name}: forward() raised {type(error).__name__}: {error}") from error
        sentence = f"{self.subject.name} is not repeatable: two PyTorch runs of {{name!r}} differ by {{error}}"
        compare.require_close(second, first, limit=REPEATABLE, sentence=sentence)
        for name, tensor in first.items():
            if tensor.numel() == 0:
                raise NotJudged(f"{self.subject.name}: output {name!r} is empty, shape {list(tensor.shape)}")
        return first

    def inputs(self, case: str) -> Tensors:
        """Return a case's inputs on the compute device."""
        if case not in self._inputs:
            inputs = case_inputs(self.subject, case)
            check_arguments(self.module, inputs, where=f"case {case!r} of {self.subject.name}")
            self._inputs[case] = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        return self._inputs[case]

    def identity(self, case: str) -> Identity:
        """Return what a stored reference of this case must have been made from."""
        return Identity(
            weights_sha256=self.weights_sha256,
            inputs_sha256=sha256_of(self.inputs(case)),
            program_sha256=self.program_sha256,
            torch=torch.__version__.split("+")[0],
        )

    def reference(self, case: str, dtype: str) -> Tensors:
        """Return the FP32 reference or the FP64 truth: the stored one where there is one, else computed."""
        stored = self._load_stored(case)
        if stored is not None:
            kept = stored.fp32 if dtype == "fp32" else stored.fp64
            return {name: kept[name].to(self.device) for name in self._names}
        outputs, _ = self._kept(case, dtype, lambda: (self._run(case, _FORMATS[dtype]), ()))
        if dtype == "fp32" and case not in self._faithful:
            self._check_faithful(case, outputs)
            self._faithful.add(case)
        return {name: outputs[name] for name in self._names}

    def _kept(self, case: str, what: str, compute: Callable[[], _Outputs], **key: Any) -> _Outputs:
        """Return outputs computed in this run or an earlier one, whatever they were computed from being the same."""
        if (memory := (case, what, repr(key))) not in self._computed:
            identity = dataclasses.asdict(self.identity(case)) | self.exporter()
            where = torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"
            full = {**identity, **key, "what": what, "where": where, "code": reference.CODE_SHA256}

            def say_and_compute() -> _Outputs:
                self.settings.progress(f"{self.subject.name}/{case}: PyTorch {what} on {self.device.type}")
                return compute()

            self._computed[memory] = self._outputs.get(full, say_and_compute, self.device)
        return self._computed[memory]

    def _check_faithful(self, case: str, outputs: Tensors) -> None:
        sentence = f"{self.subject.name}: the exported program differs from the module in {{name!r}} by {{error}}"
        compare.require_close(outputs, self._eager(case), limit=FAITHFUL, sentence=sentence)

    def _load_stored(self, case: str) -> Stored | None:
        if self.settings.update_references:
            return None
        if case not in self._stored:
            typed = self.subject.as_typed
            stored = self.store.load(self.subject.name, case, self.identity(case), typed=typed)
            if stored is not None:
                again = f"; run: {reference.update_command(typed, case)}"
                sentence = "stored reference is stale: {name!r} differs from the module by {error}" + again
                try:
                    eager = self._eager(case)
                    kept = {name: tensor.to(self.device) for name, tensor in stored.fp32.items()}
                    if set(kept) != set(eager):
                        raise NotJudged(f"stored reference is stale: its outputs are {sorted(kept)}{again}")
                    compare.require_close(kept, eager, limit=FAITHFUL, sentence=sentence)
                except NotJudged as error:
                    raise reference.StaleReference(str(error)) from error
            self._stored[case] = stored
        return self._stored[case]

    def reference_words(self, case: str, dtype: str) -> str:
        """Return ``computed in FP32 on cuda`` or ``stored, made in FP32 on cpu``."""
        stored = self._load_stored(case)
        if stored is None:
            return f"computed in {dtype.upper()} on {self.device.type}"
        return f"stored, made in {dtype.upper()} on {stored.provenance.get('device', 'an unknown device')}"

    def floor(self, case: str, plan: Plan) -> Floor:
        """Return the same program in the plan's precision, cast back to the declared output dtypes."""
        if plan.tf32 and self.device.type != "cuda":
            raise NotJudged("TF32 exists only on NVIDIA GPUs, and there is no GPU here")
        same = [plan.computes_in, sorted(plan.keep_fp32)]  # whatever the plan's file is called
        outputs, notes = self._kept(case, plan.computes_in, lambda: self._run_plan(case, plan), plan=same)
        declared = self.output_dtypes(case)
        return Floor(outputs={name: tensor.to(declared[name]) for name, tensor in outputs.items()}, notes=notes)

    def _run_plan(self, case: str, plan: Plan) -> _Outputs:
        notes = RunNotes()
        dtypes = {name: getattr(torch, dtype) for name, dtype in self.dtypes(plan).items()}
        dtype = getattr(torch, plan.compute_dtype)
        return self._run(case, dtype, dtypes=dtypes, allow_tf32=plan.tf32, notes=notes), notes.lines()

    def _run(self, case: str, dtype: torch.dtype, **options: Any) -> Tensors:
        try:
            weights = self.module.state_dict()
            return run_program(self.program, self.inputs(case), dtype=dtype, weights=weights, **options)
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"{self.subject.name}: out of GPU memory in PyTorch {dtype} ({error})") from error
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            where = f"{self.subject.name}: PyTorch could not run the exported program in {dtype}"
            raise NotJudged(f"{where}: {type(error).__name__}: {first_line(error)}") from error

    def typed_outputs(self, case: str, dtypes: Mapping[str, str]) -> Tensors:
        """Return what PyTorch gives with these compute dtypes by value name, FP32 where there is none."""
        outputs = self._run(case, torch.float32, dtypes={name: getattr(torch, dtype) for name, dtype in dtypes.items()})
        declared = self.output_dtypes(case)
        return {name: tensor.to(declared[name]) for name, tensor in outputs.items()}

    def lanes(self, case: str, plan: Plan, asked: Collection[str]) -> Lanes:
        """Return the lanes to hold an engine's values against."""
        high = torch.float64 if is_fp32(plan) else torch.float32
        low = getattr(torch, plan.compute_dtype)
        outputs = self.program.outputs
        helpers = self._helpers

        def canonical(name: str) -> str:
            return outputs.get(name, name)

        uses = {
            name: tuple(map(canonical, (name, *(helpers.needs(name) if name in helpers else ())))) for name in asked
        }
        names = {used for several in uses.values() for used in several}
        dtypes = {name: getattr(torch, dtype) for name, dtype in self.dtypes(plan).items()}

        def lane(dtype: torch.dtype, *, typed: bool) -> ProgramLane:
            return ProgramLane(
                self.program, self.inputs(case), dtype=dtype, dtypes=dtypes if typed else None, asked=names,
                allow_tf32=typed and plan.tf32, weights=self.module.state_dict(), helpers=helpers,
            )  # fmt: skip

        return Lanes(
            reference=lane(high, typed=False), floor=lane(low, typed=True),
            replay=lane(high, typed=False), replay_low=lane(low, typed=True),
            canonical=canonical, uses=uses,
        )  # fmt: skip

    @cached_property
    def _helpers(self) -> HelperValues:
        known = {node.name for node in self.program.exported.graph.nodes} if self.program.exported else set()
        return HelperValues(self.program.model, known, NodeRunner(), aliases=self.program.outputs)

    def values_of(self, case: str, names: Sequence[str]) -> Tensors:
        """Return values of the graph, network inputs among them, in FP32."""
        lanes = self.lanes(case, load_plan("tf32"), names)
        return named_values(lanes, names, self.inputs(case))

    def lane(self, case: str) -> Lane:
        """Return one lane in FP32, to see what a change of one value does to the outputs."""
        weights = self.module.state_dict()
        return ProgramLane(self.program, self.inputs(case), dtype=torch.float32, weights=weights, helpers=self._helpers)

    def depths(self) -> dict[str, int]:
        """Return the position in dataflow order of every value: that of its FX node, helpers first."""
        assert self.program.exported is not None
        order = {node.name: index for index, node in enumerate(self.program.exported.graph.nodes)}
        values = self.program.values.values()
        ranked = sorted(values, key=lambda value: (order.get(value.origin, -1), value.name == value.origin))
        return {value.name: depth for depth, value in enumerate(ranked)}

    def floor_name(self, plan: Plan) -> str:
        """Return ``PyTorch``."""
        return "PyTorch"

    def output_dtypes(self, case: str) -> dict[str, torch.dtype]:
        """Return the dtypes of the FP32 reference's outputs."""
        return {name: tensor.dtype for name, tensor in self.reference(case, "fp32").items()}

    def shapes(self) -> dict[str, ShapeRange]:
        """Return the declared ranges, tuned for the largest case; without dynamic dimensions all cases must agree."""
        cases = [self.inputs(case) for case in self.subject.cases]
        ranges = {}
        for name in cases[0]:
            shapes = [tuple(inputs[name].shape) for inputs in cases if name in inputs]
            dynamic = self.subject.dynamic.get(name, {})
            largest = max(shapes, key=lambda shape: [shape[axis] for axis in dynamic])
            for axis, size in enumerate(largest):
                if axis not in dynamic and any(shape[axis] != size for shape in shapes):
                    raise UsageError(
                        f"{self.subject.name}: input {name!r} has {size} and other sizes in dimension {axis}; "
                        "declare it in dynamic= and ranges="
                    )
            low = tuple(self.subject.ranges[dynamic[a]][0] if a in dynamic else n for a, n in enumerate(largest))
            high = tuple(self.subject.ranges[dynamic[a]][1] if a in dynamic else n for a, n in enumerate(largest))
            ranges[name] = ShapeRange(minimum=low, optimum=largest, maximum=high)
        return ranges

    def save_reference(self, case: str, provenance: dict[str, Any]) -> Any:
        """Store FP32 and FP64 outputs and return the file's path."""
        fp32, fp64 = self.reference(case, "fp32"), self.reference(case, "fp64")
        record = {"device": self.device.type, "weights": self.subject.weights_source, **provenance}
        return self.store.save(self.subject.name, case, self.identity(case), fp32=fp32, fp64=fp64, provenance=record)
