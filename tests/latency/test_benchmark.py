"""Who is timed, in which order, what becomes of a failed process, what is recorded: with pretended processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import FakeBackend, quiet, subject
from safetensors.torch import load_file

from harness import Settings, limits
from harness.backends import BACKENDS, Kernel, key_hash
from harness.errors import EngineFailed, NotJudged, ParityError, UsageError
from harness.latency import benchmark, group, turns
from harness.latency.benchmark import exit_status, lacking
from harness.latency.contestants import Workload, kernels_sha256
from harness.latency.kernels import common_module, join_kernels
from harness.latency.noise import measure_noise
from harness.latency.options import Options
from harness.latency.sizes import batch_symbol, resized
from harness.machine.identity import Machine
from harness.records.latency import Comparison, Measured, NotMeasured, ProcessRun, Session, Summary
from harness.report.text import latency_advice
from harness.subject import Subject, Target
from harness.verify import Run
from harness.verify import target as verify_target

FAKE = Target("fake", "fp16")
EAGER = ("eager-fp32",)


def process(ms: float, **changes: Any) -> ProcessRun:
    summary = Summary(n=100, median=ms, low=ms, high=ms, mean=ms, minimum=ms, cv=0.001)
    return ProcessRun(started_at="", gpu_ms=None, end_to_end_ms=summary, enqueue_ms=None, **changes)


class Processes:
    """Stands in for ``Worker``: answers from ``answer`` and logs the order of what happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.inputs: list[dict[str, torch.Tensor]] = []
        self.times = {"engine": 2.0, "eager": 4.0, "compile": 1.0}
        self.answer: Callable[[dict[str, Any], int], ProcessRun] = self.usual
        self.alive = 0

    def usual(self, request: dict[str, Any], number: int) -> ProcessRun:
        """Return the time of the runner, a little different in every process."""
        return process(self.times[request["runner"]] * (1 + number % 7 / 1000))

    def refuse(self, runner: str, error: Exception) -> None:
        """Let every process of this runner end in an error; the others answer as usual."""

        def answer(request: dict[str, Any], number: int) -> ProcessRun:
            if request["runner"] == runner:
                raise error
            return self.usual(request, number)

        self.answer = answer

    def __call__(self, request: dict[str, Any]) -> Processes.One:
        self.requests.append(request)
        self.inputs.append(load_file(request["inputs"]))
        self.alive += 1
        return self.One(self, request, len(self.requests))

    class One:
        def __init__(self, owner: Processes, request: dict[str, Any], number: int) -> None:
            self.owner, self.request, self.number = owner, request, number

        def ready(self) -> None:
            self.owner.log.append("ready")

        def go(self) -> None:
            self.owner.log.append(f"go {self.request['runner']}")

        def result(self) -> ProcessRun:
            return self.owner.answer(self.request, self.number)

        def close(self) -> None:
            self.owner.alive -= 1


class Memory:
    """A history that is a list."""

    def __init__(self) -> None:
        self.readable = True
        self.records: list[Session] = []
        self.accepted: set[str] = set()

    def add(self, record: Session) -> None:
        self.records.append(record)

    def sessions(self, benchmark: str, machine_key: str, *, limit: int | None = None) -> list[Session]:
        found = [s for s in self.records if (s.benchmark, s.machine.key) == (benchmark, machine_key)]
        return found if limit is None else found[-limit:]

    def baseline(self, benchmark: str, machine_key: str) -> list[Session]:
        return [session for session in self.sessions(benchmark, machine_key) if session.id in self.accepted]

    def benchmarks(self) -> list[Any]:
        keys = {(session.benchmark, session.machine.key) for session in self.records}
        return [type("Series", (), {"benchmark": name, "machine_key": key}) for name, key in sorted(keys)]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    found = FakeBackend()
    monkeypatch.setitem(BACKENDS, "fake", found)  # type: ignore[arg-type]
    return found


