"""Layer reports and bisections as text and as a picture, from the JSON as it arrives from another process."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import diagnosed
import pytest
import recorded
from PIL import Image

from harness.errors import NotJudged, UsageError
from harness.records import IS_WRONG, Diagnosis
from harness.records.bisection import Advice, Bisection, Price, Question, Trial
from harness.records.layers import LayerReport, ModuleFinding, OutputEffect, ValueFinding
from harness.records.stats import ErrorStats
from harness.report import facts
from harness.report.plots import layers as plot
from harness.report.text import bisection, layers


def stats(relative_l2: float, **changes: Any) -> ErrorStats:
    return recorded.stats(relative_l2, **{"shape": (2, 77, 64), "elements": 9856, **changes})


def a_value(name: str, depth: int, **changes: Any) -> ValueFinding:
    return ValueFinding(**{
        "name": name, "op": "aten.linear.default", "module": "text_model.encoder.layers.0.mlp.fc1",
        "source": "model.py:7", "depth": depth, "status": "compared", "kernel": f"__myl_Fc_{depth}",
        "tap": f"__mye{depth}", "mapped_by": "contents", "stats": stats(1e-3), "floor": 9e-4,
        "local": 3e-4, "local_floor": 3e-4, "local_bias": 0.01, "effect": 2e-4, "largest": 12.5, "mark": "ok",
        **changes,
    })  # fmt: skip


def unseen(name: str, depth: int, status: str, reason: str, **changes: Any) -> ValueFinding:
    nothing = dict.fromkeys(("stats", "floor", "local", "local_floor", "local_bias", "effect", "largest"))
    return a_value(
        name, depth, **nothing, **{"status": status, "reason": reason, "mark": "not_judged", "mapped_by": "", **changes}
    )


def a_module(module: str, worst: str, mark: str, **changes: Any) -> ModuleFinding:
    return ModuleFinding(**{
        "module": module, "values": 2, "worst": worst, "op": "aten.linear.default", "local": 3e-4, "local_floor": 3e-4,
        "propagated": 1e-3, "floor": 9e-4, "share": 0.04, "mark": mark, **changes,
    })  # fmt: skip


NORM, FC1 = "text_model.encoder.layers.1.layer_norm1", "text_model.encoder.layers.0.mlp.fc1"
KERNEL = "__myl_CastMulMeanSubMulMeanAddSqrtDivMul_myl0_17"
REPORT = LayerReport(
    subject="clip", case="short", backend="rtx", precision="fp16", mode="unfused",
    values=(
        a_value("add", 0, op="aten.add.Tensor", module="text_model.embeddings", stats=stats(2.1e-4), floor=2.1e-4,
                local=2.1e-4, local_floor=2.1e-4, effect=6e-5),
        a_value("linear_4", 1),
        unseen("gelu", 2, "not_delivered", "inside a kernel", kernel=KERNEL, module=FC1),
        a_value("layer_norm_2", 3, op="aten.layer_norm.default", module=NORM, kernel=KERNEL, stats=stats(4.1e-2),
                floor=1.4e-3, local=4e-2, local_floor=5e-4, local_bias=0.83, effect=3.1e-2, mark="suspect"),
        a_value("linear_6", 4, module="text_model.encoder.layers.1.self_attn.q_proj", stats=stats(3.9e-2),
                floor=1.6e-3, mark="passed_on", layout="permuted (0, 2, 1)", effect=None),
        unseen("argmax", 5, "not_compared", "int64: nothing but the engine computes it", module=""),
        unseen("__mye214", -1, "inner", "internal to a kernel; the graph has no value for it", kernel=KERNEL),
        unseen("__mye377_reformatted_by_the_builder", -1, "unmapped", "its contents match all of add_1, add_2",
               module=""),
    ),
    modules=(
        a_module(NORM, "layer_norm_2", "suspect", op="aten.layer_norm.default", local=4e-2, local_floor=5e-4,
                 propagated=4.1e-2, floor=1.4e-3, share=0.94),
        a_module("text_model.encoder.layers.1.self_attn.q_proj", "linear_6", "passed_on", propagated=3.9e-2,
                 floor=1.6e-3, share=None),
        a_module(FC1, "linear_4", "ok"),
        a_module("text_model.embeddings", "add", "ok", op="aten.add.Tensor", local=2.1e-4, local_floor=2.1e-4,
                 propagated=2.1e-4, floor=2.1e-4, share=0.001),
    ),
    observer=(OutputEffect(name="last_hidden_state", identical=True, difference=0.0, error=3.2e-2),),
    trusted=True, weights="random", inputs="random", device="NVIDIA H200",
)  # fmt: skip
NAN = stats(
    math.nan, nonfinite_actual=34, nan_actual=30, mismatched_nonfinite=34, first_nonfinite=(0, 1, 5), compared=9822
)
OVERFLOW = a_value(
    "pow_3", 2, op="aten.pow.Tensor_Scalar", module=NORM, stats=NAN, local=math.nan, largest=64800.0, mark="nonfinite",
    reason="34 of 9856 elements are not finite, though all it is computed from is",
)  # fmt: skip
BISECTION = Bisection(
    subject="clip", case="short", backend="rtx", precision="fp16", kind="precision",
    finding="text_model.encoder.layers.1.layer_norm1 overflows in FP16, in PyTorch as in the engine",
    advice=(
        Advice(
            indicator="a square of 8.1e4 in layer_norm1", meaning="FP16 ends at 65504",
            action="keep text_model.encoder.layers.1.layer_norm1 in FP32",
        ),
        Advice(indicator="The plan costs 2 % of the run time.", meaning="", action=""),
    ),
    commands=("parity verify clip -b rtx -p plans/clip.toml --json results/a-folder-with-a-long-name/clip.json",),
    gates=(
        Question(question="is the reference repeatable?", answer="yes", detail="two runs gave the same bits"),
        Question(question="is the FP32 engine right?", answer="yes", detail="relative error 2.1e-07, allowed 2.3e-06"),
        Question(question="is the engine better than the floor?", answer="no", detail="1 of 1 outputs is not finite"),
        Question(question="does the ONNX graph differ from PyTorch?", answer="not asked", detail=""),
    ),
    region=("text_model.encoder.layers.1.layer_norm1",),
    plan=("text_model.encoder.layers.1.layer_norm1", "op:aten.pow"), plan_file="plans/clip.toml",
    price=Price(device="NVIDIA H200", plan_ms=1.02, low_ms=1.0, fp32_ms=2.04),
    trials=(
        Trial(keep_fp32=(), where="pytorch", passed=False, error=math.inf, reason="34 elements are not finite"),
        Trial(keep_fp32=tuple("abcde"), where="engine", passed=None, error=None, reason="the build was refused"),
        Trial(keep_fp32=(NORM, "op:aten.pow"), where="engine", passed=True, error=3e-3),
    ),
    builds=4, gate_builds=2, max_builds=30, notes=("one trial was taken from the engine cache",),
)  # fmt: skip


def changed(report: LayerReport = REPORT, **changes: Any) -> dict[str, Any]:
    """Return a report's JSON as another process reads it."""
    return json.loads(json.dumps(dataclasses.replace(report, **changes).to_json(), allow_nan=False))


