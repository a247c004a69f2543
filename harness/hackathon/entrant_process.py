"""Process the contest's pictures as its own script does, in the entrant's process: ``python -m`` with a request."""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.hackathon.rules import PARAMETERS, SCRIPT


def main(request: Mapping[str, Any]) -> None:
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
    row = {"name": job["name"], "latency_ms": latency_ms, "file": "", "rejected": ""}
    if first.shape != wanted or first.dtype != np.uint8:
        shown = f"{first.dtype} {list(first.shape)}"
        return {**row, "rejected": f"process() gave {shown}; the contest wants uint8 {list(wanted)}"}
    file = str(Path(request["output"]) / job["file"])
    if not cv2.imwrite(file, first):
        raise OSError(f"cannot write {file}")
    return {**row, "file": file}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