PREPARED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace and export a subject once for all tests: nothing here is about that."""
    make = verify_target.prepare

    def prepare(one: Subject, settings: Settings) -> Any:
        key = repr((one.name, one.dynamic))
        if key not in PREPARED:
            PREPARED[key] = make(one, settings)
        return PREPARED[key]

    monkeypatch.setattr(verify_target, "prepare", prepare)


@pytest.fixture
def processes(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    found = Processes()
    monkeypatch.setattr(turns, "Worker", found)
    yield found
    assert found.alive == 0, "a process was left behind"


def dynamic(**changes: Any) -> Subject:
    return subject(dynamic={"x": {0: "batch"}}, ranges={"batch": (2, 16)}, **changes)


def run(tmp_path: Path, one: Subject | None = None, **changes: Any) -> list[Measured | NotMeasured]:
    options = {"baselines": EAGER, "processes": 3, **changes.pop("how", {})}
    asked: dict[str, Any] = {"targets": [FAKE], "cases": ["one"], "settings": quiet(tmp_path), **changes}
    return list(benchmark.bench(one or subject(), options=Options(**options), **asked))


def test_contestants_take_turns_after_all_imports_are_done(processes: Processes, tmp_path: Path):
    run(tmp_path)
    assert processes.log[:6] == ["ready"] * 6
    assert [line.split()[1] for line in processes.log[6:]] == ["engine", "eager", "eager", "engine", "engine", "eager"]


def test_not_more_processes_wait_than_fit(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "AT_ONCE", 4)
    run(tmp_path)
    assert processes.log[:4] == ["ready"] * 4
    assert [line.split()[0] for line in processes.log] == [*["ready"] * 4, *["go"] * 4, *["ready"] * 2, *["go"] * 2]


def test_session_says_what_was_measured(processes: Processes, tmp_path: Path):
    engine, eager = run(tmp_path, how={"l2": "warm"})
    assert isinstance(engine, Measured)
    assert isinstance(eager, Measured)
    session = engine.session
    assert (session.backend, session.precision, session.runner, session.device) == ("fake", "fp16", "engine", "CPU")
    assert (session.weights, session.inputs, session.engine_bytes, session.graph) == ("random", "random", 5, False)
    assert session.benchmark == "two-heads/one[]/fake-fp16/engine/no-graph/warm"
    assert len(session.runs) == 3
    assert session.notes == ()
    assert (eager.session.backend, eager.session.runner, eager.session.engine_sha256) == ("torch", "eager", "")
    assert engine.comparison.verdict == eager.comparison.verdict == "no_baseline"


def test_what_to_type_next_reaches_a_subject_by_its_path(processes: Processes, tmp_path: Path):
    engine, eager = run(tmp_path, subject(locator="examples/heads.py"))
    assert isinstance(engine, Measured)
    assert isinstance(eager, Measured)
    assert (engine.next_step, eager.next_step) == ("parity accept examples/heads.py --why ...", "")
    assert engine.next_step in latency_advice(engine.to_json())


def test_speed_up_is_time_of_the_baseline_over_time_of_the_engine(processes: Processes, tmp_path: Path):
    engine, eager = run(tmp_path)
    assert isinstance(engine, Measured)
    assert isinstance(eager, Measured)
    low, high = engine.speed_up_intervals["eager fp32"]
    assert low < engine.speed_up["eager fp32"] < high
    assert engine.speed_up["eager fp32"] == pytest.approx(2.0, rel=0.01)
    assert eager.speed_up == {}
    json.dumps(engine.to_json(), allow_nan=False)


def test_requests_name_engine_inputs_and_subject(processes: Processes, tmp_path: Path):
    run(tmp_path, how={"throughput": False, "locator": "suites/test_x.py"})
    engine, eager = processes.requests[:2]
    assert Path(engine["engine"]).suffix == ".engine"
    assert (engine["runner"], engine["backend"], engine["device"]) == ("engine", "fake", "cpu")
    assert (engine["graph"], engine["throughput"], engine["subject"]) == (False, False, None)
    assert (eager["runner"], eager["precision"], eager["engine"]) == ("eager", "fp32", "")
    assert eager["subject"]["locator"] == "suites/test_x.py"
    assert len({request["result"] for request in processes.requests}) == 6


def test_one_tensor_may_be_given_under_two_names(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """safetensors refuses tensors that share memory."""
    given = torch.arange(6.0)
    monkeypatch.setattr(Workload, "inputs", {"x": given, "same": given, "part": given[2:]})
    run(tmp_path)
    sent = processes.inputs[0]
    assert torch.equal(sent["x"], given)
    assert torch.equal(sent["same"], given)
    assert torch.equal(sent["part"], given[2:])


def test_sizes_reach_the_processes_and_the_record(processes: Processes, tmp_path: Path):
    found = run(tmp_path, dynamic(), sizes=[{"batch": 2}, {"batch": 12}], how={"baselines": ()})
    assert [item.session.sizes for item in found if isinstance(item, Measured)] == [{"batch": 2}, {"batch": 12}]
    given = subject().cases["one"]()["x"]
    assert torch.equal(processes.inputs[0]["x"], given[:2])
    assert torch.equal(processes.inputs[-1]["x"], torch.cat([given, given])[:12])


@pytest.mark.parametrize(
    ("one", "sizes", "words"),
    [
        (dynamic(), {"batch": 17}, "batch=17 is outside 2 to 16, which its engines are built for"),
        (dynamic(), {"batch": 1}, "batch=1 is outside 2 to 16"),
        (dynamic(), {"bach": 4}, "unknown dynamic dimension of two-heads 'bach'; did you mean batch?"),
        (subject(), {"batch": 4}, "unknown dynamic dimension of two-heads 'batch'; known: none"),
    ],
)
def test_sizes_that_no_engine_holds_are_usage_errors(one: Subject, sizes: dict[str, int], words: str, tmp_path: Path):
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        run(tmp_path, one, sizes=[sizes])


def test_batch_symbol():
    assert batch_symbol(dynamic()) == "batch"
    with pytest.raises(UsageError, match=r"no dynamic dimension 0; declare it with dynamic=\{'x': \{0: 'batch'\}\}"):
        batch_symbol(subject())
    two = subject(dynamic={"x": {0: "n"}, "y": {0: "m"}}, ranges={"n": (1, 2), "m": (1, 2)})
    with pytest.raises(UsageError, match="is m or n; say which: --sweep m=1,2,4"):
        batch_symbol(two)
    file = replace(subject(), build=None, onnx=Path("model.onnx"))
    with pytest.raises(UsageError, match="built for the shapes of its inputs; give them as --shape"):
        batch_symbol(file)


def test_resized_repeats_and_cuts_only_what_is_named():
    inputs = {"x": torch.arange(6).reshape(2, 3), "y": torch.arange(2)}
    dynamic = {"x": {0: "n", 1: "m"}, "y": {0: "n"}}
    found = resized(inputs, dynamic, {"n": 3})
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert found["y"].tolist() == [0, 1, 0]
    assert resized(inputs, dynamic, {"m": 1})["x"].tolist() == [[0], [3]]
    assert resized(inputs, dynamic, {})["x"] is inputs["x"]


@pytest.mark.parametrize(("error", "failed"), [(NotJudged("no memory"), False), (EngineFailed("it crashed"), True)])
def test_a_contestant_that_fails_does_not_stop_the_others(
    processes: Processes, tmp_path: Path, error: ParityError, failed: bool
):
    processes.refuse("engine", error)
    problem, eager = run(tmp_path)
    assert isinstance(problem, NotMeasured)
    assert (problem.reason, problem.failed, problem.backend) == (str(error), failed, "fake")
    assert isinstance(eager, Measured)
    assert processes.log.count("go engine") == 1, "it is not asked again"
    assert exit_status([problem, eager]) == (1 if failed else 3), "the time of PyTorch is nobody's verdict"
    assert exit_status([problem]) == (1 if failed else 3)


def test_a_baseline_that_fails_is_never_the_engines_failure(processes: Processes, tmp_path: Path):
    processes.refuse("eager", EngineFailed("killed"))
    problem, engine = run(tmp_path)
    assert isinstance(problem, NotMeasured)
    assert not problem.failed
    assert isinstance(engine, Measured)
    assert engine.speed_up == {}
    assert exit_status([problem, engine]) == 0


def test_a_backend_that_cannot_run_is_not_measured(processes: Processes, backend: FakeBackend, tmp_path: Path):
    backend.cannot_run = lambda: "no GPU"  # type: ignore[method-assign]
    found = run(tmp_path, cases=["one", "two"])
    assert [(item.case, item.reason) for item in found if isinstance(item, NotMeasured)] == [
        ("one", "no GPU"), ("two", "no GPU"),
    ]  # fmt: skip
    assert not processes.requests
    assert backend.builds == 0
    assert exit_status(found) == 3


def test_pytorch_as_a_target_is_its_own_baseline(processes: Processes, tmp_path: Path):
    plan = tmp_path / "plan.toml"
    plan.write_text('precision = "fp16"\nkeep_fp32 = ["left"]\n')
    found = run(tmp_path, targets=[FAKE, Target("torch", "fp32"), Target("torch", str(plan))])
    sessions = [item.session for item in found if isinstance(item, Measured)]
    assert [(s.backend, s.runner, s.precision) for s in sessions] == [
        ("fake", "engine", "fp16"), ("torch", "eager", "fp32"),
    ]  # fmt: skip
    (problem,) = [item for item in found if isinstance(item, NotMeasured)]
    assert problem.reason.startswith("PyTorch is timed in fp32, tf32, fp16, bf16, not by the plan")


def accept(history: Memory, tmp_path: Path, processes: Processes, sessions: int = 4) -> None:
    for _ in range(sessions):
        run(tmp_path, history=history)
    history.accepted = {session.id for session in history.records}


def test_the_same_again_is_equivalent(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    engine, eager = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    assert isinstance(eager, Measured)
    assert engine.comparison.verdict == "equivalent"
    assert len(engine.comparison.baseline) == 4
    assert eager.comparison.verdict == "no_baseline", "PyTorch is there to compare with"
    assert exit_status([engine, eager]) == 0


def rebuilt(processes: Processes, tmp_path: Path, ratio: float, *, day: float = 1.0) -> None:
    """Make the engine's file another one, ``ratio`` times as slow, and everything slower by the ``day``."""
    folder = tmp_path / "engines"
    for path in list(folder.glob("*.engine")):  # as built by other code: the same target under another key
        named = json.loads(path.with_suffix(".json").read_text())
        named["key"]["code"] = "old"
        moved = folder / f"old-{key_hash(named['key'])[:16]}.engine"
        path.rename(moved)
        path.with_suffix(".json").unlink()
        moved.with_suffix(".json").write_text(json.dumps(named))

    def answer(request: dict[str, Any], number: int) -> ProcessRun:
        new = request["runner"] == "engine" and not Path(request["engine"]).name.startswith("old")
        return process(processes.times[request["runner"]] * (ratio if new else 1.0) * day * (1 + number % 7 / 1000))

    processes.answer = answer


