"""Elements that count: padding is left out of everything that is compared, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake import ModuleBackend, quiet

from harness import Subject, Target, UsageError
from harness.backends import BACKENDS
from harness.bisect.questions import would_pass
from harness.graph import load_plan
from harness.layers.observation import Unobserved
from harness.verify.inputs import CaseInputs
from harness.verify.target import Run
from harness.verify.valid import ValidElements
from harness.verify.verify import judged_by, update_references, verify_case


class Padded(torch.nn.Module):
    """A softmax over what a row is, and its label; padded positions are computed like all others."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(8, 32), torch.nn.Linear(32, 12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(torch.tanh(self.body(x)))
        return {"logits": logits, "shares": logits.softmax(-1), "best": logits.argmax(-1)}


def make() -> torch.nn.Module:
    torch.manual_seed(0)
    return Padded().eval()


def case(left: int = 3) -> dict[str, torch.Tensor]:
    mask = torch.ones(4, 6, dtype=torch.int64)
    mask[0, :left] = mask[2, :1] = 0
    return {"x": torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1)), "mask": mask}


def of_rows(inputs: Any) -> torch.Tensor:
    mask: torch.Tensor = inputs["mask"] != 0
    return mask


def of_elements(inputs: Any) -> torch.Tensor:
    return of_rows(inputs)[..., None]


VALID = {"logits": of_elements, "shares": of_elements, "best": of_rows}


def subject(**changes: Any) -> Subject:
    fields: dict[str, Any] = {
        "name": "padded", "build": make, "cases": {"one": case}, "targets": (Target("fake", "fp16"),),
        "weights": "random", "valid": VALID,
    }  # fmt: skip
    return Subject(**{**fields, **changes})


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The subject, exported once."""
    return Run(subject(), quiet(tmp_path_factory.mktemp("shared")))


@pytest.fixture
def judged(shared, tmp_path, monkeypatch):
    """Return a function that verifies an engine with a fault, of the subject or of one with changes."""

    def run(fault=None, *, precision="fp16", engine=make, **changes):
        dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
        monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(engine, dtype, fault))
        own = Run(subject(**changes), quiet(tmp_path)) if changes else shared
        with own.target(Target("fake", precision)) as opened:
            return verify_case(opened, "one").result

    return run


def put(output: str, index: Any, value: float) -> Any:
    def fault(outputs, given, run):
        outputs[output][index] = value
        return outputs

    return fault


def other_in_each_run(outputs, given, run):
    outputs["logits"][0, :3] = float(run)
    return outputs


@pytest.mark.parametrize(
    "fault",
    [
        None,
        put("logits", (0, slice(0, 3)), torch.nan),
        put("shares", (2, 0), torch.inf),
        put("logits", (0, 2, 5), 1e30),
        put("best", (0, slice(0, 3)), -7),
        other_in_each_run,
    ],
)
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_padding_alone_decides_nothing_and_what_counts_is_said(judged, fault, precision):
    result = judged(fault, precision=precision)
    assert result.verdict == "pass", result.reason
    assert result.repeatable
    counts = {output.name: (output.valid, output.reason) for output in result.outputs}
    assert {name: valid for name, (valid, _) in counts.items()} == {"logits": 240, "shares": 240, "best": 20}
    assert "valid 240 of 288 elements (48 left out)" in counts["logits"][1]
    logits = next(output for output in result.outputs if output.name == "logits")
    assert (logits.stats.elements, logits.stats.compared, logits.stats.nonfinite_actual) == (240, 240, 0)
    assert next(output for output in result.outputs if output.name == "best").decisions.elements == 20
    assert any("logits 240 of 288" in note for note in result.notes)
    assert result.provenance.valid_sha256
    assert result.to_json()["outputs"][0]["valid"] == 240


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (put("logits", (0, 3, 5), torch.nan), "1 of 240 elements are NaN, the first non-finite one at [0, 3, 5]"),
        (put("logits", (2, 1, 5), 9.0), "logits"),
        (put("shares", (1, slice(None), 3), 0.5), "shares"),
        (put("best", (1, 1), 0), "1 of 20 differs"),
        (put("logits", slice(None), 0.0), "all zeros"),
    ],
)
def test_a_fault_where_it_counts_fails(judged, fault, words):
    result = judged(fault)
    assert result.verdict == "fail"
    assert words in result.reason


class NanInPadding(Padded):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = super().forward(x, mask)["logits"]
        return {"logits": torch.where(mask[..., None] == 0, torch.nan, logits)}


def seeded(kind: type[torch.nn.Module]) -> Any:
    def build() -> torch.nn.Module:
        torch.manual_seed(0)
        return kind().eval()

    return build


@pytest.mark.parametrize(
    ("valid", "verdict"), [pytest.param(of_elements, "pass", id="left out"), pytest.param(None, "not_judged", id="not")]
)
def test_a_reference_that_is_no_number_in_padding_is_left_out(judged, valid, verdict):
    build = seeded(NanInPadding)
    result = judged(put("logits", (0, 0), 0.0), engine=build, build=build, valid={"logits": valid} if valid else {})
    assert result.verdict == verdict, result.reason


class OnlyPadding(torch.nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"best": (mask == 0).long()}


def test_zeros_that_count_prove_nothing_whatever_padding_holds(judged):
    result = judged(engine=OnlyPadding, build=lambda: OnlyPadding().eval(), valid={"best": of_rows})
    assert result.verdict == "not_judged"


@pytest.mark.parametrize(
    ("valid", "words"),
    [
        ({"logit": of_elements}, "logit"),
        ({"logits": lambda inputs: inputs["mask"][..., None]}, "int64"),
        ({"logits": of_rows}, "[4, 6], and the output [4, 6, 12]"),
        ({"logits": lambda inputs: of_elements(inputs)[:, 1:]}, "[4, 5, 1]"),
        ({"logits": lambda inputs: torch.zeros(4, 6, 12, dtype=torch.bool)}, "leaves no element"),
        ({"logits": lambda inputs: None}, "NoneType"),
        ({"logits": lambda inputs: torch.rand(4, 6, 12) > 0.5}, "when it is asked for again"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_sentence(shared, valid, words):
    prepared = shared.prepared
    reference = prepared.references.reference("one", "fp32")

    def check() -> None:
        ValidElements(subject(valid=valid), prepared.inputs, prepared.graph.output_names).check("one", reference)

    with pytest.raises(UsageError) as error:
        check()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_that_raises_is_not_judged_and_one_that_is_none_is_refused(judged):
    assert judged(valid={"logits": lambda inputs: inputs["no"]}).verdict == "not_judged"
    with pytest.raises(UsageError, match="valid"):
        subject(valid={"logits": torch.ones(1, dtype=torch.bool)})


def test_a_mask_of_a_generated_case_is_made_of_its_inputs(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(make, torch.float16))
    dynamic = {"x": {0: "batch"}, "mask": {0: "batch"}}
    with Run(subject(dynamic=dynamic, ranges={"batch": (1, 8)}), quiet(tmp_path)).target(
        Target("fake", "fp16")
    ) as opened:
        result = verify_case(opened, "largest").result
    assert (result.verdict, result.outputs[0].valid) == ("pass", 480)


def test_a_nested_input_is_given_to_the_mask_as_the_case_gives_it(tmp_path):
    nested = subject(cases={"one": lambda: {"both": case()}}, valid={"logits": lambda it: of_elements(it["both"])})
    inputs = CaseInputs(nested, lambda tensors, name: tensors)
    mask = ValidElements(nested, inputs, ["logits"]).of("one", {"logits": torch.zeros(4, 6, 12)})["logits"]
    assert int(mask.sum()) == 240


class OtherInPadding(Padded):
    """Gives something else in padding than its traced program does."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = super().forward(x, mask)["logits"]
        if not torch.compiler.is_exporting():
            logits = torch.where(mask[..., None] == 0, logits + 1, logits)
        return {"logits": logits}


