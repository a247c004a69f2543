"""What a layer-wise verdict costs: ``parity verify --layers`` against ``polygraphy run`` with every tensor an output.

    python benchmarks/layers.py                               # CLIP-L text encoder, TensorRT for RTX, fp16
    python benchmarks/layers.py --small --backend ort-cpu     # no GPU: no TensorRT figure

Both compare the values of one model on the same inputs, each in a fresh process; times are wall time, medians over
``--repeat``. What a first import reads from the disk is read before anything is timed. A run that did not get to the
end, compared nothing, or had another engine cache than its line says, is shown as FAILED, without a ratio.

Exit status: 0 when all ran, whether or not the targets are met; 1 when a run failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TARGETS = {"ONNX file": {"cold": 0.5, "cached": 0.25}, "PyTorch subject": {"cold": 0.7, "cached": 0.3}}
"""What our time may be at most, as a part of Polygraphy's."""
MEMORY_MIB = 2048
"""What observing every value may add to the peak host memory."""
REPOSITORY = Path(__file__).parents[1]
IMPORTS = ("torch", "onnxscript", "onnxruntime", "transformers", "matplotlib.pyplot", "polygraphy", "harness.verify")

SUBJECT = """
from functools import partial
from benchmarks.subjects import clip, random_subject, tokens

SUBJECT = random_subject("clip", build=partial(clip, {layers}, {hidden}), cases={{"tokens": tokens}})
"""

SHIM = """from tensorrt_rtx_bindings import *
from tensorrt_rtx_bindings import __version__
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One or several runs of one command."""

    wall_s: float
    """Wall time; the median over the runs."""
    peak_mib: float
    """Peak resident memory of the largest process of the command; the largest of the runs."""
    status: int
    """The exit status of the last run, or of the first that failed."""
    values: int = 0
    """How many values were compared."""
    verdict: str = ""
    """What the command found."""
    problem: str = ""
    """Why the figures do not count; empty when they do."""


def main() -> int:
    """Print one line per command, then the ratios; return the exit status."""
    options = parse()
    layers, hidden = (2, 128) if options.small else (options.layers_count, options.hidden)
    print(
        f"CLIP text encoder (random weights), {layers} layers, {hidden} wide, batch 2 x 77; "
        f"{options.backend} {options.precision}; {device(options.backend)}; median of {options.repeat}\n"
    )
    with tempfile.TemporaryDirectory(prefix="parity-bench-") as name:
        folder = Path(name)
        prepare_files(folder, layers, hidden)
        print(f"{'':46}{'wall s':>8}{'values':>8}{'peak MiB':>10}{'exit':>6}")
        theirs = show("polygraphy run, every tensor an output", polygraphy(folder, options))
        rows = {kind: ours(folder, kind, options) for kind in ("PyTorch subject", "ONNX file")}
    print()
    for kind, row in rows.items():
        ratios(kind, row, theirs)
    for kind, row in rows.items():
        memory(kind, row)
    print(f"\n{compared(options)}")
    return int(any(m.problem for m in (theirs, *(m for row in rows.values() for m in row.values()))))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Times a layer-wise verdict against Polygraphy.")
    parser.add_argument("--backend", choices=("rtx", "trt", "ort-cpu"), default="rtx")
    parser.add_argument("--precision", choices=("fp32", "tf32", "fp16", "bf16"), default="fp16")
    parser.add_argument("--layers-count", type=positive, default=12, metavar="N", help="default: 12")
    parser.add_argument("--hidden", type=heads_of_64, default=768, metavar="N", help="width; default: 768")
    parser.add_argument("--small", action="store_true", help="2 layers, 128 wide")
    parser.add_argument("--repeat", type=positive, default=1, metavar="N", help="runs of each command; default: 1")
    return parser.parse_args()


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def heads_of_64(text: str) -> int:
    """Read a width that attention heads of 64 divide."""
    if positive(text) % 64:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 64, the width of an attention head")
    return int(text)


