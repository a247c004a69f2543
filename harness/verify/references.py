"""What a subject's outputs should be, case by case: stored by the repository, kept by an earlier run, or computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.code_version import code_sha256, package_versions
from harness.compare import FAITHFUL, distance, require_close
from harness.errors import NotJudged, UsageError, same_name
from harness.graph import Plan, is_fp32
from harness.machine import COMPUTING, commit, set_variables
from harness.reference import (
    Identity,
    KeptRun,
    OutputCache,
    ReferenceStore,
    StaleReference,
    Stored,
    update_command,
)
from harness.sentences import Sentence
from harness.subject import Subject
from harness.tensors import Tensors, sha256_of
from harness.verify.given import given_outputs
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import SubjectGraph, value_dtypes
from harness.verify.valid import ValidElements
from harness.verify.witnesses import Disagree, require_agreement

_DTYPES = {"fp32": "float32", "fp64": "float64"}
_Outputs = tuple[Tensors, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What PyTorch gives in a precision; its error against the reference is the floor."""

    outputs: Tensors
    """By name, in the declared dtypes."""
    notes: tuple[str, ...]
    """Emulation and saturation, where there was any."""


class References:
    """The FP32 reference, the FP64 truth and the floors of one subject; each is computed once."""

    def __init__(
        self,
        subject: Subject,
        graph: SubjectGraph,
        inputs: CaseInputs,
        valid: ValidElements,
        *,
        cache: OutputCache,
        store: ReferenceStore | None,
        root: Path,
        update: bool,
        progress: Callable[[str], None],
    ) -> None:
        self.subject, self.graph, self.inputs, self.valid = subject, graph, inputs, valid
        self._cache, self._store, self._root, self._progress = cache, store, root, progress
        self._stale = set(inputs) if update else set()
        """Cases whose stored reference is to be written anew before it is used."""
        self._stored: dict[str, Stored | None] = {}
        self._given: dict[str, Tensors] = {}
        self._computed: dict[tuple[str, str, str], _Outputs] = {}
        self._recalled: set[str] = set()
        """Cases with outputs that an earlier run computed."""
        self._distrusted: set[str] = set()
        """Cases of which nothing is taken from an earlier run."""
        self._beyond: dict[tuple[str, Plan], str] = {}
        self._wide: dict[tuple[str, Plan], Tensors] = {}
        self._agreed: dict[str, tuple[str, ...]] = {}
        """Cases whose reference a second computation confirms, with notes on that."""

    def expected(self, case: str, plan: Plan) -> Tensors:
        """Return what a plan's engine is held against: FP64 for an FP32 engine and a quantised one, else FP32."""
        if case in self._stale:
            self.save(case)
        reference = self.reference(case, "fp32")  # first: it is held against the module, and all of a case with it
        return self.reference(case, "fp64") if is_fp32(plan) or self.graph.is_quantised else reference

    def reference(self, case: str, precision: str) -> Tensors:
        """Return the outputs in ``fp32`` (the reference) or ``fp64`` (the truth)."""
        if (stored := self._load(case)) is not None:
            kept = stored.fp32 if precision == "fp32" else stored.fp64
            self.valid.check(case, kept)
            found = {name: kept[name].to(self.graph.device) for name in self.graph.output_names}
            return self._confirmed(case, found) if precision == "fp32" else found
        run = partial(self.graph.run, self.inputs[case], dtype=_DTYPES[precision])
        outputs, notes = self._kept(case, precision, run)
        self.valid.check(case, outputs)
        if precision == "fp32" and case not in self._agreed:
            try:
                self._agreed[case] = (*notes, *self._agreement(case, outputs))
            except Disagree as error:
                if case not in self._recalled:
                    raise
                outputs, self._agreed[case] = self._anew(case, run, error)
        found = {name: outputs[name] for name in self.graph.output_names}
        return self._confirmed(case, found) if precision == "fp32" else found

    def _confirmed(self, case: str, computed: Tensors) -> Tensors:
        """Return the FP32 outputs with those that come with the case in the place of what is the same."""
        if case not in self.subject.given:
            return computed
        if case not in self._given:
            exact = partial(self.reference, case, "fp64")
            self._given[case] = given_outputs(self.subject, case, computed, self.valid, exact=exact)
        return computed | self._given[case]

    def _agreement(self, case: str, outputs: Tensors) -> tuple[str, ...]:
        """Hold outputs against the witness, but those that an earlier run has, where that cannot come out otherwise."""
        exact = partial(self.reference, case, "fp64")
        counted = partial(self.valid.counted, case)
        hold = partial(require_agreement, self.graph, self.inputs[case], outputs, exact=exact, counted=counted)
        return self._held("agreement", hold, case, outputs=sha256_of(outputs))

    def _held(self, what: str, hold: Callable[[], tuple[str, ...]], case: str, **key: Any) -> tuple[str, ...]:
        """Return notes on something that was held against the witness, in an earlier run where that cannot differ.

        A module that was built now is held anew: its code may do for this case what its program does not show.
        """
        graph = self.graph
        if not (graph.agreement_holds or graph.built_from):
            return hold()
        key |= {"case": dataclasses.asdict(self._identity(case)), "built_from": graph.built_from}
        return self.once(what, hold, anew=not graph.agreement_holds, **key)

    def once(
        self, what: str, compute: Callable[[], tuple[str, ...]], *, anew: bool = False, **key: Any
    ) -> tuple[str, ...]:
        """Return lines that an earlier run computed of the same graph, or compute them, or compute them ``anew``."""
        identity = {"weights": self.graph.identity.weights_sha256, "program": self.graph.identity.program_sha256}
        full = {**self._maker, **identity, **key, "what": what}
        return self._cache.get(full, lambda: ({}, compute()), self.graph.device, anew=anew)[1]

    def _anew(self, case: str, run: Callable[[], _Outputs], error: Disagree) -> tuple[Tensors, tuple[str, ...]]:
        """Compute again what an earlier run had kept of a case and what disagrees: tell which of the two is stale."""
        self._recalled.discard(case)
        self._distrusted.add(case)
        self._computed = {key: found for key, found in self._computed.items() if key[0] != case}
        outputs, notes = self._kept(case, "fp32", run)
        by = self.graph.computed_by
        try:
            agreed = self._agreement(case, outputs)
        except Disagree as again:
            raise NotJudged(Sentence("kept_not_stale", again=again, by=by)) from error
        return outputs, (*notes, *agreed, Sentence("kept_were_stale", by=by))

    def notes(self, case: str) -> tuple[str, ...]:
        """Return what is to be said of the graph and of the reference of a case: that nothing else computes it."""
        outputs = self.reference(case, "fp32")
        return (*self.graph.remarks(self.inputs[case], outputs), *self._agreed.get(case, ()))

    def words(self, case: str, precision: str) -> str:
        """Return where a reference comes from: ``computed in FP32 on cuda``, or ``stored, made in FP32 on cpu``."""
        if self._given.get(case):
            on = self.graph.device.type
            return (
                Sentence("reference_given", device=on)
                if precision == "fp32"
                else Sentence("reference_computed", dtype="FP64", device=on)
            )
        if (stored := self._load(case)) is None:
            return Sentence("reference_computed", dtype=precision.upper(), device=self.graph.device.type)
        return Sentence(
            "reference_stored",
            dtype=precision.upper(),
            device=stored.provenance.get("device") or Sentence("unknown_device"),
        )

    def dtypes(self, case: str) -> dict[str, torch.dtype]:
        """Return the declared dtype of every output: that of the FP32 reference."""
        return {name: tensor.dtype for name, tensor in self.reference(case, "fp32").items()}

    def floor(self, case: str, plan: Plan) -> Floor:
        """Return what PyTorch gives in a plan's precision. Raises NotJudged where there is no such floor."""
        dtypes = value_dtypes(self.graph, plan)
        run = partial(self.graph.run, self.inputs[case], dtype=plan.compute_dtype, dtypes=dtypes, tf32=plan.tf32)
        same = [
            plan.computes_in,
            sorted(plan.keep_fp32),
            sorted(self.graph.kept_for_range(plan)),
            *([Sentence("as_the_file")] if plan.as_file else []),
        ]  # not its file's name
        outputs, notes = self._kept(case, plan.computes_in, run, plan=same)
        return Floor(outputs=self._declared(case, outputs), notes=notes)

    def floor_with_wide(self, case: str, plan: Plan) -> Tensors:
        """Return what PyTorch gives in a plan's precision with all in FP32 that the precision cannot hold."""
        if (case, plan) not in self._wide:
            self._progress(f"{self.subject.name}/{case}: PyTorch {plan.computes_in}, in FP32 what it cannot hold")
            kept = dict.fromkeys(self.graph.held_wide(self.inputs[case], plan), "float32")
            dtypes = value_dtypes(self.graph, plan) | kept
            self._wide[case, plan] = self.typed(case, dtypes, dtype=plan.compute_dtype)
        return self._wide[case, plan]

    def first_beyond(self, case: str, plan: Plan) -> str:
        """Return which value a plan's precision cannot hold first, and why."""
        if (case, plan) not in self._beyond:
            self._progress(f"{self.subject.name}/{case}: looking for what {plan.computes_in} cannot hold")
            self._beyond[case, plan] = self.graph.first_beyond(self.inputs[case], plan)
        return self._beyond[case, plan]

    def typed(
        self, case: str, dtypes: Mapping[str, str], *, dtype: str = "float32", kept: KeptRun | None = None
    ) -> Tensors:
        """Return what PyTorch gives with these compute dtypes by value name, ``dtype`` where there is none.

        ``kept`` has what the runs of one case in one ``dtype`` have in common.
        """
        return self._declared(case, self.graph.run(self.inputs[case], dtype=dtype, dtypes=dtypes, kept=kept)[0])

    def save(self, case: str) -> Path:
        """Compute and store the FP32 reference and the FP64 truth of a case, and return the file."""
        if self._store is None:
            raise UsageError(
                f"{self.subject.name} is an ONNX file: its reference is computed from the file, never stored"
            )
        other = self._store.source(self.subject.name, case)
        if other not in ("", self.subject.source) and (self._root / other).exists():
            raise same_name(self.subject.name, other, self.subject.source or "another file")
        self._stored[case] = None
        self._stale.discard(case)
        return self._store.save(
            self.subject.name,
            case,
            self._identity(case),
            fp32=self.reference(case, "fp32"),
            fp64=self.reference(case, "fp64"),
            provenance={
                "source": self.subject.source,
                "device": self.graph.device.type,
                "weights": self.subject.weights_source,
                "commit": commit(self._root),
            },
        )

    def _declared(self, case: str, outputs: Tensors) -> Tensors:
        declared = self.dtypes(case)
        return {name: tensor.to(declared[name]) for name, tensor in outputs.items()}

    def _identity(self, case: str) -> Identity:
        """Return what a stored reference of this case must have been made from."""
        return Identity(
            weights_sha256=self.graph.identity.weights_sha256,
            inputs_sha256=sha256_of(self.inputs[case]),
            valid_sha256=self.valid.sha256(case),
            program_sha256=self.graph.identity.program_sha256,
            torch=torch.__version__.split("+")[0],
        )

    def _kept(self, case: str, what: str, compute: Callable[[], _Outputs], **key: object) -> _Outputs:
        """Return outputs computed in this run or an earlier one from the same graph and inputs by the same code."""
        if (memory := (case, what, repr(key))) not in self._computed:
            device = self.graph.device
            full = {**dataclasses.asdict(self._identity(case)), **self._maker, **key, "what": what}

            ran = []

            def say_and_compute() -> _Outputs:
                ran.append(what)
                self._progress(f"{self.subject.name}/{case}: PyTorch {what} on {device.type}")
                return compute()

            anew = case in self._distrusted
            self._computed[memory] = self._cache.get(full, say_and_compute, device, anew=anew)
            if not ran:
                self._recalled.add(case)
        return self._computed[memory]

    def recall(self, what: str, compute: Callable[[], frozenset[str]]) -> frozenset[str]:
        """Return names computed in this run or an earlier one from the same graph and the inputs of all cases."""
        cases = [dataclasses.asdict(self._identity(case)) for case in self.inputs]
        return frozenset(self.once(what, lambda: tuple(sorted(compute())), cases=cases))

    @property
    def _maker(self) -> dict[str, Any]:
        """What computes the outputs, as far as another would compute others."""
        where = torch.cuda.get_device_name() if self.graph.device.type == "cuda" else "cpu"
        return {
            "exporter": dict(self.graph.identity.exporter),
            "where": where,
            "threads": torch.get_num_threads(),
            "variables": set_variables(COMPUTING),
            "code": code_sha256(),
            "packages": package_versions(),
        }

    def _load(self, case: str) -> Stored | None:
        """Return the stored reference of a case, held against the module; None where there is none to use."""
        if self._store is None or case in self._stale:
            return None
        if case not in self._stored:
            typed = self.subject.as_typed
            stored = self._store.load(self.subject.name, case, self._identity(case), typed=typed)
            if stored is not None:

                def hold(stored: Stored = stored) -> tuple[str, ...]:
                    self._require_fresh(case, stored, update_command(typed, case))
                    return ()

                self._held("stored reference", hold, case, stored=stored.provenance["tensors_sha256"])
            self._stored[case] = stored
        return self._stored[case]

    def _require_fresh(self, case: str, stored: Stored, command: str) -> None:
        """Raise StaleReference where the module gives something else, NotJudged where the module is not its program."""
        witness = self.graph.witness(self.inputs[case])
        assert not isinstance(witness, str), "only a module has stored references"
        kept = {name: tensor.to(self.graph.device) for name, tensor in stored.fp32.items()}
        if set(kept) != set(witness):
            raise StaleReference(Sentence("stored_stale_names", kept=sorted(kept), command=command))
        kept, witness = self.valid.counted(case, kept), self.valid.counted(case, witness)

        def sentence(name: str, error: float) -> str:
            return Sentence("stored_stale_differs", name=name, error=error, command=command)

        try:
            require_close(kept, witness, limit=FAITHFUL, sentence=sentence)
        except NotJudged as stale:
            program = self.valid.counted(case, self.graph.run(self.inputs[case], dtype="float32")[0])
            if all(distance(program[name], tensor) <= FAITHFUL for name, tensor in kept.items()):
                by = self.graph.computed_by
                raise NotJudged(Sentence("stored_only_by", by=by, case=case)) from stale
            raise StaleReference(str(stale)) from stale
