"""The hackathon report: what it says, that a person's text survives everything, and what the check finds."""

# ruff: noqa: RUF001 - Chinese punctuation is full-width

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded
import report_fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import figure
from readmes import edit, finish, quick

from harness.errors import UsageError
from harness.hackathon import check as hackathon_check
from harness.hackathon import figures as hackathon_figures
from harness.hackathon import human_blocks as blocks
from harness.hackathon import readme as hackathon
from harness.hackathon import template as hackathon_template
from harness.machine.identity import Machine
from harness.records import reader as records
from harness.records.contest import ContestPicture, ContestResult
from harness.records.documents import Records
from harness.records.latency import Comparison
from harness.report import markdown
from harness.report.words import LANGUAGES

Save = Callable[..., str]
GRAPH = "`rtx-fp16` (CUDA graph)"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return records.load([recorded.everything(tmp_path_factory.mktemp("records"))])


@pytest.fixture
def save(found: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Write the report into ``tmp_path`` and return its text; charts are pictures of one pixel."""
    monkeypatch.setattr(hackathon_figures, "save_bench", quick)

    def save(shown: Records = found, **options: Any) -> str:
        return hackathon.save_readme(shown, tmp_path, **options).read_text(encoding="utf-8")

    return save


@pytest.mark.parametrize(
    ("lang", "template", "headings"),
    [
        ("zh", "2023", ("## 总述", "## 主要开发工作", "### 开发工作的难点", "## 开发与优化过程",
                        "## 优化效果",
                        "### 精度", "### 性能", "## Bug报告（可选）",
                        "## 送分题答案（可选）", "## 经验与体会（可选）")),
        ("zh", "2022", ("## 总述", "## 原始模型", "### 模型简介", "### 模型优化的难点", "## 优化过程",
                        "## 精度与加速效果", "### 精度", "### 性能", "## Bug报告（可选）", "## 经验与体会（可选）")),
        ("en", "2023", ("## Overview", "## Main work", "### Difficulties", "## Results", "### Accuracy")),
        ("en", "2022", ("## Overview", "## The original model", "### Introduction", "## Accuracy and speed-up")),
    ],
)  # fmt: skip
def test_the_contests_sections_in_their_order(lang: str, template: str, headings: tuple[str, ...], save: Save):
    lines = save(lang=lang, template=template).split("\n")
    places = [lines.index(heading) for heading in headings]
    assert places == sorted(places)
    assert any(f"trt-samples-for-hackathon-cn/tree/master/Hackathon{template})" in line for line in lines)


def test_the_generated_parts_hold_the_records(save: Save):
    text = save()
    errors = "0.008 / 0.002 / 0.001"
    assert recorded.cells(text, "`one`", "`y`") == ["pass", errors, errors, "0.001", "0.0009", "1.11", "0.9990000"]
    assert recorded.cells(text, "batch=4", GRAPH) == [
        "2.1", "2.52", "8.5", "3.8 [3.72, 3.88]", "1.9 [1.86, 1.94]", "571", "4.05",
    ]  # fmt: skip
    assert "| `PyTorch" not in text  # it stands in the engine's row
    helpless = [line for line in text.split("\n") if line.startswith(("- `slower`", "- `wrong`", "- `fp16`"))]
    assert [re.findall(r"0\.833|PD 14", line) for line in helpless] == [["0.833"], ["PD 14"]]
    for fact in (
        "reports/net-reproducer/reproduce.py",
        "139.8 GiB",
        "`c0ffee`",
        "\nparity verify net --json all.json\n",
    ):
        assert fact in text
    assert "parity:missing" not in text


def test_a_nan_is_the_worst_result_there_is(tmp_path: Path, save: Save):
    bad = recorded.output(
        verdict="fail", reason="7 of 1000 elements are NaN", stats=recorded.stats(1e-9, mismatched_nonfinite=7)
    )
    path = recorded.document(tmp_path / "r", results=[recorded.result("fail", outputs=(bad,)), recorded.result()])
    text = save(records.load([path]))
    assert recorded.cells(text, "`net`", "`rtx-fp16`")[1:5] == ["1 **FAIL**, 1 pass", "NaN/Inf", "-", "-"]
    assert recorded.cells(text, "`one`", "`y`")[-1] == "**7**"
    assert bad.reason in text


def test_nothing_is_claimed_that_was_not_recorded(tmp_path: Path, save: Save):
    refused = recorded.result("not_judged", reason="no GPU", outputs=(), provenance=None)
    path = recorded.document(
        tmp_path / "r", results=[refused], environment={}, command="", complete=False, error="interrupted"
    )
    text = save(records.load([path]))
    for name in ("results", "bench", "environment", "commit", "commands"):
        assert f"<!-- parity:missing {name} -->" in text
    assert LANGUAGES["en"]["readme_numbers"] not in text
    assert re.search(r"`net`.*rtx-fp16.*no GPU", text)
    assert re.search(r"all\.json.*interrupted", text)


def test_random_and_cpu_are_said_where_the_numbers_are(tmp_path: Path, save: Save):
    on_cpu = replace(recorded.result().provenance, device="CPU", weights="trained", inputs="real")
    path = recorded.document(
        tmp_path / "r", results=[recorded.result(provenance=on_cpu), recorded.result(subject="other")]
    )
    text = save(records.load([path]))
    assert recorded.cells(text, "`net`", "`rtx-fp16`")[0] == "trained, real, CPU"
    assert recorded.cells(text, "`other`", "`rtx-fp16`")[0] == "random, random, NVIDIA H200"
    for key, subject in (("readme_on_cpu", "`net`"), ("readme_random_weights", "`other`")):
        assert f"- {LANGUAGES['en'][key].format(subjects=subject)}\n" in text


def test_an_invalid_session_shows_no_figure(tmp_path: Path, save: Save):
    runs = tuple(replace(run, invalid=("another process used the GPU",)) for run in recorded.session().runs)
    bad = replace(recorded.measured(), session=recorded.session(runs=runs))
    text = save(records.load([recorded.document(tmp_path / "r", bench=[bad])]))
    assert recorded.cells(text, GRAPH) == []
    assert "another process used the GPU" in text


def test_the_newest_of_several_sessions_is_shown_and_said(tmp_path: Path, save: Save):
    bench = [recorded.measured(3.0, recorded_at="2026-02-01"), recorded.measured(9.0, recorded_at="2026-01-01")]
    text = save(records.load([recorded.document(tmp_path / "r", bench=bench)]))
    assert recorded.cells(text, GRAPH)[0] == "3"
    assert "recorded 2 times" in text


def test_a_speed_up_is_shown_though_a_later_session_had_none_and_that_is_said(tmp_path: Path, save: Save):
    bench = [
        recorded.measured(3.0, recorded_at="2026-01-01"),
        recorded.measured(9.0, speed_up=None, recorded_at="2026-02-01"),
    ]
    text = save(records.load([recorded.document(tmp_path / "r", bench=bench)]))
    assert recorded.cells(text, GRAPH)[0] == "3"
    assert re.search(r"recorded 2 times.* 9 ms", text)


def test_onnx_runtime_is_a_baseline_with_its_own_speed_up(tmp_path: Path, save: Save):
    bench = [recorded.measured(2.0), recorded.measured(5.0, backend="ort-cuda", precision="fp32", speed_up=1.5)]
    text = save(records.load([recorded.document(tmp_path / "r", bench=bench)]))
    heads = recorded.cells(text, "Engine", "Latency ms")
    at = heads.index(LANGUAGES["en"]["speed_up_against"].format(name="`ort-cuda-fp32`"))
    assert recorded.cells(text, GRAPH)[1:][at] == "2.5"
    assert recorded.cells(text, "`ort-cuda-fp32` (CUDA graph)")[1:][at] == "-"
    assert LANGUAGES["en"]["readme_ort_note"] in text


def test_an_output_that_was_not_compared_has_its_reason_and_no_row(tmp_path: Path, save: Save):
    unlike = recorded.output("shape", verdict="fail", stats=None, reason="the shapes differ")
    one = recorded.result("fail", outputs=(unlike, recorded.output("y")))
    text = save(records.load([recorded.document(tmp_path / "r", results=[one])]))
    assert "| `shape` |" not in text
    assert "- `one/shape`: the shapes differ" in text


def test_a_large_relative_error_is_explained_only_where_the_figures_prove_it(tmp_path: Path, save: Save):
    def explained(relative: float, absolute: float) -> bool:
        known = recorded.stats(1e-3)
        far = replace(known, relative={**known.relative, "max": relative}, absolute={**known.absolute, "max": absolute})
        one = recorded.result(outputs=(recorded.output(stats=far),))
        text = save(records.load([recorded.document(tmp_path / "r", results=[one])]))
        return "it says nothing of the whole" in text

    assert explained(270.0, 0.5)  # |e| is at most 0.0019 there, of a root mean square of 1
    assert not explained(270.0, 27.0)  # |e| may be 0.1: a real error
    assert not explained(0.05, 1e-6)


def test_sessions_of_two_machines_are_each_the_only_one(tmp_path: Path, save: Save):
    other = Machine(key="machine5678", class_key="class", facts={})
    bench = [recorded.measured(), recorded.measured(machine=other, device="NVIDIA A100")]
    assert "recorded 2 times" not in save(records.load([recorded.document(tmp_path / "r", bench=bench)]))


def test_key_numbers_keep_machines_and_cases_apart(tmp_path: Path, save: Save):
    bench = [recorded.measured(9.0, case="long", device="NVIDIA A100"), recorded.measured(2.0)]
    refused = recorded.result("not_judged", case="two", reason="no memory", outputs=(), provenance=None)
    path = recorded.document(tmp_path / "r", results=[recorded.result(), refused], bench=bench)
    text = save(records.load([path]))
    assert recorded.cells(text, "`net`", "`rtx-fp16`", "random, random, NVIDIA H200") == [
        "1 not judged, 1 pass", "0.001", "1.11", "0.9990000", "2 (one)", "4 [3.92, 4.08]",
    ]  # fmt: skip
    assert recorded.cells(text, "`net`", "`rtx-fp16`", "random, random, NVIDIA A100") == [
        "1 not judged", "-", "-", "-", "9 (long)", "4 [3.92, 4.08]",
    ]  # fmt: skip


def test_an_infinite_error_is_the_worst_of_a_result(tmp_path: Path, save: Save):
    zero = recorded.output("a", "fail", stats=replace(recorded.stats(), relative_l2=math.inf))
    path = recorded.document(tmp_path / "r", results=[recorded.result("fail", outputs=(zero, recorded.output("b")))])
    text = save(records.load([path]))
    assert recorded.cells(text, "`net`", "`rtx-fp16`")[1:5] == ["1 **FAIL**", "inf", "-", "-"]
    assert recorded.cells(text, "`one`", "`a`")[3:5] == ["inf", "0.0009"]


def test_a_module_with_nan_is_not_ok(tmp_path: Path, save: Save):
    looked = report_fixtures.layer_report(60, first_bad=40)
    worst = next(value.name for value in looked.values if value.mark == "nonfinite")
    modules = tuple(replace(module, mark="ok", worst=worst) for module in looked.modules)
    result = recorded.result(layers=replace(looked, modules=modules))
    text = save(records.load([recorded.document(tmp_path / "r", results=[result])]))
    rows = [line for line in text.split("\n") if line.startswith("| `text_model.")]
    assert rows
    assert all("| NON-FINITE |" in line for line in rows)


def test_why_a_contest_picture_failed_is_said(tmp_path: Path, save: Save):
    pictures = tuple(
        ContestPicture(name=name, latency_ms=9.0, pd=None, file="", reason=reason)
        for name, reason in (("bird_1", ""), ("bird_2", "PD 13 is above 12"))
    )
    judged = ContestResult(folder="entry", verdict="fail", reason="see", pictures=pictures, parameters={"seed": 1})
    text = save(records.load([recorded.document(tmp_path / "r", score=judged.to_json())]))
    assert re.search("bird_2.*PD 13 is above 12", text)
    assert "bird_1" not in text


def test_no_problem_is_claimed_only_where_all_was_judged_and_passed(tmp_path: Path, save: Save):
    def text(**parts: Any) -> str:
        return save(records.load([recorded.document(tmp_path / "r", **parts)]))

    claim = LANGUAGES["en"]["readme_no_findings"]
    assert claim in text(results=[recorded.result()])
    assert LANGUAGES["en"]["readme_nothing_judged"] in text(bench=[recorded.measured()])
    refused = recorded.result("not_judged", reason="no parser for NonZero", outputs=(), provenance=None)
    shown = text(results=[recorded.result(case="two"), refused])
    assert re.search("`one`.*`rtx-fp16`.*not judged.*no parser for NonZero", shown)
    assert claim not in shown
    missing = {"subject": "net", "case": "one", "backend": "torch", "precision": "fp16", "runner": "compile"}
    shown = text(results=[recorded.result()], not_measured=[{**missing, "reason": "it crashed", "failed": True}])
    assert re.search(r"`one`.*`compile fp16`.*\*\*FAIL\*\*.*it crashed", shown)
    assert shown.count("it crashed") == 2  # among the findings, and where latencies are
    assert claim not in shown
    assert claim not in text(results=[recorded.result()], studied=recorded.study())
    assert claim not in text(results=[recorded.result()], complete=False, error="interrupted")
    assert claim in text(results=[recorded.result()], bench=[recorded.measured()])
    slower = Comparison(verdict="regressed", ratio=1.2, low=1.1, high=1.3, rule="20 % slower")
    shown = text(results=[recorded.result()], bench=[replace(recorded.measured(), comparison=slower)])
    assert re.search("`rtx-fp16`.*REGRESSED.*20 % slower", shown)
    assert claim not in shown
    (tmp_path / "r" / "other.json").write_text('{"schema": "parity/1", "results": [1]}')
    assert claim not in save(records.load([recorded.document(tmp_path / "r", results=[recorded.result()]).parent]))


def test_a_bisection_that_was_not_judged_shows_no_engine_to_be_right(tmp_path: Path, save: Save):
    def text(kind: str) -> str:
        return save(records.load([recorded.document(tmp_path / "r", bisect=recorded.bisection(kind=kind))]))

    right = LANGUAGES["en"]["readme_no_bugs"]
    assert right in text("none")
    cut = recorded.document(tmp_path / "r", bisect=recorded.bisection(kind="none"), complete=False)
    assert right not in save(records.load([cut]))
    shown = text("not_judged")
    assert right not in shown
    assert LANGUAGES["en"]["readme_bisections_not_judged"].format(count=1, all=1) in shown


def test_every_swept_size_has_a_chart_and_the_same_records_the_same_bytes(tmp_path: Path):
    bench = [one for size in (64, 128) for one in recorded.sweep("batch", (1, 2), sizes={"length": size})]
    shown = records.load([recorded.document(tmp_path / "r", bench=bench)])
    first = {}
    for _ in range(2):
        hackathon.save_readme(shown, tmp_path / "out")
        files = {path.name: path.read_bytes() for path in (tmp_path / "out" / "figures").iterdir()}
        first = first or files
        assert files == first
    assert sorted(name.split("-")[-2] for name in first if name.endswith(".png")) == ["batch", "length"]


def test_the_check_draws_nothing(found: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hackathon.save_readme(found, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(figure.Figure, "savefig", None)
    assert hackathon.is_current(found, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_session_that_does_not_count_is_in_no_chart(tmp_path: Path):
    runs = tuple(replace(run, invalid=("another process used the GPU",)) for run in recorded.session().runs)
    bench = [recorded.measured(runs=runs, sizes={"batch": size}) for size in (1, 2)]
    hackathon.save_readme(records.load([recorded.document(tmp_path / "r", bench=bench)]), tmp_path / "out")
    assert "nothing has figures that count" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "figures").exists()


def test_a_picture_of_a_study_that_is_not_there_is_missing_not_linked(tmp_path: Path, save: Save):
    shown = records.load([recorded.document(tmp_path / "r", studied=recorded.study())])
    text = save(shown)
    assert "<!-- parity:missing figure -->" in text
    assert "![" not in text


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("template", hackathon_template.TEMPLATES)
def test_one_model_has_at_most_150_lines_to_read(lang: str, template: str, tmp_path: Path, save: Save):
    """All of verify, bench over sizes, layers, bisect and a study; neither empty lines nor marks are read."""
    recorded.everything(tmp_path / "r")
    layers = replace(report_fixtures.layer_report(60), subject="net", case="one")
    recorded.document(tmp_path / "r", "layers.json", results=[recorded.result(layers=layers)])
    text = save(records.load([tmp_path / "r"]), lang=lang, template=template)
    lines = [line for line in text[: text.index("<!-- parity:lines")].split("\n") if line and line[:4] != "<!--"]
    assert len(lines) <= 150


# What a person wrote.


def test_generating_again_gives_the_same_bytes(tmp_path: Path, save: Save):
    first = save(lang="zh", template="2022")
    assert save() == first
    assert hackathon.is_current(records.load([recorded.everything(tmp_path / "r")]), tmp_path)


def test_text_in_blocks_survives_language_template_and_records(tmp_path: Path, save: Save):
    save(lang="zh", template="2023")
    edit(tmp_path / "README.md", topic="3+4", process="逐步。\n\n```\n  code  \n```", answers="42")
    other = records.load([recorded.document(tmp_path / "r", results=[recorded.result(subject="new")])])
    for options in ({"lang": "en"}, {"template": "2022"}, {"lang": "zh", "template": "2023"}):
        text = save(other, **options)
        for kept in ("3+4", "逐步。\n\n```\n  code  \n```", "42"):
            assert f"-->\n{kept}\n<!-- /parity:human -->" in text
    assert not any(words["readme_kept"] in text for words in LANGUAGES.values())  # all is back in its section


def test_an_emptied_block_stays_empty(tmp_path: Path, save: Save):
    save()
    edit(tmp_path / "README.md", nsight="", experience="")
    for options in ({"lang": "zh"}, {"template": "2022"}, {}):
        text = save(**options)
        for name in ("nsight", "experience"):
            assert f"<!-- parity:human {name} -->\n<!-- /parity:human -->" in text


def test_a_hint_of_an_earlier_version_is_still_a_hint(tmp_path: Path, save: Save):
    text = save()
    hint = next(line for line in text.split("\n") if line.startswith("*To fill in: the number of the topic"))
    words, _, mark = hint.partition(" <!--")
    (tmp_path / "README.md").write_text(text.replace(hint, f"<!--{mark}\n{words}"), encoding="utf-8")
    assert save() == text


def test_hints_have_the_points_of_their_year(save: Save):
    for template, points in (("2022", ("20 points", "5 points for each")), ("2023", ("10 points", "2+4, 3+4: 100"))):
        text = save(template=template)
        assert [word for word in points if word not in text] == []
        assert f"label hackathon{template}" in text


def test_a_hint_that_nobody_touched_follows_the_language(tmp_path: Path, save: Save):
    assert "*待填写" in save(lang="zh")
    text = save(lang="en")
    assert "待填写" not in text
    assert "*To fill in" in text
    edit(tmp_path / "README.md", topic="<!-- parity:todo 00000000 -->\nmine")
    assert "<!-- parity:todo 00000000 -->\nmine" in save(lang="zh")


def test_text_outside_the_blocks_is_moved_into_one_and_stays(tmp_path: Path, save: Save):
    text = save()
    path = tmp_path / "README.md"
    mine = "My own paragraph,\nof two lines.\n\n```\nmy code\n```"
    edited = text.replace("## Results", f"{mine}\n\n## Results").replace("1.11 | 0.9990000 |", "1.11 | 0.9990000 | hm")
    path.write_text(edited, encoding="utf-8")
    again = save(lang="zh")
    kept = again[again.index("## 保留的文字") :]
    assert mine in kept
    assert "1.11 | 0.9990000 | hm" in kept
    assert "1.11 | 0.9990000 | hm" not in again[: again.index("## 保留的文字")]
    assert save() == again
    assert LANGUAGES["en"]["readme_kept"] in save(lang="en")


def test_a_block_moved_or_made_by_hand_is_kept(tmp_path: Path, save: Save):
    text = save()
    own = "<!-- parity:human own-notes -->\nnotes\n<!-- /parity:human -->"
    (tmp_path / "README.md").write_text(text.replace("## Overview", f"{own}\n\n## Overview"), encoding="utf-8")
    again = save()
    assert again.index(LANGUAGES["en"]["readme_kept"]) < again.index(own)
    assert save() == again


def test_two_blocks_of_one_name_are_put_together(tmp_path: Path, save: Save):
    text = save()
    block = "<!-- parity:human topic -->\n{}\n<!-- /parity:human -->"
    (tmp_path / "README.md").write_text(f"{block.format('one')}\n{text}\n{block.format('two')}\n", encoding="utf-8")
    assert block.format("one\n\ntwo") in save()


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path, save: Save):
    first = save()
    (tmp_path / "README.md").write_bytes(b"\xef\xbb\xbf" + first.replace("\n", "\r\n").encode())
    assert save() == first


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: "# My own README\n", "it was not written by `parity report`"),
        (lambda text: text.replace("<!-- /parity:human -->", "", 1), "inside a block"),
        (lambda text: text.replace("<!-- parity:human topic -->", "", 1), "outside a block"),
        (lambda text: text[: text.index("<!-- parity:lines")], "0 lists of its generated lines"),
        (lambda text: text.replace("<!-- parity:lines", "<!-- parity:lines\nmine"), "was edited"),
        (lambda text: text + "\n<!-- parity:human x -->\n", "has no end"),
    ],
)
def test_a_readme_whose_text_cannot_be_told_apart_is_left_as_it_is(
    damage: Callable[[str], str], why: str, tmp_path: Path, save: Save
):
    damaged = damage(save())
    (tmp_path / "README.md").write_text(damaged, encoding="utf-8")
    with pytest.raises(UsageError, match=why.replace("`", ".")):
        save()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == damaged
    assert why in hackathon_check.check_readme(tmp_path)[0]


def test_a_readme_of_another_encoding_is_left_as_it_is(tmp_path: Path, save: Save):
    (tmp_path / "README.md").write_bytes("总述".encode("gbk"))
    with pytest.raises(UsageError, match="is not UTF-8"):
        save()


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20).filter(
    lambda line: "parity:" not in line
)


@settings(max_examples=60, deadline=None)
@given(
    insertions=st.lists(st.tuples(st.integers(0, 30), LINE), max_size=6),
    inside=st.lists(LINE, max_size=4),
    changed=st.lists(LINE, max_size=3),
)
def test_no_line_a_person_wrote_is_ever_lost(insertions: list[tuple[int, str]], inside: list[str], changed: list[str]):
    """Lines put anywhere and text in a block are all there after the generated part has changed."""
    human = blocks.Human(name="topic", hint="what belongs here")
    parts = ["# A", "", "same", "```", "same", "```", human, "| a |", "", "| b |"]
    options, heading = {"lang": "en"}, ["## Kept"]
    lines = blocks.compose(parts, options=options, kept_heading=heading).split("\n")
    at = lines.index("<!-- parity:human topic -->")
    lines[at + 1 : at + 2] = inside
    opening, end = lines.index("<!-- parity:human topic -->"), lines.index("<!-- parity:lines")
    for place, line in insertions:
        where = place % end
        where = where if where <= opening or where > lines.index("<!-- /parity:human -->") else 1
        lines.insert(where, line)
        opening, end = lines.index("<!-- parity:human topic -->"), lines.index("<!-- parity:lines")
    old = blocks.parse("\n".join(lines), where="x")
    text = blocks.compose([*parts, *changed], options=options, kept_heading=heading, old=old)
    body = text[: text.index("<!-- parity:lines")].split("\n")
    assert "\n".join(["<!-- parity:human topic -->", *inside, "<!-- /parity:human -->"]) in text or not "".join(inside)
    for line in {line for _, line in insertions if line.strip()}:
        written = [one for _, one in insertions].count(line)
        assert body.count(line) >= written
    assert (
        blocks.compose([*parts, *changed], options=options, kept_heading=heading, old=blocks.parse(text, where="x"))
        == text
    )


# Hostile names.

HOSTILE = (
    "<script>alert(1)</script>", "x|y", "![i](http://evil.example/i.png)", "a`b", "www.evil.example", "*bold*",
    "<!-- /parity:human -->", "new\nline\n<!-- parity:human topic -->", "\u202egnp.exe", "../../etc/passwd", "$x$",
    "@all", "https://evil.example/x", "\\", "# heading",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_and_does_nothing(name: str, tmp_path: Path, save: Save):
    markdown_it = pytest.importorskip("markdown_it", reason="needs markdown-it-py")
    one = recorded.result(
        "fail", subject=name, case=name, reason=name, outputs=(recorded.output(name, "fail", reason=name),)
    )
    bench = [
        replace(item, kernels=(replace(item.kernels[0], name=name, module=name),))
        for item in recorded.sweep(subject=name)[::2]
    ]
    studied = recorded.study(name=name, variants=(recorded.variant(name, 3.0, settings={name: name}),), charts={})
    found = recorded.bisection(subject=name, finding=name, region=(name,), notes=(name,), plan=(name,))
    path = recorded.document(
        tmp_path / "r", results=[one], bench=bench, bisect=found, studied=studied, command=f"parity verify {name}"
    )
    shown = records.load([path])
    text = save(shown, lang="zh")
    assert save(shown) == text  # the marks were not disturbed
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)
    for forbidden in (
        "<script",
        'evil.example/i.png"',
        'href="http://evil',
        'href="https://evil',
        "<em>bold",
        "<strong>bold",
    ):
        assert forbidden not in html
    assert "\u202e" not in text
    assert all(path.parent == tmp_path / "figures" for path in (tmp_path / "figures").iterdir())
    assert not [finding for finding in hackathon_check.check_readme(tmp_path) if "leads to no file" in finding]


def test_markdown_escapes_what_github_would_act_on():
    assert markdown.escape("a_b <b> [x](y) https://z www.z $1$ @me |") == (
        r"a\_b &lt;b&gt; \[x\](y) https&#58;//z www&#46;z \$1\$ \@me &#124;"
    )
    assert [markdown.escape(text) for text in ("- a", "1. a", "# a", "-1", "580.1")] == [
        r"\- a", r"1\. a", r"\# a", "-1", "580.1",
    ]  # fmt: skip
    assert markdown.code("a|b") == "a&#124;b"
    assert markdown.fence(["a ``` b"])[0] == "````"


# The check.


def test_a_finished_report_has_no_finding(found: Records, tmp_path: Path, save: Save):
    for options in ({"lang": "zh"}, {"lang": "en", "template": "2022"}):
        save(**options)
        finish(tmp_path / "README.md")
        assert hackathon_check.check_readme(tmp_path, records=found) == []


def test_a_new_report_has_a_finding_per_placeholder(tmp_path: Path, save: Save):
    save()
    findings = hackathon_check.check_readme(tmp_path)
    assert len(findings) == len(hints())
    assert all("still holds its placeholder" in finding for finding in findings)


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("topic", "five", "names no topic"),
        ("topic", "12", "names no topic"),
        ("topic", "", "is empty"),
        ("title", "no title", "begins with '# '"),
        ("model", "a model", "has no link"),
        ("docker", "run it", "has no code block"),
        ("process", "<!-- parity:todo 00000000 -->\ntext", "the mark of its placeholder"),
        ("process", "[notes](notes.md)", "the link 'notes.md' leads to no file"),
        ("process", "![timeline](figures/timeline.png)", "'figures/timeline.png' leads to no file"),
        ("process", '<img src="a.png">', "'a.png' leads to no file"),
        ("process", "[x](/root/x)", "is absolute"),
        ("process", f"[x]({'long' * 100})", "leads to no file"),
    ],
)
def test_the_check_finds(name: str, text: str, finding: str, tmp_path: Path, save: Save):
    save()
    finish(tmp_path / "README.md")
    edit(tmp_path / "README.md", **{name: text})
    findings = hackathon_check.check_readme(tmp_path)
    assert len(findings) == 1
    assert finding in findings[0]


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("## Results\n", "", "the section '## Results' is missing"),
        ("Absolute error median", "x", "does not show Absolute error, median"),
        ("GPU: ", "x: ", "does not show GPU"),
        ("Hackathon2023)", "x)", "the overview does not link to"),
        ("<!-- parity:human topic -->\n2+4\n<!-- /parity:human -->\n", "", "the block 'topic' is missing"),
        ("## Results", "My text.\n\n## Results", "text stands outside the marked blocks ('My text.')"),
    ],
)
def test_the_check_finds_what_was_taken_away(old: str, new: str, finding: str, tmp_path: Path, save: Save):
    path = tmp_path / "README.md"
    save()
    finish(path)
    text = path.read_text(encoding="utf-8")
    if "does not show Absolute" in finding:
        text = text.replace("Absolute error", "x").replace("Absolute", "x").replace(" median", " x")
    assert old in text or old.startswith("Absolute")
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(finding in found for found in hackathon_check.check_readme(tmp_path))


def test_the_check_finds_a_figure_that_is_gone_and_a_report_that_is_old(tmp_path: Path, save: Save):
    save()
    finish(tmp_path / "README.md")
    next((tmp_path / "figures").glob("latency-*.png")).unlink()
    other = records.load([recorded.document(tmp_path / "r", results=[recorded.result(subject="new")])])
    findings = hackathon_check.check_readme(tmp_path, records=other)
    assert "leads to no file" in findings[0]
    assert "is not what the records give now" in findings[1]


def test_the_check_finds_what_the_records_lack(tmp_path: Path, save: Save):
    save(records.load([recorded.document(tmp_path / "r", results=[recorded.result()], environment={})]))
    finish(tmp_path / "README.md")
    findings = hackathon_check.check_readme(tmp_path)
    assert [finding.split(":")[0] for finding in findings] == ["Missing"] * 2
    assert "parity bench" in findings[0]
    assert "environment" in findings[1]


def test_the_check_finds_tables_without_a_single_figure(tmp_path: Path, save: Save):
    idle = replace(recorded.measured(), session=recorded.session(runs=()))
    unlike = recorded.output(verdict="fail", stats=None, reason="the shapes differ")
    path = recorded.document(tmp_path / "r", results=[recorded.result("fail", outputs=(unlike,))], bench=[idle])
    loaded = records.load([path])
    save(loaded)
    sentences = "\n".join(hackathon_check.check_readme(tmp_path, records=loaded))
    assert all(LANGUAGES["en"][key] in sentences for key in ("missing_figures", "missing_valid_bench"))


def test_an_empty_figure_is_missing(found: Records, tmp_path: Path):
    folder = tmp_path / "out"
    hackathon.save_readme(found, folder)
    chart = next(path for path in sorted((folder / "figures").iterdir()) if path.suffix == ".png")
    chart.write_bytes(b"")
    assert any(
        f"{chart.name}' is empty" in sentence for sentence in hackathon_check.check_readme(folder, records=found)
    )


def test_chinese_reports_say_in_chinese_where_weights_are_from(save: Save):
    text = save(lang="zh")
    assert recorded.cells(text, "`net`", "`rtx-fp16`")[0] == "随机、随机、NVIDIA H200"
    assert LANGUAGES["zh"]["kind_engine"] in text


def test_the_reference_of_a_study_is_no_verdict_and_why_a_variant_has_none_is_said(tmp_path: Path, save: Save):
    why = "PD was not judged: no weights: put inception.pth into the cache"
    variants = (
        recorded.variant("fp32", 100.0, "not_judged"), recorded.variant("fp16", 60.0, "not_judged", reason=why),
    )  # fmt: skip
    path = recorded.document(tmp_path / "r", studied=recorded.study(variants=variants))
    text = save(records.load([path]))
    assert recorded.cells(text, "`fp32`")[1] == "reference"
    assert f"Not yet judged:\n\n- `fp16` (1.67 times as fast): {why}\n" in text
    assert "did not help" not in text


def test_the_check_of_nothing_says_how_to_make_one(tmp_path: Path):
    assert hackathon_check.check_readme(tmp_path) == [
        f"there is no {tmp_path / 'README.md'}; run `parity report -o {tmp_path}`"
    ]


def hints() -> set[str]:
    return {key.removeprefix("hint_") for key in LANGUAGES["en"] if key.startswith("hint_")}


def test_every_part_of_a_template_is_a_hint_or_generated():
    sections = [section for sections in hackathon_template.TEMPLATES.values() for section in sections]
    parts = {part for section in sections for part in section.parts}
    humans = {part.name for part in parts if isinstance(part, hackathon_template.Place)}
    assert humans | {"title"} == hints()
    assert {part for part in parts if isinstance(part, str)} == set(hackathon.PARTS)
