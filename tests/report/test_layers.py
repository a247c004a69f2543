"""Layer reports and bisections as text and as a picture, from the JSON as it arrives from another process."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import recorded
from PIL import Image

from harness.errors import NotJudged, UsageError
from harness.records.bisection import Advice, Bisection, Kind, Price, Question, Trial
from harness.records.layers import LayerReport, ModuleFinding, OutputEffect, ValueFinding
from harness.records.stats import ErrorStats
from harness.report import facts
from harness.report.plots import layers as plot
from harness.report.text import bisection, layers
from harness.report.words import Words


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


def test_heading_shows_random_weights():
    heading = layers.layers_table(changed()).splitlines()[0]
    for fact in ("clip short", "rtx fp16", "unfused", "RANDOM WEIGHTS", "inputs: random", "NVIDIA H200"):
        assert fact in heading
    assert "weights: not recorded" in layers.layers_table(changed(weights=""))
    assert "weights: trained" in layers.layers_table(changed(weights="trained"))


def test_every_value_is_accounted_for_with_its_reason():
    shown = layers.layers_table(changed())
    counts = {"7 tensors", "4 compared", "1 inner", "1 unmapped", "1 not compared", "1 value fused away"}
    assert counts <= set(re.split("[:,;] ", shown.splitlines()[1]))
    assert all(f"1 {value.reason}" in shown for value in REPORT.values if value.status in ("inner", "not_delivered"))
    assert all(f"{value.name}: {value.reason}" in shown for value in REPORT.values if value.status == "unmapped")


def test_all_unmapped_tensors_are_named_however_few_rows():
    values = [unseen(f"__mye{i}", -1, "unmapped", "it resembles nothing", module="") for i in range(50)]
    shown = layers.layers_table(changed(values=(*REPORT.values, *values)), rows=1)
    assert all(f"__mye{i}: it resembles nothing" in shown for i in range(50))


def test_rare_reasons_are_counted():
    values = [unseen(f"x{i}", i, "not_compared", f"reason {i}") for i in range(9)]
    assert "4 for other reasons" in layers.layers_table(changed(values=tuple(values)))


def test_module_row_has_every_figure():
    row = next(row for row in layers.layers_table(changed()).splitlines() if row.startswith("SUSPECT"))
    assert row.split() == [
        "SUSPECT", "80", "0.04", "0.0005", "0.041", "0.0014", "0.94", NORM, "layer_norm_2",
    ]  # fmt: skip


def test_value_row_has_every_figure_and_a_shortened_kernel():
    shown = layers.layers_table(changed())
    row = next(row for row in shown.splitlines() if row.startswith("SUSPECT") and " 0.830 " in row)
    assert row.split()[:8] == ["SUSPECT", "3", "0.04", "0.0005", "0.041", "0.0014", "0.031", "0.830"]
    assert "__myl_CastMul..MulMul_myl0_17"[:13] in shown
    assert KERNEL not in row


def test_worst_come_first_and_the_others_are_counted():
    shown = layers.layers_table(changed(), rows=1)
    rest = [row for row in shown.splitlines() if row.startswith("3 more ")]
    assert [row.split(": ")[1] for row in rest] == ["1 passed on, 2 ok"] * 2
    assert [value["name"] for value in facts.worst_first(changed()["values"][:2])] == ["linear_4", "add"]


def test_nothing_is_cut_and_lines_fit():
    long = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out.0"
    values = (a_value("linear_7", 0, module=long, kernel=KERNEL, mark="suspect"),)
    shown = layers.layers_table(changed(values=values, modules=(a_module(long, "linear_7", "suspect"),)))
    assert max(map(len, shown.splitlines())) <= 120
    assert shown.count(long) == 2


def test_nan_is_the_worst_result():
    values = (*REPORT.values, OVERFLOW)
    modules = (*REPORT.modules, a_module("norm", "pow_3", "nonfinite", propagated=math.nan, local=math.nan))
    shown = layers.layers_table(changed(values=values, modules=modules, first_nonfinite="pow_3"))
    rows = shown.splitlines()
    assert rows[next(i for i, row in enumerate(rows) if row.startswith("modules")) + 1].startswith("NON-FINITE")
    first = rows[next(i for i, row in enumerate(rows) if row.startswith("values ")) + 1]
    assert first.startswith("NON-FINITE")
    assert "NaN" in first


def test_nan_that_only_passed_on_ranks_above_finite_suspects_and_below_its_cause():
    behind = a_value("mul_9", 9, stats=NAN, mark="passed_on", local=0.0)
    ranked = facts.worst_first(changed(values=(*REPORT.values, behind, OVERFLOW))["values"])
    assert [value["name"] for value in ranked[:3]] == ["pow_3", "mul_9", "layer_norm_2"]


def test_a_value_with_nan_is_never_shown_as_ok():
    shown = layers.layers_table(
        changed(values=(a_value("x", 0, stats=NAN, mark="ok"),), modules=(a_module("m", "x", "ok"),))
    )
    assert not any(row.startswith("ok") for row in shown.splitlines())
    assert "1 of 1 compared" in shown


def test_an_overflow_has_a_number():
    peak = a_value("mul_2", 1, largest=1.27e4)
    shown = joined(layers.layers_table(changed(values=(peak, OVERFLOW), first_nonfinite="pow_3")))
    (line,) = (row for row in shown.split("\n\n") if "first non-finite value: pow_3" in row)
    for fact in (OVERFLOW.op, OVERFLOW.module, OVERFLOW.reason, "30 NaN", "4 infinite", "64800", "12700 (mul_2)"):
        assert fact in line


def test_non_finite_without_a_known_first_says_so():
    shown = layers.layers_table(changed(values=(a_value("x", 0, stats=NAN, mark="passed_on", reason="as its inputs"),)))
    assert "not known to be the first: x, as its inputs" in shown


def test_non_finite_inner_statistic_is_told():
    inner = unseen("__mye9", -1, "inner", "its own; 3 of 4 elements are not finite", mark="nonfinite")
    shown = layers.layers_table(changed(values=(*REPORT.values, inner)))
    assert f"{inner.name}, {inner.reason}" in joined(shown)


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        ((True, 0.0, 3e-3), "observing changed nothing in y (bit for bit); the engine's error is 0.003"),
        ((False, 3.6e-3, 3.2e-3), "observing changed y by 0.0036; the engine's error is 0.0032"),
        ((False, math.inf, math.inf),
         "y is finite only with, or only without, taps; the engine's error is not finite"),
    ],
)  # fmt: skip
def test_observer_effect_in_words(effect: tuple[bool, float, float], words: str):
    identical, difference, error = effect
    output = OutputEffect(name="y", identical=identical, difference=difference, error=error)
    assert words in joined(layers.layers_table(changed(observer=(output,))))


def test_observation_that_cannot_be_trusted_says_so_above_the_figures():
    shown = layers.layers_table(changed(trusted=False, notes=("use --layers outputs instead",)))
    assert shown.index("CANNOT BE TRUSTED") < shown.index("use --layers outputs") < shown.index("ratio")
    assert "CANNOT BE TRUSTED" not in layers.layers_table(changed())


def test_unmeasured_observer_effect_says_so():
    assert "observer effect: not measured" in layers.layers_table(changed(observer=()))


def test_output_that_is_nan_while_every_seen_value_is_finite():
    effect = OutputEffect(name="y", identical=True, difference=0.0, error=math.inf)
    assert "an output is not finite" in layers.layers_table(changed(observer=(effect,)))


def test_flipped_decision_is_told():
    flip = a_value("topk", 1, stats=None, mark="flip", reason="3 of 8 decisions differ from the reference's")
    (line,) = (row for row in layers.layers_table(changed(values=(flip,))).splitlines() if row.startswith("flipped"))
    assert "topk (aten.linear" in line


def test_missing_figures_are_counted():
    value = a_value("x", 0, local=None, local_floor=None, effect=None)
    shown = layers.layers_table(changed(values=(value, a_value("y", 1))))
    (line,) = (row for row in shown.splitlines() if row.startswith("no figure"))
    assert "local error 1, local floor 1, effect 1" in line


@pytest.mark.parametrize("values", [(), REPORT.values[5:]])
def test_nothing_compared_is_not_judged(values: tuple[ValueFinding, ...]):
    shown = layers.layers_table(changed(values=values, modules=()))
    assert "NOT JUDGED: no value was compared" in shown
    assert not any(row.split()[:1] == ["ok"] for row in shown.splitlines())
    assert "ratio:" not in shown


def test_text_is_plain_ascii():
    shown = layers.layers_table(changed(subject="modèle", values=(a_value("größe", 0, mark="suspect"),)))
    assert shown.isascii()


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


def test_questions_stand_in_order_with_their_answers():
    rows = bisection.bisection_text(found()).splitlines()
    assert rows[0].split(" | ")[:2] == ["clip short", "rtx fp16"]
    for number, asked in enumerate(BISECTION.gates):
        assert rows[2 + number].startswith(f" {number + 1} {asked.question} ")
    assert rows[4].split("?")[1].split() == ["NO", "1", "of", "1", "outputs", "is", "not", "finite"]
    assert rows[5].endswith("not asked")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_kind_in_words(kind: str):
    assert f"finding: {Words('en')(f'kind_{kind}')}\n" in bisection.bisection_text(found(kind=kind))


def test_plan_is_printed_as_its_file_has_it():
    shown = bisection.bisection_text(found())
    start, end = shown.index("  precision ="), shown.index("  ]\n") + 4
    assert tomllib.loads(shown[start:end]) == {"precision": "fp16", "keep_fp32": list(BISECTION.plan or ())}
    head = next(row for row in shown.splitlines() if row.startswith("smallest plan"))
    assert "2 patterns" in head
    assert "plans/clip.toml" in head
    assert re.findall(r"\d+", next(row for row in shown.splitlines() if row.startswith("engines built"))) == [
        "4",
        "30",
        "2",
    ]


def test_plan_found_from_another_plan_says_that_it_adds_to_it():
    shown = bisection.bisection_text(found(precision="mixed"))
    assert "beside what mixed keeps" in shown
    assert "precision =" not in shown
    assert "beside what" not in bisection.bisection_text(found())


def test_search_that_did_not_end_says_so():
    shown = bisection.bisection_text(found(complete=False))
    assert "smallest plan" not in shown.replace("a smaller plan may exist", "")
    assert "the same command resumes it" in shown
    assert "plan: none passed" in bisection.bisection_text(found(plan=None, complete=False))
    assert "plan: none passed" not in bisection.bisection_text(found(plan=None, kind="none"))


def test_snippet_quotes_what_toml_would_misread():
    text = "\n".join(bisection.plan_snippet(['a"b\\c', "modüle.*"], "bf16"))
    assert tomllib.loads(text) == {"precision": "bf16", "keep_fp32": ['a"b\\c', "modüle.*"]}
    assert tomllib.loads("\n".join(bisection.plan_snippet([], "a-plan"))) == {"keep_fp32": []}


def test_price_has_ratios_to_both_extremes():
    rows = bisection.bisection_text(found()).splitlines()
    start = next(i for i, row in enumerate(rows) if row.startswith("run time on NVIDIA H200"))
    assert rows[start + 1].split() == ["plan", "1.02", "1.02", "0.5"]
    assert rows[start + 3].split() == ["FP32", "2.04", "2.04", "1"]
    assert "run time on" not in bisection.bisection_text(found(price=None))


def test_trials_on_the_engine_come_first_and_the_rest_is_counted():
    rows = bisection.bisection_text(found()).splitlines()
    start = next(i for i, row in enumerate(rows) if row.startswith("tried on"))
    assert rows[start + 1].split()[:3] == ["engine", "pass", "0.003"]
    assert rows[start + 2].split()[:3] == ["engine", "not", "judged"]
    assert "a, b, c, d and 1 more" in rows[start + 2]
    assert "the build was refused" in rows[start + 2]
    many = tuple(Trial(keep_fp32=(f"m{i}",), where="pytorch", passed=False, error=0.1) for i in range(40))
    rest = next(row for row in bisection.bisection_text(found(trials=many)).splitlines() if row.startswith("28 more"))
    assert rest.endswith(": 28 FAIL")


def test_advice_is_indicator_meaning_action_and_commands_come_last_unwrapped():
    rows = bisection.bisection_text(found()).splitlines()
    assert rows[-1] == f"next: {BISECTION.commands[-1]}"
    first = BISECTION.advice[0]
    start = rows.index(f"indicator: {first.indicator}")
    assert [row.split(maxsplit=1)[1] for row in rows[start + 1 : start + 3]] == [first.meaning, first.action]
    assert rows[-3:-1] == ["indicator: The plan costs 2 % of the run time.", ""], "what is empty has no line"


def test_bisection_that_could_not_begin():
    shown = bisection.bisection_text(
        found(
            kind="not_judged",
            finding="no GPU",
            gates=(),
            region=(),
            plan=None,
            price=None,
            trials=(),
            advice=(),
            commands=(),
            builds=0,
        )
    )
    assert "no question" in shown
    assert "no GPU" in shown
    assert "pass" not in shown


def test_reproducer_and_notes_are_printed():
    shown = bisection.bisection_text(found(reproducer="reproducers/clip-rtx-fp16"))
    assert "reproducer: reproducers/clip-rtx-fp16" in shown
    assert f"note: {BISECTION.notes[0]}" in shown


def test_a_long_region_is_counted_not_listed():
    names = [f"value_{number}" for number in range(20)]
    shown = bisection.bisection_text(found(region=names))
    assert "value_15 and 4 more" in joined(shown)
    assert "value_16" not in shown


def test_every_nan_that_was_seen_and_every_decision_that_differs_is_printed():
    masked = a_value("mask", 1, stats=stats(1e-3, nonfinite_actual=3, nonfinite_expected=3))
    alone = a_value("alone", 2, status="not_compared", mark="nonfinite", stats=None, reason="2 of 9 are not finite")
    flipped = a_value("argmax", 3, mark="flip", stats=None, reason="1 of its 8 decisions differ")
    follows = a_value("gather", 4, mark="passed_on", stats=None, reason="4 of its 8 decisions differ")
    text = joined(layers.layers_table(changed(values=(*REPORT.values, masked, alone, flipped, follows))))
    assert "non-finite where the reference is too: mask (3 of" in text
    assert "non-finite, and not compared: alone, 2 of 9 are not finite" in text
    assert re.search(r"flipped decision: argmax .*1 of its 8 decisions differ", text)
    assert re.search(r"decision that follows: gather .*4 of its 8 decisions differ", text)
