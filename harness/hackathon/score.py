"""The TensorRT Hackathon 2023 preliminary: its rules, a score by them, and the judging of an entrant's folder as it is.

An entrant's folder holds ``preprocess.sh``, which builds the engines, and ``canny2image_TRT.py`` with the class
``hackathon``: ``initialize()`` once, then ``process(image, prompt, ...)`` per picture. Both run in processes of their
own, with the folder as working folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import NotJudged, UsageError
from harness.files import write_text
from harness.records import ContestPicture, ContestResult, Verdict

PD_LIMIT, LATENCY_LIMIT_MS = 12.0, 2600.0
PICTURES = 20
SUFFIXES = (".jpg", ".jpeg", ".png")
SCRIPT, PREPROCESS = "canny2image_TRT.py", "preprocess.sh"
PARAMETERS: Mapping[str, Any] = {
    "prompt": "a bird",
    "a_prompt": "best quality, extremely detailed",
    "n_prompt": "longbody, lowres, bad anatomy, bad hands, missing fingers",
    "num_samples": 1,
    "image_resolution": 256,
    "ddim_steps": 20,
    "guess_mode": False,
    "strength": 1,
    "scale": 9,
    "seed": 2946901,
    "eta": 0.0,
    "low_threshold": 100,
    "high_threshold": 200,
}
"""What ``process`` is called with after the picture, in this order; the contest's public values."""


def default_score(pd: float, latency_ms: float) -> float:
    """Return 100 (1 - pd / 12) (1 - latency / 2600): 0 at either limit, and falling with both.

    The contest says only that the score falls with both and is 0 from the limits on; it never published its formula.
    """
    return 100 * max(0.0, 1 - pd / PD_LIMIT) * max(0.0, 1 - latency_ms / LATENCY_LIMIT_MS)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What fails, and what the rest is worth. Replace ``score`` to rank by another formula."""

    pd_limit: float = PD_LIMIT
    """A larger perceptual distance fails; the contest does not say of a picture or the mean, so the worst counts."""
    latency_limit_ms: float = LATENCY_LIMIT_MS
    """A mean latency of this or more fails."""
    score: Callable[[float, float], float] = default_score
    """Of the mean perceptual distance and the mean latency in milliseconds."""
    words: str = "100 (1 - PD / 12) (1 - latency / 2600 ms), of means; 0 where a gate fails; not the contest's formula"
    """The score in one sentence."""

    def judge(self, distances: Sequence[float], latency_ms: float | None) -> tuple[Verdict, str, float | None]:
        """Return verdict, reason and score; without distances it is a fail by latency, or not judged."""
        if latency_ms is None or not math.isfinite(latency_ms):
            return "not_judged", "no latency was measured", None
        if latency_ms >= self.latency_limit_ms:
            limit = f"{self.latency_limit_ms:g} ms or more fails"
            return "fail", f"mean latency {latency_ms:.4g} ms, {limit}", 0.0
        if not distances:
            return "not_judged", f"PD was not judged; mean latency {latency_ms:.4g} ms", None
        worst, mean = max(distances, key=_nan_first), statistics.fmean(distances)
        if not worst <= self.pd_limit:
            return "fail", f"PD {worst:.4g} (mean {mean:.4g}), above {self.pd_limit:g} fails", 0.0
        reason = f"PD at most {worst:.4g} (mean {mean:.4g}), mean latency {latency_ms:.4g} ms"
        return "pass", reason, self.score(mean, latency_ms)


RULES = Rules()


class _Trouble(Exception):
    """What is wrong with an entrant's folder, in one sentence."""