def found(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.replace(BISECTION, **changes).to_json(), allow_nan=False))


def joined(text: str) -> str:
    return " ".join(text.split())


def test_json_has_every_field_and_no_figure_that_is_not_finite():
    data = changed(values=(OVERFLOW,), timings_s={"layers": 1.5})
    assert set(data) == {field.name for field in dataclasses.fields(LayerReport)}
    assert data["values"][0]["local"] is None
    assert data["values"][0]["stats"]["relative_l2"] is None
    assert data["values"][0]["stats"]["first_nonfinite"] == [0, 1, 5]
    assert data["timings_s"] == {"layers": 1.5}
    assert found()["price"] == {"device": "NVIDIA H200", "plan_ms": 1.02, "low_ms": 1.0, "fp32_ms": 2.04}
    assert found()["trials"][0]["error"] is None


def test_nan_that_only_passed_on_ranks_above_finite_suspects_and_below_its_cause():
    behind = a_value("mul_9", 9, stats=NAN, mark="passed_on", local=0.0)
    ranked = facts.worst_first(changed(values=(*REPORT.values, behind, OVERFLOW))["values"])
    assert [value["name"] for value in ranked[:3]] == ["pow_3", "mul_9", "layer_norm_2"]


def test_ratio_over_a_floor_of_zero():
    assert facts.error_ratio({"local": 1e-3, "local_floor": 0.0}) == math.inf
    assert facts.error_ratio({"local": 0.0, "local_floor": 0.0}) == 1.0
    assert facts.error_ratio({"local": None, "local_floor": 1e-3}) is None


