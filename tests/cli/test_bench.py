"""``parity bench``, ``accept``, ``history`` and ``noise``: what they accept, print, write and return."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fake
import pytest
from latencies import CPU, GPU, KERNELS, comparison, eager, measured, process, session

import harness.history
import harness.latency
from harness.cli import commands as cli
from harness.errors import NotJudged
from harness.records.latency import Measured, NotMeasured
from harness.subject import Target

SUITE = """
from harness import Subject, targets

SUBJECT = Subject(
    name="clip", build=object, cases={"short": dict, "long": dict}, weights="random",
    targets=targets("ort-cpu", "rtx", precisions=("fp32", "fp16")),
    dynamic={"x": {0: "batch", 1: "tokens"}}, ranges={"batch": (1, 8), "tokens": (4, 77)},
)
"""
Give = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARITY_HISTORY", raising=False)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_clip.py").write_text(SUITE)
    monkeypatch.setattr("harness.latency.accepting.machine", lambda *name, **options: CPU)
    return tmp_path


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Make ``bench`` yield these; what is an exception is raised. Returns what bench is called with."""
    return partial(fake.giving, monkeypatch, harness.latency, "bench")


def missing(failed: bool = False, backend: str = "rtx") -> NotMeasured:
    return NotMeasured(
        subject="clip", case="short", backend=backend, precision="fp16", runner="engine", sizes={}, reason="no GPU",
        failed=failed,
    )  # fmt: skip


def regressed(repeated: bool) -> Measured:
    return measured(comparison=comparison("regressed", 1.1, baseline=("a",), repeated=repeated, p_value=1e-9))


def invalid() -> Measured:
    return measured(session(runs=(process(1.0, invalid=("a stranger",)),) * 2), "invalid_environment")


def test_bench_prints_writes_and_draws(give: Give, capsys: pytest.CaptureFixture[str], place: Path):
    calls = give(measured(kernels=KERNELS, speed_up={"eager fp32": 2.0}), measured(eager()))
    assert cli.main(["bench", "clip", "-b", "ort-cpu", "-p", "fp16", "--case", "short", "--json", "new/b.json"]) == 0
    (call,) = calls
    assert [str(target) for target in call["targets"]] == ["ort-cpu-fp16"]
    assert (call["cases"], call["sizes"]) == (("short",), [{}])
    data = json.loads((place / "new" / "b.json").read_text())
    assert (data["schema"], data["complete"], data["results"], data["not_measured"]) == ("parity/1", True, [], [])
    assert [one["session"]["runner"] for one in data["bench"]] == ["engine", "eager"]
    assert data["bench"][0]["kernels"][0]["name"] == "gemm_1"
    shown = capsys.readouterr().out
    assert "ort-cpu-fp16" in shown
    assert "gemm_1" in shown
    assert {path.name for path in (place / "new").iterdir()} == {
        "b.json", "clip-latency-cpu-short.png", "clip-latency-cpu-short.svg",
    }  # fmt: skip


def test_gpu_time_and_host_time_are_never_in_one_chart(give: Give, place: Path):
    give(measured(session(gpu=True)), measured(session(device="NVIDIA H200", machine=GPU, backend="ort-cuda")))
    assert cli.main(["bench", "clip", "--json", "b.json"]) == 0
    assert {path.name for path in place.glob("*.png")} == {
        "clip-latency-gpu-short.png", "clip-latency-host-short.png",
    }  # fmt: skip


def test_options_reach_the_measurement(give: Give):
    calls = give()
    cli.main([
        "bench", "clip", "-b", "ort-cpu", "-p", "fp16", "--batch", "1,4", "--sweep", "tokens=8,16", "--processes", "7",
        "--no-graph", "--l2", "flush", "--kernels", "--no-record", "--lock-clocks", "1500",
        "--baseline", "eager-fp16,compile", "--history", "h.sqlite",
    ])  # fmt: skip
    options = calls[0]["options"]
    assert calls[0]["sizes"] == [{"batch": b, "tokens": t} for b in (1, 4) for t in (8, 16)]
    assert (options.processes, options.graph, options.l2, options.kernels) == (7, False, "flush", True)
    assert (options.record, options.lock_clocks, options.baselines) == (False, 1500, ("eager-fp16", "compile"))
    assert calls[0]["history"].where.endswith("h.sqlite")