def judge_folder(
    folder: Path,
    *,
    images: Sequence[Path],
    output: Path,
    reference: Path | None = None,
    parameters: Mapping[str, Any] = PARAMETERS,
    timeout_s: float = 3600.0,
    python: str = sys.executable,
    rules: Rules = RULES,
    progress: Callable[[str], None] = lambda line: None,
) -> ContestResult:
    """Run an entrant's folder on pictures and judge it; pictures and logs go to ``output``.

    ``reference`` holds a picture of the same stem for each of ``images``, made by the FP32 pipeline. Whatever the
    folder does wrong is a ``fail`` with its sentence. Raises UsageError for pictures that are not there or cannot be
    read, before anything is run.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder that holds {SCRIPT}")
    if not images:
        raise UsageError("there are no pictures to process; give --images DIR with .jpg or .png files")
    if twice := [name for name, count in Counter(image.stem for image in images).items() if count > 1]:
        raise UsageError(f"several pictures are named {twice[0]}; give each a name of its own")
    expected = {image.stem: reference_of(image, reference) for image in images} if reference else {}
    _check_readable([*images, *expected.values()])
    output.mkdir(parents=True, exist_ok=True)
    folder, output = folder.resolve(), output.resolve()
    rows: list[dict[str, Any]] = []
    preprocess_s, trouble = None, ""
    try:
        progress(f"running {folder.name}/{PREPROCESS}")
        preprocess_s = _preprocess(folder, output, timeout_s)
        progress(f"processing {len(images)} pictures")
        for row in _process(folder, images, expected, output, parameters, timeout_s, python):
            rows.append(row)  # what was made before something went wrong is kept
    except _Trouble as error:
        trouble = str(error)
    notes = [] if len(images) >= PICTURES else [f"{len(images)} pictures; the contest takes {PICTURES}"]
    distances, remarks, unfit = _distances(rows, expected, reference)
    pictures = tuple(
        ContestPicture(
            name=row["name"], latency_ms=row["latency_ms"], pd=distances.get(row["name"]), file=row["file"],
            reason=unfit.get(row["name"], ""),
        )
        for row in rows
    )  # fmt: skip
    latency_ms = mean_latency([picture.latency_ms for picture in pictures])
    verdict, reason, score = rules.judge(list(distances.values()), latency_ms)
    if unfit and not trouble:
        name, why = next(iter(unfit.items()))
        trouble = f"{name}: {why}{f' (and {len(unfit) - 1} more pictures)' if len(unfit) > 1 else ''}"
    if trouble:
        verdict, reason, score = "fail", trouble, None
    return ContestResult(
        folder=folder.name, verdict=verdict, reason=reason, pictures=pictures, latency_ms=latency_ms,
        pd_mean=statistics.fmean(distances.values()) if distances else None,
        pd_max=max(distances.values(), key=_nan_first) if distances else None,
        score=score, score_rule=rules.words, preprocess_s=preprocess_s, parameters=dict(parameters),
        notes=(*notes, *remarks),
    )  # fmt: skip


def mean_latency(latencies_ms: Sequence[float]) -> float | None:
    """Return the mean without the first, which the contest leaves out; of one alone that one; of none None."""
    counted = latencies_ms[1:] or latencies_ms
    return statistics.fmean(counted) if counted else None


def find_images(folder: Path, count: int) -> list[Path]:
    """Return the first pictures of a folder, ``bird_2`` before ``bird_10``. Raises UsageError when there are none."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give --images DIR with .jpg or .png files")
    found = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=_natural)
    if not found:
        raise UsageError(f"{folder} holds no .jpg or .png files; give --images DIR with the pictures to process")
    return found[:count]


def reference_of(image: Path, reference: Path) -> Path:
    """Return the reference picture of an image: the same stem. Raises UsageError when there is none or several."""
    found = [reference / f"{image.stem}{suffix}" for suffix in SUFFIXES]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        what = "no picture" if not found else "several pictures"
        raise UsageError(f"{reference} holds {what} {image.stem}.jpg or .png; put the FP32 pipeline's picture there")
    return found[0]


def _check_readable(pictures: Sequence[Path]) -> None:
    """Raise UsageError for a picture that cannot be read: it is not the entrant's failure."""
    if importlib.util.find_spec("cv2") is None:  # the script's own interpreter may have it
        return
    import cv2

    for picture in pictures:
        if cv2.imread(str(picture)) is None:
            raise UsageError(f"the picture {picture} cannot be read; replace it or leave it out")


def _natural(path: Path) -> list[Any]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _preprocess(folder: Path, output: Path, timeout_s: float) -> float:
    """Run preprocess.sh and return its seconds."""
    for name in (PREPROCESS, SCRIPT):
        if not (folder / name).is_file():
            raise _Trouble(f"{folder.name} has no {name}; the contest runs it in the folder's root")
    started = time.perf_counter()
    _run(["bash", PREPROCESS], folder, output / "preprocess.log", timeout_s, PREPROCESS)
    return time.perf_counter() - started


