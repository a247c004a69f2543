"""TensorRT (``trt``) and TensorRT for RTX (``rtx``): one Python API, so one class, handed one module or the other."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import limits
from harness.backends.base import BuildReport, BuildRequest, CompilesOnLoad
from harness.backends.gpu import gpu_environment, gpu_name, no_gpu
from harness.backends.runtime_file import runtime_file
from harness.backends.tensorrt.build import last_lines, make_log
from harness.backends.tensorrt.errors import refusal
from harness.backends.tensorrt.session import TensorRTSession
from harness.errors import NotJudged, first_line
from harness.machine import BUILDING, set_variables
from harness.memory import is_out_of_memory, limit_process, out_of_memory
from harness.process import how_it_ended, python_child
from harness.sentences import Sentence
from harness.stopping import child
from harness.temporary import temporary_folder

if TYPE_CHECKING:
    from harness.settings import Settings


PROGRESS_INTERVAL_S = 10.0
SHOWN_WARNINGS = 3


class TensorRTBackend(CompilesOnLoad):
    """Builds TensorRT engines in a child process and runs them on the current GPU."""

    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "bf16")
    tap_modes: tuple[str, ...] = ("unfused", "outputs")

    def __init__(self, name: str, *, modules: tuple[str, ...], install: str, builds_without_gpu: bool) -> None:
        self.name = name
        self._modules = modules
        self._install = install
        self._builds_without_gpu = builds_without_gpu
        self._loaded: Any = None
        self._log: Any = None

    def unavailable(self) -> str | None:
        """Return why nothing can be built here, or None."""
        try:
            self._module()
        except ModuleNotFoundError as error:
            return Sentence("message_then_install", msg=error.msg, install=self._install)
        except (ImportError, OSError, RuntimeError) as error:
            return Sentence("modules_not_imported", modules=self._modules[0], said=first_line(error))
        return None if self._builds_without_gpu else self.cannot_run()

    def cannot_run(self) -> str | None:
        """Return why a built engine cannot be run here, or None."""
        return no_gpu()

    def version(self) -> str:
        """Return the module's version."""
        return str(self._module().__version__)

    def cache_key(self) -> dict[str, str]:
        """Return the version, the GPU that an engine is tuned for, and the variables that the builder reads."""
        return {"version": self.version(), "gpu": gpu_name() or Sentence("portable_build"), **set_variables(BUILDING)}

    def build(self, request: BuildRequest, engine: Path, settings: Settings) -> BuildReport:
        """Write the engine file.

        Raises EngineRefused when the graph is refused or the builder dies, NotJudged when memory or disk runs out.
        """
        shapes = {name: (r.minimum, r.optimum, r.maximum) for name, r in request.shapes.items()}
        with temporary_folder() as scratch:
            report = self._run_builder(
                scratch,
                {
                    "module": self._module().__name__,
                    "onnx": str(request.onnx.absolute()),
                    "engine": str(engine.absolute()),
                    "tf32": request.tf32,
                    "taps": request.taps,
                    "shapes": shapes,
                },
                settings.progress,
            )
        if report["error"]:
            said = Sentence("cannot_build", name=self.name, message=report["error"])
            raise refusal(said) if report["written"] else NotJudged(said)
        warnings = [" ".join(warning.split()) for warning in report["warnings"]]
        if len(warnings) > SHOWN_WARNINGS:
            warnings[SHOWN_WARNINGS:] = [Sentence("more_warnings", count=len(warnings) - SHOWN_WARNINGS)]
        layers = report["network_layers"]
        notes = (Sentence("network_layers", layers=layers), *self._unnamed_gpu(), *warnings)
        return BuildReport(network_layers=layers, notes=notes, options=report["options"])

    def load(self, engine: Path) -> TensorRTSession:
        """Load an engine file onto the current GPU. Raises EngineRefused when it cannot be loaded here."""
        if reason := self.unavailable() or self.cannot_run():
            raise NotJudged(Sentence("cannot_run", name=self.name, engine=engine.name, reason=reason))
        import torch

        trt = self._module()
        self._log = self._log or make_log(trt)  # TensorRT keeps one logger per process: the first
        device = torch.device("cuda", torch.cuda.current_device())
        torch.cuda.empty_cache()  # TensorRT allocates beside PyTorch and cannot use what PyTorch holds in reserve
        runtime = runtime_file(engine, self.runtime_key())
        return TensorRTSession(trt, self._log, engine, name=self.name, device=device, runtime=runtime)

    def runtime_key(self) -> dict[str, str]:
        """Return what the kernels depend on that are compiled when an engine is loaded; empty where none are."""
        if not hasattr(self._module(), "IRuntimeCache") or no_gpu():
            return {}
        import torch

        device = torch.device("cuda", torch.cuda.current_device())
        return {"backend": self.name, "version": self.version(), **gpu_environment(device)}

    def _unnamed_gpu(self) -> list[str]:
        """Say so where this version names the GPUs that it builds for, and the GPU here is none of them."""
        targets = getattr(self._module(), "ComputeCapability", None)
        if targets is None or no_gpu():
            return []
        import torch

        named = [name.removeprefix("SM") for name in targets.__members__ if name.startswith("SM")]
        here = torch.cuda.get_device_capability()
        if f"{here[0]}{here[1]}" in named:
            return []
        known = ", ".join(f"{name[:-1]}.{name[-1]}" for name in named)
        version = f"{self.name} {self.version()}"
        return [Sentence("targets_named", version=version, known=known, here=here[0], here_2=here[1])]

    def _module(self) -> Any:
        """Import the first module that is installed; raises ModuleNotFoundError for the first one if none is."""
        if self._loaded is None:
            self._loaded = _import_first(self._modules)
        return self._loaded

    def _run_builder(self, scratch: Path, request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
        """Run the child and return its report."""
        report, phases, errors = scratch / "report.json", scratch / "phases.txt", scratch / "errors.txt"
        with phases.open("wb") as stdout, errors.open("wb") as stderr:
            command, environment = python_child("harness.backends.tensorrt.build")
            with child(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment) as process:
                if no_gpu():  # a driver takes address space that no limit should count
                    limit_process(process.pid)
                status = _wait(process, {**request, "report": str(report)}, self.name, phases, progress)
        if status != 0 or not report.is_file():
            said = last_lines(errors.read_text(encoding="utf-8", errors="replace").splitlines()[-5:], count=5)
            if status == -signal.SIGKILL or is_out_of_memory(said):
                raise out_of_memory(Sentence("the_builder_of", name=self.name, how_it_ended=how_it_ended(status)), said)
            ended = how_it_ended(status) + (Sentence("left_no_report") if status >= 0 else "")
            words = Sentence("builder_ended", name=self.name, ended=ended, said=said)
            raise refusal(words, failure="crash")
        result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return result


def _wait(
    process: subprocess.Popen[bytes], request: dict[str, Any], name: str, phases: Path, progress: Callable[[str], None]
) -> int:
    """Hand over the request and wait for the end, saying now and then how far the builder is."""
    assert process.stdin is not None
    started = time.monotonic()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return process.wait()  # it died before reading; its status says how
    said = started
    while True:
        try:
            left = limits.remaining_s()
            return process.wait(timeout=PROGRESS_INTERVAL_S if left is None else min(left, PROGRESS_INTERVAL_S))
        except subprocess.TimeoutExpired:
            if limits.remaining_s() == 0:
                raise limits.out_of_time() from None  # and with that the process is killed
            now = time.monotonic()
            if now - said >= PROGRESS_INTERVAL_S:
                said = now
                phase = phases.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
                progress(": ".join([f"{name} has been building for {now - started:.0f} s", *phase]))


def _import_first(modules: tuple[str, ...]) -> Any:
    missing: ModuleNotFoundError | None = None
    for name in modules:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            missing = missing or error
    raise missing or ModuleNotFoundError("no module name given")
