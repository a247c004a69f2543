"""``parity score``: a canny2image contest folder as it is, its latency and perceptual distance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.arguments import as_path, at_least
from harness.cli.options import Document, add_command

if TYPE_CHECKING:
    from harness.records import ContestResult


def add(commands: Any) -> None:
    """Add the command."""
    score = add_command(
        commands, "score", run, "judge a canny2image contest folder as it is: latency and perceptual distance"
    )
    score.add_argument("folder", type=as_path, metavar="DIR", help="holds preprocess.sh and canny2image_TRT.py")
    score.add_argument(
        "--images", type=as_path, metavar="DIR", help="pictures to process; default: DIR/pictures_croped"
    )
    score.add_argument(
        "--reference", type=as_path, metavar="DIR", help="the FP32 pipeline's pictures, of the same names"
    )
    score.add_argument("--count", type=at_least(1), default=20, metavar="N", help="pictures at most; default: 20")
    for name, words in (
        ("prompt", "the prompt"),
        ("a-prompt", "what is added to it"),
        ("n-prompt", "the negative one"),
    ):
        score.add_argument(f"--{name}", metavar="TEXT", help=f"{words}; default: the contest's")
    score.add_argument("--seed", type=int, metavar="N", help="default: the contest's, 2946901")
    score.add_argument("--timeout", type=at_least(1), default=3600, metavar="S", help="per process; default: 3600")
    score.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter that runs the script")
    score.add_argument("-o", "--output", type=as_path, metavar="DIR", help="default: reports/score-NAME")
    score.add_argument("--json", type=as_path, metavar="FILE", help="write the figures as JSON (docs/json.md)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness import hackathon, records
    from harness.settings import Settings, print_progress

    document = Document(options, Settings())
    images = hackathon.find_images(options.images or options.folder / "pictures_croped", options.count)
    asked = {"prompt": options.prompt, "a_prompt": options.a_prompt, "n_prompt": options.n_prompt, "seed": options.seed}
    parameters = {**hackathon.PARAMETERS, **{name: value for name, value in asked.items() if value is not None}}
    result = hackathon.judge_folder(
        options.folder, images=images, reference=options.reference, parameters=parameters,
        output=options.output or Path("reports") / f"score-{options.folder.resolve().name}",
        timeout_s=options.timeout, python=options.python, progress=print_progress,
    )  # fmt: skip
    document.write(complete=True, score=result.to_json())
    print("\n".join(_lines(result)))
    return records.status_of([result.verdict])


def _lines(result: ContestResult) -> Sequence[str]:
    from harness.report.text import aligned, ascii_safe, number, verdict_word

    rows = [(p.name, number(p.latency_ms, ".4g"), "FAIL" if p.reason else number(p.pd, ".4g")) for p in result.pictures]
    rows.append(("mean (latency without the first)", number(result.latency_ms, ".4g"), number(result.pd_mean, ".4g")))
    rows.append(("max", "", number(result.pd_max, ".4g")))
    lines = aligned([("picture", "latency ms", "PD"), *rows], words=1)
    if result.preprocess_s is not None:
        lines.append(f"preprocess.sh: {result.preprocess_s:.3g} s")
    lines += [f"{p.name}: FAIL: {p.reason}" for p in result.pictures if p.reason]
    lines += [f"note: {note}" for note in result.notes]
    score = "" if result.score is None else f"; score {result.score:.3g}: {result.score_rule}"
    lines.append(f"{result.folder}: {verdict_word(result.verdict)}: {result.reason}{score}")
    return [ascii_safe(line) for line in lines]
