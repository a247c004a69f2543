"""The text of a bug report in the form that NVIDIA/TensorRT asks for, beside the README of a reproducer.

The form is that of https://github.com/NVIDIA/TensorRT/issues/new, its headings in its order.
"""

from __future__ import annotations

from harness.bisect.reproducer.text import (
    SCRIPT,
    Spec,
    backend_version,
    environment_rows,
    expected_rows,
    packages,
    steps,
)

ISSUE = "issue.md"
_FILES = "`graph.onnx` with its weights, `inputs.npz`, `expected.npz`, `reproduce.py`, `environment.json`, attached."
_ASKED = {
    "TensorRT Version": "version", "NVIDIA GPU": "GPU (compute capability)", "NVIDIA Driver Version": "NVIDIA driver",
    "CUDA Version": "CUDA (PyTorch's build)", "CUDNN Version": "cuDNN", "Operating System": "Operating system",
    "Python Version": "Python", "PyTorch Version": "PyTorch", "Baremetal or Container": "Container",
}  # fmt: skip
"""What the form asks for, and what it is called in the README."""


def issue(spec: Spec, output: str) -> str:
    """Return the text of issue.md: ``output`` is what the script printed when it showed the fault."""
    known = environment_rows(spec)
    known["version"] = f"{spec.backend} {backend_version(spec)}".strip()
    asked = [f"**{name}**: {known.get(key) or 'not known'}\n" for name, key in _ASKED.items()]
    return "\n".join(
        [
            f"# {spec.title}\n",
            "## Description\n",
            f"{spec.finding}\n",
            f"`graph.onnx` is the smallest region that shows it, cut from {spec.full_model}. "
            f"Precision: {spec.precision}; weights: {spec.weights}; inputs: {spec.inputs_kind}.\n",
            "## Environment\n",
            *asked,
            "## Relevant Files\n",
            f"{_FILES}\n",
            "## Steps To Reproduce\n",
            f"```sh\npip install {' '.join(packages(spec))}\npython {SCRIPT}\n```\n",
            *steps(spec),
            "\n**Expected**: the outputs in `expected.npz`, computed by PyTorch in FP32:\n",
            *expected_rows(spec),
            f"\n**Actual**:\n\n```text\n{output.rstrip()}\n```\n",
            "**Have you tried the latest release?**: it was seen with the version above; no other was tried.\n",
            "**Can this model run on other frameworks?** PyTorch computes what is expected of it; "
            "`polygraphy run graph.onnx --onnxrt` was not run.\n",
        ]
    )
