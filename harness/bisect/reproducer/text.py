"""The words of a reproducer: its title, its script and its README.

The script is assembled from the text of the files in ``scripts``.
"""

from __future__ import annotations

import ast
import pprint
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backends import RUNS_ON_CPU, RUNS_ON_GPU
from harness.verify import FACTOR

if TYPE_CHECKING:
    import torch


SCRIPT = "reproduce.py"
ENVIRONMENT = "environment.json"
_PARTS = Path(__file__).parent / "scripts"
_NOT_HOISTED = ("__future__", "harness", "numpy")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a backend's script runs on."""

    part: str
    """The file in ``scripts`` that holds its code, without ``.py``."""
    modules: tuple[str, ...]
    """Python modules, the wanted one first."""
    packages: tuple[str, ...]
    """What to install; ``{}`` becomes ``==`` and the version that showed the fault."""
    provider: str = ""
    """ONNX Runtime's execution provider."""
    optimize: bool = True
    """Whether ONNX Runtime optimises the graph."""
    runs: int = RUNS_ON_CPU
    """How often the script runs the engine: as often as ``parity verify``."""


_TRT, _RTX = ("tensorrt", "tensorrt_bindings"), ("tensorrt_rtx", "tensorrt_rtx_bindings")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_RTX_PACKAGES = ("tensorrt-rtx-cu13-bindings{}", "tensorrt-rtx-cu13-libs{}", "cuda-bindings")
RUNTIMES = {
    "trt": Runtime(part="on_tensorrt", modules=_TRT + _RTX, packages=("tensorrt{}", "cuda-bindings"), runs=RUNS_ON_GPU),
    "rtx": Runtime(part="on_tensorrt", modules=_RTX + _TRT, packages=_RTX_PACKAGES, runs=RUNS_ON_GPU),
    "ort-cpu": Runtime(part="on_onnxruntime", modules=("onnxruntime",), packages=("onnxruntime{}",), provider=_CPU),
    "ort-cuda": Runtime(
        part="on_onnxruntime",
        modules=("onnxruntime",),
        packages=("onnxruntime-gpu{}",),
        provider=_CUDA,
        runs=RUNS_ON_GPU,
    ),
    # The exported graph itself is wrong, so it runs without optimisation.
    "torch": Runtime(
        part="on_onnxruntime", modules=("onnxruntime",), packages=("onnxruntime",), provider=_CPU, optimize=False
    ),
}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A region that is wrong, and all that is needed to show it elsewhere."""

    title: str
    """One line, such as ``TensorRT for RTX: FP16 engine of a residual block gives NaN``."""
    backend: str
    """Where the fault shows. ``torch`` means a fault of the export: the script runs the graph on the CPU in ONNX
    Runtime without optimisation, and compares it with PyTorch's outputs."""
    tf32: bool
    """Whether the engine may compute in TF32 what the graph types as FP32."""
    precision: str
    """The precision or the plan's name, for the reader; the types of the graph decide."""
    graph: Path
    """The typed ONNX graph of the region."""
    inputs: Mapping[str, torch.Tensor]
    """By name, as the engine got them; none is bfloat16."""
    expected: Mapping[str, torch.Tensor]
    """The right outputs by name, computed in PyTorch FP32; no NaN among them."""
    limits: Mapping[str, float]
    """Largest relative L2 error allowed, by output."""
    finding: str
    """What is wrong, in one sentence."""
    valid: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Which elements count, of the outputs of which not all do."""
    notes: tuple[str, ...] = ()
    """Further facts, one sentence each."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """As :func:`harness.backends.environment` returns it; folders of this machine are left out."""
    weights: str
    """``trained``, ``random`` or ``file``."""
    inputs_kind: str
    """``real`` or ``random``."""
    full_model: str
    """What the region was cut from."""


def script(spec: Spec) -> str:
    """Return the text of ``reproduce.py``."""
    runtime = RUNTIMES[spec.backend]
    constants = {
        "TITLE": spec.title,
        "PRECISION": spec.precision,
        "TF32": spec.tf32,
        "MODULES": runtime.modules,
        "PROVIDER": runtime.provider,
        "OPTIMIZE": runtime.optimize,
        "RUNS": runtime.runs,
        "LIMITS": {name: float(limit) for name, limit in spec.limits.items()},
        "LIMITS_WHY": _limits_why(spec),
    }
    imports: dict[str, set[str]] = {}
    bodies = []
    for part in ("common", runtime.part):
        found, body = _split((_PARTS / f"{part}.py").read_text(encoding="utf-8"))
        for module, names in found.items():
            imports.setdefault(module, set()).update(names)
        bodies.append(body)
    text = "\n\n\n".join(bodies)
    for name, value in constants.items():
        text = _set(text, name, value)
    # Plain imports first, as in any file.
    lines = [
        _import(module, names) for module, names in sorted(imports.items(), key=lambda item: (bool(item[1]), item[0]))
    ]
    return "\n".join([_docstring(spec), "", "from __future__ import annotations", "", *lines, "", text, ""])


def _set(text: str, name: str, value: object) -> str:
    """Replace the one line that sets a constant. Raises AssertionError for none or several."""
    line = f"{name} = {pprint.pformat(value, width=100)}"
    text, count = re.subn(rf"^{name}(: [^=]+)? = .*$", lambda _: line, text, flags=re.MULTILINE)
    if count != 1:
        raise AssertionError(f"the scripts set {name} {count} times, not once")
    return text


def _split(source: str) -> tuple[dict[str, set[str]], str]:
    """Return the imports of a part (module -> names, none for a plain import), and its text below the imports.

    Imports of other parts are left out, and that of numpy, which ``common`` makes with a message where it is missing.
    """
    found: dict[str, set[str]] = {}
    last = 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom):
            found.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update({alias.name: set() for alias in node.names})
        else:
            continue
        last = node.end_lineno or last
    outside = {name: names for name, names in found.items() if name.partition(".")[0] not in _NOT_HOISTED}
    return outside, "\n".join(source.splitlines()[last:]).strip("\n")


def _import(module: str, names: Iterable[str]) -> str:
    return f"from {module} import {', '.join(sorted(names))}" if names else f"import {module}"


def _docstring(spec: Spec) -> str:
    needs = " and ".join(("TensorRT, cuda-bindings" if _on_gpu_api(spec) else "onnxruntime", "numpy"))
    text = (
        f"{spec.title}\n\n{spec.finding}\n\nNeeds {needs}. Exit status: 1 reproduced, 0 not reproduced, 2 cannot run."
    )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"""{escaped}\n"""'


def _on_gpu_api(spec: Spec) -> bool:
    return RUNTIMES[spec.backend].part == "on_tensorrt"


def _limits_why(spec: Spec) -> str:
    return f"{FACTOR:g} times PyTorch's own {spec.precision} error (the floor), both against PyTorch FP32"


def readme(spec: Spec, output: str) -> str:
    """Return the text of README.md, in the order of a TensorRT bug report."""
    return "\n".join(
        [
            f"# {spec.title}\n",
            f"{spec.finding}\n",
            f"`graph.onnx` is the smallest region that shows it, cut from {spec.full_model}. "
            f"Precision: {spec.precision}; weights: {spec.weights}; inputs: {spec.inputs_kind}.\n",
            "## Environment\n",
            "| | |\n| --- | --- |",
            *(f"| {name} | {value or 'not known'} |" for name, value in environment_rows(spec).items()),
            f"\nAll of it: `{ENVIRONMENT}`.\n",
            "## Steps to reproduce\n",
            f"```sh\npip install {' '.join(packages(spec))}\npython {SCRIPT}\n```\n",
            *steps(spec),
            "\n## Expected\n",
            f"The outputs in `expected.npz`, computed by PyTorch in FP32. Allowed: {_limits_why(spec)}.\n",
            *expected_rows(spec),
            "\n## Actual\n",
            f"```text\n{output.rstrip()}\n```\n",
            "## Notes\n",
            *(f"- {note}" for note in (*spec.notes, *_fixed_notes(spec))),
            "",
        ]
    )


def environment_rows(spec: Spec) -> dict[str, str | None]:
    """Return what the fault was seen on, by name; what is not known is empty."""
    known = spec.environment
    gpus = ", ".join(f"{gpu['name']} ({gpu['compute_capability']})" for gpu in known.get("gpus", ()))
    installed = known.get("packages", {})
    return {
        f"{spec.backend} version": backend_version(spec),
        "GPU (compute capability)": gpus or known.get("no_gpu"),
        "NVIDIA driver": known.get("driver"),
        "CUDA (PyTorch's build)": known.get("cuda"),
        "cuDNN": known.get("cudnn") or "none",
        "Operating system": known.get("platform"),
        "Container": known.get("container") or "none",
        "CPU": known.get("cpu"),
        "Python": known.get("python"),
        "PyTorch": installed.get("torch"),
        "ONNX": installed.get("onnx"),
    }


def expected_rows(spec: Spec) -> Iterator[str]:
    """Yield the lines of a table of the expected outputs and how far from them one may be."""
    yield "| output | dtype | shape | largest magnitude | relative L2 error allowed |\n| --- | --- | --- | --- | --- |"
    for name, tensor in spec.expected.items():
        largest = f"{tensor.double().abs().max():.3g}" if tensor.numel() else "empty"
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield f"| `{name}` | {dtype} | {list(tensor.shape)} | {largest} | {spec.limits[name]:.3g} |"


def steps(spec: Spec) -> Iterator[str]:
    """Yield in words what the script does."""
    if _on_gpu_api(spec):
        modules = ", ".join(f"`{name}`" for name in RUNTIMES[spec.backend].modules)
        tf32 = "set" if spec.tf32 else "cleared"
        yield f"The script uses the first of {modules} that can be imported,"
        yield f"parses `graph.onnx` into a strongly typed network, builds it with the TF32 flag {tf32}, runs it"
        yield f"{RUNTIMES[spec.backend].runs} times on `inputs.npz` and compares every output."
    else:
        runtime = RUNTIMES[spec.backend]
        optimised = "with all graph optimisations" if runtime.optimize else "without graph optimisation"
        yield f"The script runs `graph.onnx` {runtime.runs} times in ONNX Runtime ({runtime.provider}, {optimised})"
        yield "on `inputs.npz` and compares every output."
    yield "Exit status: 1 reproduced, 0 not reproduced, 2 something is missing. `--engine FILE` saves what was built,"
    yield "`--runs N` runs it more often."


def _fixed_notes(spec: Spec) -> Iterator[str]:
    yield "Relative L2 error: the norm of the difference over the norm of the expected output. NaN is never right."
    if _on_gpu_api(spec):
        yield "Inputs of dynamic shape get a profile of the one shape in `inputs.npz`."
    if spec.backend == "torch":
        yield "The fault is in the exported graph; ONNX Runtime only evaluates it."


def packages(spec: Spec) -> list[str]:
    """Return what to install, with the versions that showed the fault."""
    version = backend_version(spec)
    pin = f"=={version}" if version else ""
    return [package.format(pin) for package in (*RUNTIMES[spec.backend].packages, "numpy")]


def backend_version(spec: Spec) -> str:
    """Return the version of the backend that showed the fault, or an empty string."""
    status = spec.environment.get("backends", {}).get(spec.backend, {})
    return str(status.get("version") or "")
