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

from harness.arguments import as_path, at_least, classes, gpus, relative_error, remote_mode, seconds
from harness.errors import UsageError
from harness.settings import RETRIED, RETRYABLE
from harness.shards import shard_of


def add_options(parser: pytest.Parser) -> None:
    """Add the options; their names are those of the command line."""
    group = parser.getgroup("parity", "engines against PyTorch")
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
    add(
        "--seed-random", dest="parity_seed_random", type=at_least(0, 2**63 - 1), nargs="?", const=0, metavar="SEED",
        help="judge models with random operators: what they draw becomes stored noise",
    )  # fmt: skip
    add("--no-engine-cache", dest="parity_no_engine_cache", help="build every engine afresh", **switch)
    add(
        "--parity-runs", dest="parity_runs", type=at_least(2), metavar="N",
        help="runs of each engine and case; default: 8 on a GPU, 2 on a CPU",
    )  # fmt: skip
    add(
        "--parity-limit", dest="parity_limit", type=relative_error, metavar="ERROR",
        help="relative error (2-norm) that every output may have; default: what PyTorch's own error allows",
    )  # fmt: skip
    add(
        "--parity-timeout", dest="parity_timeout", type=seconds, metavar="SECONDS",
        help="the longest that a step may take which runs the model outside an engine's build; 0: no limit; default: "
        "PARITY_TIMEOUT, else none, in CI (CI=true) 1800",
    )  # fmt: skip
    add(
        "--build-timeout", dest="parity_build_timeout", type=seconds, metavar="SECONDS",
        help="the longest that an engine's build may take; default: PARITY_BUILD_TIMEOUT, else none, in CI 7200",
    )  # fmt: skip
    add(
        "--run-timeout", dest="parity_run_timeout", type=seconds, metavar="SECONDS",
        help="the longest that the tests of one subject may take together; default: PARITY_RUN_TIMEOUT, else none",
    )  # fmt: skip
    add(
        "--budget", dest="parity_budget", type=seconds, metavar="SECONDS",
        help="the longest that the run may take: what it does not reach is not judged; default: PARITY_BUDGET or none",
    )  # fmt: skip
    add(
        "--retries", dest="parity_retries", type=at_least(0), default=0, metavar="N",
        help="try an engine up to N times more after a failure of --retry-on; default: 0",
    )  # fmt: skip
    add(
        "--retry-on", dest="parity_retry_on", type=classes, default=RETRIED, metavar="CLASSES",
        help=f"comma-separated: {', '.join(RETRYABLE)}; default: {','.join(RETRIED)}; a wrong answer is never retried",
    )  # fmt: skip
    add(
        "--expect", dest="parity_expect", type=as_path, metavar="MANIFEST",
        help="fail unless all of this was judged that parity list --json wrote",
    )  # fmt: skip
    add(
        "--lock-timeout", dest="parity_lock_timeout", type=seconds, metavar="SECONDS",
        help="how long to wait for an engine that another process builds; default: until it is built",
    )  # fmt: skip
    add(
        "--shard", dest="parity_shard", type=shard_of, metavar="I/N",
        help="only part I of the tests, split into N of nearly equal time; parity merge makes one record of theirs",
    )  # fmt: skip
    add(
        "--durations-from", dest="parity_durations_from", type=as_path, metavar="JSON",
        help="the record of an earlier run, whose durations split the tests; default: by count",
    )  # fmt: skip
    add(
        "--gpus", dest="parity_gpus", type=gpus, metavar="A,B",
        help="each shard and each worker of xdist uses one of these; default: of all there are; all: each sees all",
    )  # fmt: skip
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
    add(
        "--fail-on-creep", dest="parity_fail_on_creep",
        help="fail where the ratio of an output to its floor rises over the runs of the history", **switch,
    )  # fmt: skip
    add(
        "--known", dest="parity_known", type=as_path, metavar="FILE",
        help="the ledger of known failures; default: known.toml in the repository",
    )  # fmt: skip
    add("--run-known", dest="parity_run_known", help="launch engines that are known to crash too", **switch)
    add("--engines", dest="parity_engines", type=as_path, metavar="DIR", help="the engine cache (PARITY_ENGINES)")
    add(
        "--engines-remote", dest="parity_engines_remote", metavar="URL",
        help="an engine cache shared with other runners: a folder, s3://..., gs://... (PARITY_ENGINES_REMOTE)",
    )  # fmt: skip
    add(
        "--engines-remote-mode", dest="parity_engines_remote_mode", type=remote_mode, metavar="MODE",
        help="read, or read-write: what is built here goes there; default: read (PARITY_ENGINES_REMOTE_MODE)",
    )  # fmt: skip
    add("--references", dest="parity_references", type=as_path, metavar="DIR", help="references (PARITY_REFERENCES)")


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
