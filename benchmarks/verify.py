"""What a verification costs: a second run with a cached engine, and peak memory over the number of values.

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

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import Settings, Subject, Target
from harness.verify import verify

TENSOR_MIB = 64
DEPTHS = (10, 40, 160)


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


def timed(*command: str) -> float:
    """Run a command and return its wall time in seconds; its output goes to standard error."""
    started = time.perf_counter()
    subprocess.run(command, check=False, stdout=sys.stderr)
    return time.perf_counter() - started


def second_run() -> None:
    """Time the first and the second verification of MiniLM with one backend, and what the imports alone take."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "harness", "verify", "minilm", "-b", "ort-cpu", "-p", "fp32"]
        command += ["--engines", folder, "--json", str(report)]
        first = timed(*command)
        second = timed(*command)
        results = json.loads(report.read_text())["results"]
        imports = timed(sys.executable, "-c", "import torch, onnxscript, onnxruntime, transformers, harness.verify")
    cached = all(result["engine"]["cached"] for result in results)
    print(f"verify minilm, ort-cpu fp32: first {first:.1f} s, second {second:.1f} s, imports alone {imports:.1f} s")
    print(f"second run: engines cached: {cached}")


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
        second_run()
        memory()