def test_a_stored_reference_of_another_mask_is_stale(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(make, torch.float16))
    settings = quiet(tmp_path)

    def verdict(valid: Any) -> Any:
        with Run(subject(valid=valid), settings).target(Target("fake", "fp16")) as opened:
            return verify_case(opened, "one").result

    list(update_references(subject(), ["one"], settings))
    assert verdict(VALID).verdict == "pass"
    assert verdict(VALID).provenance.reference.startswith("stored")
    fewer = {**VALID, "logits": lambda inputs: torch.ones(1, 1, 1, dtype=torch.bool)}
    for other in (fewer, {}):
        result = verdict(other)
        assert result.verdict == "fail"
        assert "mask of valid elements" in result.reason


def test_a_reference_kept_by_an_earlier_run_is_not_taken_for_a_wider_mask(tmp_path, monkeypatch):
    """A module that its program does not show where nothing counts is not right where it does."""

    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(seeded(OtherInPadding), torch.float16))
    verdicts = []
    for valid in ({"logits": of_elements}, {}):
        with Run(subject(build=seeded(OtherInPadding), valid=valid), quiet(tmp_path)).target(
            Target("fake", "fp16")
        ) as opened:
            verdicts.append(verify_case(opened, "one").result.verdict)
    assert verdicts == ["pass", "not_judged"]


def test_layers_and_bisect_see_what_counts(shared, monkeypatch):
    monkeypatch.setitem(BACKENDS, "fake", ModuleBackend(make, torch.float16, put("logits", (0, slice(0, 3)), 1e4)))
    run = shared
    with run.target(Target("fake", "fp16")) as opened:
        outcome = verify_case(opened, "one")
        assert {it.verdict for it in judged_by(opened, "one", actual=outcome.repeats.worst)} == {"pass"}
        before = Unobserved(opened=opened, case="one", result=outcome.result, outputs=outcome.repeats.worst)
        counted = before.counted(outcome.repeats.worst)
        assert not counted["logits"][0, :3].any()
        assert counted["logits"][0, 3:].all()
        assert outcome.repeats.worst["logits"][0, 0, 0] == 1e4, "a task check sees what the engine gave"
        outputs = dict(outcome.expected)
        outputs["logits"] = outputs["logits"].clone()
        outputs["logits"][0, 0] = torch.nan
        assert would_pass(run, "one", load_plan("fp16"), outputs)
        outputs["logits"][1, 0] = torch.nan
        assert not would_pass(run, "one", load_plan("fp16"), outputs)