@pytest.mark.parametrize(("given", "expected"), [([], None), (["--baseline", "none"], ())])
def test_baselines_by_default_and_none(give: Give, given: list[str], expected: Any):
    calls = give()
    cli.main(["bench", "clip", *given])
    assert calls[0]["options"].baselines == expected


@pytest.mark.parametrize(
    ("found", "extra", "status"),
    [
        ([measured()], [], 0),
        ([measured(), missing()], [], 0),
        ([measured(), missing()], ["--require", "rtx"], 3),
        ([measured()], ["--require", "ort-cpu"], 0),
        ([measured(eager(), baseline=True)], [], 3),
        ([measured(), measured(eager(), baseline=True)], [], 0),
        ([missing()], [], 3),
        ([], [], 3),
        ([measured(), missing(failed=True)], [], 1),
        ([regressed(False)], [], 3),
        ([regressed(True)], [], 1),
        ([invalid()], [], 3),
        ([measured(), invalid()], [], 3),
        ([regressed(True), invalid()], [], 1),
    ],
)
def test_exit_status(give: Give, found: list[Any], extra: list[str], status: int):
    give(*found)
    assert cli.main(["bench", "clip", *extra]) == status


def test_interruption_keeps_what_was_found(give: Give, capsys: pytest.CaptureFixture[str], place: Path):
    give(measured(), KeyboardInterrupt())
    assert cli.main(["bench", "clip", "--json", "b.json"]) == 130
    data = json.loads((place / "b.json").read_text())
    assert (len(data["bench"]), data["complete"], data["error"]) == (1, False, "interrupted")
    shown = capsys.readouterr()
    assert "ort-cpu-fp16" in shown.out
    assert "interrupted" in shown.err


def test_an_error_in_the_middle_keeps_what_was_found(give: Give, capsys: pytest.CaptureFixture[str], place: Path):
    give(measured(), NotJudged("the disk is full"))
    assert cli.main(["bench", "clip", "--json", "b.json"]) == 3
    data = json.loads((place / "b.json").read_text())
    assert (len(data["bench"]), data["error"]) == (1, "the disk is full")
    assert "ort-cpu-fp16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "clap"], "unknown subject 'clap'; did you mean clip?"),
        (["bench", "clip", "--batch", "9"], "batch=9 is outside 1 to 8"),
        (["bench", "clip", "--sweep", "tokns=8"], "unknown dynamic dimension of clip 'tokns'; did you mean tokens?"),
        (["bench", "clip", "--batch", "1", "--sweep", "batch=2"], "the sizes of batch are given twice"),
        (["bench", "clip", "--baseline", "eager"], "unknown baseline 'eager'; did you mean eager-"),
        (["bench", "clip", "--require", "rtz"], "unknown backend 'rtz'"),
        (["bench", "clip", "--json", "suites"], "it is a folder"),
        (["history", "clip", "more"], "history clip more is not complete"),
        (["history", "export", "parity"], "history export parity is not complete"),
        (["history", "export"], "history export FORMAT FILE"),
        (["history", "export", "xml", "out"], "xml"),
        (["bench", "clip", "--baseline", "none,eager-fp32"], "--baseline none stands alone"),
        (["history", "import", "parity", "none.jsonl"], "none.jsonl"),
        (["history", "clip", "--machine", "cpu"], "--machine is for history export"),
        (["history", "import", "parity", "f", "--machine", "cpu"], "an import takes every record"),
        (["history", "export", "parity", "f", "--case", "short"], "moves all records; leave out --case"),
        (["history", "export", "parity", "f", "--batch", "2"], "leave out --sweep (or --batch)"),
        (["accept", "clip", "--why", " "], "--why"),
    ],
)
def test_usage_errors_are_one_sentence(
    give: Give, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    give(measured())
    record(measured())
    capsys.readouterr()
    assert cli.main(arguments) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "clip", "--batch", "1,x"], ["bench", "clip", "--batch", "0"], ["bench", "clip", "--sweep", "8"],
        ["bench", "clip", "--processes", "1"], ["bench", "clip", "--l2", "cold"], ["accept", "clip"],
        ["noise", "clip", "--sessions", "1"], ["noise", "clip", "--history", "f"],
        ["accept", "clip", "--device", "cpu"], ["history", "clip", "--no-engine-cache"],
    ],
)  # fmt: skip
def test_bad_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: parity" in capsys.readouterr().err


