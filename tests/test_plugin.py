"""The pytest plugin in test runs of its own, with engines that are only pretended."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import fake
import pytest

import harness
from harness import records
from harness.history import open_history
from harness.records import DIED
from harness.watching import Watched

pytest_plugins = ["pytester"]

SUITE = """
from harness import Subject, targets
from harness.checks import test_outputs

SUBJECT = Subject(
    name={name!r}, build=object, cases={{"short": dict, "long": dict}}, weights="random",
    targets={targets}, options={options!r},
)
"""

TARGETS = "targets('rtx', 'ort-cpu', precisions=('fp32', 'fp16'))"
TASK = """
def test_task(parity):
    parity.check_metric("mean", lambda out: out["y"].mean(), at_most={limit})
"""


def suite(name: str = "clip", targets: str = TARGETS, task: str = "", **verdicts: tuple[str, str]) -> str:
    options = {key.replace("_", "-"): verdict for key, verdict in verdicts.items()}
    return SUITE.format(name=name, targets=targets, options=options) + task


def logged(project: pytest.Pytester) -> list[str]:
    return (project.path / "log.txt").read_text().splitlines()


def results(path: Any) -> dict[tuple[str, ...], dict[str, Any]]:
    data = json.loads(path.read_text())
    assert data["schema"] == "parity/1"
    return {(r["backend"], r["precision"], r["case"]): r for r in data["results"]}


def test_ids_are_target_and_case(project: pytest.Pytester):
    project.makepyfile(test_clip=suite())
    result = project.runpytest_inprocess("--collect-only", "-q")
    assert [line.partition("::")[2] for line in result.outlines if "::" in line] == [
        f"test_outputs[{backend}-{precision}-{case}]"
        for backend in ("rtx", "ort-cpu")
        for precision in ("fp32", "fp16")
        for case in ("short", "long")
    ]


@pytest.mark.parametrize(
    ("expression", "count"), [("rtx and fp16", 2), ("ort-cpu", 4), ("ort-cpu and fp32", 2), ("mixed", 2)]
)
def test_markers_select(project: pytest.Pytester, expression: str, count: int):
    plan = (
        "(*targets('rtx', 'ort-cpu', precisions=('fp32', 'fp16')), *targets('trt', precisions=('plans/mixed.toml',)))"
    )
    project.makepyfile(test_clip=suite(targets=plan))
    result = project.runpytest_inprocess("-m", expression)
    result.assert_outcomes(passed=count, deselected=10 - count)


def test_engine_is_opened_once_and_freed_before_the_next(project: pytest.Pytester):
    project.makepyfile(test_clip=suite(task=TASK.format(limit=1)))
    project.runpytest_inprocess().assert_outcomes(passed=16)
    lines = logged(project)
    assert len([line for line in lines if line.startswith("run clip")]) == 1
    names = ["rtx-fp32", "rtx-fp16", "ort-cpu-fp32", "ort-cpu-fp16"]
    opened = [line for line in lines if line.startswith(("open", "close"))]
    assert opened == [f"{what} {name}" for name in names for what in ("open", "close")]
    judged = [line for line in lines if line.startswith("judge")]
    assert len(judged) == len(set(judged)) == 8, "a case is judged once, however many tests ask"


def test_failure_text_and_table(project: pytest.Pytester):
    project.makepyfile(test_clip=suite(rtx_fp16_short=("fail", "relative error 0.5, PyTorch fp16 loses 0.001")))
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: clip [[]rtx fp16[]] y: relative error 0.5, PyTorch fp16 loses 0.001",
            "*= parity =*",
            "*8 verdicts: 7 passed, 1 failed, 0 not judged",
        ]
    )
    assert result.ret == 1


def test_not_judged_is_a_skip_with_its_reason(project: pytest.Pytester):
    project.makepyfile(test_clip=suite(task=TASK.format(limit=1), rtx_fp16_short=("not_judged", "no GPU")))
    result = project.runpytest_inprocess("-ra")
    result.assert_outcomes(passed=14, skipped=2)
    result.stdout.fnmatch_lines(["*8 verdicts: 7 passed, 0 failed, 1 not judged", "SKIPPED*not judged: no GPU"])


def test_required_backend_that_is_not_judged_fails(project: pytest.Pytester):
    project.makepyfile(test_clip=suite(rtx_fp16_short=("not_judged", "no GPU")))
    result = project.runpytest_inprocess("--require", "rtx")
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["*required backend rtx gave no verdict: no GPU*"])


@pytest.mark.parametrize(
    ("environment", "options", "status"),
    [("", [], 0), ("true", [], 1), ("", ["--require-verdict"], 1), ("true", ["--no-require-verdict"], 0)],
)
def test_a_run_that_judged_nothing_says_so_and_fails_in_ci(project, monkeypatch, environment, options, status):
    unjudged = {f"rtx_fp16_{case}": ("not_judged", "no GPU") for case in ("short", "long")}
    project.makepyfile(test_clip=suite(targets="targets('rtx', precisions=('fp16',))", **unjudged))
    monkeypatch.setenv("CI", environment)
    result = project.runpytest_inprocess(*options)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*nothing was judged*2 tests*"])
    assert result.ret == status


def test_in_ci_a_run_without_suites_and_one_with_a_verdict_are_as_they_are(project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    project.makepyfile(test_other="def test_other():\n    pass\n")
    assert project.runpytest_inprocess().ret == 0
    project.makepyfile(test_clip=suite(rtx_fp16_short=("not_judged", "no GPU")))
    assert project.runpytest_inprocess().ret == 0


def test_two_suites_with_one_name_are_an_error_that_names_both(project):
    project.makepyfile(test_clip=suite(), test_other=suite())
    result = project.runpytest_inprocess()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*'clip' is in *test_clip.py and in *test_other.py*"])


def test_two_suites_may_share_one_subject(project):
    project.makepyfile(test_clip=suite(), test_other="from test_clip import SUBJECT, test_outputs")
    project.runpytest_inprocess().assert_outcomes(passed=16)


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "raise SystemExit"])
@pytest.mark.parametrize("where", ["module", "test"])
def test_code_of_a_suite_does_not_end_the_run(project, where, end):
    inside = {"module": end, "test": f"def test_end(parity):\n    {end}"}[where]
    project.makepyfile(test_clip=f"import os, sys\n{suite()}\n{inside}")
    assert project.runpytest_subprocess().ret not in (0, 5)


@pytest.mark.parametrize("options", [["--backend", "ort-cpu"], ["-k", "ort-cpu"], ["--backend", "trt"]])
def test_required_backend_without_any_verdict_fails_the_run(project: pytest.Pytester, options: list[str]):
    project.makepyfile(test_clip=suite())
    result = project.runpytest_inprocess("--require", "rtx", *options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*required backend rtx gave no verdict*"])


def test_require_without_any_suite_fails_the_run(project: pytest.Pytester):
    project.makepyfile("def test_nothing(): pass")
    assert project.runpytest_inprocess("--require", "rtx").ret == 1
    assert project.runpytest_inprocess("--require", "rtx", "--collect-only").ret == 0


@pytest.mark.parametrize(
    ("task", "verdict", "words"),
    [
        (TASK.format(limit=0.25), "pass", "1.75, reference 1.5: differs by 0.25 (allowed 0.25)"),
        (TASK.format(limit=0.2), "fail", "1.75, reference 1.5: differs by 0.25 (allowed 0.2)"),
        (TASK.format(limit=0.2).replace(".mean()", ""), "fail", "2.5, reference 2: differs by 0.5 (allowed 0.2)"),
        (
            TASK.format(limit=9).replace("out['y'].mean()", "0").replace('out["y"].mean()', "float('nan')"),
            "fail",
            "nan",
        ),
        (TASK.format(limit=9).replace(".mean()", "[:0]"), "fail", "at least one element"),
    ],
)
def test_metric(project: pytest.Pytester, task: str, verdict: str, words: str):
    project.makepyfile(test_clip=suite(targets="targets('rtx', precisions=('fp16',))", task=task))
    result = project.runpytest_inprocess("-k", "short", "--parity-json", "out.json")
    result.assert_outcomes(passed=2 if verdict == "pass" else 1, failed=0 if verdict == "pass" else 1)
    found = results(project.path / "out.json")["rtx", "fp16", "short"]
    (metric,) = found["metrics"]
    assert (metric["verdict"], found["verdict"]) == (verdict, verdict)
    assert words in metric["reason"]


def test_json_has_results_environment_and_command(project: pytest.Pytester):
    project.makepyfile(test_clip=suite(rtx_fp16_short=("fail", "wrong"), rtx_fp32_long=("not_judged", "no GPU")))
    project.runpytest_inprocess("--parity-json", "new/out.json")
    data = json.loads((project.path / "new" / "out.json").read_text())
    assert data["complete"] is True
    assert data["command"] == "pytest --parity-json new/out.json"
    assert "ort-cpu" in data["environment"]["backends"]
    verdicts = {key: row["verdict"] for key, row in results(project.path / "new" / "out.json").items()}
    assert len(verdicts) == 8
    assert verdicts["rtx", "fp16", "short"] == "fail"
    assert verdicts["rtx", "fp32", "long"] == "not_judged"


def test_interrupted_run_keeps_what_it_found(project: pytest.Pytester):
    project.makepyfile(test_a=suite(), test_b="def test_stop(): raise KeyboardInterrupt")
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    result = project.runpytest_subprocess("--parity-json", "out.json")
    assert result.ret == 2
    data = json.loads((project.path / "out.json").read_text())
    assert (len(data["results"]), data["complete"]) == (8, False)


def test_a_run_that_stopped_at_a_failure_is_not_complete(project: pytest.Pytester):
    project.makepyfile(test_a=suite(), test_b="def test_wrong(): assert False", test_c=suite("other"))
    project.runpytest_inprocess("-x", "--parity-json", "out.json").assert_outcomes(passed=8, failed=1)
    data = json.loads((project.path / "out.json").read_text())
    assert (len(data["results"]), data["complete"]) == (8, False)
    assert [one["arrived"] for one in data["expected"]] == [True] * 8 + [False] * 8
    (document,) = records.load([project.path / "out.json"]).documents
    assert [(one["subject"], one["verdict"]) for one in document.results[8:]] == [("other", "not_judged")] * 8
    assert {one["reason"] for one in document.results[8:]} == {"not judged: stopping after 1 failures"}


@pytest.mark.parametrize(
    ("status", "changes", "words"),
    [
        (
            2,
            {"rtx_fp16_short": ("usage", "no such dimension")},
            "test_outputs[rtx-fp16-short] failed: no such dimension",
        ),
        (
            1,
            {"task": "def test_task(parity):\n    assert parity.actual['y'].sum() > 9, 'too small'\n"},
            "test_task[rtx-fp16-short] failed: AssertionError: too small",
        ),
    ],
)
def test_a_failed_test_whose_result_does_not_say_so_is_named(
    project: pytest.Pytester, status: int, changes: dict[str, Any], words: str
):
    project.makepyfile(test_clip=suite(targets="targets('rtx', precisions=('fp16',))", **changes))
    result = project.runpytest_inprocess("-k", "short", "--parity-json", "out.json", "--junitxml", "j.xml")
    assert result.ret == status
    data = json.loads((project.path / "out.json").read_text())
    assert data["complete"] is False
    assert words in data["error"]
    assert "parity-target" not in (project.path / "j.xml").read_text()


def test_a_suite_that_cannot_be_imported_is_missing_from_the_json(project: pytest.Pytester):
    project.makepyfile(test_a=suite(), test_b="import nothing_of_that_name")
    result = project.runpytest_inprocess("--continue-on-collection-errors", "--parity-json", "out.json")
    assert result.ret == 2
    data = json.loads((project.path / "out.json").read_text())
    assert (len(data["results"]), data["complete"]) == (8, False)
    assert data["error"] == "test_b.py could not be collected"


@pytest.mark.parametrize("failing", [0, 1])
def test_of_two_metrics_of_one_name_the_worse_one_is_kept(project: pytest.Pytester, failing: int):
    limits = [1, 1]
    limits[failing] = 0.2
    tasks = [
        TASK.format(limit=limit).replace("test_task", f"test_{name}") for limit, name in zip(limits, "ab", strict=True)
    ]
    project.makepyfile(test_clip=suite(targets="targets('rtx', precisions=('fp16',))", task="".join(tasks)))
    project.runpytest_inprocess("-k", "short", "--parity-json", "out.json").assert_outcomes(passed=2, failed=1)
    found = results(project.path / "out.json")["rtx", "fp16", "short"]
    assert [metric["verdict"] for metric in found["metrics"]] == ["fail"]
    assert found["verdict"] == "fail"


def test_a_test_whose_worker_crashed_is_named(project: pytest.Pytester):
    crash = "def test_task(parity):\n    import os\n    os.kill(os.getpid(), 9)\n"
    project.makepyfile(test_clip=suite(targets="targets('rtx', precisions=('fp16',))", task=crash))
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    result = project.runpytest_subprocess("-n", "1", "-k", "short", "--parity-json", "out.json")
    assert result.ret == 1
    data = json.loads((project.path / "out.json").read_text())
    assert [(one["verdict"], one["reason"]) for one in data["results"]] == [("not_judged", DIED)]
    assert data["complete"] is False
    assert "test_task[rtx-fp16-short] failed: worker 'gw0' crashed" in data["error"]


def test_junit_gets_one_readable_property(project: pytest.Pytester):
    project.makepyfile(
        test_clip=suite(targets="targets('rtx', precisions=('fp16',))", rtx_fp16_short=("fail", "wrong"))
    )
    project.runpytest_inprocess("--junitxml", "j.xml")
    properties = re.findall(r'<property name="parity" value="([^"]*)"', (project.path / "j.xml").read_text())
    assert properties == ["FAIL: wrong", "pass: y rel err - floor -"]


@pytest.mark.parametrize(("dist", "task"), [("load", TASK.format(limit=0.2)), ("loadfile", "")])
def test_xdist_carries_results(project: pytest.Pytester, dist: str, task: str):
    two = "targets('rtx', 'trt', precisions=('fp16',))"
    project.makepyfile(
        test_a=suite("a", targets=two, task=task, rtx_fp16_short=("fail", "bad")),
        test_b=suite("b", targets="targets('rtx', precisions=('fp16',))", rtx_fp16_long=("not_judged", "no GPU")),
        test_c=suite("c", targets="targets('trt', precisions=('fp16',))"),
    )
    arguments = ("-n", "2", "--dist", dist, "--parity-json", "out.json", "--backend", "rtx", "--junitxml", "j.xml")
    project.makeconftest(fake.CONFTEST + fake.NO_MACHINE)
    result = project.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=2, failed=3 if task else 1, skipped=1)
    data = json.loads((project.path / "out.json").read_text())
    assert [(r["subject"], r["backend"], r["case"], len(r["metrics"])) for r in data["results"]] == [
        (name, "rtx", case, int(bool(task) and name == "a")) for name in "ab" for case in ("short", "long")
    ]
    result.stdout.fnmatch_lines(
        [
            "parity: ort-cpu *",
            f"*4 verdicts: {1 if task else 2} passed, {2 if task else 1} failed, 1 not judged",
            "*test_c.py: no target matches --backend rtx; it has trt-fp16",
        ]
    )
    assert 'name="parity" value="not judged: no GPU"' in (project.path / "j.xml").read_text()


def test_header_shows_every_backend(project: pytest.Pytester):
    project.makepyfile(test_clip=suite())
    shown = project.runpytest_inprocess().outlines
    names = [line.split()[1] for line in shown if line.startswith("parity: ")]
    assert names == ["trt", "rtx", "ort-cpu", "ort-cuda", "torch"]


def test_run_without_a_suite_is_light(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(project, "_getpytestargs", lambda: (sys.executable, "-m", "pytest"))  # no fork: they are heavy
    project.makeconftest('pytest_plugins = ["harness.plugin"]')
    project.makepyfile("import sys\ndef test_light(): assert 'torch' not in sys.modules")
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*parity*backend*")
    result.stdout.no_fnmatch_line("parity: *")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--backend", "rtz"), "unknown backend 'rtz'; did you mean"),
        (("--require", "rtz"), "unknown backend 'rtz'"),
        (("--precision", "fp61"), "unknown precision 'fp61'; did you mean fp16"),
        (("--precision", "none.toml"), "plan none.toml cannot be read"),
        (("--backend",), "--backend needs a value: --backend NAME"),
        (("--parity-json", "."), "it is a folder"),
        (("--parity-json", "/proc/x.json"), "/proc/x.json"),
        (("--parity-json", "conftest.py/x.json"), "conftest.py/x.json"),
        (("--parity-json", ""), "--parity-json: '' is no path"),
        (("--junitxml", "/proc/x.xml"), "/proc/x.xml"),
        (("--engines", "conftest.py"), "conftest.py is no folder"),
        (("--references", "conftest.py"), "conftest.py is no folder"),
        (("--parity-limit", "0"), "--parity-limit: '0' is not a relative error"),
        (("--parity-limit", "nan"), "--parity-limit: 'nan' is not a relative error"),
        (("--parity-runs", "two"), "--parity-runs: 'two' is not a whole number of at least 2"),
        (("--parity-runs", "1"), "--parity-runs: '1' is not a whole number of at least 2"),
        (("--parity-timeout", "soon"), "--parity-timeout: 'soon' is not a number of seconds"),
        (("--lock-timeout", "-1"), "--lock-timeout: '-1' is not a number of seconds"),
        (("--seed-random", "-1"), "--seed-random: '-1' is not a whole number of at least 0"),
        (("--latency-processes", "1"), "--latency-processes: '1' is not a whole number of at least 2"),
        (("--expect", "none.json"), "none.json cannot be used"),
        (("--expect", "conftest.py"), "conftest.py cannot be used"),
        (("-n", "2", "--backend", "rtz"), "unknown backend 'rtz'; did you mean"),
    ],
)
def test_a_wrong_option_ends_the_run_with_status_2_and_one_sentence(
    project: pytest.Pytester, option: tuple[str, ...], words: str
):
    project.makepyfile(test_clip=suite())
    result = project.runpytest_inprocess(*option, no_reraise_ctrlc=True)  # pytester takes status 2 for one
    assert result.ret == 2
    [line] = [line for line in (*result.errlines, *result.outlines) if line.strip()]
    assert line.startswith("ERROR: ")
    assert words in line


def test_what_pytest_itself_refuses_has_its_own_status(project: pytest.Pytester):
    for option in ("--no-such-option", "none.py"):
        assert project.runpytest_inprocess(option, "--parity-json", "out.json").ret == 4
    data = json.loads((project.path / "out.json").read_text())
    assert (data["complete"], data["error"]) == (False, "not all tests ran: pytest cannot use its arguments")


def test_a_limit_reaches_the_settings(project: pytest.Pytester):
    project.makepyfile("""
        from harness.pytest_state import STATE
        def test_limit(request): assert request.config.stash[STATE].settings.limit == 0.02
    """)
    project.runpytest_inprocess("--parity-limit", "0.02").assert_outcomes(passed=1)


def test_suite_without_subject_is_one_sentence(project: pytest.Pytester):
    project.makepyfile(
        test_bad="from harness.checks import test_outputs", test_worse=suite().replace("= Subject(", "= dict(")
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*suite *test_bad.py defines no SUBJECT; add SUBJECT = Subject(*", "*SUBJECT is a dict*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_subject_left_without_targets_is_said(project: pytest.Pytester):
    project.makepyfile(test_a=suite("a"), test_b=suite("b", targets="targets('trt', precisions=('fp16',))"))
    result = project.runpytest_inprocess("--backend", "rtx")
    result.assert_outcomes(passed=4, deselected=6)
    result.stdout.fnmatch_lines(["parity: test_b.py: no target matches --backend rtx; it has trt-fp16"])


def test_nothing_left_is_pytests_exit_5(project: pytest.Pytester):
    project.makepyfile(test_a=suite("a"))
    result = project.runpytest_inprocess("--backend", "trt", "--precision", "fp16")
    assert result.ret == 5
    result.stdout.fnmatch_lines(["*test_a.py: no target matches --backend trt --precision fp16; it has rtx-fp32*"])


def test_options_become_settings(project: pytest.Pytester):
    project.makepyfile(test_a=suite("a"))
    project.runpytest_inprocess("--no-engine-cache", "--update-references", "--engines", "elsewhere")
    assert logged(project)[0] == "run a cache=False update=True elsewhere"


def test_usage_error_of_a_subject_has_no_traceback(project: pytest.Pytester):
    project.makepyfile(test_a=suite("a", rtx_fp16_short=("usage", "case 'short': forward() has no input 'x'")))
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=7, errors=1)
    result.stdout.fnmatch_lines(["*case 'short': forward() has no input 'x'"])
    result.stdout.no_fnmatch_line("*raise UsageError*")


LATENCY = """
import dataclasses

