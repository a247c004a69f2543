"""One plant from ``verify --layers`` to ``bisect``, and what was answered held against what was planted."""

from __future__ import annotations

import functools
import operator
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir
import pytest
from onnx_ir.passes.common import RemoveUnusedNodesPass

from benchmarks.planted.engine import PlantedEngine
from benchmarks.planted.exports import share_exports, tamper_export
from benchmarks.planted.networks import Network
from benchmarks.planted.plants import Plant
from benchmarks.planted.rewriting import Rewrite, rewrite
from benchmarks.planted.smallest import Smallest
from harness import Settings, Subject, Target, Tolerance
from harness.backends import BACKENDS
from harness.bisect import bisect
from harness.errors import ParityError
from harness.graph import Plan, Program, assign, save_model
from harness.layers import judge_with_layers, local_ratio
from harness.records import Bisection, Diagnosis, LayerReport, Result
from harness.verify import Prepared, Run, verify_case

CASE, BEFORE = "one", "before"
"""The case that is judged, and one with other inputs that a stale engine was called with before."""
SHAPES = {
    "scale": "scale", "offset": "offset", "entry": "slice", "channels": "constant_per_channel", "shifted": "shift",
    "transposed": "transposed", "saturated": "saturation", "rounded": "fp16_rounding", "nan": "non_finite",
    "nan_above": "non_finite", "zeros": "zeros", "computes": "another_function", "silu": "another_function",
    "no_bias": "constant_per_channel", "next_index": "decision", "factors": "scale_per_channel",
    "softmax_axis": "other_axis", "tf32": "tf32_rounding", "holds": "swapped", "swapped": "swapped", "noise": "random",
}  # fmt: skip
"""What faults look like."""


@dataclass(kw_only=True)
class Outcome:
    """What was answered to one plant; None where nothing was asked or nothing can be said."""

    name: str
    group: str
    expected: list[str]
    kind: str
    invalid: str = ""
    """Why the plant says nothing: it does not show, or its answer is not certain."""
    error: str = ""
    """What was raised."""
    verdict: str = ""
    trusted: bool | None = None
    kind_found: str = ""
    look: list[str] = field(default_factory=list)
    """The culprits that the look names, in its order."""
    bisect: list[str] = field(default_factory=list)
    """Those that bisect names."""
    kind_right: bool | None = None
    look_first: bool | None = None
    bisect_first: bool | None = None
    look_all: bool | None = None
    bisect_all: bool | None = None
    false: list[str] = field(default_factory=list)
    """Suspects and culprits that are right."""
    region: int | None = None
    """Operations of the smallest part that shows the first culprit alone."""
    reproducer: bool | None = None
    """Whether a reproducer was kept: its script showed the fault in a process of its own."""
    plan: list[str] | None = None
    smallest: list[list[str]] = field(default_factory=list)
    """The smallest sets to keep in FP32, by brute force."""
    plan_smallest: bool | None = None
    builds: int | None = None
    seconds: float = 0.0
    finding: str = ""
    shape: str = ""
    """What the first culprit's error looks like."""
    shape_right: bool | None = None
    """Whether that is the shape of what was planted there, where a fault has one."""


def quiet(folder: Path) -> Settings:
    return Settings(engines=folder / "engines", references=folder / "references", progress=lambda message: None)


@functools.cache
def _file(network: Network) -> Path:
    """Return the network as an ONNX file, exported once."""
    folder = Path(tempfile.mkdtemp(prefix="planted-"))
    program = Run(_module(network), quiet(folder)).prepared.program
    path = folder / f"{network.name}.onnx"
    save_model(program.model, path)
    return path


def _module(network: Network) -> Subject:
    return Subject(
        name=network.name, build=network.build, cases={CASE: network.inputs, BEFORE: network.other_inputs},
        targets=(Target("ort-cpu", "fp16"),),
        weights="random", weights_source=f"seed {network.seed}",
    )  # fmt: skip


def subject_of(plant: Plant) -> Subject:
    """Return the subject: a module or a file, with the plant's limit."""
    tolerances = {}
    if plant.limit is not None:
        tolerances = {plant.precision: Tolerance(why="the limit of the plant", relative_l2=plant.limit)}
    fields = vars(_module(plant.network)) | {"tolerances": tolerances}
    if plant.file:
        fields |= {"build": None, "onnx": _file(plant.network)}
    return Subject(**fields)


