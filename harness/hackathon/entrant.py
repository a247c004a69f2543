"""An entrant's folder is run: ``preprocess.sh``, which builds the engines, then ``canny2image_TRT.py`` on all pictures.

Each is a process of its own with the folder as working folder. The script holds the class ``hackathon``:
``initialize()`` once, then ``process(image, prompt, ...)`` per picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.files import write_text
from harness.hackathon.rules import PARAMETERS, PREPROCESS, SCRIPT
from harness.sentences import Sentence


class EntryError(Exception):
    """What is wrong with an entrant's folder, in one sentence."""


def prepare(folder: Path, output: Path, timeout_s: float) -> float:
    """Run preprocess.sh and return its seconds."""
    for name in (PREPROCESS, SCRIPT):
        if not (folder / name).is_file():
            raise EntryError(Sentence("entry_lacks", name=folder.name, file=name))
    started = time.perf_counter()
    _run(["bash", PREPROCESS], folder, output / "preprocess.log", timeout_s, PREPROCESS)
    return time.perf_counter() - started


def process(
    folder: Path,
    images: Sequence[Path],
    expected: Mapping[str, Path],
    output: Path,
    parameters: Mapping[str, Any],
    timeout_s: float,
    python: str,
) -> Iterator[dict[str, Any]]:
    """Run the script on all pictures and yield a row for each."""
    record = output / "processed.jsonl"
    record.unlink(missing_ok=True)
    jobs = [
        {"name": image.stem, "image": str(image.resolve()), "file": f"{image.stem}{_suffix(expected, image)}"}
        for image in images
    ]
    arguments = [parameters[name] for name in PARAMETERS]
    request = {"jobs": jobs, "arguments": arguments, "output": str(output), "record": str(record)}
    write_text(json.dumps(request), output / "request.json")
    command = [python, "-m", "harness.hackathon.entrant_process", str(output / "request.json")]
    problem = ""
    try:
        _run(command, folder, output / "process.log", timeout_s, SCRIPT)
    except EntryError as error:
        problem = str(error)
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    yield from (row for row in rows if "error" not in row)
    said = next((row["error"] for row in rows if "error" in row), problem)
    if not said and len(rows) != len(images):
        said = Sentence("entry_ended", script=SCRIPT, count=len(rows), count_2=len(images))
    if said:
        raise EntryError(said)


def _suffix(expected: Mapping[str, Path], image: Path) -> str:
    """Both sides of a perceptual distance must have been through the same codec."""
    return expected[image.stem].suffix if image.stem in expected else ".jpg"


def _run(command: Sequence[str], folder: Path, log: Path, timeout_s: float, name: str) -> None:
    """Run a command in the folder, its output in a log. Raises EntryError when it fails or takes too long."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = {**os.environ, **offline, "PYTHONPATH": path}
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EntryError(Sentence("entry_not_ended", name=name, timeout_s=timeout_s, log=log.name)) from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started dies with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line.strip() for line in said if line.strip()]
        how = f"was ended by signal {-status}" if status < 0 else Sentence("ended_with_status", status=status)
        raise EntryError(f"{name} {how}: {lines[-1] if lines else 'it gave no reason'} (see {log.name})")