def test_boundaries_are_the_two_top_levels_below_what_is_common():
    layer = "m.encoder.layers"
    modules = ["", "m.embed", f"{layer}.0.norm", f"{layer}.0.fc#2", *(f"{layer}.{n}.fc" for n in (1, 2, 3)), "m.embed"]
    values = [{"depth": depth, "module": module} for depth, module in enumerate(modules)]
    assert plot.boundaries(values) == [
        (1, "embed", 1), (2, "encoder", 1), (2, "encoder.layers.0", 2), (4, "encoder.layers.1", 2),
        (5, "encoder.layers.2", 2), (6, "encoder.layers.3", 2),
    ]  # fmt: skip
    assert plot.boundaries([]) == []


def test_boundaries_look_into_a_module_that_holds_nearly_all():
    modules = ["pooler.norm", *(f"net.encoder.layer.{n}.fc" for n in range(3))]
    values = [{"depth": depth, "module": module} for depth, module in enumerate(modules)]
    assert [name for _, name, _ in plot.boundaries(values)] == [
        "pooler", "pooler.norm", "encoder", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2",
    ]  # fmt: skip


def test_module_labels_do_not_overlap_and_long_modules_come_first():
    found = [(1, "embed", 1), (2, "encoder", 1), (2, "encoder.layers.0", 2), (20, "encoder.layers.1", 2)]
    assert plot.labels(found, end=40, gap=5) == [(2, "encoder.layers.0", 1), (20, "layers.1", 2)]
    assert plot.labels(found, end=40, gap=0.5) == [
        (1, "embed", 1), (2, "encoder.layers.0", 1), (20, "layers.1", 2),
    ]  # fmt: skip
    assert plot.labels([], end=0, gap=1) == []


