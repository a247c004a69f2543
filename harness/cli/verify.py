"""``parity verify``: build, run and judge a subject's engines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import stopping
from harness.arguments import as_path
from harness.cli import accuracy
from harness.cli.against import add_against
from harness.cli.expected import manifest_of, to_judge
from harness.cli.known import ledger_of
from harness.cli.options import (
    Document,
    add_cases,
    add_choice,
    add_command,
    add_computing,
    add_shared,
    add_subject,
    chart,
    charts_folder,
    not_reached,
    request_of,
    settings_of,
)
from harness.cli.shards import part_of, take_gpu_of
from harness.errors import ParityError
from harness.files import file_name
from harness.settings import print_progress
from harness.watching import Watched, is_recorded, watch

if TYPE_CHECKING:
    from harness.ledger import Ledger
    from harness.records import Result
    from harness.settings import Settings
    from harness.subject import Subject, Target
    from harness.verify import OpenTarget


def add(commands: Any) -> None:
    """Add the command."""
    verify = add_command(commands, "verify", run, "build, run and judge a subject's engines")
    add_subject(verify)
    add_cases(verify)
    add_choice(verify)
    add_computing(verify)
    add_against(verify)
    add_shared(
        verify, "--no-engine-cache", "--runs", "--retries", "--retry-on", "--limit", "--expect", "--known",
        "--run-known", "--shard", "--durations-from", "--gpus",
    )  # fmt: skip
    verify.add_argument("--require", action="append", default=[], metavar="BACKEND", help="exit 3 unless it was judged")
    verify.add_argument("--json", type=as_path, metavar="FILE", help="write the results as JSON (docs/json.md)")
    accuracy.add_recording(verify)
    verify.add_argument("--update-references", action="store_true", help="write stored references of these cases first")
    verify.add_argument(
        "--layers", nargs="?", const="", metavar="MODE",
        help="compare every value: unfused (tensors between kernels; the default where there is one), outputs (values "
        "as outputs), or outputs:PATTERN; charts go to reports/, or beside the JSON",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from harness.ledger import declared_by, standings
    from harness.records import all_judged, exit_status

    gpu = take_gpu_of(options)
    subject, targets, cases = request_of(options)
    cases = cases if options.case else (*cases, *subject.range_cases)
    settings = replace(settings_of(options), limit=options.limit)
    ledger = ledger_of(options, settings, subject, targets, cases)
    part = part_of(options, targets, to_judge(subject, targets, cases), gpu, history=settings.history)
    targets = part.targets
    records = is_recorded(off=options.no_record, fail_on_creep=options.fail_on_creep)
    manifest = manifest_of(options.expect, subject) if options.expect else None
    document = Document(options, settings)
    json_of = _once_each(lambda result: result.to_json())
    known_of = partial(standings, ledger, {subject.name: declared_by(subject)})
    rows = partial(_rows, asked := to_judge(subject, targets, cases), part.keys, json_of, known_of)
    document.start(**rows([]))
    show_table = partial(_show_table, json_of, known_of)
    found = _results(subject, targets, cases, settings, options, ledger)
    results, interrupted = document.collect(found, rows, show_table, of=None if records else len(asked))
    required = [name for name in options.require if name not in part.elsewhere]
    missing = [f"required backend {name} was not judged" for name in required if not all_judged(results, name)]
    lacking_of: list[str] = []
    if manifest is not None:
        from harness.arrivals import short_of  # it imports pytest

        arrived = [json_of(result) for result in results]
        lacking_of = short_of(options.expect, manifest, arrived, part.keys.get("elsewhere", ()))
    missing += lacking_of
    watched = _watched(options, rows(results), settings, document) if records and not interrupted else Watched()
    missing += watched.said if options.fail_on_creep else []
    late = not_reached(results)
    missing += [late] if late else []
    lacking = {} if interrupted or not missing else {"complete": False, "error": "; ".join(missing)}
    with document.written(interrupted=interrupted, **lacking, **rows(results), accuracy_history=list(watched.trends)):
        if options.layers is not None:
            _show_layers(results, json_of, charts_folder(options))
        show_table(results)
    if interrupted:
        print_progress(f"{stopping.words()}; the results above are those found so far")
        return stopping.exit_status()
    for sentence in [*watched.notes, *([] if options.fail_on_creep else watched.said), *missing]:
        print_progress(sentence)
    if options.fail_on_creep and watched.creeps:
        return 1
    if options.shard and not (targets or missing):  # there are more shards than targets
        return 0
    status = exit_status(results, required)
    if any(result.verdict == "fail" and not result.known for result in results):
        print_progress(ledger.offer(options.json))
    unsure = lacking_of or late or (options.fail_on_creep and watched.problem)
    return 3 if status == 0 and unsure else status


def _watched(options: argparse.Namespace, record: dict[str, Any], settings: Settings, document: Document) -> Watched:
    from harness.backends import environment

    return watch(
        record, lambda: document.environment or environment(settings), folder=settings.history, url=options.history
    )


def _once_each(convert: Callable[[Result], dict[str, Any]]) -> Callable[[Result], dict[str, Any]]:
    """Return the function for results that it converts once: each is written several times, then shown."""
    known: dict[int, tuple[Result, dict[str, Any]]] = {}

    def converted(result: Result) -> dict[str, Any]:
        if id(result) not in known:
            known[id(result)] = result, convert(result)  # held, so that no other one gets its number
        return known[id(result)][1]

    return converted


def _rows(
    asked: Sequence[dict[str, Any]],
    keys: dict[str, Any],
    json_of: Callable[[Result], dict[str, Any]],
    known_of: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]],
    results: Sequence[Result],
) -> dict[str, Any]:
    """Return the results so far, what is expected, whether and how fast it arrived, and how the ledger came out."""
    from harness.records import name_of

    found = [json_of(result) for result in results]
    took = {name_of(result): round(result["timings_s"].get("judge", 0.0), 3) for result in found}
    expected = [
        {**one, "arrived": True, "seconds": took[name_of(one)]} if name_of(one) in took else {**one, "arrived": False}
        for one in asked
    ]
    return {"results": found, "expected": expected, "known": known_of(found), **keys}


def _show_table(
    json_of: Callable[[Result], dict[str, Any]],
    known_of: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]],
    results: Sequence[Result],
) -> None:
    from harness.report.text import known_text, results_table

    found = [json_of(result) for result in results]
    print(results_table(found))
    if text := known_text(known_of(found)):
        print(text)


def _results(
    subject: Subject, targets: Sequence[Target], cases: Sequence[str], settings: Settings, options: argparse.Namespace,
    ledger: Ledger,
) -> Iterator[Result]:  # fmt: skip
    """Yield results and print each verdict on standard error; a failed ONNX file gets its Polygraphy command."""
    from harness import ledger as ledgers
    from harness.verify import verify, verify_case

    def judge(opened: OpenTarget, case: str) -> Result:
        entry = ledger.entry_of(subject.name, str(opened.target), case, source=subject.source)
        if entry and not options.run_known and not ledgers.is_launched(entry):
            return ledgers.not_launched(subject, opened.target, case, ledger, entry, opened.plan_source)
        if options.layers is None:
            result = verify_case(opened, case).result
        else:
            from harness.layers import judge_with_layers

            result = judge_with_layers(opened, case, mode=options.layers)
        return ledgers.as_known(result, ledger, entry, owner=subject.owner) if entry else result

    for result in verify(subject, targets=targets, cases=cases, settings=settings, judge=judge):
        settings.progress(f"{result.subject}/{result.case} [{result.target}]: {result.verdict.replace('_', ' ')}")
        line = _polygraphy(subject, result, charts_folder(options)) if result.verdict == "fail" else ""
        yield replace(result, next_step=f"{result.next_step}\n{line}") if line else result


def _show_layers(results: Sequence[Result], json_of: Callable[[Result], dict[str, Any]], folder: Path) -> None:
    """Print the looks at engines, which explain the verdicts below them."""
    from harness.report.plots import save_layers
    from harness.report.text import codes_text, layers_text

    for result in results:
        if text := codes_text(json_of(result)):
            print(f"{text}\n")
        if result.layers is None:
            continue
        print(f"{layers_text(json_of(result))}\n")
        stem = file_name(result.subject, str(result.target), result.case, "layers")
        chart(save_layers, json_of(result)["layers"], folder / stem)


def _polygraphy(subject: Subject, result: Result, folder: Path) -> str:
    """Return the command that shows an ONNX file's failure in Polygraphy, and write its inputs into ``folder``.

    Empty for another subject, and where Polygraphy has no such command.
    """
    from harness.report import run_line, save_inputs
    from harness.verify import case_inputs

    if subject.onnx is None:
        return ""
    inputs = folder / f"{file_name(subject.name, result.case)}-inputs.json"
    line = run_line(subject.onnx_file, backend=result.backend, precision=result.precision, inputs=inputs)
    if not line:
        return ""
    try:
        save_inputs(case_inputs(subject, result.case), inputs)
    except ParityError as error:  # the verdict stands without this file
        return f"{line}  ({error})"
    return line