@contextmanager
def planted(plant: Plant, folder: Path) -> Iterator[PlantedEngine]:
    """Put the plant's faults into ``ort-cpu`` or into the exporter."""
    exported = plant.group == "export"
    wanted = Rewrite(
        faults=() if exported else (*plant.faults, *plant.harmless),
        half=plant.engine == "half",
        halves=plant.engine == "halves",
    )
    engine = PlantedEngine(wanted, folder, optimised=plant.engine != "unoptimised", stale=plant.engine == "stale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, "ort-cpu", engine)
        share_exports(patch)
        if exported:
            tamper_export(patch, lambda program: _tamper(program.model, plant))
        with engine.in_scripts():
            yield engine


def _tamper(model: ir.Model, plant: Plant) -> None:
    rewrite(model, Rewrite(faults=plant.faults))
    RemoveUnusedNodesPass()(model)


def measure(plant: Plant, *, check: bool = False, scripts: bool = False) -> Outcome:
    """Run ``verify --layers`` and ``bisect`` on a plant, each with an engine cache of its own.

    ``check`` asks only whether the plant is valid: whether it shows, each of several faults alone too. ``scripts`` runs
    the script of every reproducer once more.
    """
    outcome = Outcome(name=plant.name, group=plant.group, expected=sorted(plant.answer), kind=plant.kind)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        try:
            for number, fault in enumerate(plant.faults if plant.group == "several" else ()):
                _show(replace(plant, faults=(fault,)), outcome, Path(scratch) / str(number))
            if check:
                _show(plant, outcome, Path(scratch))
            else:
                with planted(plant, Path(scratch)):
                    _measure(plant, outcome, Path(scratch), scripts=scripts)
        except ParityError as error:
            outcome.error = f"{type(error).__name__}: {error}"
    outcome.seconds = time.perf_counter() - started
    return outcome


def _show(plant: Plant, outcome: Outcome, folder: Path) -> None:
    """Note a plant that does not show, or whose answer is not certain."""
    with planted(plant, folder):
        run = Run(subject_of(plant), quiet(folder))
        with run.target(target_of(plant)) as opened:
            result = verify_case(opened, CASE).result
        right = Right(plant, run.prepared)
    _valid(plant, outcome, right, result)


def _valid(plant: Plant, outcome: Outcome, right: Right, result: Result) -> None:
    outcome.verdict = result.verdict
    if result.verdict != ("pass" if plant.group == "clean" else "fail"):
        alone = "" if len(plant.faults) != 1 else f" of {plant.faults[0].value}"
        outcome.invalid = f"verify{alone} says {result.verdict}: {result.reason}"
    elif plant.kind == "precision" and not right.smallest:
        outcome.invalid = right.doubt


def target_of(plant: Plant) -> Target:
    return Target("torch" if plant.engine == "torch" else "ort-cpu", plant.precision)


def _measure(plant: Plant, outcome: Outcome, scratch: Path, *, scripts: bool) -> None:
    subject, target = subject_of(plant), target_of(plant)
    run = Run(subject, quiet(scratch / "look"))
    with run.target(target) as opened:
        if plant.engine == "stale":
            verify_case(opened, BEFORE)
        result = judge_with_layers(opened, CASE)
    right, report = Right(plant, run.prepared), result.layers
    if report is not None:
        outcome.trusted = report.trusted
        outcome.look, outcome.false = culprits_seen(report), right.false_suspects(report)
    if not outcome.invalid:
        _valid(plant, outcome, right, result)
    if plant.engine == "stale" and not outcome.invalid:  # of one case alone nothing is stale: no bisection sees it
        shapes = {it.looks_like.kind for it in result.outputs if it.verdict == "fail" and it.looks_like is not None}
        outcome.shape, outcome.shape_right = ", ".join(sorted(shapes)), shapes == {"stale"}
    if plant.group == "clean" or plant.engine == "stale" or outcome.invalid:
        return
    if not any(fault.hidden or fault.fused for fault in plant.faults):  # these do not show while somebody looks
        outcome.look_first = right.first(outcome.look, report.diagnosis if report is not None else None)
        outcome.look_all = right.all(outcome.look) if plant.group == "several" else None
    found = bisect(
        subject, target, CASE, quiet(scratch / "bisect"), limit=plant.limit, reproducer=scratch / "reproducer"
    )
    _judge_bisection(plant, outcome, right, found)
    if outcome.reproducer and scripts:
        script = [sys.executable, "reproduce.py"]
        outcome.reproducer = subprocess.run(script, cwd=found.reproducer, capture_output=True).returncode == 1


def _judge_bisection(plant: Plant, outcome: Outcome, right: Right, found: Bisection) -> None:
    outcome.kind_found, outcome.finding, outcome.builds = found.kind, found.finding, found.builds
    outcome.kind_right = found.kind == plant.kind
    culprits = found.diagnosis.culprits if found.diagnosis is not None else ()
    own = "value:" if found.kind == "precision" else ""  # as a plan names it
    outcome.bisect = [f"{own}{culprit.value}" for culprit in culprits] or list(found.region[:1])
    if culprits and culprits[0].looks_like is not None:
        outcome.shape = culprits[0].looks_like.kind
        outcome.shape_right = right.shaped(culprits[0].value, outcome.shape)
    outcome.bisect_first = right.first(outcome.bisect, found.diagnosis)
    outcome.false += [name for name in outcome.bisect if name not in outcome.false and not right.named(name)]
    if plant.group == "several":
        outcome.bisect_all = right.all(outcome.bisect)
    if plant.kind == "engine" and not any(
        fault.how in ("holds", "swapped") for fault in plant.faults
    ):  # no part shows a swap
        outcome.reproducer = bool(found.reproducer)
        outcome.region = (culprits[0].alone if culprits else len(found.region)) or len(right.values)
    outcome.plan = None if found.plan is None else list(found.plan)
    if plant.kind == "precision" or plant.group == "engine fp16":
        outcome.smallest = right.smallest
        outcome.plan_smallest = found.plan is not None and right.is_smallest(found.plan)


def culprits_seen(report: LayerReport) -> list[str]:
    """Return what a look names: the culprits of its diagnosis, or its suspects in their order."""
    if report.diagnosis is not None and report.diagnosis.culprits:
        return [culprit.value for culprit in report.diagnosis.culprits]
    return suspects(report)


def suspects(report: LayerReport) -> list[str]:
    """Return the values that are marked: non-finite ones in dataflow order, then by local error over local floor."""
    marked = [value for value in report.values if value.mark in ("nonfinite", "suspect", "flip")]
    first = sorted(marked, key=lambda value: 0.0 if value.mark == "nonfinite" else -local_ratio(value))
    return [value.name for value in sorted(first, key=lambda value: value.mark != "nonfinite")]


class Right:
    """The right answers to one plant, by the names of its graph."""

    def __init__(self, plant: Plant, prepared: Prepared) -> None:
        self.plant, self.values = plant, prepared.program.values
        self.same = _same_node(prepared.program)
        pairs = [fault.fused for fault in plant.faults if fault.fused]  # neither of the two is wrong alone
        self.answer = {self._node(name) for name in plant.answer}
        self.also = {self._node(name) for name in (*plant.alternatives, *pairs)}
        self._brute = Smallest(prepared, CASE, plant.precision, plant.limit) if plant.kind == "precision" else None
        units = self._brute.units if self._brute else [frozenset(f"value:{name}" for name in plant.answer)]
        self.smallest = [sorted(it) for it in units]
        """The smallest sets of modules, and of values at the root, to keep in FP32."""
        self.doubt = self._brute.doubt if self._brute else ""

    def is_smallest(self, patterns: Sequence[str]) -> bool:
        """Return whether a plan keeps no more than the smallest: where FP16 kernels are wrong, the values they make."""
        if self._brute is not None:
            return self._brute.is_smallest(patterns)
        dtypes = assign(Plan(name="", dtype="fp16", keep_fp32=tuple(patterns)), self.values)
        kept = {value.origin for name, value in self.values.items() if dtypes.get(name) == "float32"}
        return len(kept) <= len(self.answer)

    def named(self, name: str) -> bool:
        """Return whether a value, or a unit of a plan, is where an error is made."""
        return self._brute.holds(name) if self._brute else self._node(name) in self.answer | self.also

    def first(self, names: Sequence[str], diagnosis: Diagnosis | None) -> bool:
        """Return whether the first of these is right, and its module where the exporter folded two into one."""
        if not names or not self.named(names[0]):
            return False
        modules = {self.values[names[0]].module} if names[0] in self.values else set()
        for culprit in diagnosis.culprits[:1] if diagnosis is not None else ():
            modules = {culprit.module, *culprit.folded}
        return not self.plant.module or self.plant.module in modules

    def all(self, names: Sequence[str]) -> bool:
        """Return whether nothing is missing."""
        return self.answer <= {self._node(name) for name in names}

    def shaped(self, name: str, shape: str) -> bool | None:
        """Return whether a value's error has the shape of the fault planted there; None where it has none."""
        faults = [it for it in self.plant.faults if self._node(it.value) == self._node(name)]
        wanted = [SHAPES.get("softmax_axis" if it.args[:1] == ("axis",) else it.how) for it in faults]
        recurrent = any(word in self.values[name].module for word in ("lstm", "gru"))
        if faults and faults[0].how == "no_bias" and recurrent:
            return None  # every step reads the one before: a missing bias is no constant of what comes out
        return shape == wanted[0] if wanted and wanted[0] and all(it.at is None for it in self.plant.faults) else None

    def false_suspects(self, report: LayerReport) -> list[str]:
        """Return the suspects that are right; of a fault of the precision everything may be suspect."""
        if self.plant.kind == "precision":
            return []
        seen = dict.fromkeys([*suspects(report), *culprits_seen(report)])
        return [name for name in seen if not self.named(name)]

    def _node(self, name: str) -> str:
        return self.same.get(name, name)


def _same_node(program: Program) -> dict[str, str]:
    """Return one name for all values of one operation; the parts of a split are values of their own."""
    same = {name: value.origin for name, value in program.values.items()}
    same |= {output: node for output, node in program.outputs.items() if output != node}
    if program.exported is None:
        several = (node for node in program.model.graph if len(node.outputs) > 1 and node.op_type != "Split")
        return same | {str(value.name): str(node.outputs[0].name) for node in several for value in node.outputs}
    items = [node for node in program.exported.graph.nodes if node.target is operator.getitem]
    owner = {n.name: n.args[0].name for n in items if not any(w in str(n.args[0].target) for w in ("split", "chunk"))}
    return {name: owner.get(origin, origin) for name, origin in (same | owner).items()}
