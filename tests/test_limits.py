"""Steps that do not end: Python, code that catches everything, code in C, a graph; each is over in its time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from harness import limit_options, limits
from harness.cli import main
from harness.errors import NotJudged, TookTooLong, UsageError, suite_code

SHORT_S = 0.2


@pytest.fixture(autouse=True)
def nobody_is_named():
    limits.about("")


@pytest.fixture
def short():
    with limits.allowed(SHORT_S):
        yield


def forever() -> None:
    while True:
        pass


def catches_errors() -> None:
    while True:
        try:
            forever()
        except Exception:
            continue


def gives_up_with_another_error() -> None:
    try:
        forever()
    except BaseException as error:
        raise ValueError("the compiler has failed") from error


def catches_once() -> None:
    try:
        forever()
    except BaseException:
        forever()


def ends_all_the_same() -> None:
    try:
        forever()
    except BaseException:
        return


def waits() -> None:
    time.sleep(1000)


@pytest.mark.parametrize(
    "endless",
    [forever, catches_errors, gives_up_with_another_error, catches_once, ends_all_the_same, waits],
    ids=lambda function: function.__name__,
)
def test_a_step_ends_in_its_time(short, endless):
    took = pytest.raises(TookTooLong, match=r"^clip: tracing took longer than 0\.2 s \(--timeout\)")
    with took, limits.step("tracing", subject="clip"):
        endless()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_code_of_a_suite_is_not_blamed_for_it(short):
    took = pytest.raises(TookTooLong, match=r"^clip: build\(\) took")
    with took, suite_code("clip: build()"), limits.step("build()", subject="clip"):
        forever()
    with took, limits.step("build()", subject="clip"), suite_code("clip: build()"):
        forever()


def test_a_step_within_a_step_has_all_the_time_for_itself(short):
    with limits.step("judging", subject="clip"):
        for _ in range(3):
            time.sleep(0.75 * SHORT_S)
            with limits.step("a run"):
                time.sleep(0.75 * SHORT_S)
        with pytest.raises(TookTooLong, match="clip: a run took"), limits.step("a run"):
            forever()
        assert limits.remaining_s() == pytest.approx(SHORT_S, abs=0.1)


def test_the_outer_step_is_limited_too(short):
    def run_and_hang():
        with limits.step("a run"):
            pass
        forever()

    with pytest.raises(TookTooLong, match="clip: judging took"), limits.step("judging", subject="clip"):
        run_and_hang()


def test_another_timer_rings_during_a_step_and_after_it(short):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(limits.remaining_s() is None))
    try:
        for seconds in (0.05, 0.15):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            with limits.step("a run"):
                time.sleep(0.1)
            time.sleep(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rang == [False, True]


def test_what_ends_in_time_is_let_alone(short):
    with pytest.raises(ValueError, match="its own"), limits.step("a run"):
        raise ValueError("its own")
    with pytest.raises(KeyboardInterrupt), limits.step("a run"):
        raise KeyboardInterrupt
    assert limits.remaining_s() is None


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_without_a_limit_nothing_is_watched(seconds):
    with limits.allowed(seconds), limits.step("a run"):
        assert limits.remaining_s() is None
        assert limits.allowed_s() is None
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_limit_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    assert limit_options.given_or_default("--timeout", None) is None
    monkeypatch.setenv("CI", "true")
    assert limit_options.given_or_default("--timeout", None) == 1800


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_what_is_no_limit(text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verify", "x", "--timeout", text])
    assert ended.value.code == 2
    assert f"{text!r} is not a number of seconds" in capsys.readouterr().err


CODE_IN_C = """
import itertools, pathlib, sys
from harness import limits, watcher
watcher.keep_record(pathlib.Path(sys.argv[1]), {"results": ["kept"], "complete": False, "error": ""})
with limits.allowed(0.3), limits.step("forward()", subject="clip"):
    sum(itertools.repeat(1))  # holds Python's lock and looks at no signal
