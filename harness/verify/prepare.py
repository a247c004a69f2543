"""A subject made ready: its graph, its inputs and what its outputs should be, shared by all its targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.backends import ShapeRange
from harness.errors import NotJudged
from harness.graph import Program, load_plan
from harness.reference import OutputCache, ReferenceStore
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors
from harness.verify.inputs import CaseInputs, engine_shapes
from harness.verify.onnx_graph import open_onnx_graph
from harness.verify.references import References
from harness.verify.remembered_graph import open_torch_graph
from harness.verify.subject_graph import SubjectGraph
from harness.verify.valid import ValidElements


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A subject that is ready to be verified."""

    subject: Subject
    graph: SubjectGraph
    """Its graph, and how that is computed here."""
    inputs: CaseInputs
    """By case."""
    references: References
    """What its outputs should be, and what PyTorch gives in another precision."""
    valid: ValidElements
    """Which elements of its outputs count."""

    @property
    def foreign(self) -> tuple[str, ...]:
        """What of the graph no key holds: then neither engines nor outputs are kept."""
        return self.graph.identity.foreign

    @property
    def program(self) -> Program:
        """The subject as an FP32 graph with named values; exported when it is first asked for."""
        return self.graph.program

    def values(self, case: str, names: Sequence[str]) -> Tensors:
        """Return values of the graph, network inputs among them, in FP32. Raises NotJudged for what none computes."""
        inputs = self.inputs[case]
        evaluators = self.graph.evaluators(inputs, load_plan("tf32"), names)
        found: Tensors = {}
        for name in names:
            value = inputs[name] if name in inputs else evaluators.value(evaluators.reference, name)
            if value is None:
                raise NotJudged(Sentence("only_engine_computes", name=name))
            found[name] = value
            evaluators.done([name])
        return found

    @cached_property
    def shapes(self) -> dict[str, ShapeRange]:
        """The shapes of every input that an engine for all cases must take."""
        return engine_shapes(self.inputs)


def prepare(subject: Subject, settings: Settings) -> Prepared:
    """Make a subject ready. Raises UsageError or NotJudged with a sentence when that is impossible."""
    open_graph = open_torch_graph if subject.onnx is None else open_onnx_graph
    graph, inputs = open_graph(subject, settings)
    if foreign := graph.identity.foreign:
        settings.progress(Sentence("nothing_kept", name=subject.name, foreign=list(foreign)))
    valid = ValidElements(subject, inputs, graph.output_names)
    references = References(
        subject,
        graph,
        inputs,
        valid,
        cache=OutputCache(settings.engines / "outputs", enabled=settings.engine_cache and not foreign),
        store=ReferenceStore(settings.references) if subject.onnx is None else None,
        root=settings.root,
        update=settings.update_references,
        progress=settings.progress,
    )
    graph.cases, graph.counted, graph.recall = inputs.items, valid.counted, references.recall
    graph.require_numbers(references.once)
    return Prepared(subject=subject, graph=graph, inputs=inputs, references=references, valid=valid)
