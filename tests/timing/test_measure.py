"""Timing engines and modules: on the CPU for real, on a GPU whose events and graphs only write down what is called."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from harness import Settings
from harness.backends import BACKENDS
from harness.backends.base import BuildRequest
from harness.errors import EngineFailed, NotJudged, UsageError
from harness.machine.gpu import Gpu
from harness.records.latency import ProcessRun
from harness.timing import cuda, measure, median
from harness.timing.measure import TimingOptions, measure_engine, measure_module
from harness.timing.median import FEWEST, between_events_ms, kernel_times, median_ms
from harness.timing.sampling import LEAST, Sampling


class Clock:
    """A clock that only runs move, so that nothing depends on the machine's speed."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Sleeper:
    """A session whose runs take what a function of their number says, in seconds; without a clock they take none."""

    layers = None

    def __init__(self, seconds: Callable[[int], float], clock: Clock | None = None) -> None:
        self.seconds, self.clock, self.runs = seconds, clock or Clock(), 0

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.clock.now += self.seconds(self.runs)
        self.runs += 1
        return {"y": inputs["x"] + 1}

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


INPUTS = {"x": torch.ones(2)}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for as short a time as the fewest runs take."""
    monkeypatch.setattr(median, "WARM_UP_S", 0.0)
    monkeypatch.setattr(median, "MEASURE_S", 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that ``median_ms`` reads."""
    found = Clock()
    monkeypatch.setattr(median, "time", found)
    return found


def test_milliseconds_of_one_run(clock: Clock) -> None:
    session = Sleeper(lambda run: 0.01, clock)
    assert median_ms(session, INPUTS) == pytest.approx(10)
    assert session.runs == 2 * FEWEST


def test_the_first_runs_do_not_count(clock: Clock) -> None:
    assert median_ms(Sleeper(lambda run: 0.02 if run < FEWEST else 0.001, clock), INPUTS) == pytest.approx(1)


def test_a_few_slow_runs_do_not_count(clock: Clock) -> None:
    assert median_ms(Sleeper(lambda run: 0.05 if run % 5 == 0 else 0.001, clock), INPUTS) == pytest.approx(1)