def device(backend: str) -> str:
    """Return the GPU's name, or CPU; asked in a process of its own, so that this one holds no GPU memory."""
    if backend == "ort-cpu":
        return f"CPU, {os.cpu_count()} cores"
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'NO GPU')"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def prepare_files(folder: Path, layers: int, hidden: int) -> None:
    """Write the subject, the same as an ONNX file, its inputs, and Polygraphy's name for TensorRT for RTX."""
    (folder / "clip_subject.py").write_text(SUBJECT.format(layers=layers, hidden=hidden))
    shim = folder / "shim" / "tensorrt_rtx"
    shim.mkdir(parents=True)
    (shim / "__init__.py").write_text(SHIM)
    imports = "import contextlib, importlib\n" + "".join(
        f"with contextlib.suppress(ImportError): importlib.import_module({name!r})\n" for name in IMPORTS
    )
    for what, code in (
        ("import the packages", imports),
        ("export the model", "from benchmarks.layers import export; export()"),
    ):
        done = execute([sys.executable, "-c", code], folder, folder / "prepare.log")
        if done.status:
            raise SystemExit(f"could not {what}:\n{tail(folder / 'prepare.log')}")


def export() -> None:
    """Write the subject of ``clip_subject`` as an ONNX file, and its inputs, into the working folder."""
    from clip_subject import SUBJECT

    from harness import Settings
    from harness.graph import save_model
    from harness.report import save_inputs
    from harness.verify import Run

    save_model(Run(SUBJECT, Settings(device="cpu")).prepared.program.model, Path("clip.onnx"))
    save_inputs(SUBJECT.cases["tokens"](), Path("inputs.json"))


def execute(command: Sequence[str], folder: Path, log: Path, **variables: str) -> Measured:
    """Run a command in a folder with its output in a file."""
    paths = os.pathsep.join(map(str, (folder, REPOSITORY, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **variables}
    with log.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        # wait4 tells the memory of this command; getrusage(RUSAGE_CHILDREN) that of the largest so far.
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(wall_s=wall_s, peak_mib=usage.ru_maxrss / 1024, status=process.returncode)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-6:])


def median(runs: Sequence[Measured]) -> Measured:
    """Return several runs as one; one that failed makes all fail."""
    if failed := next((run for run in runs if run.problem), None):
        return failed
    return dataclasses.replace(
        runs[-1],
        wall_s=statistics.median(run.wall_s for run in runs),
        peak_mib=max(run.peak_mib for run in runs),
        values=min(run.values for run in runs),
    )


def show(name: str, measured: Measured) -> Measured:
    """Print a command's line and return what was measured."""
    if measured.problem:
        print(f"{name:46}{'FAILED':>8}{'':18}{measured.status:6}  {measured.problem}", flush=True)
    else:
        values = measured.values or "-"
        figures = f"{measured.wall_s:8.2f}{values:>8}{measured.peak_mib:10.0f}{measured.status:6}"
        print(f"{name:46}{figures}  {measured.verdict}", flush=True)
    return measured


def polygraphy(folder: Path, options: argparse.Namespace) -> Measured:
    """Time Polygraphy on the ONNX file."""
    first = ["--onnxrt"] if options.backend == "ort-cpu" else ["--trt", "--trt-outputs", "mark", "all"]
    command = [sys.executable, "-c", "import sys; from polygraphy.tools import main; sys.exit(main())", "run"]
    command += ["clip.onnx", *first, "--onnxrt", "--onnx-outputs", "mark", "all", "--load-inputs", "inputs.json"]
    variables = {}
    if options.backend == "rtx":
        # The wheels with the bindings come without the package that only re-exports them.
        inherited = os.environ.get("PYTHONPATH", "")
        paths = os.pathsep.join(map(str, (folder / "shim", inherited)))
        variables = {"POLYGRAPHY_USE_TENSORRT_RTX": "1", "PYTHONPATH": paths}
    log = folder / "polygraphy.log"
    return median([judge_polygraphy(execute(command, folder, log, **variables), log) for _ in range(options.repeat)])


def judge_polygraphy(run: Measured, log: Path) -> Measured:
    """Add what Polygraphy compared. It exits with 1 for values that differ and for what kept it from comparing."""
    words = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    values = len(re.findall(r"^.*Comparing Output: '", words, flags=re.MULTILINE))
    finished = "Accuracy Summary | " in words
    failed = len(re.findall(r"^.*FAILED \| Output: ['`]", words, flags=re.MULTILINE))
    problem = "" if finished and values and run.status in (0, 1) else f"it compared nothing:\n{tail(log)}"
    verdict = f"{failed} values beyond its tolerance of 1e-5" if failed else "all within its tolerance of 1e-5"
    return dataclasses.replace(run, values=values, verdict=verdict, problem=problem)


