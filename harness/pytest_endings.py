"""How a test of an engine ends where something is said in one sentence: failed, skipped, or expected to fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.errors import NotJudged, ParityError, UsageError

Json = dict[str, Any]


def expected(reason: str) -> BaseException:
    """Return what makes a test an expected failure, whatever runs after it; with ``--runxfail`` it fails."""
    return pytest.xfail.Exception(f"known: {reason}")


def ledger_lines(data: Json) -> list[str]:
    """Return why the ledger's entry does not cover a failure, and who answers for it."""
    lines = [f"note: {data['known']['why']}"] if data["known"] and data["known"]["why"] else []
    return [*lines, f"owner: {data['owner']}"] if data["owner"] else lines


@contextmanager
def failing_in_one_sentence() -> Iterator[None]:
    """Fail the test with the sentence of a ParityError alone: a traceback into the harness would add nothing.

    A UsageError goes on: the plugin makes it an error of the test.
    """
    sentence = ""
    try:
        yield
    except UsageError:
        raise
    except ParityError as error:
        sentence = str(error)
    if sentence:  # outside of the handler, or pytest would show the chain of errors
        pytest.fail(sentence, pytrace=False)


@contextmanager
def having_a_verdict(*, required: bool) -> Iterator[None]:
    """Skip a test of an engine that cannot be judged here, or fail it where its backend is required."""
    reason = ""
    with failing_in_one_sentence():
        try:
            yield
        except NotJudged as error:
            reason = str(error)
    if reason and required:
        pytest.fail(f"its backend is required and gave no verdict: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"not judged: {reason}")
