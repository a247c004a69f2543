"""Runs an engine once in a process of its own, so that it runs under another environment than this process.

``CUDA_LAUNCH_BLOCKING=1`` lets one kernel end before the next begins; CUDA reads it once, at the start of a process.
An engine whose result changes under it has a race between kernels.

Usage: ``python -m harness.backends.serialised BACKEND ENGINE INPUTS OUTPUTS``, inputs and outputs as safetensors.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness import process
from harness.errors import EngineFailed
from harness.files import write_bytes
from harness.process import how_it_ended, python_child
from harness.sentences import Sentence
from harness.stopping import run_child
from harness.temporary import temporary_folder

if TYPE_CHECKING:
    import torch


TIMEOUT_S = 600.0


def run_serialised(backend: str, engine: Path, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an engine's outputs, on the CPU, when each kernel ends before the next begins.

    Raises EngineFailed when the process fails or takes longer than TIMEOUT_S seconds.
    """
    from safetensors.torch import load_file, save

    from harness.tensors import on_cpu

    with temporary_folder() as folder:
        given, made = folder / "inputs.safetensors", folder / "outputs.safetensors"
        write_bytes(save(on_cpu(inputs)), given)
        command, environment = python_child(__name__, backend, str(engine.absolute()), str(given), str(made))
        environment["CUDA_LAUNCH_BLOCKING"] = "1"
        try:
            ended = run_child(command, env=environment, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            said: str = Sentence("apart_not_ended", backend=backend, seconds=TIMEOUT_S)
            raise EngineFailed(said, failure="timeout") from error
        if ended.returncode or not made.is_file():
            said = (ended.stderr.strip().splitlines() or [Sentence("no_reason_given")])[-1]
            ending = Sentence("apart_ended", backend=backend, how_it_ended=how_it_ended(ended.returncode), said=said)
            raise EngineFailed(ending, failure="crash")
        return dict(load_file(made))


def main(backend: str, engine: str, given: str, made: str) -> None:
    """Run the engine and write its outputs."""
    import torch
    from safetensors.torch import load_file, save_file

    from harness.backends.registry import BACKENDS
    from harness.tensors import on_cpu

    process.for_one_engine = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = {name: tensor.to(device) for name, tensor in load_file(given).items()}
    with BACKENDS[backend].load(Path(engine)) as session:
        outputs = session.run(inputs)
        save_file(on_cpu(outputs), made)


if __name__ == "__main__":
    main(*sys.argv[1:])
