"""How long things may take by options, variables and in CI: what :func:`harness.limits.allowed` is given."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError

IN_CI_S = {"--timeout": 1800.0, "--build-timeout": 7200.0}
"""The limits in CI where none is given."""
OPTIONS = {"timeout": "step", "build_timeout": "build", "run_timeout": "subject", "budget": "budget"}
"""What :func:`harness.limits.allowed` calls the limit of an option."""


def given_or_defaults(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the limits, as :func:`harness.limits.allowed` takes them, of the options that are among these values.

    Raises UsageError for a variable that holds no number of seconds.
    """
    return {
        place: given_or_default(f"--{name.replace('_', '-')}", given[prefix + name])
        for name, place in OPTIONS.items()
        if prefix + name in given
    }


def given_or_default(option: str, given: float | None) -> float | None:
    """Return the seconds of an option: those given, else of its variable (``PARITY_TIMEOUT``), else in CI IN_CI_S.

    Raises UsageError for a variable that holds no number of seconds.
    """
    if given is not None:
        return given
    name = f"PARITY_{option.lstrip('-').replace('-', '_').upper()}"
    try:
        return seconds_of(os.environ[name])
    except KeyError:
        return IN_CI_S.get(option) if in_ci() else None
    except ValueError as error:
        raise UsageError(f"{name}: {error}, such as 600") from None


def in_ci() -> bool:
    """Return whether this runs in CI, as CI systems say it."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def seconds_of(text: str) -> float:
    """Return the seconds that an option gives; 0 for no limit. Raises ValueError."""
    with contextlib.suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise ValueError(f"{text!r} is not a number of seconds")
