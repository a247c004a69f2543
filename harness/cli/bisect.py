"""``parity bisect``: where the error of a wrong engine comes from, and a precision plan that passes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness import stopping
from harness.arguments import as_path
from harness.cli import bisect_quant
from harness.cli.against import add_against
from harness.cli.expected import to_judge, with_arrived
from harness.cli.options import (
    Document,
    add_command,
    add_computing,
    add_shared,
    add_subject,
    ended_by,
    request_of,
    settings_of,
)
from harness.errors import UsageError
from harness.files import check_writable, file_name


def add(commands: Any) -> None:
    """Add the command."""
    bisect = add_command(
        commands, "bisect", run, "find where the error of a wrong engine comes from, and a precision plan that passes"
    )
    add_subject(bisect)
    bisect.add_argument(
        "--quant", action="store_true",
        help="of a quantised file: the fewest operators to leave in floats that meet the limit of --against",
    )  # fmt: skip
    add_against(bisect)
    bisect.add_argument("--case", action="append", default=[], metavar="NAME", help="default: the first")
    add_computing(bisect)
    bisect.add_argument("-b", "--backend", required=True, metavar="BACKEND", help="see `parity doctor`")
    bisect.add_argument("-p", "--precision", required=True, metavar="PRECISION", help="as for verify")
    bisect.add_argument(
        "--max-builds", type=int, default=30, metavar="N", help="engines to build at most, all together; default: 30"
    )
    add_shared(bisect, "--runs", "--retries", "--retry-on", "--limit")
    bisect.add_argument("--jobs", type=int, default=1, metavar="N", help="engines built at a time; default: 1")
    bisect.add_argument("--json", type=as_path, metavar="FILE", help="write what was found as JSON (docs/json.md)")
    bisect.add_argument(
        "-o", "--output", type=as_path, metavar="PLAN.toml", help="default: reports/SUBJECT-TARGET.toml"
    )
    bisect.add_argument(
        "--reproducer", type=as_path, metavar="DIR", help="default: reports/SUBJECT-TARGET-reproducer, where it applies"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    options.backend, options.precision = [options.backend], [options.precision]
    if options.quant:
        return bisect_quant.run(options)
    from concurrent.futures import ThreadPoolExecutor

    from harness import bisect
    from harness.report.text import bisection_text

    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs} builds nothing; give at least 1")
    subject, targets, cases = request_of(options)
    if len(options.case) > 1:
        raise UsageError(f"bisect is about one case; choose one of --case {', --case '.join(cases)}")
    settings, target = settings_of(options), targets[0]
    document = Document(options, settings)
    expected = to_judge(subject, (target,), cases[:1])
    document.start(bisect=None, expected=with_arrived(expected, ()))
    if options.output:
        check_writable(options.output)
    if options.reproducer:
        bisect.check_replaceable(options.reproducer)
    stem = Path("reports") / file_name(subject.name, str(target))
    plan = options.output or stem.with_name(f"{stem.name}.toml")
    with ThreadPoolExecutor(options.jobs) as executor:
        found = bisect.bisect(
            subject, target, cases[0], settings, max_builds=options.max_builds, limit=options.limit, plan_file=plan,
            reproducer=options.reproducer or stem.with_name(f"{stem.name}-reproducer"), executor=executor,
            width=options.jobs,
        )  # fmt: skip
    ending: dict[str, Any] = {} if found.interrupted else {"complete": found.complete}
    if found.limit:
        ending["error"] = ended_by()
    elif not (found.complete or found.interrupted):
        built = f"{found.builds} of {found.max_builds} engines that --max-builds allows were built"
        ending["error"] = f"the search was not finished: {built}; the same command resumes it"
    keys = {"bisect": found.to_json(), "expected": with_arrived(expected, expected)}
    with document.written(interrupted=found.interrupted, **ending, **keys):
        print(bisection_text(found.to_json()))
    return stopping.exit_status() if found.interrupted else {"none": 0, "not_judged": 3}.get(found.kind, 1)