from latencies import comparison, measured, process, session

from harness.records import NotMeasured


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    processes: int = 5
    record: bool = True
    locator: str = ""
    neighbours: tuple = ()


def bench_opened(opened, case, options, history):
    log(f"time {opened.target} {case} {options.processes} {options.record} {Path(options.locator).name}")
    kind = opened.run.subject.options.get(f"latency-{case}", "equivalent")
    if kind in ("not_measured", "crashed"):
        return NotMeasured(
            subject="clip", case=case, backend="rtx", precision="fp16", runner="engine", sizes={}, reason="no memory",
            failed=kind == "crashed",
        )
    one = session(backend=opened.target.backend, precision=opened.target.precision_name, case=case)
    if kind == "invalid_environment":
        one = dataclasses.replace(one, runs=(process(1.0, invalid=("a stranger computes",)),) * 2)
    judged = comparison(kind.removesuffix("_again"), 1.05, repeated=kind.endswith("_again"), rule="the rule says so",
                        next_step="measure again" if kind in ("regressed", "inconclusive") else "")
    return measured(one, comparison=judged)


@pytest.fixture(scope="session", autouse=True)
def fake_bench():
    with pytest.MonkeyPatch.context() as patch:
        stub = types.SimpleNamespace(Options=Options, bench_opened=bench_opened)
        patch.setitem(sys.modules, "harness.latency", stub)
        patch.setattr(harness, "latency", stub, raising=False)
        yield