def second(found: Sequence[Measured | NotMeasured]) -> Comparison:
    (one,) = [item for item in found if isinstance(item, Measured) and not item.baseline]
    return one.comparison


def test_a_slower_engine_is_measured_again_at_once_in_turns_with_the_accepted_one(
    processes: Processes, backend: FakeBackend, tmp_path: Path
):
    history = Memory()
    accept(history, tmp_path, processes)
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.03)
    before = len(processes.requests)
    found = run(tmp_path, history=history)
    compared = second(found)
    assert (compared.verdict, compared.repeated, exit_status(found)) == ("regressed", True, 1)
    assert compared.second_look is not None
    assert (compared.second_look.control, compared.second_look.processes) == ("accepted engine", 8)
    assert compared.second_look.ratio == pytest.approx(1.03, rel=2e-3)
    assert compared.second_look.control_ratio == pytest.approx(1.0, abs=2e-3)
    asked = [Path(request["engine"]).name.startswith("old") for request in processes.requests[before + 6 :]]
    assert asked == [True, False, False, True] * 4
    assert len(history.records[-2].runs) == 3, "the session is that of the first look: the series stays comparable"


def test_a_slow_day_is_no_slow_engine(processes: Processes, backend: FakeBackend, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    backend.content = b"rebuilt"
    rebuilt(processes, tmp_path, 1.0, day=1.05)
    found = run(tmp_path, history=history)
    compared = second(found)
    assert (compared.verdict, compared.repeated, exit_status(found)) == ("machine_changed", False, 0)
    assert compared.second_look is not None
    assert compared.second_look.control_ratio == pytest.approx(1.05, rel=2e-3)
    assert "accept" in compared.next_step


def test_a_slower_engine_on_a_faster_day_is_found(processes: Processes, backend: FakeBackend, tmp_path: Path):
    """Its time is that of the baseline; the sessions since tell that the machine has moved."""
    history = Memory()
    accept(history, tmp_path, processes)
    processes.times = {name: ms * 0.95 for name, ms in processes.times.items()}
    for _ in range(3):
        run(tmp_path, history=history)
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.05)
    compared = second(run(tmp_path, history=history))
    assert (compared.verdict, compared.repeated) == ("regressed", True)
    assert compared.age is not None
    assert compared.age.change == pytest.approx(-0.05, abs=2e-3)