"""


def test_code_that_nothing_interrupts_ends_with_the_process(tmp_path: Path):
    record = tmp_path / "out.json"
    ended = subprocess.run([sys.executable, "-c", CODE_IN_C, record], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    sentence = "not judged: clip: forward() took longer than 0.3 s (--timeout)"
    assert ended.stderr.startswith(f"parity: {sentence}")
    assert ended.stderr.count("\n") == 1
    kept = json.loads(record.read_text())
    assert kept["error"].startswith(sentence)
    assert (kept["results"], kept["complete"]) == (["kept"], False)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def endless_loop(path: Path) -> Path:
    """Write a Loop without a trip count whose condition stays true."""
    values = {"c": TensorProto.BOOL, "v": TensorProto.FLOAT}
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in values],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [])]
        + [helper.make_tensor_value_info(name, kind, []) for name, kind in values.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, []) for name, kind in values.items()],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [helper.make_tensor("go", TensorProto.BOOL, [], [True])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_graph_without_an_end_is_not_judged_and_asked_once(tmp_path: Path, capsys):
    model, out = endless_loop(tmp_path / "m.onnx"), tmp_path / "out.json"
    typed = ["verify", str(model), "-b", "ort-cpu", "--engines", str(tmp_path / "e"), "--json", str(out)]
    assert main([*typed, "--timeout", "2"]) == 3
    results = json.loads(out.read_text())["results"]
    assert [result["verdict"] for result in results] == ["not_judged", "not_judged"]
    assert all("took longer than 2 s" in result["reason"] for result in results)
    assert capsys.readouterr().err.count(": PyTorch fp") == 1


def test_the_next_subject_goes_on(short):
    with pytest.raises(NotJudged), limits.step("forward()", subject="endless"):
        forever()
    with limits.step("forward()", subject="clip"):
        pass


def test_a_build_ends_in_its_time_and_steps_in_it_in_theirs():
    sentence = r"^clip \[rtx-fp16\]: building the engine took longer than 0\.2 s \(--build-timeout\)"
    with limits.allowed(step=60, build=SHORT_S):
        with pytest.raises(TookTooLong, match=sentence), limits.build("clip [rtx-fp16]"), limits.step("loading"):
            forever()
        with limits.step("loading"):
            assert limits.remaining_s() > 10
    took = pytest.raises(TookTooLong, match=r"loading took longer than .*--timeout")
    with limits.allowed(step=SHORT_S, build=60), took, limits.build("clip"), limits.step("loading"):
        forever()


@pytest.mark.parametrize("endless", [forever, catches_errors, gives_up_with_another_error, ends_all_the_same])
@pytest.mark.parametrize("option", ["--run-timeout", "--budget"])
def test_the_time_of_a_subject_and_of_the_run_ends_what_is_done_and_says_what_that_was(endless, option):
    given = {"budget" if option == "--budget" else "subject": SHORT_S}
    tracing = limits.step("tracing the module", subject="clip")
    took = pytest.raises(TookTooLong)
    with limits.allowed(**given), took as ended, limits.work("clip", "judging"), suite_code("clip: build()"), tracing:
        endless()
    assert ended.value.option == option
    assert f"0.2 s{' was spent' * (option == '--budget')} ({option}) while tracing the module" in str(ended.value)
    assert ended.value.failure == "timeout"


def test_a_subject_is_over_for_good_and_another_has_its_own_time():
    with limits.allowed(subject=SHORT_S):
        with pytest.raises(TookTooLong), limits.work("clip", "judging"):
            waits()
        for _ in range(2):
            took = pytest.raises(TookTooLong, match=r"^clip took longer than 0\.2 s \(--run-timeout\); give more")
            with took, limits.work("clip", "judging"):
                raise AssertionError
        with limits.work("vit", "judging"):
            assert limits.remaining_s() > 0
    with limits.allowed(subject=SHORT_S), limits.work("clip", "judging"):
        assert limits.remaining_s() > 0


def test_the_time_of_a_subject_is_that_of_its_work_alone():
    with limits.allowed(subject=2 * SHORT_S):
        for _ in range(2):
            with limits.work("clip", "judging"), limits.work("clip", "observing"):
                time.sleep(SHORT_S / 2)
            time.sleep(SHORT_S)
        with limits.work("clip", "judging"):
            assert 0 < limits.remaining_s() <= SHORT_S


def test_the_budget_counts_from_its_start_and_what_is_not_reached_is_not_begun():
    with limits.allowed(budget=10, started=time.monotonic() - 11):
        assert limits.spent_budget() == "the budget of 10 s was spent (--budget)"
        took = pytest.raises(TookTooLong, match=r"^the budget of 10 s was spent \(--budget\);")
        with took, limits.work("clip", "judging"):
            raise AssertionError
        with pytest.raises(TookTooLong, match="the budget of 10 s"), limits.step("importing"):
            raise AssertionError
    with limits.allowed(budget=10):
        assert limits.spent_budget() == ""


def test_what_was_left_out_for_want_of_time_is_told_apart_from_what_took_long():
    with limits.allowed(budget=SHORT_S), limits.work("clip", "judging"):
        with pytest.raises(TookTooLong), limits.step("a floor"):
            forever()
        with pytest.raises(TookTooLong):
            limits.check(met=True)
    with limits.allowed(subject=60), limits.work("clip", "judging"):
        limits.check(met=True)


@pytest.mark.parametrize("option", ["subject", "budget"])
@pytest.mark.parametrize("in_step", [False, True])
def test_a_search_ends_as_with_ctrl_c_and_only_once(option, in_step):
    reached = []
    with limits.allowed(**{option: SHORT_S}), limits.search("clip", "searching"):
        try:
            with limits.step("forward()") if in_step else limits.doing("ranking"):
                catches_errors() if in_step else waits()
        except limits.TimeIsUp as end:
            reached.append(str(end))
        with limits.step("writing the plan"):
            time.sleep(2 * limits.AGAIN_S)
            reached.append("written")
        assert limits.remaining_s() is None
    assert len(reached) == 2
    assert f"while {'forward()' if in_step else 'ranking'}" in reached[0]


def test_a_thread_asks_for_the_time_that_the_run_has_left():
    found = []

    def wait():
        with limits.build("clip"):
            threading.Event().wait(limits.remaining_s())
            found.append((limits.remaining_s(), limits.out_of_time().option))

    with limits.allowed(budget=SHORT_S):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(10)
    assert found == [(0.0, "--budget")]


def test_what_deletes_what_was_begun_is_left_in_peace():
    tidied = []

    def waits_and_tidies_up():
        try:
            waits()
        finally:
            time.sleep(2 * limits.AGAIN_S)
            tidied.append(True)

    with limits.allowed(budget=SHORT_S), pytest.raises(TookTooLong), limits.work("clip", "judging"):
        waits_and_tidies_up()
    assert tidied == [True]


SPENT_IN_C = """
import itertools, pathlib, sys
from harness import limits, watcher
watcher.keep_record(pathlib.Path(sys.argv[1]), {"results": ["kept"], "complete": False, "error": ""})
with limits.allowed(budget=0.3), limits.work("clip", "judging"), limits.step("forward()"):
    sum(itertools.repeat(1))
"""


def test_the_budget_ends_code_that_nothing_interrupts(tmp_path: Path):
    record = tmp_path / "out.json"
    ended = subprocess.run([sys.executable, "-c", SPENT_IN_C, record], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    kept = json.loads(record.read_text())
    assert (kept["failure"], kept["results"]) == ("timeout", ["kept"])
    assert "the budget of 0.3 s was spent (--budget)" in kept["error"]


def test_a_variable_gives_the_limit_of_an_option_that_is_not_given(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PARITY_BUILD_TIMEOUT", "90")
    assert limit_options.given_or_default("--build-timeout", None) == 90
    assert limit_options.given_or_default("--build-timeout", 0.0) == 0
    assert limit_options.given_or_default("--run-timeout", None) is None
    monkeypatch.setenv("PARITY_BUDGET", "soon")
    with pytest.raises(UsageError, match="PARITY_BUDGET: 'soon'"):
        limit_options.given_or_default("--budget", None)