"""


def latency_suite(*kinds: str) -> str:
    """Return a suite whose cases get these verdicts on their latency."""
    text = suite(targets="targets('rtx', precisions=('fp16',))")
    text = text.replace("import test_outputs", "import test_latency")
    text = text.replace('{"short": dict, "long": dict}', repr(dict.fromkeys(kinds)).replace("None", "dict"))
    return text.replace("options={}", f"options={ {f'latency-{kind}': kind for kind in kinds} }")


@pytest.fixture
def timed(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    project.makeconftest(fake.CONFTEST + LATENCY)
    folders = (Path(harness.__file__).parents[1], Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    project.syspathinsert(folders[1])
    monkeypatch.setenv("PARITY_HISTORY", str(project.path / "history.sqlite"))
    return project


def test_latency_passes_only_with_a_clear_answer(timed: pytest.Pytester):
    timed.makepyfile(test_clip=latency_suite("equivalent", "improved", "no_baseline", "inconclusive", "slower_clock"))
    result = timed.runpytest_inprocess("-ra")
    result.assert_outcomes(passed=2, skipped=3)
    result.stdout.fnmatch_lines_random([
        "SKIPPED*not judged: clip no_baseline [[]rtx-fp16[]] CPU 1 ms (no baseline*parity accept clip --why*",
        "SKIPPED*not judged: clip inconclusive*measure again*",
        "SKIPPED*not judged: clip slower_clock*the rule says so*",
    ])  # fmt: skip
    result.stdout.fnmatch_lines(["*= parity =*", "target *verdict", "*5 timed: *"])


def test_only_a_confirmed_regression_fails(timed: pytest.Pytester):
    timed.makepyfile(test_clip=latency_suite("regressed", "regressed_again"))
    result = timed.runpytest_inprocess("-ra")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines_random([
        "*AssertionError: clip regressed_again [[]rtx-fp16[]] CPU 1 ms (REGRESSED, 1.05 of the baseline)",
        "*the rule says so*",
        "SKIPPED*not judged: clip regressed*measure again*",
    ])  # fmt: skip


@pytest.mark.parametrize("required", [False, True])
def test_latency_that_could_not_be_measured(timed: pytest.Pytester, required: bool):
    timed.makepyfile(test_clip=latency_suite("not_measured", "invalid_environment", "crashed", "no_baseline"))
    result = timed.runpytest_inprocess("-ra", *(["--require", "rtx"] if required else []))
    result.assert_outcomes(failed=3 if required else 1, skipped=1 if required else 3)
    result.stdout.fnmatch_lines_random(["*AssertionError: clip [[]rtx fp16[]]: no memory", "SKIPPED*no_baseline*"])
    if required:
        result.stdout.fnmatch_lines_random([
            "*required backend rtx gave no verdict: no memory", "*required backend rtx gave no verdict: a stranger*",
        ])  # fmt: skip


def test_a_history_that_cannot_be_used_is_one_sentence(timed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARITY_HISTORY", str(timed.path))
    timed.makepyfile(test_clip=latency_suite("equivalent"))
    result = timed.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    assert str(timed.path) in result.stdout.str().partition("= ERRORS =")[2]
    result.stdout.no_fnmatch_line("*raise UsageError*")
    result.stdout.no_fnmatch_line("*history*.py:*")


def test_latency_is_in_the_json_and_in_junit(timed: pytest.Pytester):
    timed.makepyfile(test_clip=latency_suite("equivalent", "no_baseline"))
    result = timed.runpytest_inprocess("--parity-json", "out.json", "--junitxml", "j.xml", "--require", "rtx")
    assert result.ret == 0, "timed is judged, as far as --require asks"
    data = json.loads((timed.path / "out.json").read_text())
    assert data["results"] == []
    assert [(one["session"]["case"], one["comparison"]["verdict"]) for one in data["bench"]] == [
        ("equivalent", "equivalent"), ("no_baseline", "no_baseline"),
    ]  # fmt: skip
    assert 'name="parity-latency" value="clip equivalent [rtx-fp16] CPU 1 ms' in (timed.path / "j.xml").read_text()


def test_latency_options(timed: pytest.Pytester):
    timed.makepyfile(test_clip=latency_suite("equivalent"))
    timed.runpytest_inprocess("--latency-processes", "7", "--no-latency-record").assert_outcomes(passed=1)
    assert logged(timed)[-2] == "time rtx-fp16 equivalent 7 False test_clip.py"


@pytest.mark.parametrize(("mark", "measured"), [("", False), ("@pytest.mark.latency\n", True)])
def test_latency_is_measured_beside_workers_only_where_they_wait(timed: pytest.Pytester, mark: str, measured: bool):
    timed.makeconftest(fake.CONFTEST + LATENCY + fake.NO_MACHINE)
    text = latency_suite("equivalent").replace("import test_latency", "import test_outputs")
    task = f"import pytest\n\n\n{mark}def test_task(parity):\n    parity.check_latency()\n"
    timed.makepyfile(test_clip=text + task)
    result = timed.runpytest_subprocess("-n", "2", "-ra", "-k", "task")
    result.assert_outcomes(passed=measured, skipped=not measured)
    if not measured:
        result.stdout.fnmatch_lines(["SKIPPED*not judged: latency is not measured while other tests run; mark*"])
    assert any(line.startswith("time ") for line in logged(timed)) is measured


@pytest.fixture
def watched(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Let the history say that an output rises."""
    rise = Watched(creeps=("clip/short [rtx-fp32]: ratio to the floor of y rose from 1.1 to 2.9",))
    monkeypatch.setattr("harness.pytest_state.watch", lambda *_, **__: rise)
    project.makepyfile(test_clip=suite())
    return project