def test_pytorch_beside_it_tells_of_a_faster_day_at_once(processes: Processes, backend: FakeBackend, tmp_path: Path):
    """Without any session since: the engine's time is that of the baseline, PyTorch's is not."""
    history = Memory()
    accept(history, tmp_path, processes)
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.05, day=1 / 1.05)
    compared = second(run(tmp_path, history=history))
    assert (compared.verdict, compared.repeated) == ("regressed", True)
    assert "by stored times alone equivalent" in compared.notes[-1]


def test_the_same_file_needs_no_second_look(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    processes.times["engine"] *= 1.2
    before = len(processes.requests)
    found = run(tmp_path, history=history)
    assert (second(found).verdict, exit_status(found)) == ("machine_changed", 0)
    assert len(processes.requests) == before + 6


@pytest.mark.parametrize(("day", "verdict"), [(1.0, "regressed"), (1.1, "regressed")])
def test_without_the_accepted_file_pytorch_stands_for_the_machine(
    processes: Processes, backend: FakeBackend, tmp_path: Path, day: float, verdict: str
):
    history = Memory()
    accept(history, tmp_path, processes)
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.05, day=day)
    for path in (tmp_path / "engines").glob("old*"):
        path.unlink()
    compared = second(run(tmp_path, history=history, how={"baselines": ()}))
    assert compared.second_look is not None
    assert (compared.second_look.control, compared.repeated) == ("eager fp32", True), "measured for the look alone"
    assert compared.second_look.control_ratio == pytest.approx(day, rel=3e-3)
    backend.content = b"as fast"
    rebuilt(processes, tmp_path, 1.0, day=1.1)
    for path in (tmp_path / "engines").glob("old*"):
        path.unlink()
    assert second(run(tmp_path, history=history)).verdict == "machine_changed"


