"""What a verification costs: a cached run and the imports of ``bench`` beside ``import torch``, and peak memory.

python benchmarks/verify.py            # ``verify.py DEPTH`` is the process whose memory is measured
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import Settings, Subject, Target
from harness.verify import verify

TENSOR_MIB = 64
DEPTHS = (10, 40, 160)
PAIRS = 3


class Chain(torch.nn.Module):
    """``depth`` times a sine and an addition: two values each."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.depth):
            x = torch.sin(x) + 0.5
        return x


def chain(depth: int) -> None:
    """Verify a chain and print the peak memory of this process in MiB."""
    inputs = {"x": torch.linspace(-3, 3, TENSOR_MIB * 2**18)}
    targets = (Target("torch", "bf16"),)
    subject = Subject(
        name="chain", build=lambda: Chain(depth).eval(), cases={"one": lambda: inputs}, targets=targets,
        weights="random",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(engines=folder, references=folder, device="cpu", progress=lambda message: None)
        (result,) = verify(subject, targets=targets, cases=["one"], settings=settings)
    assert result.verdict == "pass", result.reason
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def timed(*command: str) -> tuple[float, float]:
    """Run a command; return its wall time and the CPU time of it and its children, in seconds. It prints to stderr."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def cached_run() -> None:
    """Time cached verifications of MiniLM, and the imports of a process of ``bench``, in turns with ``import torch``.

    The first two runs build the module: the third takes it as it is.
    """
    torch_alone = [sys.executable, "-c", "import torch"]
    timing = [sys.executable, "-c", "import harness.timing.worker, onnxruntime"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        rest = ["minilm", "-b", "ort-cpu", "-p", "fp32", "--case", "short", "--no-record"]
        rest += ["--engines", folder, "--json", str(report)]
        verify = [sys.executable, "-m", "harness", "verify", *rest]
        first, _ = timed(*verify), timed(*verify)
        runs = [[timed(*torch_alone), timed(*verify), timed(*timing)] for _ in range(PAIRS)]
        results = json.loads(report.read_text())["results"]
    print(f"verify minilm, ort-cpu fp32, one case: first {first[0]:.1f} s")
    alone, cached, until = ([median(run[which][place] for run in runs) for place in (0, 1)] for which in range(3))
    print(f"import torch: {alone[0]:.2f} s, CPU {alone[1]:.2f} s (medians of {PAIRS}, one after the other in turns)")
    for what, spent in (("cached", cached), ("what a process of bench imports before it loads an engine", until)):
        print(f"{what}: {spent[0]:.2f} s, CPU {spent[1]:.2f} s: {spent[1] / alone[1]:.2f} times import torch")
    print(f"cached runs: engines cached: {all(result['engine']['cached'] for result in results)}")


def memory() -> None:
    """Print peak memory of a whole process over the number of values, each of the same size."""
    print(f"\npeak memory of a process that verifies a chain of values of {TENSOR_MIB} MiB (torch bf16, CPU)")
    for depth in DEPTHS:
        command = [sys.executable, __file__, str(depth)]
        peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"{2 * depth:6} values: {int(peak):6} MiB")


if __name__ == "__main__":
    if sys.argv[1:]:
        chain(int(sys.argv[1]))
    else:
        cached_run()
        memory()
