"""``parity study`` and ``parity score``: options become calls, what comes back is printed and saved."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.options import INTERRUPTED, Document, add_command, add_folders, at_least, names, settings_of
from harness.errors import NotJudged, UsageError

if TYPE_CHECKING:
    from harness.records import ContestResult, StudyResult, Verdict


STUDY = "study.py"


def add(commands: Any) -> None:
    """Add the commands about a system of several engines."""
    study = add_command(
        commands, "study", _study, "try variants of a system of engines: quality, latency, what each gained"
    )
    study.add_argument("folder", type=Path, metavar="DIR", help=f"a suite folder with {STUDY}: suites/canny2image")
    study.add_argument("--variants", type=names, default=(), metavar="A,B", help="only these, in this order")
    study.add_argument("--pictures", type=at_least(1), default=4, metavar="N", help="default: 4")
    study.add_argument("--steps", type=at_least(1), metavar="N", help="of the sampler, where a variant sets none")
    study.add_argument("-b", "--backend", default="rtx", metavar="BACKEND", help="of the engines; default: rtx")
    study.add_argument("--json", type=Path, metavar="FILE", help="default: reports/NAME-study.json")
    study.add_argument("--list", action="store_true", help="print the variants' names and stop")
    study.add_argument(
        "--device", choices=("cpu", "cuda"), help="where PyTorch computes; default: a GPU if there is one"
    )
    study.add_argument("--no-engine-cache", action="store_true", help="build every engine afresh")
    add_folders(study)

    score = add_command(
        commands, "score", _score, "judge a canny2image contest folder as it is: latency and perceptual distance"
    )
    score.add_argument("folder", type=Path, metavar="DIR", help="holds preprocess.sh and canny2image_TRT.py")
    score.add_argument("--images", type=Path, metavar="DIR", help="pictures to process; default: DIR/pictures_croped")
    score.add_argument("--reference", type=Path, metavar="DIR", help="the FP32 pipeline's pictures, of the same names")
    score.add_argument("--count", type=at_least(1), default=20, metavar="N", help="pictures at most; default: 20")
    for name, words in (
        ("prompt", "the prompt"),
        ("a-prompt", "what is added to it"),
        ("n-prompt", "the negative one"),
    ):
        score.add_argument(f"--{name}", metavar="TEXT", help=f"{words}; default: the contest's")
    score.add_argument("--seed", type=int, metavar="N", help="default: the contest's, 2946901")
    score.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="per process; default: 3600")
    score.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter that runs the script")
    score.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: reports/score-NAME")
    score.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON (docs/json.md)")


def load_study(folder: Path) -> Any:
    """Import ``study.py`` of a suite folder and return the module: ``variants()`` and ``run(...)``.

    Raises UsageError when there is none, it cannot be imported, or it lacks one of the two.
    """
    from harness import discovery

    path = folder / STUDY
    if not path.is_file():
        raise UsageError(f"{folder} has no {STUDY}; give a suite folder with a study, such as suites/canny2image")
    name = f"parity_study_{folder.resolve().name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # A suite imports its neighbours from the working folder, at once and when it runs.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with discovery.import_errors(f"study {path}"):
        spec.loader.exec_module(module)
    if missing := [part for part in ("run", "variants") if not callable(getattr(module, part, None))]:
        raise UsageError(f"study {path} defines no {missing[0]}(); docs/canny2image.md says what a study gives")
    return module


def _study(options: argparse.Namespace) -> int:
    from harness import discovery
    from harness.report.plots import save_study
    from harness.report.text import study_text

    module = load_study(options.folder)
    if options.list:
        print("\n".join(module.variants()))
        return 0
    discovery.check_backends([options.backend])
    path: Path = options.json or Path("reports") / f"{options.folder.resolve().name}-study.json"
    settings = settings_of(options)
    document = Document(options, settings, path=path)

    def write(study: StudyResult | None, *, complete: bool = False, error: str = "") -> None:
        document.write(complete=complete, error=error, study=study.to_json() if study else None)

    found: StudyResult | None = None
    error, status = "", 3
    try:
        for found in module.run(
            variants=options.variants, pictures=options.pictures, steps=options.steps, backend=options.backend,
            settings=settings, folder=path.parent / f"{path.stem}-pictures",
        ):  # fmt: skip
            write(found)
        if found is None:
            raise NotJudged(f"study {options.folder} gave no result; its run() must yield one")
        status = _status([variant.verdict for variant in found.variants[1:]])
    except KeyboardInterrupt:
        error, status = "interrupted", INTERRUPTED
    except Exception as failure:
        write(found, error=str(failure))
        if found is not None:
            print(study_text(found.to_json()))
        raise
    if found is not None:
        found, trouble = _with_charts(found, path, save_study)
        write(found, complete=not error, error=error)
        print("\n".join([study_text(found.to_json()), *trouble, f"json: {path}"]))
    return status


def _status(verdicts: Sequence[Verdict]) -> int:
    """Return 1 if a variant failed, 0 if one passed, 3 if none was judged; as verify does."""
    if "fail" in verdicts:
        return 1
    return 0 if "pass" in verdicts else 3


def _with_charts(study: StudyResult, path: Path, save: Any) -> tuple[StudyResult, list[str]]:
    """Return the study with its charts drawn beside the JSON, and why there are none."""
    try:
        charts = save(study.to_json(), path.with_suffix(""))
    except NotJudged as error:  # the figures are there; the picture is an extra
        return study, [f"no chart: {error}"]
    return dataclasses.replace(study, charts={what: file.name for what, file in charts.items()}), []


def _score(options: argparse.Namespace) -> int:
    from harness import hackathon
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
    print("\n".join(_score_lines(result)))
    document.write(complete=True, score=result.to_json())
    return _status([result.verdict])


def _score_lines(result: ContestResult) -> Sequence[str]:
    from harness.report.text import VERDICTS, aligned, ascii_safe, number

    rows = [(p.name, number(p.latency_ms, ".4g"), "FAIL" if p.reason else number(p.pd, ".4g")) for p in result.pictures]
    rows.append(("mean (latency without the first)", number(result.latency_ms, ".4g"), number(result.pd_mean, ".4g")))
    rows.append(("max", "", number(result.pd_max, ".4g")))
    lines = aligned([("picture", "latency ms", "PD"), *rows], words=1)
    if result.preprocess_s is not None:
        lines.append(f"preprocess.sh: {result.preprocess_s:.3g} s")
    lines += [f"{p.name}: FAIL: {p.reason}" for p in result.pictures if p.reason]
    lines += [f"note: {note}" for note in result.notes]
    score = "" if result.score is None else f"; score {result.score:.3g}: {result.score_rule}"
    return [
        ascii_safe(line) for line in [*lines, f"{result.folder}: {VERDICTS[result.verdict]}: {result.reason}{score}"]
    ]