def test_it_measures_as_long_as_it_should(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(median, "MEASURE_S", 0.1)
    session = Sleeper(lambda run: 1 / 1024, clock)
    median_ms(session, INPUTS)
    assert clock.now - FEWEST / 1024 >= 0.1
    assert session.runs == FEWEST + 103
    assert session.runs > 2 * FEWEST


def test_what_a_run_raises_comes_out() -> None:
    def fail(run: int) -> float:
        raise EngineFailed("kernel 7 failed")

    with pytest.raises(EngineFailed, match="kernel 7 failed"):
        median_ms(Sleeper(fail), INPUTS)


def test_on_a_gpu_the_time_is_that_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Event:
        def __init__(self, **options: Any) -> None:
            assert options == {"enable_timing": True}

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

        def elapsed_time(self, other: Event) -> float:
            return 7.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert between_events_ms(lambda: calls.append("run")) == 7.0
    assert calls == ["record", "run", "record", "synchronize"]


# A GPU whose clock is moved by launches alone


class FakeStream:
    """Work done on it so far, in milliseconds, and what was called, in order."""

    def __init__(self) -> None:
        self.ms, self.calls = 0.0, list[str]()
        self.capturing: list[float] | None = None

    def work(self, ms: float, what: str) -> None:
        self.calls.append(what)
        if self.capturing is None:
            self.ms += ms
        else:
            self.capturing.append(ms)

    def synchronize(self) -> None:
        self.calls.append("synchronize")


class FakeEvent:
    def __init__(self, **options: Any) -> None:
        self.stream: FakeStream | None = None
        self.at = 0.0

    def record(self, stream: FakeStream) -> None:
        self.stream, self.at = stream, stream.ms
        stream.calls.append("record")

    def synchronize(self) -> None:
        assert self.stream is not None
        self.stream.calls.append("wait")

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at - self.at


class FakeGraph:
    """Replays what was captured; ``FakeGraph.fault`` is what goes wrong."""

    fault = ""

    def __init__(self) -> None:
        self.captured: list[float] = []
        self.stream: FakeStream | None = None

    def replay(self) -> None:
        assert self.stream is not None
        for ms in self.captured:
            self.stream.work(ms, "replay")
        if self.fault != "writes nothing":
            RUNS[-1].write()


@contextlib.contextmanager
def fake_capture(graph: FakeGraph, *, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
    assert capture_error_mode == "thread_local"
    graph.stream, stream.capturing = stream, []
    try:
        yield
        if graph.fault == "raises":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        graph.captured = [ms / 2 for ms in stream.capturing]
        if graph.fault == "is empty":
            warnings.warn("The CUDA Graph is empty. This usually means ...", UserWarning, stacklevel=2)
    finally:
        stream.capturing = None


class FakeRun:
    """A run of ``ms`` milliseconds, launched kernel by kernel; a graph of it takes half."""

    def __init__(self, inputs: Mapping[str, torch.Tensor], ms: float) -> None:
        self.stream, self.ms = FakeStream(), ms
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self.outputs = {"y": torch.zeros(2)}
        self.reason, self.closed = "", False

    def launch(self) -> None:
        self.stream.work(self.ms, "launch")
        self.write()

    def write(self) -> None:
        self.outputs["y"].copy_(self.inputs["x"] + 1)

    def forget(self) -> None:
        self.outputs["y"].fill_(float("nan"))

    def not_capturable(self) -> str:
        return self.reason

    def close(self) -> None:
        self.closed = True


RUNS: list[FakeRun] = []


class FakeBenchSession(Sleeper):
    """Binds runs of ``ms`` milliseconds; the binding after ``most`` runs out of memory."""

    def __init__(self, ms: float, *, most: int = 9, reason: str = "") -> None:
        super().__init__(lambda run: 0.0)
        self.ms, self.most, self.reason = ms, most, reason

    def bind(self, inputs: Mapping[str, torch.Tensor]) -> FakeRun:
        if len(RUNS) >= self.most:
            raise NotJudged("rtx ran out of GPU memory: tried to allocate 3 GiB")
        RUNS.append(FakeRun(inputs, self.ms))
        RUNS[-1].reason = self.reason
        return RUNS[-1]


QUICK = Sampling(
    warm_up_s=0.0, warm_up_cap_s=0.05, sample_s=0.0, sample_cap_s=0.05, secondary_s=0.0, throughput_s=0.02,
    block_s=0.0005, fewest=10,
)  # fmt: skip


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    monkeypatch.setattr(FakeGraph, "fault", "")
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fake_capture)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    monkeypatch.setattr(cuda, "pinned_like", torch.empty_like)
    monkeypatch.setattr(measure, "open_gpu", lambda device: Gpu(reason="a fake has none"))


def options(device: str, **changes: Any) -> TimingOptions:
    return TimingOptions(**{"device": device, "graph": False, "sampling": QUICK, **changes})


def on_gpu(session: Any, **changes: Any) -> ProcessRun:
    return measure_engine(session, INPUTS, options("cuda", **{"graph": True, **changes}), load_ms=12.0)


@pytest.mark.usefixtures("fake_cuda")
class TestOnAGpu:
    def test_a_replayed_graph_is_what_is_timed(self) -> None:
        run = on_gpu(FakeBenchSession(4.0))
        assert (run.graph, run.graph_failure) == (True, "")
        assert run.gpu_ms is not None
        assert run.gpu_ms.median == pytest.approx(2.0)
        assert run.gpu_ms.n >= QUICK.fewest
        assert run.end_to_end_ms.median > 0
        assert run.enqueue_ms is not None
        assert run.enqueue_ms.median > 0
        assert (run.load_ms, run.inner, run.streams) == (12.0, 1, 2)
        assert run.throughput_per_s is not None
        assert run.throughput_per_s > 0

    def test_without_a_graph_the_launch_is(self) -> None:
        run = on_gpu(FakeBenchSession(4.0), graph=False)
        assert (run.graph, run.graph_failure) == (False, "")
        assert run.gpu_ms is not None
        assert run.gpu_ms.median == pytest.approx(4.0)
        assert "replay" not in {call for fake in RUNS for call in fake.stream.calls}

    @pytest.mark.parametrize(
        ("fault", "sentence"),
        [
            ("raises", "capturing the CUDA graph failed: operation not permitted when stream is capturing"),
            ("is empty", "capturing the CUDA graph failed: The CUDA Graph is empty. This usually means ..."),
            ("writes nothing", "the replayed CUDA graph gives another 'y' than the launch (relative error inf)"),
        ],
    )
    def test_a_capture_that_fails_is_recorded_and_a_fresh_run_is_timed(
        self, monkeypatch: pytest.MonkeyPatch, fault: str, sentence: str
    ) -> None:
        monkeypatch.setattr(FakeGraph, "fault", fault)
        run = on_gpu(FakeBenchSession(4.0), throughput=False)
        assert (run.graph, run.graph_failure) == (False, sentence)
        assert run.gpu_ms is not None
        assert run.gpu_ms.median == pytest.approx(4.0)
        assert [fake.closed for fake in RUNS] == [True, True]

    def test_an_engine_that_says_it_cannot_be_captured_is_not(self) -> None:
        run = on_gpu(FakeBenchSession(4.0, reason="rtx says no"))
        assert (run.graph, run.graph_failure) == (False, "rtx says no")

    def test_a_short_run_is_repeated_between_two_events(self) -> None:
        run = on_gpu(FakeBenchSession(1 / 16), graph=False)
        assert run.inner == 4
        assert run.gpu_ms is not None
        assert run.gpu_ms.median == pytest.approx(1 / 16)

    def test_a_flush_comes_before_the_first_event_of_every_single_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def zero() -> None:
            RUNS[-1].stream.work(1.0, "flush")

        monkeypatch.setattr(cuda, "flush_buffer", lambda device: SimpleNamespace(zero_=zero))
        run = on_gpu(FakeBenchSession(0.05), graph=False, l2="flush", throughput=False)
        assert run.inner == 1
        assert run.gpu_ms is not None
        assert run.gpu_ms.median == pytest.approx(0.05)
        calls = RUNS[0].stream.calls
        first = calls.index("flush")
        assert calls[first : first + 4] == ["flush", "record", "launch", "record"]

    def test_two_launches_are_in_the_queue(self) -> None:
        bound = FakeRun(INPUTS, 4.0)
        ready = cuda.TimedRun(run=bound, launch=bound.launch, captured=False)
        assert cuda.gpu_block(ready, inner=1, flush=None)(3) == [4.0, 4.0, 4.0]
        timed = ["record", "launch", "record"]
        # a sample is waited for only once the next one is queued; the launch before the first is not timed
        assert bound.stream.calls == ["launch", *timed, *timed, "wait", *timed, "wait", "synchronize"]

    def test_a_launch_that_takes_longer_than_the_run_is_flagged(self) -> None:
        flags = on_gpu(FakeBenchSession(1e-4), graph=False).flags
        assert "launch-bound: the host takes as long to launch a run as the GPU to run it" in flags
        assert not any(flag.startswith("launch-bound") for flag in on_gpu(FakeBenchSession(1e4), graph=False).flags)

    def test_memory_that_does_not_hold_two_contexts_costs_the_throughput_alone(self) -> None:
        run = on_gpu(FakeBenchSession(4.0, most=1))
        assert run.throughput_per_s is None
        assert "no throughput: rtx ran out of GPU memory: tried to allocate 3 GiB" in run.flags
        assert run.gpu_ms is not None

    def test_memory_is_what_is_no_longer_free(self) -> None:
        run = on_gpu(FakeBenchSession(4.0), free_bytes=900)
        assert run.device_bytes == 300

    def test_every_context_is_closed(self) -> None:
        on_gpu(FakeBenchSession(4.0))
        assert [fake.closed for fake in RUNS] == [True, True]

    def test_what_nvml_does_not_tell_is_said(self) -> None:
        assert (
            "clocks, throttling and other processes are not known: a fake has none"
            in on_gpu(FakeBenchSession(4.0)).flags
        )

    def test_a_session_that_launches_by_itself_has_no_gpu_time(self) -> None:
        run = on_gpu(Sleeper(lambda number: 0.0))
        assert run.gpu_ms is None
        assert run.enqueue_ms is None
        assert not run.graph
        assert "a stream of its own" in run.graph_failure

    def test_a_session_that_launches_by_itself_is_not_timed_as_flushed(self) -> None:
        with pytest.raises(NotJudged, match="cannot be flushed before a run; leave out --l2 flush"):
            on_gpu(Sleeper(lambda number: 0.0), l2="flush")

    def test_a_failing_engine_is_closed_and_comes_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: FakeRun) -> None:
            raise EngineFailed("kernel 7 failed")

        monkeypatch.setattr(FakeRun, "launch", fail)
        with pytest.raises(EngineFailed, match="kernel 7 failed"):
            on_gpu(FakeBenchSession(4.0))
        assert RUNS[0].closed


