"""What a verification costs: a second run with a cached engine, and peak memory over the number of values.

python benchmarks/verify.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TENSOR_MIB = 64
DEPTHS = (10, 40, 160)

CHAIN = """
import resource, sys, tempfile
from pathlib import Path
import torch
from harness import Settings, Subject, Target
from harness.verify import verify

class Chain(torch.nn.Module):
    def forward(self, x):
        for _ in range({depth}):
            x = torch.sin(x) + 0.5
        return x

def inputs():
    return {{"x": torch.linspace(-3, 3, {elements})}}

folder = Path(tempfile.mkdtemp())
settings = Settings(engines=folder, references=folder, device="cpu", progress=lambda message: None)
targets = (Target("torch", "bf16"),)
chain = Subject(name="chain", build=lambda: Chain().eval(), cases={{"one": inputs}}, targets=targets, weights="random")
results = list(verify(chain, targets=targets, cases=["one"], settings=settings))
assert results[0].verdict == "pass", results[0].reason
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


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
        code = CHAIN.format(depth=depth, elements=TENSOR_MIB * 2**18)
        peak = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        print(f"{2 * depth:6} values: {int(peak):6} MiB")


if __name__ == "__main__":
    second_run()
    memory()