def test_without_any_control_a_slower_engine_is_neither_green_nor_red(
    processes: Processes, backend: FakeBackend, tmp_path: Path
):
    history = Memory()
    for _ in range(4):
        run(tmp_path, history=history, how={"baselines": ()})
    history.accepted = {session.id for session in history.records}
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.05)
    for path in (tmp_path / "engines").glob("old*"):
        path.unlink()
    found = run(tmp_path, history=history, how={"baselines": ()})
    compared = second(found)
    assert (compared.verdict, compared.repeated, compared.second_look) == ("regressed", False, None)
    assert "PARITY_ENGINES" in compared.next_step
    assert exit_status(found) == 3


def test_a_control_that_fails_leaves_the_verdict_and_says_so(
    processes: Processes, backend: FakeBackend, tmp_path: Path
):
    history = Memory()
    accept(history, tmp_path, processes)
    backend.content = b"slower"
    rebuilt(processes, tmp_path, 1.05)
    answer = processes.answer

    def refuse(request: dict[str, Any], number: int) -> ProcessRun:
        if Path(request["engine"]).name.startswith("old"):
            raise EngineFailed("it crashed")
        return answer(request, number)

    processes.answer = refuse
    compared = second(run(tmp_path, history=history))
    assert any("no second look with the accepted engine: it crashed" in note for note in compared.notes)
    assert compared.second_look is not None
    assert compared.second_look.control == "eager fp32", "the next best"


