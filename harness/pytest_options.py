"""The options that the plugin adds to pytest, and what is wrong with what was given to them.

A value that an option does not take is kept as a UsageError until the run begins: an error of pytest's own parser would
end it with pytest's status for usage, 4, and ours is 2.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from harness.arguments import as_path, at_least
from harness.errors import UsageError
from harness.shared_options import SHARED

RENAMED = {"--runs": "--parity-runs", "--limit": "--parity-limit", "--timeout": "--parity-timeout"}
"""What pytest calls options whose names are too general there."""


def add_options(parser: pytest.Parser) -> None:
    """Add the options: those that the command line has as well, and pytest's own."""
    group = parser.getgroup("parity", "engines against PyTorch")
    for option, how in SHARED.items():
        dest = f"parity_{option.removeprefix('--').replace('-', '_')}"
        _add(group, RENAMED.get(option, option), dest=dest, **how)
    names = {"action": "append", "default": []}
    switch = {"action": "store_true", "default": False}
    add = partial(_add, group)
    add("--backend", dest="parity_backend", metavar="NAME", help="only this backend; repeatable", **names)
    add("--precision", dest="parity_precision", metavar="NAME", help="only this precision; repeatable", **names)
    add("--require", dest="parity_require", metavar="BACKEND", help="fail unless this backend was judged", **names)
    add(
        "--require-verdict", dest="parity_require_verdict", action=BooleanOptionalAction,
        help="fail unless something was judged; default: where suites ran in CI (CI=true)",
    )  # fmt: skip
    add("--update-references", dest="parity_update_references", help="write stored references first", **switch)
    add("--parity-json", dest="parity_json", type=as_path, metavar="FILE", help="write the results (docs/json.md)")
    add(
        "--parity-junit", dest="parity_junit", type=_place, default="testcase", metavar="WHERE",
        help="where --junitxml has a property per figure: testcase, its test (default), or, by the letter of the "
        "schema, testsuite",
    )  # fmt: skip
    add(
        "--latency-processes", dest="parity_latency_processes", type=at_least(2), default=5, metavar="N",
        help="fresh processes per latency; default: 5",
    )  # fmt: skip
    add("--no-latency-record", dest="parity_no_latency_record", help="compare latencies, record none", **switch)
    add("--no-accuracy-record", dest="parity_no_accuracy_record", help="leave accuracies out of the history", **switch)


def check_options(config: pytest.Config) -> None:
    """Raise UsageError for the first value that an option does not take."""
    for name, given in vars(config.option).items():
        for value in given if isinstance(given, list) else (given,):
            if name.startswith("parity_") and isinstance(value, UsageError):
                raise value


def _add(group: pytest.OptionGroup, option: str, **how: Any) -> None:
    """Add an option; one that takes a value may stand without it, which is wrong, too."""
    if how.get("action", "append") == "append":
        missing = UsageError(f"{option} needs a value: {option} {how['metavar']}")
        how = {"nargs": "?", "const": missing, **how, "type": partial(_value, option, how.get("type", str))}
    group.addoption(option, **how)


def _place(text: str) -> str:
    if text not in ("testcase", "testsuite"):
        raise ArgumentTypeError(f"{text!r} is neither testcase nor testsuite")
    return text


def _value(option: str, kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ArgumentTypeError as error:
        return UsageError(f"{option}: {error}")