def _process(
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
    command = [python, "-m", "harness.hackathon.score", str(output / "request.json")]
    problem = ""
    try:
        _run(command, folder, output / "process.log", timeout_s, SCRIPT)
    except _Trouble as error:
        problem = str(error)
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    yield from (row for row in rows if "error" not in row)
    said = next((row["error"] for row in rows if "error" in row), problem)
    if not said and len(rows) != len(images):
        said = f"{SCRIPT} ended after {len(rows)} of {len(images)} pictures without a word"
    if said:
        raise _Trouble(said)


def _suffix(expected: Mapping[str, Path], image: Path) -> str:
    """Both sides of a perceptual distance must have been through the same codec."""
    return expected[image.stem].suffix if image.stem in expected else ".jpg"


def _run(command: Sequence[str], folder: Path, log: Path, timeout_s: float, name: str) -> None:
    """Run a command in the folder, its output in a log. Raises _Trouble when it fails or takes too long."""
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
            raise _Trouble(f"{name} did not end within {timeout_s:g} s and was stopped; see {log.name}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started dies with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line.strip() for line in said if line.strip()]
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise _Trouble(f"{name} {how}: {lines[-1] if lines else 'it said nothing'} (see {log.name})")


def _distances(
    rows: Sequence[Mapping[str, Any]], expected: Mapping[str, Path], reference: Path | None
) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """Return the perceptual distance by picture, what has to be said about it, and why some pictures have none.

    A picture that cannot be compared with its reference is that picture's failure: the others are judged all the same.
    """
    unfit = {row["name"]: row["unfit"] for row in rows if row["unfit"]}
    if reference is None:
        return {}, ["PD was not judged: there are no reference pictures; give --reference DIR"], unfit
    if not rows:
        return {}, [], {}
    from harness.metrics import collect_remarks
    from harness.metrics.perceptual_distance import perceptual_distance

    found: dict[str, float] = {}
    try:
        with collect_remarks() as remarks:
            for row in (row for row in rows if not row["unfit"]):
                try:
                    found[row["name"]] = float(perceptual_distance(row["file"], expected[row["name"]]))
                except UsageError as error:
                    unfit[row["name"]] = f"it cannot be compared with its reference: {error}"
    except NotJudged as error:
        return {}, [f"PD was not judged: {error}"], unfit
    return found, list(remarks), unfit


def _drive(request: Mapping[str, Any]) -> None:
    """Process all pictures as the contest's own script does; runs in the entrant's process."""
    with open(request["record"], "w", encoding="utf-8") as record:  # noqa: PTH123 - as plain as what it records

        def write(row: Mapping[str, Any]) -> None:
            record.write(json.dumps(row) + "\n")
            record.flush()

        doing = f"importing {SCRIPT}"
        try:
            import cv2

            sys.path.insert(0, str(Path.cwd()))
            script = importlib.import_module(Path(SCRIPT).stem)
            doing = "initialize()"
            entry = script.hackathon()
            entry.initialize()
            for job in request["jobs"]:
                doing = f"process() on {job['name']}"
                write(_picture(cv2, entry, job, request))
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
            where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
            write({"error": f"{doing} raised {type(error).__name__}: {str(error) or 'no message'}{where}"})


def _picture(cv2: Any, entry: Any, job: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    image = cv2.imread(job["image"])
    if image is None:
        raise ValueError(f"the picture {job['image']} cannot be read")
    resolution = request["arguments"][list(PARAMETERS).index("image_resolution")]
    started = time.perf_counter()
    made = entry.process(image, *request["arguments"])
    latency_ms = (time.perf_counter() - started) * 1e3
    first = np.asarray(made[0])
    sides = (round(side * resolution / min(image.shape[:2]) / 64) * 64 for side in image.shape[:2])
    wanted = (*sides, 3)
    row = {"name": job["name"], "latency_ms": latency_ms, "file": "", "unfit": ""}
    if first.shape != wanted or first.dtype != np.uint8:
        shown = f"{first.dtype} {list(first.shape)}"
        return {**row, "unfit": f"process() gave {shown}; the contest wants uint8 {list(wanted)}"}
    file = str(Path(request["output"]) / job["file"])
    if not cv2.imwrite(file, first):
        raise OSError(f"cannot write {file}")
    return {**row, "file": file}


if __name__ == "__main__":
    _drive(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
