"""The HTML page as text: what it says, what it never says, and that it is one file that reaches for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import diagnosed
import pytest
import recorded
import report_fixtures as made

from harness.errors import UsageError, visible
from harness.records import Goal, Kept
from harness.records import reader as records
from harness.records.accuracy import OutputResult
from harness.records.contest import ContestPicture, ContestResult
from harness.records.documents import Records
from harness.records.writer import document
from harness.report.facts import Point, pareto_front
from harness.report.html import page as html
from harness.report.html.parts import Branch
from harness.report.html.tree import module_tree
from harness.report.text import diagnosis_lines
from harness.report.verdicts import latency_verdict as judged
from harness.report.words import Words

WORDS = Words("en")
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, and whether each is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return records.load([made.write(tmp_path_factory.mktemp("run"))])


@pytest.fixture(scope="module")
def text(run: Records) -> str:
    return html.page(run)


def of(tmp_path: Path, **keys: Any) -> Records:
    data = document(keys.pop("results", []), command="parity verify", environment=made.ENVIRONMENT)
    made.save(tmp_path / "one.json", {**data, **keys})
    return records.load([tmp_path])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_is_well_formed_with_unique_ids_and_links_that_lead_somewhere(run: Records, lang: Any):
    page = Page(html.page(run, lang=lang))
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) > 40
    assert {link[1:] for link in links if link} <= set(ids)


def test_a_button_has_its_words_before_the_script_runs(text: str):
    assert re.search(r'class="more" hidden>Show all \d+</button>', text)
    assert not re.search(r"<button[^>]*>\s*</button>", text)


def test_reaches_for_nothing_and_allows_only_its_own_script_and_style(text: str):
    page = Page(text)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        source = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(source) == 1
        digest = base64.b64encode(hashlib.sha256(source[0].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or not attributes.get("src")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|https?://", text)


def test_is_a_function_of_the_records(run: Records, text: str):
    assert html.page(run) == text


def test_does_not_import_torch(run: Records):
    folder = run.documents[0].path.parent
    code = (
        "import sys; from pathlib import Path\n"
        "from harness.records import load; from harness.report.html.page import page\n"
        "page(load([Path(sys.argv[1])]))\n"
        "print([name for name in ('torch', 'onnx', 'tensorrt', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_save_writes_one_file_or_says_why_not(run: Records, text: str, tmp_path: Path):
    path = html.save_page(run, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(UsageError, match="cannot write"):
        html.save_page(run, path / "below-a-file.html")


# Verdicts


def test_counts_verdicts_and_names_what_did_not_pass_worst_first(text: str):
    page = Page(text).words()
    headline = WORDS("headline_fail", fail=5, count=13, not_judged=6, passed=2)
    assert headline + WORDS("headline_and_unheld", unheld=10) in page
    assert recorded.banner(text) == "bad"
    marks = re.findall(r'<tr data-mark="(\w+)"', table(text, "overview-open"))
    assert marks == sorted(marks)
    assert set(marks) == {"fail", "not_judged"}
    assert set(re.findall(r'<tr data-mark="(\w+)"', table(text, "overview-passed"))) == {"pass"}
    assert "the backend trt is unavailable: the package tensorrt is not installed" in page
    assert "64 images do not fit into the GPU" in page


def table(text: str, id: str) -> str:
    """Return a table of the page."""
    return text[text.index(f'<table id="{id}"') :].split("</table>")[0]


def test_the_cards_have_the_figures_that_are_asked_for_first(text: str, tmp_path: Path):
    cards = Page(text[text.index('<dl class="cards">') :].split("</dl>")[0]).words()
    assert "NaN/Inf unet rtx-fp16 batch2, sample random weights random inputs" in cards
    assert "1.46x [1.42, 1.5] clip rtx-fp32" in cards, "the FP16 engine is faster, and its outputs fail"
    assert WORDS("card_outputs_not_judged") in cards
    assert "1 of 5" in cards
    assert "TensorRT for RTX 1.6.1.120" in cards
    result, timed = made.results()[2].to_json(), made.bench()[0].to_json()
    wrong = html.page(of(tmp_path, results=[result], bench=[timed]))
    assert WORDS("card_outputs_fail") in wrong
    assert "13.7x" in wrong
    assert WORDS("card_limit", times="4.56") in wrong
    empty = Page(html.page(of(tmp_path))).words()
    assert WORDS("card_no_error") in empty
    assert WORDS("card_no_speed") in empty


def test_a_verdict_has_a_bar_of_its_error_over_its_limit(text: str):
    rows = re.findall(r"<tr data-mark.*?</tr>", table(text, "overview-open"))
    assert "NaN/Inf" in rows[0]
    assert 'd="M0 4h100.0"' in rows[1]
    assert ">4.56x" in re.sub(r"<svg.*?</svg> ", "", rows[1])
    assert '<path class="part" d="M0 4h1' in table(text, "overview-passed"), "0.4 of a limit that is the middle"


def test_tables_show_eight_columns_and_fold_what_has_no_fault(text: str):
    for head in re.findall(r"<thead>.*?</thead>", text):
        columns = re.findall(r'<th scope="col" class="([^"]*)"', head)
        assert sum("extra" not in column for column in columns) <= 8
    block = text[: text.index('<table id="s2-layers-1-values"')].rpartition('<div class="block')[2]
    assert block.startswith(" folds")
    assert 'class="unfold"' in block
    assert 'class="block folds"' not in text[text.index('id="s1-outputs"') : text.index('id="s2-outputs"')]


def test_the_tree_holds_every_module_and_opens_what_holds_the_worst_value():
    report = made.layer_report(48).to_json()
    worst = next(value for value in report["values"] if value["mark"] == "suspect")
    tree = module_tree(report, {worst["module"]: 3.0, "": 1.0}, "tree", "values", (), WORDS)
    assert tree is not None

    def walk(branches: tuple[Branch, ...]) -> Iterator[Branch]:
        for branch in branches:
            yield branch
            yield from walk(branch.below)

    found = {branch.module: branch for branch in walk(tree.branches)}
    compared = [value for value in report["values"] if value["status"] == "compared"]
    assert set(found) >= {value["module"] for value in compared}
    (root,) = tree.branches
    assert (root.name, root.count, root.open) == ("text_model.encoder.layers", len(compared), True)
    assert root.time.text == "75.0%", "time of no known module is in no branch"
    assert sum(branch.count for branch in root.below) == root.count
    assert all(branch.open == (branch.module in worst["module"]) for branch in root.below if branch.open)
    assert root.error.tone == "bad"
    assert module_tree({**report, "values": []}, {}, "tree", "values", (), WORDS) is None


def test_a_value_that_is_not_finite_fills_its_bar():
    report = made.layer_report(40, first_bad=20).to_json()
    tree = module_tree(report, {}, "tree", "values", (), WORDS)
    assert tree is not None
    assert (tree.branches[0].error.bar, tree.branches[0].error.text) == (100.0, WORDS("mark_nonfinite"))
    assert not tree.timed


def passing() -> dict[str, Any]:
    return made.results()[0].to_json()


def test_is_green_only_when_all_was_judged_and_passed(tmp_path: Path):
    assert recorded.banner(html.page(of(tmp_path, results=[passing()]))) == "good"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results": []}, WORDS("headline_nothing")),
        (
            {"results": [passing(), made.results()[4].to_json()]},
            WORDS("headline_not_judged", not_judged=1, count=2, passed=1),
        ),
        ({"results": [passing()], "complete": False}, "one.json was cut short"),
        ({"results": [passing()], "complete": False, "error": "the GPU fell off the bus"}, "the GPU fell off the bus"),
        (
            {"results": [passing()], "bisect": {**made.bisection().to_json(), "kind": "not_judged"}},
            WORDS("kind_not_judged"),
        ),
        ({"results": [passing()], "bench": [made.bench()[0].to_json()]}, WORDS("latency_no_baseline")),
    ],
)
def test_is_amber_when_something_is_missing(tmp_path: Path, changes: dict[str, Any], words: str):
    text = html.page(of(tmp_path, **changes))
    assert recorded.banner(text) == "warn"
    assert words in Page(text).words()


def test_is_amber_beside_a_file_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "torn.json").write_text('{"schema": "parity/1", "resul')
    text = html.page(of(tmp_path, results=[passing()]))
    assert recorded.banner(text) == "warn"
    assert "torn.json is not used" in Page(text).words()


def test_files_that_are_something_else_or_recorded_twice_are_named_and_not_amber(tmp_path: Path):
    made.save(tmp_path / "request.json", {"image": "bird.png"})
    made.save(tmp_path / "two.json", document([passing()], command="parity verify", environment=made.ENVIRONMENT))
    text = html.page(of(tmp_path, results=[passing()]))
    assert recorded.banner(text) == "good"
    files = text[text.index('<section id="reproduce"') :]
    assert re.search(r'<li class="muted">request.json is not used', files)
    assert re.search(r'<li class="muted">minilm/sentences .* was recorded 2 times', files)


def worst(tmp_path: Path, *outputs: OutputResult) -> str:
    """Return the figure that the overview shows for one result."""
    text = html.page(of(tmp_path, results=[recorded.result("fail", outputs=outputs).to_json()]))
    found: list[str] = re.findall(r'<td class="word">([^<]*)</td>', table(text, "overview-open"))
    return found[0]


def test_the_overview_shows_the_worst_error(tmp_path: Path):
    fine, zero = recorded.output("b"), recorded.stats(0.0)
    infinite = recorded.output("a", "fail", stats=recorded.stats(math.inf, mismatched_nonfinite=0, nan_actual=0))
    nan = recorded.output("a", "fail", stats=recorded.stats(math.nan))
    far = recorded.output("a", "fail", stats=recorded.stats(1e-4), floor=recorded.stats(1e-6))
    exact = recorded.output("a", stats=recorded.stats(2e-7), floor=zero)
    assert worst(tmp_path, fine) == "0.001, 1.11x"
    assert worst(tmp_path, infinite, fine) == "inf"
    assert worst(tmp_path, infinite, nan, fine) == "NaN/Inf"
    assert worst(tmp_path, fine, far) == "0.0001, 100x"
    assert worst(tmp_path, exact) == "2e-07"
    infinite_row = html.page(of(tmp_path, results=[recorded.result("fail", outputs=(infinite,)).to_json()]))
    assert '<td class="figure bad">inf</td>' in infinite_row


def test_only_a_repeated_regression_fails():
    once, again = (m.to_json() for m in made.bench()[-6:-4])
    assert (once["comparison"]["repeated"], judged(once)) == (False, "not_judged")
    assert (again["comparison"]["repeated"], judged(again)) == (True, "fail")


def test_nan_is_shown_as_nan(text: str):
    row = next(row for row in re.findall(r"<tr\b.*?</tr>", table(text, "s3-outputs-table")) if "sample" in row)
    assert '<td class="figure bad">NaN</td>' in row
    assert '<td class="figure extra bad">118272</td>' in row


def test_a_value_that_turns_nan_is_marked_and_drawn(tmp_path: Path):
    result = {**passing(), "layers": made.layer_report(60, first_bad=40).to_json()}
    text = html.page(of(tmp_path, results=[result]))
    assert WORDS("first_nonfinite") in text
    assert len(marks(chart(text, "Error along depth"), "nonfinite")) == 17
    assert text.count('data-mark="nonfinite"') >= 18
    assert '<td class="figure bad">NaN</td>' in text


def test_an_untrusted_observation_says_so(tmp_path: Path):
    result = {**passing(), "layers": {**made.layer_report(20).to_json(), "trusted": False}}
    assert WORDS("not_trusted") in html.page(of(tmp_path, results=[result]))


# Content


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_diagnosis_stands_at_the_top_of_its_subject(tmp_path: Path, lang: Any):
    verdict, found = diagnosed.VARIANTS["one culprit"]
    text = html.page(recorded.load(tmp_path, results=[verdict], bisect=found), lang=lang)
    assert text.index('id="s1-diagnosis"') < text.index('id="s1-outputs"') < text.index('id="s1-layers-1"')
    lines = diagnosis_lines(verdict.to_json(), found and found.to_json(), Words(lang))
    for line in lines:
        assert line.text in unescape(text.replace("\N{NON-BREAKING HYPHEN}", "-"))
    assert text.count(diagnosed.REPRODUCE) == 1
    assert diagnosed.BISECT not in text, "it was bisected already"
    assert len(re.findall(r">bert rtx-fp16 short</a>", table(text, "overview-open"))) == 1, "judged and bisected"


def test_a_bisection_alone_has_its_diagnosis_and_lists_every_culprit(tmp_path: Path):
    _, found = diagnosed.VARIANTS["many culprits"]
    text = html.page(recorded.load(tmp_path, bisect=found))
    assert text.count("<b>culprit:</b>") == len(diagnosed.CULPRITS)
    assert "more culprits" not in text


def test_a_fault_of_the_precision_shows_its_values_its_goal_and_what_more_of_them_cost(tmp_path: Path):
    result, found = diagnosed.VARIANTS["precision"]
    rows = (Kept(values=0, error=None), Kept(values=1, error=0.2), Kept(values=2, error=1e-3))
    goal = Goal(source="limit", limits={"pooled": 0.01}, reason="the limit that was asked for")
    shown = replace(found, by_values=rows, goal=goal)
    text = html.page(recorded.load(tmp_path, results=[result], bisect=shown))
    assert text.count("<b>culprit:</b>") == 2
    assert "overflows (1e+05 in FP32, beyond 65504)" in text
    assert "A plan may lose pooled 0.01: the limit that was asked for" in text
    assert WORDS("by_values_nonfinite") in text
    assert WORDS("by_values_title") not in html.page(recorded.load(tmp_path, results=[result], bisect=found))


def test_what_passes_has_no_diagnosis(tmp_path: Path):
    text = html.page(recorded.load(tmp_path, results=[diagnosed.VARIANTS["passes"][0]]))
    assert "s1-diagnosis" not in text


def test_random_weights_inputs_and_the_cpu_are_labelled_at_every_table_and_chart(text: str):
    clip = text[text.index('<section id="s2"') : text.index('<section id="s3"')]
    heads = re.findall(r"<caption>(.*?)</caption>", clip, re.DOTALL)
    heads += re.findall(r"</ul>\s<p>(.*?)</p>\s</figcaption>", clip, re.DOTALL)
    figures = [head for head in heads if not re.match(r"Questions|Plans", head)]
    assert len(figures) > 8
    assert all("random weights" in head and "random inputs" in head for head in figures)
    minilm = text[text.index('<section id="s1"') : text.index('<section id="s2"')]
    assert "on the CPU" in minilm
    assert "random weights" not in minilm


@pytest.mark.parametrize("words", [
    "last_hidden_state", "0.041", "13.7", "text_model.encoder.layers.2.mlp.fc2", "reproducers/clip-rtx-fp16",
    "plans/clip.toml", "keep_fp32 = [", "one module holds 94 % of the error", "is the engine repeatable?",
    "parity bench clip --sweep batch=1,2,4,8,16", made.COMMIT, "580.95.05", "NVIDIA H200, 139.8 GiB, 9.0",
    "Kernels of rtx-fp16 short batch=1: 40", "+6.0%", "limit 12", "room-5-difference.png", "which is not there",
    "put alexnet-owt-7be5be79.pth into TORCH_HOME", "the weights are random: PD says little",
])  # fmt: skip
def test_holds_what_was_recorded(text: str, words: str):
    assert words in Page(text).words()


def test_draws_every_chart(text: str):
    titles = re.findall(r"<svg viewBox[^>]*><title>([^<]*)", text)
    for words in ("Latency over batch", "Speed-up over batch", "History of", "perceptual", "steps"):
        assert any(words in title for title in titles), words
    assert "Error along depth: clip rtx-fp16" in titles


def bad(measured: dict[str, Any], *processes: int) -> dict[str, Any]:
    """Return a measurement whose processes, or some of them, ran beside a foreign one."""
    for number, run in enumerate(measured["session"]["runs"]):
        run["invalid"] = ["a foreign process"] if not processes or number in processes else []
    return measured


def chart(text: str, title: str) -> str:
    """Return the one chart with these words in its title, with its legend."""
    charts = re.findall(r'<figure class="chart".*?</figure>\s', text, re.DOTALL)
    found: list[str] = [one for one in charts if title in one]
    assert len(found) == 1, title
    return found[0]


def marks(drawn: str, name: str) -> list[tuple[float, float]]:
    """Return the places of the marks of one series of a chart."""
    found = re.search(r"<svg viewBox.*?</svg>", drawn, re.DOTALL)
    assert found
    uses = ElementTree.fromstring(found[0]).iterfind(f".//g[@class='{name}']//use")
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in uses]


def test_a_session_whose_figures_do_not_count_is_a_cross_in_its_history(tmp_path: Path):
    sessions = [made.session("series", ms, day=day) for day, ms in enumerate((0.50, 0.99, 0.51), start=1)]
    days = [replace(recorded.measured(), session=session).to_json() for session in sessions]
    drawn = chart(html.page(of(tmp_path, bench=[days[0], bad(days[1]), days[2]])), "History of")
    assert (len(marks(drawn, "session")), len(marks(drawn, "invalid"))) == (2, 1)
    assert WORDS("legend_invalid") in drawn
    assert "0.9" not in Page(drawn.split("<figcaption>")[0]).words()
    clean = chart(html.page(of(tmp_path, bench=[days[0], days[2]])), "History of")
    assert marks(clean, "invalid") == []


def test_a_session_whose_figures_do_not_count_is_in_no_chart_over_a_size(tmp_path: Path):
    swept = [one.to_json() for one in recorded.sweep(steps=(1, 2, 4))]
    whole = html.page(of(tmp_path, bench=swept))
    part = html.page(of(tmp_path, bench=[*swept[:-2], bad(swept[-2]), swept[-1]]))
    for title, count in (("Latency over batch", 6), ("Speed-up over batch", 6)):
        counts = [len(marks(chart(text, title), "series")) for text in (whole, part)]
        assert counts == [count, count - (2 if "Speed" in title else 1)]


def test_throughput_of_a_process_that_does_not_count_is_no_figure(tmp_path: Path):
    one = recorded.measured().to_json()
    for number, run in enumerate(one["session"]["runs"]):
        run["throughput_per_s"] = None if number else 77.25
    assert ">77.25<" in html.page(of(tmp_path, bench=[one]))
    assert "77.25" not in html.page(of(tmp_path, bench=[bad(one, 0)]))


def test_a_baseline_that_could_not_be_timed_keeps_its_name(tmp_path: Path):
    missing = [{"subject": "net", "case": "one", "backend": "torch", "precision": "fp16", "runner": runner,
                "reason": f"{runner} is broken", "failed": True} for runner in ("eager", "compile")]  # fmt: skip
    overview = html.page(of(tmp_path, not_measured=missing)).split('<section id="s1"')[0]
    assert "net eager fp16 one" in overview
    assert "net compile fp16 one" in overview


def test_a_profile_is_of_the_case_as_it_is_or_says_its_size(tmp_path: Path):
    """A look into an engine stands beside the times of the same sizes on the same device only."""
    looked = recorded.result(layers=made.layer_report(20)).to_json()
    timed = {"subject": "clip", "case": "short"}
    looked |= timed
    sizes = [recorded.measured(ms, sizes={"batch": n}, recorded_at=f"2026-01-0{n}T00:00:00Z", **timed).to_json()
             for n, ms in ((1, 2.0), (2, 3.0))]  # fmt: skip
    other = recorded.measured(4.0, device="NVIDIA A100", recorded_at="2026-01-03T00:00:00Z", **timed).to_json()
    own = recorded.measured(5.0, recorded_at="2026-01-01T00:00:00Z", **timed).to_json()
    heading = "Time by module, error by module: clip rtx-fp16, short"

    text = html.page(of(tmp_path, results=[looked], bench=sizes))
    assert f"{heading} batch=2, NVIDIA H200</h3>" in text
    assert f"{heading} batch=1" not in text
    assert WORDS("time_without_errors") in text
    text = html.page(of(tmp_path, results=[looked], bench=[*sizes, own, other]))
    assert f"{heading}, NVIDIA H200</h3>" in text
    assert f"{heading}, NVIDIA A100</h3>" in text
    assert f"{heading} batch" not in text
    of_both, of_times = (
        text[text.index(f"{heading}, NVIDIA {gpu}</h3>") :].split("</ul>")[0] for gpu in ("H200", "A100")
    )
    assert "no layer report of this engine at this size" not in of_both
    assert "no layer report of this engine at this size" in of_times
    assert [part.count('scope="col"') for part in (of_both, of_times)] == [7, 3], "no column that says nothing"


def test_a_module_keeps_the_mark_it_was_given_for_a_nan_that_dies_out(tmp_path: Path):
    report = made.layer_report(20, first_bad=19).to_json()
    worst = report["values"][19]["name"]
    next(module for module in report["modules"] if module["worst"] == worst)["module"] = "body.0"
    timed = recorded.measured(subject="minilm", case="short").to_json()
    for mark, shown in (("healed", "healed"), ("ok", "nonfinite")):
        for finding in (*report["values"], *report["modules"]):
            if worst in (finding.get("worst"), finding.get("name")):
                finding["mark"] = mark
        text = html.page(of(tmp_path, results=[{**passing(), "layers": report}], bench=[timed]))
        words = {"healed": "dies out", "nonfinite": "NON-FINITE"}[shown]
        assert f">{words}<" in text[text.index('<table id="s1-time-1-table"') :].split("</table>")[0]
        for table in ("s1-layers-1-modules", "s1-layers-1-values"):
            rows = re.findall(r"<tr data-mark.*?</tr>", text[text.index(f'<table id="{table}"') :])
            row = next(row for row in rows if f">{worst}<" in row)
            assert f'data-mark="{shown}"' in row
            assert ">NaN<" in row


def test_a_picture_of_an_entrant_says_why_it_fails(tmp_path: Path):
    pictures = (
        ContestPicture(name="bird", latency_ms=9.0, pd=3.0, file="bird.png"),
        ContestPicture(name="room", latency_ms=9.0, pd=None, file="", reason="room is no picture of 512 x 512"),
    )
    score = ContestResult(folder="entry", verdict="fail", reason="see the pictures", pictures=pictures, parameters={})
    text = html.page(of(tmp_path, score=score.to_json()))
    assert '<td class="word bad">room is no picture of 512 x 512</td>' in text


def test_figures_that_are_not_finite_are_shown_as_absent(run: Records, tmp_path: Path):
    """Every figure of every record may be null: JSON has no NaN."""

    def without(data: Any) -> Any:
        if isinstance(data, dict):
            return {key: without(value) for key, value in data.items()}
        if isinstance(data, list):
            return [without(value) for value in data]
        return None if isinstance(data, float) else data

    for doc in run.documents:
        made.save(tmp_path / doc.name, without(json.loads(doc.path.read_text())))
    read = records.load([tmp_path])
    assert len(read.documents) >= 2
    assert Page(html.page(read)).open == []


# Hostile data


def hostile(data: Any) -> Any:
    """Return data with every name in it replaced; keys, verdicts and figures stay."""
    kept = {"verdict", "mark", "status", "kind", "answer", "good", "where", "backend", "runner", "metric", "bound",
            "direction", "weights", "inputs", "l2", "recorded_at", "files", "mapped_by", "observed", "made_by", "part",
            "figure", "failure"}  # fmt: skip
    if isinstance(data, dict):
        return {key: value if key in kept else hostile(value) for key, value in data.items()}
    if isinstance(data, list):
        return [hostile(item) for item in data]
    return f"{made.HOSTILE}{{{{ 7 * 7 }}}} \u202e&amp;\x00" if isinstance(data, str) else data


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_hostile_names_are_text(run: Records, tmp_path: Path, lang: Any):
    for doc in run.documents:
        data = json.loads(doc.path.read_text())
        kept = {"schema": data["schema"], "complete": True}
        made.save(tmp_path / doc.name, {**hostile(data), **kept})
    read = records.load([tmp_path])
    assert not read.broken
    text = html.page(read, lang=lang)
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "49" not in re.findall(r"&gt;(\d+) ", text)
    assert Page(text).open == []
    assert text.encode("utf-8")


def test_the_scripts_data_cannot_end_its_element():
    shown = html._script_data({"key": "</script><!--<script>&"})
    assert not re.search(r"[<>&]", shown)
    assert json.loads(shown) == {"key": "</script><!--<script>&"}


@pytest.mark.parametrize(("name", "data", "why"), [
    ("gone.png", None, "which is not there"), ("../up.png", b"", "not in its own folder"),
    ("page.png", b"<svg onload=alert(1)>", "is no PNG file"),
])  # fmt: skip
def test_a_picture_that_cannot_be_shown_is_said(tmp_path: Path, name: str, data: bytes | None, why: str):
    folder = tmp_path / "run"
    study = made.study(folder).to_json()
    if data is not None:
        (folder / name).write_bytes(data)
    study["variants"][1]["pictures"][0]["files"]["engine"] = name
    text = html.page(of(folder, results=[passing()], study=study))
    assert why in Page(text).words()
    assert "onload" not in text


def test_a_figure_without_a_limit_is_shown_without_a_remark(tmp_path: Path):
    study = made.study(tmp_path / "run").to_json()
    metric = {"name": "ssim", "verdict": "not_judged", "reason": "no limit is set", "actual": 0.5, "allowed": None}
    study["variants"][1]["metrics"].append({**study["variants"][1]["metrics"][0], **metric})
    text = html.page(of(tmp_path / "run", study=study))
    assert re.search(r'<td class="figure[^"]*">0.5</td>', text)
    assert "no limit is set" not in text


# Charts


def points(*places: tuple[float, float]) -> list[Point]:
    return [Point(index=i, name=f"variant {i}", latency_ms=x, quality=y, verdict="pass", limit=None)
            for i, (x, y) in enumerate(places)]  # fmt: skip


def test_the_pareto_front_is_what_nothing_beats_in_both():
    front = pareto_front(points((3, 1), (1, 5), (2, 5), (2, 3), (4, 1), (5, 0.5)))
    assert [(p.latency_ms, p.quality) for p in front] == [(1, 5), (2, 3), (3, 1), (5, 0.5)]


def test_a_failed_variant_is_a_cross_and_never_on_the_front(tmp_path: Path):
    study = made.study(tmp_path / "run").to_json()
    failed = study["variants"][-1]
    failed["latency_ms"] = 100.0
    drawn = chart(html.page(of(tmp_path / "run", study=study)), "perceptual distance against latency")
    crosses, front = marks(drawn, "failed"), marks(drawn, "on_front")
    assert (len(crosses), len(front)) == (1, 2)
    assert front[0][0] > crosses[0][0] + 20
    assert "failed: not on the front" in drawn
    for variant in study["variants"][1:]:
        variant["verdict"] = "fail"
    drawn = chart(html.page(of(tmp_path / "run", study=study)), "perceptual distance against latency")
    assert 'class="front"' not in drawn
    for variant in study["variants"][1:]:
        variant["verdict"] = "not_judged"
    drawn = chart(html.page(of(tmp_path / "run", study=study)), "perceptual distance against latency")
    assert 'class="failed"' not in drawn


def test_the_reference_is_not_missed_in_the_chart_and_other_variants_are(tmp_path: Path):
    study = made.study(tmp_path / "run").to_json()
    study["variants"][0]["metrics"] = []
    assert WORDS("not_in_chart") not in html.page(of(tmp_path / "run", study=study))
    study["variants"][1]["latency_ms"] = None
    page = Page(html.page(of(tmp_path / "run", study=study))).words()
    assert f"{WORDS('not_in_chart')} {study['variants'][1]['name']}" in page


def test_quality_is_psnr_where_no_distance_was_judged(tmp_path: Path):
    study = made.study(tmp_path / "run").to_json()
    for psnr, variant in enumerate(study["variants"], start=20):
        variant["metrics"] = [{**variant["metrics"][0], "name": "psnr", "actual": psnr, "allowed": None}]
    text = html.page(of(tmp_path / "run", study=study))
    assert "PSNR, dB</text>" in chart(text, "PSNR against latency")


def test_labels_of_points_do_not_lie_on_each_other(tmp_path: Path):
    study = made.study(tmp_path / "run").to_json()
    for number, variant in enumerate(study["variants"][1:]):
        variant["latency_ms"] = 400 + number / 100
        variant["metrics"] = [{**variant["metrics"][0], "actual": 2.0}]
    drawn = chart(html.page(of(tmp_path / "run", study=study)), "perceptual distance against latency")
    heights = re.findall(r'class="name"><text x="[\d.]+" y="([\d.]+)"', drawn)
    assert len({round(float(y) / 5) for y in heights}) == len(study["variants"]) - 1


@pytest.mark.parametrize("name", ["_hidden", "<b>$x^2$</b>", "a\nb", "模型"])
def test_a_name_is_shown_as_it_is(tmp_path: Path, name: str):
    study = made.study(tmp_path / "run").to_json()
    study["variants"][1]["name"] = name
    drawn = chart(html.page(of(tmp_path / "run", study=study)), "over the steps")
    assert visible(name) in unescape(drawn)


# Style


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast_in_every_theme():
    css = (Path(html.__file__).parent / "page.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r"\{([^{}]*--back:[^{}]*)\}", css)
    ]
    assert len(themes) == 4
    assert themes[1] == themes[2]
    for theme in themes:
        for text in ("text", "soft", "link", "good", "bad", "warn"):
            assert contrast(theme[text], theme["back"]) >= 4.5, text
            assert contrast(theme[text], theme["panel"]) >= 4.5, text
        for tone in ("good", "bad", "warn"):
            assert contrast(theme[tone], theme[f"{tone}-back"]) >= 4.5, tone
        for line in ("c0", "c1", "c2", "c3", "c4", "c5", "far"):
            assert contrast(theme[line], theme["back"]) >= 3, line
