"""The graph of a PyTorch module that an earlier run has built, and how a module is opened: built, or remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch

from harness import reads
from harness.errors import NotJudged
from harness.graph import Program
from harness.limit_options import in_ci
from harness.pytorch import build_module
from harness.reference import HelperValues, RunGraph, exported_run_graph
from harness.settings import Settings
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.exported import kept_program
from harness.verify.inputs import CaseInputs, check_sizes
from harness.verify.remembered import Memory, Remembered
from harness.verify.subject_graph import SubjectGraph, compute_device
from harness.verify.torch_graph import TorchGraph, build_torch_graph, helpers_of


def open_torch_graph(subject: Subject, settings: Settings) -> tuple[SubjectGraph, CaseInputs]:
    """Build the module, trace it on its largest case, and return its graph and its checked inputs.

    A module that an earlier run has built of the same files is not built again. Raises UsageError or NotJudged where
    that is impossible.
    """
    device = compute_device(settings)

    def accept(inputs: Tensors, case: str) -> Tensors:
        check_sizes(subject, inputs, where=f"case {case!r} of {subject.name}")
        return {name: tensor.to(device) for name, tensor in inputs.items()}

    inputs_of = CaseInputs(subject, accept)
    memory = Memory.of(subject, settings, inputs_of)
    if memory is None:
        return build_torch_graph(subject, settings)
    known = None if settings.rebuild or in_ci() else memory.recall()
    if known is not None:
        settings.progress(f"{subject.name}: module not rebuilt: nothing that it is built from has changed")
        return RememberedGraph(subject, settings, known, memory, device), inputs_of
    with reads.building() as seen:
        graph, inputs_of = build_torch_graph(subject, settings)
    if not graph.identity.foreign:
        graph.built_from = memory.keep(seen, graph.as_found(), settings.progress)
    return graph, inputs_of


class RememberedGraph(SubjectGraph):
    """The graph of a module that an earlier run has built.

    Its values are computed of the program that an earlier run exported, with the weights of a module that is built for
    them and neither traced nor run. What only the module itself can tell has it built, traced and run as ever.
    """

    computed_by, witness_name = TorchGraph.computed_by, TorchGraph.witness_name
    module_state = "not rebuilt"
    agreement_holds = True
    sorts = False

    def __init__(
        self, subject: Subject, settings: Settings, known: Remembered, memory: Memory, device: torch.device
    ) -> None:
        super().__init__()
        self.subject, self.name, self.device = subject, subject.name, device
        self._settings, self._known, self._memory = settings, known, memory
        self.identity, self.output_names, self.notes = known.identity, known.output_names, known.notes
        self.sorts, self.built_from = known.sorts, known.digest

    @cached_property
    def built(self) -> TorchGraph:
        """The graph of the module, built now. Raises NotJudged where it is not the module that was remembered."""
        graph, _ = build_torch_graph(self.subject, self._settings)
        self.module_state = graph.module_state
        if graph.as_found() != self._known.found:
            self._memory.forget()
            raise NotJudged(
                f"{self.name}: build() gives another module than in earlier runs, although nothing that it reads has "
                "changed; run again, and declare no weights_files= if this comes back"
            )
        return graph

    @cached_property
    def program(self) -> Program:
        """That of the module, as an earlier run exported it, where one has."""
        if self._settings.seed_random is not None:  # its stored noise is drawn when it is traced
            return self.built.program
        return kept_program(self.name, self.identity, self._settings, lambda: self.weights, lambda: self.built.export())

    @cached_property
    def run_graph(self) -> RunGraph:
        """That of the module."""
        return exported_run_graph(self.program)

    @cached_property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """Those of the module, which is built for them and not traced."""
        if "built" in self.__dict__ or self._settings.seed_random is not None:
            return self.built.weights
        self._settings.progress(f"{self.name}: loading the module for its weights")
        weights = build_module(self.subject).state_dict()
        if sha256_of(weights) != self.identity.weights_sha256:
            return self.built.weights
        self.module_state = "built, not traced"
        return {name: tensor.to(self.device) for name, tensor in weights.items()}

    @cached_property
    def helpers(self) -> HelperValues:  # type: ignore[override]
        """Those of the module."""
        return helpers_of(self.program)

    def witness(self, inputs: Tensors) -> Tensors:
        """Return what the module gives."""
        return self.built.witness(inputs)

    def forward(self, inputs: Tensors) -> Tensors:
        """Return what the module gives."""
        return self.built.forward(inputs)

    def witness_value_names(self) -> list[str]:
        """Return those of the module."""
        return self.built.witness_value_names()

    def witness_values(self, inputs: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield those of the module."""
        return self.built.witness_values(inputs)
