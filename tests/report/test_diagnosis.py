"""The first lines of every kind of diagnosis: facts and figures, in both languages, from the JSON as it arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diagnosed
import pytest
from diagnosed import VARIANTS, as_json

from harness.records import Diagnosis
from harness.report.text import diagnosis
from harness.report.text.diagnosis import Line, culprit_words, diagnosis_lines, diagnosis_text, percent, short
from harness.report.words import Words


def lines(name: str) -> list[Line]:
    return diagnosis_lines(*as_json(name))


def text(name: str) -> str:
    """Return the first lines of a variant, unwrapped."""
    return "\n".join(f"{line.label}: {line.text}; next: {line.command}" for line in lines(name))


FACTS = {
    "one culprit": [
        "bert/short [rtx fp16] WRONG: pooled 4.1e-5 from PyTorch, 61 x what is allowed; hidden too",
        "culprit: gelu_1, aten.gelu in layers.1 (model.py:44): 2.1e-4 off on the engine's own inputs, PyTorch loses "
        "4.2e-8; explains 99.9 % of the error",
        "looks like: another function, not rounding",
        "before it 66 values are right; 33 later ones are wrong only because of it; no second culprit; "
        "shows alone in 1 operation",
        f"trust: looking changed rounding only; next: {diagnosed.REPRODUCE}",
    ],
    "a look alone": ["no second culprit", f"next: {diagnosed.BISECT}"],
    "many culprits": ["explains 72 %", "shows alone in 3 operations", "2 more culprits: JSON", "no other culprit"],
    "two culprits, incomplete": ["INCOMPLETE: 7 % of the error has another cause"],
    "first value": ["before it no value is known to be right; 1 later one is wrong", "shows alone in 2 operations"],
    "share not computed": ["its share of the error could not be computed", "another culprit is not known"],
    "none found, all right": ["all 19 values that were seen are right; not seen: 1", diagnosed.BISECT],
    "none found, wrong ones do not explain": ["1 of 19 values that were seen go wrong, which does not explain"],
    "none found, nothing seen": ["no value was compared", diagnosed.BISECT],
    "none found by the bisection": ["none found: PyTorch in fp16 is right and rtx is not"],
    "NaN": ["1000 of 1000 elements of pooled are NaN", "reached 1.2e5, FP16 ends at 65504", "34 of 9856 elements"],
    "hidden by looking": ["NONE: the outputs are right while they are looked at"],
    "changed by looking": ["NONE: looking changed the outputs as much as the error itself"],
    "inside a kernel": ["pooled is all zeros", "inside the kernel __myl_AddSub_12", "FP16-sized", "explains 97 %"],
    "precision": [
        "fp16 itself",
        "it shows in exp_1, aten.exp",
        "overflows (1e+05 in FP32",
        "no engine was looked",
        "with value:exp_1, value:log in FP32 the engine passes",
        "1.47 ms",
        "2.91",
    ],
    "precision without a look": ["with value:exp_1, value:log in FP32 the engine passes", diagnosed.VERIFY_PLAN],
    "precision, no plan yet": ["value:exp_1, value:log must stay in FP32"],
    "found by parts": ["NONE: the outputs are right while", "shows alone in 3 operations"],
    "precision, no plan": ["no set of values in FP32 mends it", "plan: none passes, 1 was tried"],
    "export": ["ONNX graph differs from PyTorch", "gelu_1", "2.1e-4 off in FP32 on the same inputs"],
    "folded": ["stem.conv", "perhaps the wrong one: stem.bn, stem.act"],
    "TF32": ["TF32, in which rtx computes products of FP32", "-p tf32"],
    "race": ["CUDA_LAUNCH_BLOCKING=1", "random from run to run"],
    "a slice": ["pooled 2e-4 from PyTorch; slice 17 of axis 1: error 3.2e-3, 80 x what is allowed"],
    "a largest error": ["pooled 4.1e-5 from PyTorch, 61 x", "and 1 more too"],
    "a given limit": ["pooled 1.1e-4 from PyTorch, 2.2 x what is allowed"],
    "a given largest error": ["largest error 8.8e-4, 8.8 x what is allowed"],
    "decisions": ["tokens: 3 of 77 differ, ties: 0"],
    "stale output": ["looks like: stale: it holds the result of case long"],
    "passes": ["right: pooled 3.2e-7 from PyTorch, 0.48 x what is allowed", "19 values compared, the worst 1.1 x"],
    "passes, seen as another engine": ["right: ", "trust: NONE: looking changed the outputs"],
    "bisected, passes": ["right: pooled 3.2e-7"],
    "not judged": ["not judged: no GPU"],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_has_its_facts(name: str):
    said = text(name)
    assert [fact for fact in FACTS[name] if fact not in said] == []


@pytest.mark.parametrize("name", VARIANTS)
def test_lines_fit_and_say_nothing_twice(name: str):
    shown = diagnosis_text(lines(name))
    assert max(map(len, shown)) <= 120
    clauses = [clause for line in lines(name) for clause in line.text.split("; ") if line.label != "looks like"]
    assert len(set(clauses)) == len(clauses) or name == "many culprits"


@pytest.mark.parametrize("name", VARIANTS)
def test_chinese_has_the_same_lines_and_figures(name: str):
    chinese = diagnosis_lines(*as_json(name), Words("zh"))
    assert [line.command for line in chinese] == [line.command for line in lines(name)]
    assert len(chinese) == len(lines(name))
    assert "WRONG" not in chinese[0].label


@pytest.mark.parametrize("name", [name for name, (verdict, _) in VARIANTS.items() if verdict.verdict == "pass"])
def test_what_passes_has_no_culprit(name: str):
    assert culprit_words(*as_json(name)) == ""
    assert not any(line.label == "culprit" or line.command for line in lines(name))


def test_the_culprit_is_the_reason_in_one_sentence():
    said = culprit_words(*as_json("one culprit"))
    assert said.startswith("gelu_1, aten.gelu in layers.1 (model.py:44): 2.1e-4 off")
    assert said.endswith("another function, not rounding")
    assert culprit_words(*as_json("none found, all right")) == ""


def test_a_command_that_does_not_fit_has_a_line_of_its_own_uncut():
    command = "parity verify " + "x" * 120
    assert diagnosis_text([Line("trust", "looking changed no bit", command)]) == [
        "trust: looking changed no bit", f"next: {command}",
    ]  # fmt: skip


def test_a_look_without_a_diagnosis_names_what_goes_wrong_and_does_not_weigh_it():
    verdict = replace(diagnosed.WRONG, layers=diagnosed.look(None, diagnosed.SUSPECT, observer=()))
    said = " ".join(line.text for line in diagnosis_lines(verdict.to_json()))
    assert "not weighed: 1 of 19 values seen go wrong, gelu_1; not seen: 1" in said
    assert "not known whether observing changed" in said


def test_a_bisection_from_before_it_held_a_verdict_says_its_finding_once():
    found = {**diagnosed.bisected(None, diagnosed.WRONG, finding="it goes wrong in gelu").to_json(), "result": None}
    shown = diagnosis_text(diagnosis.bisection_lines(found))
    assert shown[0] == "bert/short [rtx fp16] WRONG: it goes wrong in gelu"
    assert " ".join(shown).count("it goes wrong in gelu") == 1


def test_a_contradictory_record_is_wrong_here_too():
    verdict: dict[str, Any] = {**diagnosed.WRONG.to_json(), "verdict": "pass"}
    assert " WRONG" in diagnosis_lines(verdict)[0].label


def test_an_empty_diagnosis_is_no_claim_of_completeness():
    said = diagnosis_lines(replace(diagnosed.WRONG, layers=diagnosed.look(Diagnosis())).to_json())
    assert not any("culprit" in line.text for line in said)


@pytest.mark.parametrize(
    ("value", "figure"),
    [(4.1e-5, "4.1e-5"), (61.2, "61"), (365.2, "365"), (1.2e5, "1.2e5"), (0.98, "0.98"), (2e-4, "2e-4"),
     (9.96e-3, "1e-2"), (0.0, "0"), (None, "-"), (1.0, "1")],
)  # fmt: skip
def test_figures_of_sentences(value: float | None, figure: str):
    assert short(value) == figure


@pytest.mark.parametrize(
    ("share", "figure"),
    [(0.9993, "99.9"), (0.99999, "99.9"), (1.0, "100"), (0.123, "12"), (0.061, "6.1"), (1e-5, "< 0.1"), (0.0, "0")],
)
def test_shares_never_round_to_all_or_nothing(share: float, figure: str):
    assert percent(share) == figure
