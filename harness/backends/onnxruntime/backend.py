"""ONNX Runtime on the CPU (``ort-cpu``) and on CUDA (``ort-cuda``), with the optimisations its users get by default.

An engine here is one file that needs nothing beside it, so that one checksum covers it: a line of JSON (sizes, the
TF32 switch), the ONNX model, and its external weights where it has any. ONNX Runtime optimises it when it is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import process
from harness.backends.base import BuildReport, BuildRequest, ProfileSession, check_inputs
from harness.backends.gpu import copy_memory, gpu_name, no_gpu
from harness.backends.onnxruntime.errors import load_error, run_error
from harness.backends.onnxruntime.file import map_weights, pack, read_header
from harness.backends.onnxruntime.ports import Port, onnx_number, read_port
from harness.backends.onnxruntime.profile import profiled
from harness.errors import EngineFailed, EngineRefused, NotJudged, is_disk_full
from harness.sentences import Sentence

if TYPE_CHECKING:
    import torch

    from harness.backends.onnxruntime.apart import ApartSession
    from harness.settings import Settings


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
FP16_NOTE = Sentence("fp16_on_cpu")


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
            return Sentence("no_onnxruntime", error=error)
        wanted = PROVIDERS[self._device]
        if wanted not in onnxruntime.get_available_providers():
            return Sentence("no_provider", version=onnxruntime.__version__, wanted=wanted)
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
        device = (gpu_name() or Sentence("no_gpu_here")) if self._device == "cuda" else "CPU"
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
            raise NotJudged(Sentence("engine_not_written", engine=engine, strerror=error.strerror or error)) from error
        if self.cannot_run() is None:
            self.load(engine).close()
        notes = (FP16_NOTE,) if self._device == "cpu" and float16 else ()
        options = {"provider": PROVIDERS[self._device], "graph_optimization_level": "ORT_ENABLE_ALL"}
        return BuildReport(
            notes=notes, options=options | ({"use_tf32": request.tf32} if self._device == "cuda" else {})
        )

    @property
    def _runs_apart(self) -> bool:
        return self._device == "cpu" and not process.for_one_engine

    def start_ahead(self) -> None:
        """Start the process in which engines run; nothing where they run in this one."""
        if self._runs_apart:
            from harness.isolated import start_ahead

            with contextlib.suppress(OSError):  # loading the engine tries again, and says why it cannot
                start_ahead()

    def load(self, engine: Path) -> ApartSession | OnnxRuntimeSession:
        """Load an engine file. Raises EngineRefused when ONNX Runtime does not take it.

        On the CPU it runs in a process of its own, but where this process is one already, to be timed.
        """
        if reason := self.unavailable() or self.cannot_run():
            raise NotJudged(Sentence("cannot_run", name=self.name, engine=engine.name, reason=reason))
        if self._runs_apart:
            from harness.backends.onnxruntime.apart import ApartSession

            return ApartSession(engine, name=self.name)
        return OnnxRuntimeSession(engine, name=self.name, device=self._device)


class OnnxRuntimeSession(ProfileSession):
    """A loaded model; tensors go in and out through raw memory, which carries BF16 too."""

    layers: int | None = None  # ONNX Runtime does not tell

    def __init__(self, file: Path, *, name: str, device: str, profile: Path | None = None) -> None:
        import torch

        self._name, self._file, self._path = name, file.name, file
        index = torch.cuda.current_device() if device == "cuda" else 0
        self._device = torch.device(device, index) if device == "cuda" else torch.device("cpu")
        self._session: Any = _open(file, name, device, index, profile)
        self._inputs = _ports(self._session.get_inputs(), name)
        self._outputs = _ports(self._session.get_outputs(), name)

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
            binding.bind_input(port.name, *place, onnx_number(value.dtype), tuple(value.shape), value.data_ptr())
        for port in self._outputs:
            binding.bind_output(port.name, *place)
        try:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as error:  # its exceptions have no common base below Exception
            raise run_error(self._name, error) from error
        values = zip(self._outputs, binding.get_outputs(), strict=True)
        return {port.name: _to_torch(value, port, self._device) for port, value in values}

    def profile(self, inputs: Mapping[str, torch.Tensor], *, runs: int) -> list[list[tuple[str, float]]]:
        """Return, for each run, its nodes after optimisation with their milliseconds; raises what ``run`` raises.

        ONNX Runtime profiles a session from its start or not at all, so the model is loaded once more for it.
        """
        open_session = partial(OnnxRuntimeSession, self._path, name=self._name, device=self._device.type)
        return profiled(lambda prefix: open_session(profile=prefix), inputs, runs=runs)

    def end_profiling(self) -> str:
        """End the profile that was begun with the session, and return the path of its file."""
        return str(self._session.end_profiling())

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
            raise load_error(name, error) from error
        finally:
            if mapped is not None:
                del options
                mapped.close()
    if session.get_providers()[0] != PROVIDERS[device]:
        raise EngineRefused(Sentence("fell_back", name=name, get_providers=session.get_providers()[0]))
    return session


def _ports(nodes: Iterable[Any], backend: str) -> tuple[Port, ...]:
    return tuple(read_port(node.name, node.type, node.shape, backend) for node in nodes)


def _to_torch(value: Any, port: Port, device: torch.device) -> torch.Tensor:
    """Copy an OrtValue's memory, which ONNX Runtime owns, into a fresh tensor."""
    shape = tuple(value.shape())
    if value.element_type() != onnx_number(port.dtype):
        raise EngineFailed(Sentence("output_came_as", name=port.name, data_type=value.data_type(), dtype=port.dtype))
    on_host = value.device_name() == "cpu"
    return copy_memory(value.data_ptr(), shape, port.dtype, device, on_host=on_host)
