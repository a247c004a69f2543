"""The tap of a TensorRT session, with a TensorRT that calls its listener as the engine would."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from harness.backends.inspector import Kernel
from harness.backends.tensorrt.session import TensorRTSession
from harness.errors import EngineFailed, EngineRefused


class StubContext:
    """Delivers tensors to its listener, the second one from memory that is overwritten right after."""

    def __init__(self, deliveries: list[tuple[str, str, object]]) -> None:
        self.deliveries, self.listener = deliveries, None
        self.states: list[bool] = []

    @property
    def unfused_tensors_debug_state(self) -> bool:
        return bool(self.states) and self.states[-1]

    @unfused_tensors_debug_state.setter
    def unfused_tensors_debug_state(self, state: bool) -> None:
        self.states.append(state)

    def set_debug_listener(self, listener: object) -> None:
        self.listener = listener

    def run(self) -> None:
        for name, dtype, memory in self.deliveries:
            pointer = memory.data_ptr()
            kind, location = SimpleNamespace(name=dtype), "host"
            assert self.listener.process_debug_tensor(pointer, location, kind, tuple(memory.shape), name, 0)
            memory.fill_(-1)


class StubSession(TensorRTSession):
    """A session whose run is that of the stub; ``trouble`` is raised by it."""

    def __init__(self, context: object, *, text: str = "{}", trouble: Exception | None = None) -> None:
        self._trt = SimpleNamespace(
            IDebugListener=type("IDebugListener", (), {"__init__": lambda self: None}),
            TensorLocation=SimpleNamespace(HOST="host"),
            LayerInformationFormat=SimpleNamespace(JSON="json"),
        )
        self._name, self._file, self._device = "stub", "engine", torch.device("cpu")
        self._stream = SimpleNamespace(synchronize=lambda: None)
        self.context, self._trouble = context, trouble
        inspector = SimpleNamespace(execution_context=None, get_engine_information=lambda format: text)
        self.engine = SimpleNamespace(create_engine_inspector=lambda: inspector)

    def run(self, inputs: object) -> dict[str, torch.Tensor]:
        if self._trouble is not None:
            raise self._trouble
        self.context.run()
        return {"y": torch.ones(2)}


def two_tensors() -> list[tuple[str, str, object]]:
    return [("t", "FLOAT", torch.arange(6.0).reshape(2, 3)), ("u", "HALF", torch.ones(2).half())]


def test_host_memory_is_copied_before_the_engine_goes_on():
    context = StubContext(two_tensors())
    seen: dict[str, torch.Tensor] = {}
    assert set(StubSession(context).tap({}, seen.__setitem__)) == {"y"}
    assert torch.equal(seen["t"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(seen["u"], torch.ones(2).half())
    assert context.states == [True, False]


def test_an_exception_ends_the_observation_and_comes_out_after_the_run():
    context = StubContext(two_tensors())
    seen: list[str] = []

    def stop(name: str, tensor: torch.Tensor) -> None:
        seen.append(name)
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        StubSession(context).tap({}, stop)
    assert seen == ["t"]
    assert context.deliveries[1][2].eq(-1).all()  # the engine ran to its end
    assert context.states == [True, False]


def test_the_state_is_reset_when_the_engine_fails():
    context = StubContext([])
    with pytest.raises(EngineFailed, match="kernel 7"):
        StubSession(context, trouble=EngineFailed("kernel 7")).tap({}, lambda name, tensor: None)
    assert context.states == [True, False]


def test_dtypes_that_pytorch_has_not_are_skipped():
    seen: list[str] = []
    context = StubContext([("packed", "INT4", torch.ones(2)), *two_tensors()])
    StubSession(context).tap({}, lambda name, tensor: seen.append(name))
    assert seen == ["t", "u"]


def test_an_empty_tensor_has_its_shape():
    seen: dict[str, torch.Tensor] = {}
    StubSession(StubContext([("t", "FLOAT", torch.ones(0, 3))])).tap({}, seen.__setitem__)
    assert seen["t"].shape == (0, 3)


@pytest.mark.parametrize("deliveries", [[], [("packed", "INT4", torch.ones(2))]])
def test_an_engine_that_delivers_nothing_is_refused(deliveries):
    with pytest.raises(EngineRefused, match="stub delivered no tensor of engine; use --layers outputs"):
        StubSession(StubContext(deliveries)).tap({}, lambda name, tensor: None)


def test_a_version_without_debug_tensors_and_a_closed_session_are_refused():
    with pytest.raises(EngineRefused, match="no debug tensors between kernels; use --layers outputs"):
        StubSession(SimpleNamespace()).tap({}, lambda name, tensor: None)
    with pytest.raises(EngineFailed, match="is closed"):
        StubSession(None).tap({}, lambda name, tensor: None)


@pytest.mark.parametrize("layers", [None, [], ["a name only"], [{"Name": "k"}], [{"Name": "k", "Metadata": ""}]])
def test_an_inspector_without_metadata_is_refused(layers):
    text = json.dumps({} if layers is None else {"Layers": layers})
    with pytest.raises(EngineRefused, match="reports no metadata for engine, so its tensors cannot be mapped"):
        StubSession(SimpleNamespace(), text=text).kernels()


def test_an_inspector_with_metadata_gives_its_kernels():
    layers = [{"Name": "k", "Metadata": "[ONNX Layer: a]"}, {"Name": "copy"}]
    assert StubSession(SimpleNamespace(), text=json.dumps({"Layers": layers})).kernels() == [
        Kernel(index=0, name="k", nodes=("a",), reads=(), writes=()),
        Kernel(index=1, name="copy", nodes=(), reads=(), writes=()),
    ]
