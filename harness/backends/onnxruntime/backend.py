"""ONNX Runtime on the CPU (``ort-cpu``) and on CUDA (``ort-cuda``), with the optimisations its users get by default.

An engine here is one file that needs nothing beside it, so that one checksum covers it: a line of JSON (sizes, the
TF32 switch), the ONNX model, and its external weights where it has any. ONNX Runtime optimises it when it is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends.base import BuildReport, BuildRequest, ProfileSession, Shape, check_inputs
from harness.backends.gpu import copy_memory, gpu_name, no_gpu
from harness.backends.onnxruntime.file import map_weights, pack, read_header
from harness.errors import EngineFailed, EngineRefused, NotJudged, is_disk_full
from harness.temporary import temporary_folder

if TYPE_CHECKING:
    import torch

    from harness.settings import Settings


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PROFILE_WARM_UP = 2
_KERNEL = "_kernel_time"
_MISSING = re.compile(
    r"NOT_IMPLEMENTED|not (?:yet )?implemented|(?:MLFloat16|BFloat16|float16|data ?type|types?)\b[^.;]*\bnot supported"
    r"|not supported[^.;]*(?:MLFloat16|BFloat16|float16|data ?type)|unsupported (?:data ?|input |tensor )?type",
    re.IGNORECASE,
)
"""How ONNX Runtime says that a kernel lacks something."""
FP16_NOTE = "ONNX Runtime on the CPU computes FP16 operators in FP32 between casts"
# TensorProto.DataType: name in ``tensor(...)``, number, name in torch.
_DTYPES = (
    ("float", 1, "float32"),
    ("uint8", 2, "uint8"),
    ("int8", 3, "int8"),
    ("int16", 5, "int16"),
    ("int32", 6, "int32"),
    ("int64", 7, "int64"),
    ("bool", 9, "bool"),
    ("float16", 10, "float16"),
    ("double", 11, "float64"),
    ("bfloat16", 16, "bfloat16"),
    ("float8e4m3fn", 17, "float8_e4m3fn"),
)


class OnnxRuntimeBackend:
    """Runs the typed graph in ONNX Runtime with one execution provider."""

    tap_modes: tuple[str, ...] = ("outputs",)

    def __init__(self, name: str, *, device: str) -> None:
        self.name = name
        self.precisions: tuple[str, ...] = (
            ("fp32", "fp16", "bf16") if device == "cpu" else ("fp32", "tf32", "fp16", "bf16")
        )
        self._device = device

    def unavailable(self) -> str | None:
        """Return why nothing can be built here, or None."""
        try:
            import onnxruntime
        except ImportError as error:
            return f"onnxruntime cannot be imported: {error}; install it with: pip install onnxruntime"
        wanted = PROVIDERS[self._device]
        if wanted not in onnxruntime.get_available_providers():
            return (
                f"onnxruntime {onnxruntime.__version__} has no {wanted}; install it with: pip install onnxruntime-gpu"
            )
        return None

    def cannot_run(self) -> str | None:
        """Return why a built engine cannot be run here, or None."""
        return no_gpu() if self._device == "cuda" else None

    def version(self) -> str:
        """Return the version of ONNX Runtime."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def cache_key(self) -> dict[str, str]:
        """Return the version and the device."""
        device = (gpu_name() or "no GPU") if self._device == "cuda" else "CPU"
        return {"version": self.version(), "device": device}

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Write the engine file, and load it once where it can run, so that a refusal comes here.

        Raises EngineRefused with the op and node named, NotJudged when the disk is full.
        """
        try:
            float16 = pack(request, engine)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise NotJudged(f"the engine cannot be written to {engine}: {error.strerror or error}") from error
        if self.cannot_run() is None:
            self.load(engine).close()
        notes = (FP16_NOTE,) if self._device == "cpu" and float16 else ()
        options = {"provider": PROVIDERS[self._device], "graph_optimization_level": "ORT_ENABLE_ALL"}
        return BuildReport(
            notes=notes, options=options | ({"use_tf32": request.tf32} if self._device == "cuda" else {})
        )

    def load(self, engine: Path) -> OnnxRuntimeSession:
        """Load an engine file. Raises EngineRefused when ONNX Runtime does not take it."""
        if reason := self.unavailable() or self.cannot_run():
            raise NotJudged(f"{self.name} cannot run {engine.name}: {reason}")
        return OnnxRuntimeSession(engine, name=self.name, device=self._device)


@dataclass(frozen=True, kw_only=True)
class _Port:
    """One input or output of the model."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...]
    """A dynamic dimension is a symbol or None; empty for a scalar, and where even the rank is open."""

    def takes(self, shape: Shape) -> bool:
        """Return whether an input of this shape has the fixed dimensions."""
        if not self.shape:
            return True
        return len(shape) == len(self.shape) and not any(
            isinstance(want, int) and want != size for want, size in zip(self.shape, shape, strict=True)
        )

    def accepted(self) -> str:
        """Return the shape as declared."""
        return f"{self.shape}"


