"""Judge an entrant's folder of the TensorRT Hackathon 2023 preliminary as it is: latency and perceptual distance."""

from __future__ import annotations

import importlib.util
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import NotJudged, UsageError
from harness.hackathon.entrant import EntryError, prepare, process
from harness.hackathon.rules import PARAMETERS, PICTURES, PREPROCESS, RULES, SCRIPT, Rules, largest_key
from harness.records import ContestPicture, ContestResult, mean_latency
from harness.sentences import Sentence

SUFFIXES = (".jpg", ".jpeg", ".png")


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

    ``reference`` holds a picture of the same stem for each of ``images``, made by the FP32 pipeline. An error of the
    folder's code is a ``fail`` with its sentence. Raises UsageError for pictures that are missing or cannot be read,
    before anything is run.
    """
    expected = _checked_references(folder, images, reference)
    output.mkdir(parents=True, exist_ok=True)
    folder, output = folder.resolve(), output.resolve()
    rows: list[dict[str, Any]] = []
    preprocess_s, problem = None, ""
    try:
        progress(f"running {folder.name}/{PREPROCESS}")
        preprocess_s = prepare(folder, output, timeout_s)
        progress(f"processing {len(images)} pictures")
        for row in process(folder, images, expected, output, parameters, timeout_s, python):
            rows.append(row)  # what was made before something went wrong is kept
    except EntryError as error:
        problem = str(error)
    notes = [] if len(images) >= PICTURES else [Sentence("pictures_counted", count=len(images), contest=PICTURES)]
    distances, remarks, rejected = _distances(rows, expected, reference)
    pictures = tuple(
        ContestPicture(
            name=row["name"], latency_ms=row["latency_ms"], pd=distances.get(row["name"]), file=row["file"],
            reason=rejected.get(row["name"], ""),
        )
        for row in rows
    )  # fmt: skip
    latency_ms = mean_latency([picture.latency_ms for picture in pictures])
    verdict, reason, score = rules.judge(list(distances.values()), latency_ms)
    if rejected and not problem:
        name, why = next(iter(rejected.items()))
        problem = f"{name}: {why}{f' (and {len(rejected) - 1} more pictures)' if len(rejected) > 1 else ''}"
    if problem:
        verdict, reason, score = "fail", problem, None
    return ContestResult(
        folder=folder.name, verdict=verdict, reason=reason, pictures=pictures, latency_ms=latency_ms,
        pd_mean=statistics.fmean(distances.values()) if distances else None,
        pd_max=max(distances.values(), key=largest_key) if distances else None,
        score=score, score_rule=rules.words, preprocess_s=preprocess_s, parameters=dict(parameters),
        notes=(*notes, *remarks),
    )  # fmt: skip


def _checked_references(folder: Path, images: Sequence[Path], reference: Path | None) -> dict[str, Path]:
    """Return the reference picture of each image by its stem. Raises UsageError for what was asked wrongly."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder that holds {SCRIPT}")
    if not images:
        raise UsageError("there are no pictures to process; give --images DIR with .jpg or .png files")
    if twice := [name for name, count in Counter(image.stem for image in images).items() if count > 1]:
        raise UsageError(f"several pictures are named {twice[0]}; give each a name of its own")
    expected = {image.stem: reference_of(image, reference) for image in images} if reference else {}
    _check_readable([*images, *expected.values()])
    return expected


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


def _distances(
    rows: Sequence[Mapping[str, Any]], expected: Mapping[str, Path], reference: Path | None
) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """Return the perceptual distance by picture, remarks on it, and why some pictures have none.

    A picture that cannot be compared with its reference is that picture's failure: the others are judged all the same.
    """
    rejected = {row["name"]: row["rejected"] for row in rows if row["rejected"]}
    if reference is None:
        return {}, [Sentence("pd_no_references")], rejected
    if not rows:
        return {}, [], {}
    from harness.metrics import collect_remarks
    from harness.metrics.perceptual_distance import perceptual_distance

    found: dict[str, float] = {}
    try:
        with collect_remarks() as remarks:
            for row in (row for row in rows if not row["rejected"]):
                try:
                    found[row["name"]] = float(perceptual_distance(row["file"], expected[row["name"]]))
                except UsageError as error:
                    rejected[row["name"]] = Sentence("picture_not_compared", error=error)
    except NotJudged as error:
        return {}, [Sentence("pd_not_judged_since", error=error)], rejected
    return found, list(remarks), rejected