def test_a_rise_of_an_accuracy_warns(watched: pytest.Pytester):
    result = watched.runpytest_inprocess("--parity-json", "out.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["parity: warning: clip/short *rtx-fp32*: ratio to the floor of y rose from 1.1 to 2.9"]
    )
    assert json.loads((watched.path / "out.json").read_text())["complete"]


def test_a_rise_fails_where_it_is_to(watched: pytest.Pytester):
    result = watched.runpytest_inprocess("--parity-json", "out.json", "--fail-on-creep")
    assert result.ret == 1
    assert "rose from 1.1 to 2.9" in json.loads((watched.path / "out.json").read_text())["error"]


@pytest.mark.parametrize(("options", "recorded"), [([], 8), (["--no-accuracy-record"], 0)])
def test_a_run_is_recorded_in_the_suites_repository(project: pytest.Pytester, options: list[str], recorded: int):
    project.makepyfile(test_clip=suite(rtx_fp32_short=("fail", "wrong")))
    project.runpytest_inprocess(*options)
    with open_history(folder=project.path / ".parity") as history:
        found = history.accuracies(99)
    assert len(found) == recorded
    assert {one.verdict for one in found} == ({"pass", "fail"} if recorded else set())


def test_a_history_that_cannot_be_written_fails_no_run(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    (project.path / "file").write_text("")
    monkeypatch.setenv("PARITY_HISTORY", str(project.path / "file" / "h.sqlite"))
    project.makepyfile(test_clip=suite())
    result = project.runpytest_inprocess()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["parity: accuracy was not recorded: the history *cannot be written*"])
    assert project.runpytest_inprocess("--fail-on-creep").ret == 1, "what cannot be seen is no pass"