class OnnxRuntimeSession(ProfileSession):
    """A loaded model; tensors go in and out through raw memory, which carries BF16 too."""

    layers = None  # ONNX Runtime does not tell

    def __init__(self, file: Path, *, name: str, device: str, profile: Path | None = None) -> None:
        import torch

        self._name, self._file, self._path = name, file.name, file
        index = torch.cuda.current_device() if device == "cuda" else 0
        self._device = torch.device(device, index) if device == "cuda" else torch.device("cpu")
        self._session: Any = _open(file, name, device, index, profile)
        self._inputs = tuple(_port(node, name) for node in self._session.get_inputs())
        self._outputs = tuple(_port(node, name) for node in self._session.get_outputs())

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run once and return fresh tensors by output name, complete when this returns.

        Raises EngineRefused for inputs that the model does not take, EngineFailed when it raises.
        """
        import torch

        if self._session is None:
            raise EngineFailed(f"{self._name}: the session of {self._file} is closed; load the engine again")
        check_inputs(self._inputs, inputs, self._name)
        held = {name: tensor.detach().to(self._device).contiguous() for name, tensor in inputs.items()}
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # ONNX Runtime has a stream of its own
        binding = self._session.io_binding()
        place = (self._device.type, self._device.index or 0)
        for port in self._inputs:
            value = held[port.name]
            binding.bind_input(port.name, *place, _onnx_number(value.dtype), tuple(value.shape), value.data_ptr())
        for port in self._outputs:
            binding.bind_output(port.name, *place)
        try:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:  # its exceptions have no common base below Exception
            raise _run_error(self._name, error) from error
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {port.name: _to_torch(value, port, self._device) for port, value in values}

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its nodes after optimisation with their milliseconds; raises what ``run`` raises.

        ONNX Runtime profiles a session from its start or not at all, so the model is loaded once more for it.
        """
        with temporary_folder() as folder:
            prefix = folder / "profile"
            with OnnxRuntimeSession(self._path, name=self._name, device=self._device.type, profile=prefix) as session:
                for _ in range(PROFILE_WARM_UP + runs):
                    session.run(inputs)
                events = json.loads(Path(session._session.end_profiling()).read_text(encoding="utf-8"))
        return _node_times(events)[PROFILE_WARM_UP:]

    def close(self) -> None:
        """Free the model."""
        self._session = None


