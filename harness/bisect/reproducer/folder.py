"""A reproducer: a folder that shows a wrong engine without this harness, for the developers of the engine builder.

The folder is written beside its final place and its script is run there; it is kept only if it shows the fault.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.bisect.reproducer.issue import ISSUE, issue
from harness.bisect.reproducer.text import ENVIRONMENT, RUNTIMES, SCRIPT, Spec, readme, script
from harness.errors import CannotWrite, NotJudged, UsageError, is_disk_full, unknown_name
from harness.files import write_text
from harness.graph import save_model
from harness.lazy import onnx_ir
from harness.sentences import Sentence
from harness.stopping import child
from harness.temporary import temporary_folder

TIMEOUT_S = 1800.0
"""A script that runs longer is stopped."""
PROGRESS_INTERVAL_S = 10.0
SAID_LINES = 4
"""Lines of a script's output that an error quotes, its last ones."""
_PRIVATE = ("engines", "references")
"""Keys of the environment that are folders of this machine."""


@dataclass(frozen=True, kw_only=True)
class Reproducer:
    """A reproducer that was run and showed the fault."""

    folder: Path
    output: str
    """What its script printed."""


class NotReproduced(NotJudged):
    """The script of a reproducer did not show the fault, so the reproducer was not kept."""


def write(folder: Path, spec: Spec, *, progress: Callable[[str], None]) -> Reproducer:
    """Write a reproducer, run it once, and move it to ``folder`` when it shows the fault.

    An earlier reproducer there is replaced; in every other case nothing is left behind and ``folder`` is as it was.
    Raises UsageError for a folder that holds something else or cannot be written, NotReproduced when the script does
    not show the fault, NotJudged for expected outputs or limits that cannot be compared and for a full disk.
    """
    folder = folder.absolute()
    _check(spec)
    check_replaceable(folder)
    with (
        _disk_errors(folder),
        _parents(folder),
        temporary_folder(folder.parent) as scratch,
    ):
        draft = scratch / "draft"
        draft.mkdir()
        progress(f"writing the reproducer {folder.name}")
        _write_parts(draft, spec)
        output = _run(draft, progress)
        write_text(readme(spec, output), draft / "README.md")
        write_text(issue(spec, output), draft / ISSUE)
        check_replaceable(folder)
        if folder.exists():
            folder.rename(scratch / "replaced")
        draft.rename(folder)
    return Reproducer(folder=folder, output=output)


def _check(spec: Spec) -> None:
    """Raise unless the script can judge every output: against a limit of NaN any output would be wrong."""
    if spec.backend not in RUNTIMES:
        raise unknown_name("backend", spec.backend, RUNTIMES)
    if not spec.expected:
        raise NotJudged(Sentence("reproducer_no_output"))
    if set(spec.limits) != set(spec.expected):
        raise NotJudged(Sentence("reproducer_limits", limits=sorted(spec.limits), expected=sorted(spec.expected)))
    for name, limit in spec.limits.items():
        if not (math.isfinite(limit) and limit >= 0):
            raise NotJudged(Sentence("reproducer_limit", name=name, limit=limit))
        if spec.expected[name].isnan().any():
            raise NotJudged(Sentence("reproducer_nan", name=name))
    for name, tensor in {**spec.inputs, **spec.expected}.items():
        if tensor.dtype == torch.bfloat16:
            raise NotJudged(Sentence("reproducer_bf16", name=name))


def check_replaceable(folder: Path) -> None:
    """Raise UsageError for a folder that holds something else than a reproducer."""
    ours = all((folder / name).is_file() for name in (SCRIPT, ENVIRONMENT))
    if (folder.exists() or folder.is_symlink()) and not ours:
        raise UsageError(f"{folder} exists and is not a reproducer; give another folder, or remove it")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise an error of the file system as NotJudged for a full disk, else as UsageError."""
    try:
        yield
    except (OSError, CannotWrite) as error:
        if is_disk_full(error):
            raise NotJudged(Sentence("reproducer_disk", folder=folder)) from error
        raise UsageError(f"the reproducer {folder} cannot be written: {error}; give another folder") from error


@contextlib.contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make the folders above this one, and remove those that it made when the block raises."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # not empty: another process has written there
                parent.rmdir()
        raise


def _write_parts(draft: Path, spec: Spec) -> None:
    """Write everything but the README and the bug report, which hold what the script prints."""
    save_model(onnx_ir.load(spec.graph), draft / "graph.onnx")
    _save_arrays(draft / "inputs.npz", spec.inputs)
    counting = {name: spec.expected[name].double().where(mask, math.nan) for name, mask in spec.valid.items()}
    _save_arrays(draft / "expected.npz", {**spec.expected, **counting})
    environment = {key: value for key, value in spec.environment.items() if key not in _PRIVATE}
    write_text(json.dumps(environment, indent=1, default=str), draft / ENVIRONMENT)
    write_text(script(spec), draft / SCRIPT)


def _save_arrays(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write an .npz file; ``np.savez`` takes names as keyword arguments, and so cannot take ``file``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, tensor in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, tensor.detach().cpu().numpy(), allow_pickle=False)


def _run(draft: Path, progress: Callable[[str], None]) -> str:
    """Run the script and return what it printed. Raises NotReproduced unless it says that the fault shows."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # the script cannot use the memory that PyTorch caches in this process
    log = draft.parent / "output.txt"
    with log.open("wb") as stdout:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stdout}
        with child([sys.executable, "-u", SCRIPT], cwd=draft, **pipes) as process:
            status = _wait(process, log, progress)
    output = log.read_text(encoding="utf-8", errors="replace")
    lines = output.splitlines()
    # An exception that Python itself reports ends with status 1 as well.
    if status == 1 and lines and lines[-1].startswith("REPRODUCED:"):
        return output
    ended = (
        Sentence("not_ended_within", seconds=TIMEOUT_S)
        if status is None
        else Sentence("ended_with_status", status=status)
    )
    said = "; ".join(" ".join(line.split()) for line in lines[-SAID_LINES:]) or "nothing"
    raise NotReproduced(Sentence("reproducer_not_kept", ended=ended, said=said))


def _wait(process: subprocess.Popen[bytes], log: Path, progress: Callable[[str], None]) -> int | None:
    """Return the exit status, or None after TIMEOUT_S; report the script's last line as progress."""
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < TIMEOUT_S:
        try:
            return process.wait(timeout=min(PROGRESS_INTERVAL_S, TIMEOUT_S - elapsed))
        except subprocess.TimeoutExpired:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            progress(": ".join([f"the reproducer has been running for {time.monotonic() - started:.0f} s", *last]))
    return None