def record(*found: Measured) -> None:
    with harness.history.open_history() as store:
        for one in found:
            store.add(one.session)


def days(count: int, **changes: Any) -> list[Measured]:
    """Return sessions of one series, a day apart."""
    return [
        measured(session(id=str(n), recorded_at=f"2025-01-{n + 1:02}T00:00:00+00:00", **changes)) for n in range(count)
    ]  # fmt: skip


def baseline(one: Measured) -> list[str]:
    with harness.history.open_history() as store:
        return [s.id for s in store.baseline(one.session.benchmark, one.session.machine.key)]


def test_accept_takes_what_came_since_the_last_time(capsys: pytest.CaptureFixture[str]):
    first = days(3)
    record(*first)
    assert cli.main(["accept", "clip", "--why", "first figures"]) == 0
    assert baseline(first[0]) == ["0", "1", "2"]
    assert "accepted 3 sessions" in (shown := capsys.readouterr().out)
    assert "fewer than 4 sessions" in " ".join(shown.split())
    assert cli.main(["accept", "clip", "--why", "again"]) == 3
    assert "nothing new" in capsys.readouterr().out
    record(*days(13)[3:])
    assert cli.main(["accept", "clip", "--why", "new kernels"]) == 0
    assert baseline(first[0]) == [str(n) for n in range(5, 13)], "at most eight"
    assert cli.main(["accept", "clip", "--why", "all", "--last", "10"]) == 0
    assert baseline(first[0]) == [str(n) for n in range(3, 13)]


def test_accept_leaves_out_an_outlier_unless_it_is_included(capsys: pytest.CaptureFixture[str]):
    found = days(4)
    slow = session((1.1, 1.111, 1.089), id="3", recorded_at=found[3].session.recorded_at)
    record(*found[:3], measured(slow))
    assert cli.main(["accept", "clip", "--why", "x"]) == 0
    assert baseline(found[0]) == ["0", "1", "2"]
    assert "is an outlier (+10" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["accept", "clip", "--why", "x", "--last", "4", "--include"]) == 0
    assert baseline(found[0]) == ["0", "1", "2", "3"]


def test_accept_leaves_out_a_session_of_a_clock_that_ran_ahead(capsys: pytest.CaptureFixture[str]):
    """It would be the latest for ever, and no later one ever accepted."""
    early, late = days(2)
    record(early, replace(late, session=replace(late.session, recorded_at="2999-01-01T00:00:00")))
    assert cli.main(["accept", "clip", "--why", "x"]) == 0
    assert baseline(early) == ["0"]


@pytest.mark.parametrize("last", [[], ["--last", "4"]])
def test_accept_of_sessions_of_which_none_counts_says_so(capsys: pytest.CaptureFixture[str], last: list[str]):
    first, second = days(2)
    bad = replace(first, session=replace(first.session, runs=(process(9.0, invalid=("a stranger",)),) * 2))
    record(bad, replace(second, session=replace(second.session, recorded_at="2999-01-01T00:00:00")))
    assert cli.main(["accept", "clip", "--why", "x", *last]) == 3
    shown = capsys.readouterr().out
    assert "2 sessions" in shown
    assert "--last" not in shown