def _open(file: Path, name: str, device: str, index: int, profile: Path | None) -> Any:
    """Return the InferenceSession of an engine file; it writes its profile to a file that begins with ``profile``."""
    import onnxruntime

    with file.open("rb") as source:
        header = read_header(source, file, name)
        data = source.read(header["model"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures reach the user as exceptions
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        mapped = map_weights(options, source, header, name)
        provider: dict[str, str] = {}
        if device == "cuda":
            provider = {"device_id": str(index), "use_tf32": "1" if header["tf32"] else "0"}
        try:
            session = onnxruntime.InferenceSession(data, options, providers=[(PROVIDERS[device], provider)])
        except Exception as error:  # its exceptions have no common base below Exception
            raise _load_error(name, error) from error
        finally:
            if mapped is not None:
                del options
                mapped.close()
    if session.get_providers()[0] != PROVIDERS[device]:
        raise EngineRefused(
            f"{name}: onnxruntime fell back to {session.get_providers()[0]}: its CUDA libraries cannot be loaded"
        )
    return session


def _node_times(events: Iterable[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
    """Return, for each run in a profile, its nodes in execution order with their milliseconds.

    ``events`` are those of the trace-event format: a run is an event ``model_run`` of the category ``Session``, a node
    one of the category ``Node`` that lies inside it and whose name ends with ``_kernel_time``; times are microseconds.
    """
    events = list(events)
    runs = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "Session" and event.get("name") == "model_run"
    )
    nodes = sorted(
        (event["ts"], event["name"].removesuffix(_KERNEL), event["dur"] / 1e3)
        for event in events
        if event.get("cat") == "Node" and str(event.get("name")).endswith(_KERNEL)
    )
    return [[(name, ms) for start, name, ms in nodes if begin <= start < end] for begin, end in runs]


def _port(node: Any, backend: str) -> _Port:
    import torch

    found = re.fullmatch(r"tensor\((\w+)\)", node.type)
    names = {name: dtype for name, _, dtype in _DTYPES}
    if not found or found[1] not in names:
        raise EngineRefused(f"{backend}: {node.name!r} has the type {node.type}, which PyTorch has no equal of")
    return _Port(name=node.name, dtype=getattr(torch, names[found[1]]), shape=tuple(node.shape))


def _onnx_number(dtype: torch.dtype) -> int:
    return next(number for _, number, name in _DTYPES if str(dtype) == f"torch.{name}")


def _to_torch(value: Any, port: _Port, device: torch.device) -> torch.Tensor:
    """Copy an OrtValue's memory, which ONNX Runtime owns, into a fresh tensor."""
    shape = tuple(value.shape())
    if value.element_type() != _onnx_number(port.dtype):
        raise EngineFailed(f"output {port.name!r} came as {value.data_type()}, but {port.dtype} is declared")
    on_host = value.device_name() == "cpu"
    return copy_memory(value.data_ptr(), shape, port.dtype, device, on_host=on_host)


def _load_error(name: str, error: Exception) -> NotJudged:
    """Return the refusal, with the op and the node taken from ONNX Runtime's message."""
    message = " ".join(str(error).split())
    if _is_out_of_memory(message):
        return NotJudged(f"{name} ran out of memory while loading the model: {message}")
    kernel = re.search(r"Could not find an implementation for (\w[\w.]*)\(\d+\) node with name '([^']*)'", message)
    if kernel:
        return EngineRefused(
            f"{name} cannot build this graph: op {kernel[1]!r} (node {kernel[2]!r}) has no kernel for its dtypes"
        )
    unknown = re.search(r"In Node, \(\"([^\"]*)\", (\w+), .*?Error (.*)", message)
    if unknown:
        return EngineRefused(f"{name} cannot build this graph: op {unknown[2]!r} (node {unknown[1]!r}): {unknown[3]}")
    return EngineRefused(f"{name} cannot build this graph: {message}")


def _run_error(name: str, error: Exception) -> NotJudged | EngineFailed:
    """Return a refusal, with the op and the node, for what ONNX Runtime has not implemented; else the engine failed.

    Some kernels are there for a dtype and refuse it only when they run.
    """
    message = " ".join(str(error).split())
    if _is_out_of_memory(message):
        return NotJudged(f"{name} ran out of memory: {message}")
    node = re.search(r"while running (\w+) node\. Name:'([^']*)' Status Message: (.*)", message)
    if node and _MISSING.search(message):
        return EngineRefused(f"{name} cannot run this graph: op {node[1]!r} (node {node[2]!r}): {node[3]}")
    return EngineFailed(f"{name} could not run the model: {message}")


def _is_out_of_memory(message: str) -> bool:
    return any(words in message for words in ("out of memory", "Failed to allocate memory", "bad_alloc"))
