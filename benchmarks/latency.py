"""The harness's GPU time of an engine against a CUDA-graph loop written by hand: ``python benchmarks/latency.py``.

The loop uses TensorRT's API, PyTorch's buffers and CUDA's own functions and nothing of the harness: capture the engine
once, replay it a hundred times between two events, divide; the median over thirty such rounds. Both are repeated in
turns. Needs a GPU, ``pip install '.[rtx]' transformers``, and for the loop ``cuda-bindings``.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from harness import Settings, Target
from harness.backends import BACKENDS
from harness.discovery import find_subject
from harness.timing import TimingOptions, measure_engine
from harness.verify import Run

ROUNDS, REPLAYS, TURNS = 30, 100, 3


class Loop:
    """One engine on its buffers, captured by hand."""

    def __init__(self, backend: str, file: Path, inputs: dict[str, torch.Tensor]) -> None:
        modules = {"rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"), "trt": ("tensorrt", "tensorrt_bindings")}[backend]
        trt = next(module for name in modules if (module := _import(name)) is not None)
        self.engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(file.read_bytes())
        self.context = self._make_context(trt)
        self.buffers = dict(inputs)
        for name, tensor in inputs.items():
            self.context.set_input_shape(name, tuple(tensor.shape))
        for name in (self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)):
            if name not in inputs:
                size = trt.volume(self.context.get_tensor_shape(name)) * 8  # no dtype is wider
                self.buffers[name] = torch.empty(size, dtype=torch.uint8, device="cuda")
            self.context.set_tensor_address(name, self.buffers[name].data_ptr())
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # TensorRT for RTX, see _make_context
            size = max(self.context.update_device_memory_size_for_shapes(), self.engine.device_memory_size_v2, 256)
            self.memory = torch.empty(size, dtype=torch.uint8, device="cuda")
            self.context.set_device_memory(self.memory.data_ptr(), size)
        self._capture()

    def _make_context(self, trt: Any) -> Any:
        """Return a context; TensorRT for RTX captures only engines that allocate nothing themselves."""
        if not hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            return self.engine.create_execution_context()
        return self.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def _capture(self) -> None:
        from cuda.bindings import runtime as cuda

        self.cuda = cuda
        self.stream = self._do(cuda.cudaStreamCreate())
        for _ in range(20):  # TensorRT for RTX compiles kernels for these sizes beside the first runs
            self.context.execute_async_v3(int(self.stream))
            self._do(cuda.cudaStreamSynchronize(self.stream))
            time.sleep(0.05)
        self._do(cuda.cudaStreamBeginCapture(self.stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        self.context.execute_async_v3(int(self.stream))
        graph = self._do(cuda.cudaStreamEndCapture(self.stream))
        self.graph = self._do(cuda.cudaGraphInstantiate(graph, 0))
        self.events = self._do(cuda.cudaEventCreate()), self._do(cuda.cudaEventCreate())

    def median_ms(self) -> float:
        """Return the median over the rounds of the time of one replay, after half a second of warm-up."""
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            self._round()
        return statistics.median(self._round() for _ in range(ROUNDS))

    def _round(self) -> float:
        cuda, (start, stop) = self.cuda, self.events
        self._do(cuda.cudaEventRecord(start, self.stream))
        for _ in range(REPLAYS):
            cuda.cudaGraphLaunch(self.graph, self.stream)
        self._do(cuda.cudaEventRecord(stop, self.stream))
        self._do(cuda.cudaEventSynchronize(stop))
        return float(self._do(cuda.cudaEventElapsedTime(start, stop))) / REPLAYS

    def _do(self, answer: tuple[Any, ...]) -> Any:
        if int(answer[0]):
            raise SystemExit(f"CUDA says {answer[0]}")
        return answer[1] if len(answer) > 1 else None


def compare(locator: str, target: Target, folder: Path) -> None:
    """Print one line per turn: the harness's median, the loop's, and their ratio; then the ratio of the medians."""
    subject = find_subject(locator)
    run = Run(subject, Settings(engines=folder / "engines", references=folder / "references"))
    with run.target(target) as opened:
        file = opened.build().path
    inputs = {name: tensor.cuda() for name, tensor in run.prepared.inputs(next(iter(subject.cases))).items()}
    found: list[tuple[float, float]] = []
    with BACKENDS[target.backend].load(file) as session:
        loop = Loop(target.backend, file, inputs)
        for _ in range(TURNS):
            measured = measure_engine(
                session, inputs, TimingOptions(device="cuda", graph=True, throughput=False), load_ms=0.0
            )
            if not measured.graph or measured.gpu_ms is None:
                raise SystemExit(f"no CUDA graph to compare with: {measured.graph_failure}")
            found.append((measured.gpu_ms.median, loop.median_ms()))
            ours, theirs = found[-1]
            print(
                f"{subject.name} {target}: harness {ours:.5f} ms (inner {measured.inner}), loop {theirs:.5f} ms, "
                f"ratio {ours / theirs:.4f} {' '.join(measured.flags + measured.invalid)}"
            )
    ours, theirs = (statistics.median(side) for side in zip(*found, strict=True))
    print(f"{subject.name} {target}: ratio of the medians {ours / theirs:.4f}")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def main() -> None:
    """Read the command line and compare every subject."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=["benchmarks.subjects:SMALL_CLIP", "benchmarks.subjects:CLIP"])
    parser.add_argument("-b", "--backend", default="rtx", choices=("rtx", "trt"))
    parser.add_argument("-p", "--precision", default="fp16")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    with tempfile.TemporaryDirectory(prefix="parity-latency-") as folder:
        for locator in options.subjects:
            compare(locator, Target(options.backend, options.precision), Path(folder))


if __name__ == "__main__":
    main()