def ours(folder: Path, kind: str, options: argparse.Namespace) -> dict[str, Measured]:
    """Time the layer-wise verdict, cold and cached, and the cached verdict without layers."""
    words = {"cold": "verify --layers, cold", "cached": "verify --layers, cached", "plain": "verify, cached"}
    found = {}
    for name, word in words.items():
        runs = [
            verify(
                folder, folder / f"{kind.split()[0]}-{turn}", kind, options, layers=name != "plain", cold=name == "cold"
            )
            for turn in range(options.repeat)
        ]
        found[name] = show(f"{kind}, {word}", median(runs))
    return found


def verify(folder: Path, caches: Path, kind: str, options: argparse.Namespace, *, layers: bool, cold: bool) -> Measured:
    """Time one verification with its caches in a folder of their own."""
    subject = ["clip.onnx", "--inputs", "inputs.json"] if kind == "ONNX file" else ["clip_subject:SUBJECT"]
    report, log = caches / "report.json", folder / "verify.log"
    caches.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "harness", "verify", *subject, "-b", options.backend, "-p", options.precision]
    command += ["--engines", str(caches / "engines"), "--references", str(caches / "references")]
    command += ["--json", str(report), *(["--layers"] if layers else [])]
    return judge_verify(execute(command, folder, log), report, log, layers=layers, cold=cold)


def judge_verify(run: Measured, report: Path, log: Path, *, layers: bool, cold: bool) -> Measured:
    """Add what was compared, and whether the run is what its line says."""
    document = json.loads(report.read_text()) if report.exists() else {}
    results = document.get("results", [])
    if not document.get("complete") or len(results) != 1 or run.status not in (0, 1, 3):
        return dataclasses.replace(run, problem=f"it did not get to the end:\n{tail(log)}")
    result = results[0]
    looked = result.get("layers") or {"values": []}
    values = sum(value["status"] == "compared" for value in looked["values"])
    built = log.read_text(errors="replace").count(": building the engine")
    problem = ""
    if result["verdict"] == "not_judged":
        problem = result["reason"]
    elif layers and not values:
        problem = "; ".join(result["notes"]) or "no value was compared"
    elif cold != bool(built):
        problem = f"it built {built} engines"
    untrusted = "" if looked.get("trusted", True) else ", but observing changed the engine: not to be trusted"
    return dataclasses.replace(run, values=values, verdict=result["verdict"] + untrusted, problem=problem)


def ratios(kind: str, row: dict[str, Measured], theirs: Measured) -> None:
    """Print what our time is as a part of Polygraphy's, with the targets."""
    for name, target in TARGETS[kind].items():
        ran = not (row[name].problem or theirs.problem)
        ratio = f"{row[name].wall_s / theirs.wall_s:.3g}" if ran else ""
        against(f"{kind}, {name}, ours / Polygraphy", ratio, f"{target:.3g}")


def memory(kind: str, row: dict[str, Measured]) -> None:
    """Print what observing every value adds to the peak host memory of a run with cached engines."""
    ran = not (row["cached"].problem or row["plain"].problem)
    added = f"{row['cached'].peak_mib - row['plain'].peak_mib:.0f}" if ran else ""
    against(f"{kind}, memory that layers add, MiB", added, f"{MEMORY_MIB}")


def against(name: str, figure: str, target: str) -> None:
    """Print a figure beside the most that it may be; an empty one comes of a run that failed."""
    met = "not met: a run failed" if not figure else "met" if float(figure) <= float(target) else "not met"
    print(f"{name:46}{figure or '-':>8}   (target: at most {target}) {met}")


def compared(options: argparse.Namespace) -> str:
    """Say what was held against what."""
    if options.backend == "ort-cpu":
        return (
            "THIS IS NO TENSORRT FIGURE. Polygraphy: ONNX Runtime on the CPU against itself, FP32, every tensor of\n"
            f"both an output. Ours: ONNX Runtime on the CPU in {options.precision} against the reference. The targets\n"
            "are meant for TensorRT."
        )
    return (
        "Polygraphy: the FP32 file on TensorRT against ONNX Runtime, every tensor of both an output, compared once.\n"
        f"Ours: the {options.precision} engine against the reference, with floors, local errors and effects."
    )


if __name__ == "__main__":
    sys.exit(main())