def test_a_session_of_a_clock_that_ran_ahead_is_none_of_those_since(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    ahead = replace(history.records[0], id="ahead", recorded_at="2999-01-01T00:00:00+00:00")
    history.records.append(ahead)
    compared = second(run(tmp_path, history=history))
    assert compared.age is not None
    assert compared.age.sessions == 0
    assert any("dated after this one: 1; a clock jumped" in note for note in compared.notes)


def replayed(ms: float, graph: bool, request: dict[str, Any], number: int) -> ProcessRun:
    """Return what a process on a GPU finds, with or without the CUDA graph that was asked for."""
    run = process(ms * (1 + number % 7 / 1000), graph=graph, graph_failure="" if graph else "a sync")
    return replace(run, gpu_ms=run.end_to_end_ms)


def test_a_session_without_its_cuda_graph_is_held_against_none_with_it(processes: Processes, tmp_path: Path):
    """``Session.graph`` is what was asked for; what each process did decides."""
    history = Memory()
    processes.answer = partial(replayed, 2.0, True)
    accept(history, tmp_path, processes)
    processes.answer = partial(replayed, 2.4, False)
    compared = second(run(tmp_path, history=history))
    assert compared.verdict == "no_baseline"
    assert any("one replayed a CUDA graph and the other did not (a sync)" in note for note in compared.notes)
    processes.answer = partial(replayed, 2.0, True)
    after = second(run(tmp_path, history=history))
    assert after.age is not None
    assert after.age.sessions == 0, "the one between is not of its kind"


def test_a_history_that_cannot_be_read_is_no_missing_acceptance(processes: Processes, tmp_path: Path):
    history = Memory()
    history.readable = False
    engine, _ = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    assert engine.comparison.verdict == "no_baseline"
    assert "the history cannot be read now" in engine.comparison.rule


def test_a_clock_that_could_not_be_locked_is_not_in_the_key(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int | None] = []
    real = group.machine

    def machine(*args: Any, locked_mhz: int | None) -> Machine:
        asked.append(locked_mhz)
        return real(*args, locked_mhz=locked_mhz)

    monkeypatch.setattr(group, "machine", machine)
    processes.answer = lambda request, number: process(2.0, locked_mhz=1500)
    run(tmp_path, how={"lock_clocks": 1500})
    assert set(asked) == {1500}
    asked.clear()
    processes.answer = lambda request, number: process(2.0, locked_mhz=None if number % 2 else 1500)
    run(tmp_path, how={"lock_clocks": 1500})
    assert set(asked) == {None}


class LockedGpu:
    """A GPU whose clocks somebody locked."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __enter__(self) -> LockedGpu:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def free_clocks(self) -> None:
        self.log.append("free")


@pytest.mark.parametrize(("device", "lock", "freed"), [("GPU", 1500, True), ("GPU", None, False), ("CPU", 1500, False)])
def test_a_process_that_dies_leaves_no_clock_locked(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, lock: int | None, freed: bool
):
    gpu = LockedGpu()
    left: list[int] = []

    def open_gpu(asked: torch.device) -> LockedGpu:
        assert asked == torch.device("cuda", 0)
        left.append(processes.alive)
        return gpu

    def answer(request: dict[str, Any], number: int) -> ProcessRun:
        raise EngineFailed("died with signal 11")

    processes.answer = answer
    monkeypatch.setattr(turns, "open_gpu", open_gpu)
    monkeypatch.setattr(turns, "_gpu_uuid", lambda: tmp_path.name)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(verify_target.OpenTarget, "device_name", device)
    (problem,) = run(tmp_path, how={"lock_clocks": lock, "baselines": ()})
    assert isinstance(problem, NotMeasured)
    assert gpu.log == (["free"] if freed else [])
    assert left == ([0] if freed else []), "not while another process may hold them"


def test_the_l2_cache_of_a_cpu_cannot_be_flushed(processes: Processes, tmp_path: Path):
    with pytest.raises(UsageError, match="only a GPU's L2 cache"):
        run(tmp_path, how={"l2": "flush"})
    assert not processes.requests


def _measured(item: Measured | NotMeasured) -> bool:
    return isinstance(item, Measured)


def test_an_inconclusive_comparison_gets_more_processes(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    before = len(processes.requests)
    # A tenth slower, the same, a tenth faster: nothing can be told, however many there are.
    processes.answer = lambda request, number: process(2.0 * (1 + 0.1 * (number % 3 - 1)))
    engine, _ = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    asked = [request["runner"] for request in processes.requests[before:]]
    assert engine.comparison.verdict == "inconclusive"
    assert (asked.count("engine"), asked.count("eager")) == (15, 3)
    assert len(engine.session.runs) == 15


def test_processes_that_cannot_change_the_verdict_are_not_started(processes: Processes, tmp_path: Path):
    """Some replayed a CUDA graph and some did not: however many there are, nothing can be compared."""
    history = Memory()
    processes.answer = lambda request, number: replayed(2.0, number % 2 == 0, request, number)
    engine, _ = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    assert (engine.comparison.verdict, engine.comparison.ratio) == ("inconclusive", None)
    assert len(engine.session.runs) == 3


def test_an_invalid_environment_is_neither_pass_nor_regression(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes)
    processes.answer = lambda request, number: process(9.0, invalid=("process 7 computes on this GPU",))
    engine, eager = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    assert engine.comparison.verdict == "invalid_environment"
    assert engine.speed_up == {}
    assert exit_status([engine, eager]) == 3


def test_records_are_kept_unless_told_otherwise(processes: Processes, tmp_path: Path):
    history = Memory()
    run(tmp_path, history=history, how={"record": False})
    assert history.records == []
    run(tmp_path, history=history)
    assert [session.runner for session in history.records] == ["engine", "eager"]
    assert len({session.id for session in history.records}) == 2


def test_a_baseline_of_another_machine_is_named_and_decides_nothing(processes: Processes, tmp_path: Path):
    history = Memory()
    accept(history, tmp_path, processes, sessions=1)
    other = [replace(s, machine=replace(s.machine, key="other")) for s in history.records]
    history.records = other
    engine, _ = run(tmp_path, history=history)
    assert isinstance(engine, Measured)
    assert engine.comparison.verdict == "no_baseline"
    assert any("another machine" in note for note in engine.comparison.notes)


def test_interruption_keeps_what_was_measured_and_records_none_of_it(processes: Processes, tmp_path: Path):
    def answer(request: dict[str, Any], number: int) -> ProcessRun:
        if number == 5:
            raise KeyboardInterrupt
        return processes.usual(request, number)

    processes.answer = answer
    history = Memory()
    asked: dict[str, Any] = {"targets": [FAKE], "cases": ["one"], "settings": quiet(tmp_path), "history": history}
    options = Options(processes=3, baselines=EAGER)
    found: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(benchmark.bench(subject(), options=options, **asked))
    assert [item.session.notes for item in found if isinstance(item, Measured)] == [
        ("interrupted after 2 of 3 processes",)
    ] * 2
    assert history.records == []


@pytest.mark.parametrize("number", [1, 5])
def test_what_there_is_no_time_for_is_not_measured_and_named(processes: Processes, tmp_path: Path, number: int):
    def answer(request: dict[str, Any], asked: int) -> ProcessRun:
        if asked == number:
            for limit in limits._applying():
                limit.ends = time.monotonic() - 0.01
            limits.check()
        return processes.usual(request, asked)

    processes.answer = answer
    history = Memory()
    with limits.allowed(budget=900):
        found = run(tmp_path, cases=["one", "two"], history=history)
    missing = {item.case: item for item in found if isinstance(item, NotMeasured)}
    assert set(missing) == ({"one", "two"} if number == 1 else {"two"})
    assert {(item.failure, item.limit, item.failed) for item in missing.values()} == {("timeout", "--budget", False)}
    assert all(item.reason.startswith("the budget of 900 s was spent (--budget)") for item in missing.values())
    assert history.records == []


@pytest.mark.parametrize(("failure", "attempts"), [("crash", 1), ("refused", 0)])
def test_an_engine_whose_process_died_is_timed_again(processes: Processes, tmp_path: Path, failure: Any, attempts: int):
    died: list[int] = []

    def answer(request: dict[str, Any], number: int) -> ProcessRun:
        if request["runner"] == "engine" and not died:
            died.append(number)
            raise EngineFailed("it died with signal 11", failure=failure)
        return processes.usual(request, number)

    processes.answer = answer
    found = run(tmp_path, settings=quiet(tmp_path, retries=1))
    engine = next(item for item in found if not item.baseline)
    assert isinstance(engine, Measured if attempts else NotMeasured)
    assert [(one.verdict, one.failure) for one in engine.failed_attempts] == [("fail", "crash")] * attempts
    assert (
        engine.to_json()["failed_attempts"]
        == [{"verdict": "fail", "failure": "crash", "reason": "it died with signal 11"}] * attempts
    )


def test_real_processes_time_a_real_engine(tmp_path: Path):
    short = {"warm_up_s": 0.01, "warm_up_cap_s": 0.02, "sample_s": 0.02, "sample_cap_s": 0.04, "secondary_s": 0.01}
    sampling = {**short, "throughput_s": 0.02, "block_s": 0.005, "fewest": 5}
    how = {"processes": 2, "baselines": (), "sampling": sampling, "kernels": True}
    (found,) = run(tmp_path, dynamic(), targets=[Target("ort-cpu", "fp32")], sizes=[{"batch": 4}], how=how)
    assert isinstance(found, Measured)
    assert len(found.session.runs) == 2
    assert found.session.metric == "end_to_end_ms"
    assert all(run.end_to_end_ms.median > 0 and not run.graph for run in found.session.runs)
    assert [bool(run.throughput_per_s) for run in found.session.runs] == [True, False]  # one is enough
    assert {"left", "right"} <= {kernel.module for kernel in found.kernels}
    assert sum(kernel.share for kernel in found.kernels) == pytest.approx(1.0)


def test_repeat_measures_one_engine_again_and_again(processes: Processes, backend: FakeBackend, tmp_path: Path):
    options = Options(processes=2)
    one = Run(subject(), quiet(tmp_path))
    with one.target(FAKE) as opened:
        workload = Workload(run=one, case="one", sizes={})
        found = list(benchmark.repeat(opened, workload, options, sessions=3))
    assert [len(item.session.runs) for item in found if isinstance(item, Measured)] == [2, 2, 2]
    assert backend.builds == 1


def test_noise_measures_every_engine_again_and_again(processes: Processes, backend: FakeBackend, tmp_path: Path):
    asked: dict[str, Any] = {"targets": [FAKE, Target("fake", "fp32")], "cases": ["one", "two"], "sizes": [{}]}
    options = Options(processes=2)
    found = list(measure_noise(subject(), settings=quiet(tmp_path), sessions=2, options=options, **asked))
    assert [(item.session.precision, item.session.case) for item in found if isinstance(item, Measured)] == [
        (precision, case) for precision in ("fp16", "fp32") for case in ("one", "two") for _ in range(2)
    ]
    assert not any(request["throughput"] for request in processes.requests)
    assert backend.builds == 2


def test_a_failed_contestant_gets_no_process_in_the_next_batch(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns, "AT_ONCE", 2)
    processes.refuse("engine", NotJudged("no memory"))
    run(tmp_path)
    assert [request["runner"] for request in processes.requests].count("engine") == 1


def test_an_unknown_baseline_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown baseline 'eager-fp23'; did you mean eager-fp"):
        Options(baselines=("eager-fp23",))


def test_required_backends(processes: Processes, tmp_path: Path):
    found = run(tmp_path)
    assert exit_status(found, ["fake"]) == 0
    assert exit_status(found, ["rtx"]) == 3
    assert exit_status([], []) == 3


def test_a_required_backend_is_not_missing_because_a_baseline_is(processes: Processes, tmp_path: Path):
    processes.refuse("compile", NotJudged("no working C compiler"))
    found = run(tmp_path, targets=[Target("torch", "fp32")], how={"baselines": ("compile",)})
    (problem,) = [item for item in found if isinstance(item, NotMeasured)]
    assert (problem.backend, problem.runner, problem.baseline) == ("torch", "compile", True)
    assert lacking(found, ["torch"]) == []
    assert exit_status(found, ["torch"]) == 0
    assert lacking([*found, replace(problem, baseline=False)], ["torch"]) == ["torch"]


@pytest.mark.parametrize(
    ("modules", "common"),
    [
        (["a.b.c", "a.b.d"], "a.b"),
        (["a.b", "a.b.c"], "a.b"),
        (["a", "b"], ""),
        (["a.b"], "a.b"),
        ([], ""),
        (["layer.1", "layer.11"], "layer"),
    ],
)
def test_module_that_holds_them_all(modules: Sequence[str], common: str):
    assert common_module(modules) == common


def test_kernels_are_joined_with_nodes_and_modules():
    times = [("k1", 1.0), ("k2", 3.0), ("unlisted", 0.5), ("node_c", 0.5)]
    nodes = {"k1": ("node_a",), "k2": ("node_a", "node_b")}
    found = join_kernels(times, nodes, {"node_a": "m.x", "node_b": "m.y", "node_c": "m.z"})
    assert [(k.name, k.share, k.module, k.nodes) for k in found] == [
        ("k2", 0.6, "m", ("node_a", "node_b")),
        ("k1", 0.2, "m.x", ("node_a",)),
        ("unlisted", 0.1, "", ()),
        ("node_c", 0.1, "m.z", ("node_c",)),
    ]


def test_the_hash_of_kernels_changes_with_a_tactic():
    gemm = Kernel(index=0, name="gemm", nodes=(), reads=(), writes=(), tactic=("a", "0x1"))
    assert kernels_sha256([gemm]) == kernels_sha256([replace(gemm, nodes=("x",))])
    assert kernels_sha256([gemm]) != kernels_sha256([replace(gemm, tactic=("b", "0x1"))])
    assert kernels_sha256([]) == ""