def test_plot_writes_both_files_and_the_same_bytes_again(tmp_path: Path):
    report = changed(values=(*REPORT.values, OVERFLOW), first_nonfinite="pow_3", trusted=False)
    paths = plot.save_layers(report, tmp_path / "new" / "clip.fp16")
    assert [path.name for path in paths] == ["clip.fp16.png", "clip.fp16.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    with Image.open(paths[0]) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert (0xB8, 0x5A, 0x00) in colours, "no local error is drawn"
    svg = paths[1].read_text()
    assert svg.startswith("<?xml")
    assert plot.save_layers(report, tmp_path / "again")[1].read_text() == svg


def test_plot_says_what_a_reader_must_know(tmp_path: Path):
    report = changed(values=(*REPORT.values, OVERFLOW), first_nonfinite="pow_3", trusted=False)
    svg = plot.save_layers(report, tmp_path / "clip")[1].read_text()
    for words in (
        "clip [rtx fp16] short",
        "random weights",
        "NOT TO BE TRUSTED",
        "layer_norm_2",
        "not finite from pow_3",
    ):
        assert words in svg
    svg = plot.save_layers(changed(weights="trained"), tmp_path / "trained")[1].read_text()
    assert "random weights" not in svg
    assert "not finite" not in svg


def test_plot_of_exact_values_without_any_floor(tmp_path: Path):
    exact = a_value("x", 0, stats=stats(0.0), floor=None, local=0.0, local_floor=None, mark="ok", module="")
    assert plot.save_layers(changed(values=(exact,)), tmp_path / "exact")[0].stat().st_size > 0


def test_plot_of_nothing_is_not_judged(tmp_path: Path):
    with pytest.raises(NotJudged, match="no value was compared"):
        plot.save_layers(changed(values=()), tmp_path / "clip")
    assert not list(tmp_path.iterdir())


def test_plot_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        plot.save_layers(changed(), tmp_path / "file" / "clip")


# The text of a look.


def shown(*special: ValueFinding, found: Diagnosis | None = None, **changes: Any) -> str:
    """Return the text of a look at a wrong engine with these values."""
    report = diagnosed.look(found, *special, **changes)
    return layers.layers_text(dataclasses.replace(diagnosed.WRONG, layers=report).to_json())


def table(text: str) -> list[list[str]]:
    """Return the rows of the table of values, in words."""
    [block] = (block for block in text.split("\n\n") if block.startswith("values "))
    return [row.split() for row in block.splitlines()[1:]]


def test_the_table_has_the_values_to_blame_behind_the_three_before_them():
    rows = table(shown(diagnosed.SUSPECT, found=diagnosed.ONE))
    assert [row[0] for row in rows] == ["ok", "ok", "ok", "SUSPECT", "13"]
    assert rows[3] == [
        "SUSPECT", "2.1e-4", "4.2e-8", "2.1e-4", "99.9", "%", "gelu_1", "aten.gelu", "layers.1", "model.py:44",
    ]  # fmt: skip
    assert " ".join(rows[-1]) == "13 passed on, 2 ok: JSON, page"


def test_without_a_known_share_there_is_no_column_of_dashes():
    text = shown(diagnosed.SUSPECT)
    assert "explains" not in text
    unknown = diagnosed.diagnosis(diagnosed.culprit(explains=None))
    assert table(shown(diagnosed.SUSPECT, found=unknown))[3][4] == "-"


def test_nothing_to_blame_shows_the_three_worst():
    worse = (diagnosed.value(9, local=9e-8), diagnosed.value(5, local=8e-8))
    report = diagnosed.look(None, *worse, values=tuple(diagnosed.value(depth) for depth in range(4)) + worse)
    assert [row[-3] for row in map(str.split, layers.values_table(report.to_json())[1:3])] == ["aten.linear"] * 2
    assert len(layers.values_table(report.to_json())) == 5


def test_many_suspects_are_cut_to_the_worst_in_dataflow_order():
    many = [diagnosed.value(depth, "suspect", local=1e-3 / (1 + depth)) for depth in range(4, 20) if depth != 17]
    rows = table(shown(*many))
    assert [row[0] for row in rows].count("SUSPECT") == layers.ROWS
    assert "3 SUSPECT" in " ".join(rows[-1])


def test_a_value_that_is_not_finite_and_a_flip_say_what_they_are():
    flip = diagnosed.value(9, "flip", stats=None, local=None, local_floor=None, reason="3 of 8 decisions differ")
    text = shown(diagnosed.NAN_VALUE, flip)
    assert "34 of 9856 elements are not finite" in text
    assert "3 of 8 decisions differ" in text
    [row] = (row for row in table(text) if row[0] == "NON-FINITE")
    assert row[1:4] == ["-", "-", "NaN"]


def test_a_value_with_nan_is_never_shown_as_ok():
    nan = dataclasses.replace(diagnosed.NAN_VALUE, mark="ok")
    assert [row[0] for row in table(shown(nan))].count("NON-FINITE") == 1


def test_what_was_seen_is_one_line_and_random_weights_stand_out():
    text = shown()
    [line] = (row for row in text.splitlines() if row.startswith("20 tensors"))
    for fact in ("19 compared", "1 inner", "1 value fused away", "unfused", "RANDOM WEIGHTS", "inputs: random", "H200"):
        assert fact in line
    assert "weights: not recorded" in shown(weights="")
    assert "weights: trained" in shown(weights="trained")
    bare = diagnosed.value(2, local=None, local_floor=None)
    assert "1 without a local error" in shown(bare)


def test_all_unmapped_tensors_are_named():
    values = tuple(unseen(f"__mye{i}", -1, "unmapped", "it resembles nothing") for i in range(50))
    text = joined(shown(values=(*diagnosed.look(None).values, *values)))
    assert "UNMAPPED, 50: " + ", ".join(f"__mye{i}" for i in range(50)) in text


def test_what_is_not_finite_and_not_blamed_is_named():
    masked = diagnosed.value(1, stats=stats(1e-3, nonfinite_actual=3, nonfinite_expected=3))
    alone = diagnosed.value(2, "nonfinite", status="not_compared", stats=None, reason="2 of 9 are not finite")
    text = shown(masked, alone)
    assert f"not finite, as the reference: {masked.name} (3 of 9856)" in text
    assert f"not finite, and not compared: {alone.name}, 2 of 9 are not finite" in text


@pytest.mark.parametrize("values", [(), REPORT.values[5:]])
def test_nothing_compared_is_not_judged(values: tuple[ValueFinding, ...]):
    text = shown(values=values)
    assert "NOT JUDGED: no value was compared" in text
    assert "ok" not in text.split()


def test_notes_of_the_verdict_are_not_repeated():
    report = diagnosed.look(None, notes=("a note of both", "a note of the look"))
    text = layers.layers_text(dataclasses.replace(diagnosed.WRONG, layers=report, notes=("a note of both",)).to_json())
    assert "note: a note of the look" in text
    assert "a note of both" not in text


@pytest.mark.parametrize("name", [name for name, (verdict, _) in diagnosed.VARIANTS.items() if verdict.layers])
def test_a_look_fits_and_its_legend_has_three_lines(name: str):
    blocks = layers.layers_text(diagnosed.as_json(name)[0]).split("\n\n")
    assert max(len(row) for block in blocks for row in block.splitlines()) <= 120
    legend = [block for block in blocks if block.startswith("local: ")]
    assert [len(block.splitlines()) <= 3 for block in legend] == [True] * (not name.startswith("passes"))


def test_a_look_that_is_right_is_short():
    assert len(layers.layers_text(diagnosed.as_json("passes")[0]).splitlines()) <= 10


def test_text_is_plain_ascii():
    assert shown(diagnosed.value(6, "suspect", name="größe"), subject="modèle").isascii()


# The text of a bisection.


def bisected(name: str, **changes: Any) -> str:
    found = diagnosed.VARIANTS[name][1]
    assert found is not None
    return bisection.bisection_text(dataclasses.replace(found, **changes).to_json())


def test_a_bisection_begins_with_its_first_lines():
    rows = bisected("one culprit").splitlines()
    assert rows[0].startswith("bert/short [rtx fp16] WRONG: pooled 4.1e-5")
    assert rows[1].startswith("culprit: gelu_1")


def test_only_questions_answered_badly_are_shown_in_full():
    gates = (
        Question(question=IS_WRONG, answer="yes", detail="relative error 4.1e-5", good="no"),
        Question(question="is the reference repeatable?", answer="yes", detail="two runs gave the same bits"),
        Question(question="are all outputs finite?", answer="no", detail="pooled: 34 of 9856 are not"),
        Question(question="is the FP32 engine right?", answer="not asked", detail=""),
    )
    text = bisected("one culprit", gates=gates, builds=4, gate_builds=2, max_builds=30)
    assert "are all outputs finite? NO: pooled: 34 of 9856 are not" in text
    assert "is the FP32 engine right? not asked\n" in text
    assert "answered as they should be: 1 of 3 questions; engines built: 4 of 30 allowed, 2 for them" in text
    assert "same bits" not in text
    assert IS_WRONG not in text
    assert "no question was asked" in bisected("one culprit", gates=())


def test_trials_on_the_engine_come_first_and_the_rest_is_counted():
    rows = bisected("precision").splitlines()
    start = next(i for i, row in enumerate(rows) if row.startswith("tried on"))
    assert rows[start + 1].split()[:3] == ["engine", "pass", "1e-07"]
    assert rows[start + 2].split()[:3] == ["engine", "FAIL", "0.003"]
    trials = tuple(Trial(keep_fp32=(f"m{i}",), where="pytorch", passed=False, error=0.1) for i in range(40))
    assert "32 more trials, which the JSON has: 32 FAIL" in bisected("precision", trials=trials)
    refused = Trial(keep_fp32=tuple("abcde"), where="engine", passed=None, error=None, reason="the build was refused")
    [row] = (row for row in bisected("precision", trials=(refused,)).splitlines() if "refused" in row)
    assert row.split()[:4] == ["engine", "not", "judged", "-"]
    assert "a, b, c, d and 1 more" in row


def test_the_only_trial_is_not_repeated_where_it_is_the_plan():
    trial = Trial(keep_fp32=("value:exp_1", "value:log"), where="engine", passed=True, error=1e-7)
    assert "tried on" not in bisected("precision", trials=(trial,))


def test_every_command_is_printed_once_and_uncut():
    text = bisected("precision")
    assert text.count(f"next: {diagnosed.VERIFY_PLAN}\n") == 1
    assert text.splitlines()[-1] == f"next: {diagnosed.REPRODUCE}"
    assert text.count("next: ") == 2


def test_a_search_that_did_not_end_says_so():
    assert "a smaller plan may exist" in joined(bisected("precision", complete=False))
    assert "a plan that passes may exist; the same command resumes it" in joined(bisected("folded", complete=False))
    assert "may exist" not in bisected("precision")


def test_what_to_do_and_notes_are_printed():
    text = bisected("one culprit", notes=("one trial was taken from the engine cache",))
    assert 'do: keep "op:aten.gelu.default" in FP32' in text
    assert "note: one trial was taken from the engine cache" in text


@pytest.mark.parametrize("name", [name for name, (_, found) in diagnosed.VARIANTS.items() if found])
def test_a_bisection_fits(name: str):
    assert max(map(len, bisected(name).splitlines())) <= 120


def test_a_bisection_that_could_not_begin():
    nothing: dict[str, Any] = {"gates": (), "trials": (), "advice": (), "commands": (), "builds": 0, "plan": None}
    text = bisected("one culprit", kind="not_judged", finding="no GPU", result=None, diagnosis=None, **nothing)
    assert text.splitlines()[0] == "bert/short [rtx fp16] not judged: no GPU"
    assert "no question" in text
    assert "pass" not in text


def test_snippet_quotes_what_toml_would_misread():
    text = "\n".join(bisection.plan_snippet(['a"b\\c', "modüle.*"], "bf16"))
    assert tomllib.loads(text) == {"precision": "bf16", "keep_fp32": ['a"b\\c', "modüle.*"]}
    assert tomllib.loads("\n".join(bisection.plan_snippet([], "a-plan"))) == {"keep_fp32": []}