# On the CPU


def relu_engine(folder: Path) -> Path:
    """Build an engine of two nodes from x [2, 4] to y."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="node_relu"),
        helper.make_node("Exp", ["h"], ["y"], name="node_exp"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", ports[:1], ports[1:]), opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )  # fmt: skip
    onnx.save(model, folder / "m.onnx")
    request = BuildRequest(onnx=folder / "m.onnx", tf32=False, shapes={})
    BACKENDS["ort-cpu"].build(request, folder / "engine", Settings(progress=lambda message: None))
    return folder / "engine"


def on_cpu(call: Callable[..., Any], **changes: Any) -> ProcessRun:
    return measure_module(call, INPUTS, options("cpu", **changes), load_ms=0.0)


def test_an_engine_on_the_cpu_has_one_figure_and_a_throughput(tmp_path: Path) -> None:
    with BACKENDS["ort-cpu"].load(relu_engine(tmp_path)) as session:
        run = measure_engine(session, {"x": torch.ones(2, 4)}, options("cpu"), load_ms=0.0)
    assert (run.gpu_ms, run.enqueue_ms, run.graph_failure) == (None, None, "")
    assert run.end_to_end_ms.median > 0
    assert run.throughput_per_s is not None
    assert run.throughput_per_s > 0
    assert run.streams == 2
    assert run.device_bytes is None
    assert run.invalid == ()


def test_a_module_is_called_without_gradients() -> None:
    seen: list[bool] = []

    def call(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return inputs["x"] + 1

    run = on_cpu(call, throughput=False)
    assert run.end_to_end_ms.n >= LEAST
    assert (run.throughput_per_s, run.streams) == (None, 1)
    assert set(seen) == {True}


def test_a_graph_that_is_asked_for_on_the_cpu_is_a_failure_in_the_record() -> None:
    run = on_cpu(lambda inputs: inputs["x"], graph=True)
    assert not run.graph
    assert run.graph_failure == "there is no GPU to capture a CUDA graph on"


def test_what_a_module_raises_comes_out() -> None:
    def call(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        on_cpu(call)


@pytest.mark.parametrize(("l2", "message"), [("flush", "only a GPU's L2 cache"), ("cold", "either warm or flush")])
def test_a_cache_that_cannot_be_flushed(l2: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        on_cpu(lambda inputs: inputs["x"], l2=l2)


# Kernels


@pytest.mark.parametrize(("value", "flagged"), [(float("nan"), True), (float("inf"), True), (1.0, False)])
def test_the_time_of_nothing_useful_is_flagged(value: float, flagged: bool) -> None:
    outputs = {"y": torch.full((2,), value), "mask": torch.tensor([1.0, float("-inf")]), "none": torch.empty(0)}
    run = on_cpu(lambda inputs: outputs, throughput=False)
    assert ("no finite number in the output y" in run.flags) == flagged


class Profiled(Sleeper):
    """A session whose profiler says what it was given."""

    def __init__(self, profiles: list[list[tuple[str, float]]]) -> None:
        super().__init__(lambda run: 0.0)
        self.profiles = profiles

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        return self.profiles


def test_kernels_have_the_median_of_their_runs_in_execution_order() -> None:
    runs = [[("b", 3.0), ("a", 1.0)], [("b", 4.0), ("a", 9.0)], [("b", 5.0), ("a", 2.0)]]
    assert kernel_times(Profiled(runs), INPUTS) == [("b", 4.0), ("a", 2.0)]


def test_a_kernel_that_runs_twice_stays_twice() -> None:
    runs = [[("loop", 1.0), ("loop", 5.0)], [("loop", 3.0), ("loop", 7.0)]]
    assert kernel_times(Profiled(runs), INPUTS) == [("loop", 2.0), ("loop", 6.0)]


@pytest.mark.parametrize(
    ("profiles", "message"),
    [([[("a", 1.0)], [("b", 1.0)]], "reported 'a' in some runs"), ([[], []], "reported no kernel"), ([], "no kernel")],
)
def test_profiles_without_a_median(profiles: list[list[tuple[str, float]]], message: str) -> None:
    with pytest.raises(NotJudged, match=message):
        kernel_times(Profiled(profiles), INPUTS)


def test_a_backend_without_a_profiler_is_not_judged() -> None:
    with pytest.raises(NotJudged, match="has no profiler"):
        kernel_times(Sleeper(lambda run: 0.0), INPUTS)


def test_onnx_runtime_says_how_long_its_nodes_take(tmp_path: Path) -> None:
    with BACKENDS["ort-cpu"].load(relu_engine(tmp_path)) as session:
        times = kernel_times(session, {"x": torch.ones(2, 4)}, runs=5)
        assert session.run({"x": torch.zeros(2, 4)})["y"].eq(1).all()
    assert [name for name, _ in times] == ["node_relu", "node_exp"]
    assert all(ms >= 0 for _, ms in times)


# On a real GPU


@pytest.mark.gpu
def test_a_module_is_captured_and_gives_all_three_figures() -> None:
    layer = torch.nn.Linear(512, 512).cuda().eval()
    asked = options("cuda", graph=True)
    run = measure_module(lambda inputs: layer(inputs["x"]), {"x": torch.randn(64, 512)}, asked, load_ms=0.0)
    assert (run.graph, run.graph_failure) == (True, "")
    assert run.gpu_ms is not None
    assert run.enqueue_ms is not None
    assert 0 < run.gpu_ms.median < run.end_to_end_ms.median
    assert run.throughput_per_s


@pytest.mark.gpu
def test_a_module_that_waits_for_the_gpu_cannot_be_captured_and_the_process_goes_on() -> None:
    def call(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return inputs["x"] * inputs["x"].sum().item()

    asked = options("cuda", graph=True)
    run = measure_module(call, {"x": torch.randn(64, 64)}, asked, load_ms=0.0)
    assert not run.graph
    assert run.graph_failure.startswith("capturing the CUDA graph failed")
    again = measure_module(lambda inputs: inputs["x"] + 1, {"x": torch.randn(64, 64)}, asked, load_ms=0.0)
    assert again.graph


@pytest.mark.gpu
def test_a_flushed_cache_is_timed_one_run_at_a_time() -> None:
    asked = options("cuda", graph=True, l2="flush", throughput=False)
    run = measure_module(lambda inputs: inputs["x"] + 1, {"x": torch.randn(64, 64)}, asked, load_ms=0.0)
    assert run.inner == 1
    assert run.gpu_ms is not None
    assert run.gpu_ms.median > 0