def test_while_the_database_is_down_nothing_is_accepted_or_exported(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
):
    """What waits here is a part of the history: the baseline of every runner would be replaced by it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("PARITY_HISTORY", f"postgresql://kim:secret@127.0.0.1:{port}/latency")
    record(*days(2))
    for arguments in (["accept", "clip", "--why", "x"], ["history", "export", "parity", "out.jsonl"]):
        assert cli.main(arguments) == 3
        shown = capsys.readouterr().err
        assert "cannot be read" in shown
        assert "secret" not in shown
    assert not (place / "out.jsonl").exists()
    assert baseline(days(1)[0]) == []
    assert cli.main(["history", "clip"]) == 0, "what waits here is shown, and that it is not all"
    assert "records are kept in" in capsys.readouterr().err


def test_accept_leaves_out_invalid_sessions_and_other_machines(capsys: pytest.CaptureFixture[str]):
    good, bad = days(2)
    bad = replace(bad, session=replace(bad.session, runs=(process(9.0, invalid=("a stranger",)),) * 2))
    away = measured(session(id="away", machine=GPU))
    record(good, bad, away)
    assert cli.main(["accept", "clip", "--why", "x"]) == 0
    assert baseline(good) == ["0"]
    assert baseline(away) == []
    assert capsys.readouterr().out.count("accepted") == 1


def test_accept_without_a_session_of_this_machine(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["accept", "clip", "--why", "x"]) == 3
    assert "parity bench clip" in capsys.readouterr().err
    record(measured(session(machine=GPU)))
    assert cli.main(["accept", "clip", "--why", "x"]) == 3
    assert "same machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("selection", "accepted"),
    [
        ([], {"short", "long", "four"}),
        (["--case", "long"], {"long"}),
        (["--batch", "4"], {"four"}),
        (["-b", "torch"], {"eager"}),
        (["-b", "ort-cpu", "-p", "fp16"], {"short", "long", "four"}),
        (["-p", "fp32", "-b", "torch"], {"eager"}),
    ],
)
def test_accept_takes_the_series_that_are_chosen(selection: list[str], accepted: set[str]):
    series = {
        "short": measured(session(id="short")),
        "long": measured(session(id="long", case="long")),
        "four": measured(session(id="four", sizes={"batch": 4})),
        "eager": measured(eager(id="eager")),
    }
    record(*series.values())
    assert cli.main(["accept", "clip", "--why", "x", *selection]) == 0
    assert {name for name, one in series.items() if baseline(one)} == accepted


def test_history_lists_series_and_draws_them(capsys: pytest.CaptureFixture[str], place: Path):
    record(*days(3), measured(session(case="long", id="long")))
    cli.main(["accept", "clip", "--case", "short", "--why", "first"])
    capsys.readouterr()
    assert cli.main(["history", "clip", "--json", "out/h.json"]) == 0
    shown = capsys.readouterr().out
    assert "clip/short[]/ort-cpu-fp16/engine/no-graph/warm" in shown
    assert "baseline: 3 sessions" in shown
    data = json.loads((place / "out" / "h.json").read_text())
    assert [one["benchmark"].split("/")[1] for one in data["history"]] == ["long[]", "short[]"]
    assert len(list((place / "out").glob("*.png"))) == 2


def test_history_of_nothing(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["history", "clip"]) == 3
    assert "nothing is recorded of clip" in capsys.readouterr().err


def test_records_move_from_one_history_to_another(capsys: pytest.CaptureFixture[str]):
    record(*days(3))
    assert cli.main(["history", "export", "parity", "all.jsonl"]) == 0
    assert cli.main(["history", "import", "parity", "all.jsonl", "--history", "other.sqlite"]) == 0
    assert cli.main(["history", "import", "parity", "all.jsonl", "--history", "other.sqlite"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "all.jsonl: 3 records written as parity", "all.jsonl: 3 new records", "all.jsonl: 0 new records",
    ]  # fmt: skip


def test_what_the_history_had_to_do_is_said(give: Give, capsys: pytest.CaptureFixture[str], place: Path):
    give(measured())
    (place / "h.sqlite").write_text("this is no database, and long enough to be seen as damaged " * 20)
    assert cli.main(["bench", "clip", "--history", "h.sqlite"]) == 0
    assert "parity: history: " in capsys.readouterr().err


def noise_of(
    monkeypatch: pytest.MonkeyPatch, sessions: Callable[[Target, str, int], Iterator[Any]]
) -> list[dict[str, Any]]:
    """Let ``sessions(target, case, number)`` stand in for what is measured; return what is asked for."""
    asked: list[dict[str, Any]] = []

    def measure_noise(subject: Any, *, targets: Any, cases: Any, **options: Any) -> Iterator[Any]:
        asked.append(options)
        for target, case in itertools.product(targets, cases):
            yield from sessions(target, case, options["sessions"])

    monkeypatch.setattr(harness.latency, "measure_noise", measure_noise)
    return asked


@pytest.mark.parametrize("command", ["noise", "aa"])
def test_noise_prints_spreads_and_pairwise_verdicts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path, command: str
):
    def sessions(target: Target, case: str, number: int) -> Iterator[Any]:
        if target.backend == "rtx":
            yield missing()
            return
        yield from (measured(session((1.0, 1.001, 0.999), id=f"{case}{n}", case=case)) for n in range(number))

    asked = noise_of(monkeypatch, sessions)
    assert cli.main([command, "clip", "-p", "fp16", "--case", "short", "--sessions", "3", "--json", "aa.json"]) == 0
    assert asked[0]["sessions"] == 3
    (found,) = json.loads((place / "aa.json").read_text())["aa"]
    assert (found["sessions"], found["processes"], found["verdicts"]) == (3, 3, {"equivalent": 3})
    assert (found["target"], found["device"], found["ms"]) == ("ort-cpu-fp16 short", "CPU", 1.0)
    shown = capsys.readouterr()
    assert "3 equivalent" in shown.out
    assert "rtx-fp16 short: not measured: no GPU" in shown.err


def test_noise_keeps_the_engines_that_could_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
):
    def sessions(target: Target, case: str, number: int) -> Iterator[Any]:
        runs = {"runs": invalid().session.runs} if case == "long" else {}
        yield from (measured(session(id=f"{case}{n}", case=case, **runs)) for n in range(2))

    noise_of(monkeypatch, sessions)
    assert cli.main(["noise", "clip", "-b", "ort-cpu", "-p", "fp16", "--json", "aa.json"]) == 0
    data = json.loads((place / "aa.json").read_text())
    assert [(row["sessions"], row["verdicts"]) for row in data["aa"]] == [(2, {"equivalent": 1})]
    assert [item["case"] for item in data["not_measured"]] == ["long"]
    assert "long: not measured" in capsys.readouterr().err


ONE = ["noise", "clip", "-b", "ort-cpu", "-p", "fp16", "--case", "short"]


def test_noise_says_which_sessions_stand_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
):
    def sessions(*name: Any) -> Iterator[Any]:
        yield measured(session(id="locked"))
        yield measured(session(id="free", machine=replace(CPU, key="another")))

    noise_of(monkeypatch, sessions)
    assert cli.main([*ONE, "--json", "aa.json"]) == 3
    data = json.loads((place / "aa.json").read_text())
    assert (data["aa"], len(data["not_measured"]), len(data["sessions"])) == ([], 2, 2)
    assert capsys.readouterr().err.count("not measured: only one session on the machine as it was then") == 2


def test_noise_says_that_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
):
    def sessions(*name: Any) -> Iterator[Any]:
        yield measured()
        raise KeyboardInterrupt

    noise_of(monkeypatch, sessions)
    assert cli.main([*ONE, "--json", "aa.json"]) == 130
    shown = capsys.readouterr().err
    assert "interrupted" in shown
    assert "not measured" not in shown, "that a session stands alone is no wonder here"
    data = json.loads((place / "aa.json").read_text())
    assert (data["complete"], data["error"], len(data["sessions"])) == (False, "interrupted", 1)


def test_noise_of_nothing(monkeypatch: pytest.MonkeyPatch):
    noise_of(monkeypatch, lambda *name: iter([missing()]))
    assert cli.main(ONE) == 3


def test_a_required_backend_that_is_missing_is_named(give: Give, capsys: pytest.CaptureFixture[str]):
    give(measured(), missing())
    assert cli.main(["bench", "clip", "--require", "rtx", "--require", "ort-cpu"]) == 3
    assert "required backend rtx" in capsys.readouterr().err
