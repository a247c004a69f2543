"""The command line that gives a record again: from the repository's folder, with the variables that count."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.errors import without_passwords
from harness.machine.variables import set_variables, timed_variables
from harness.repository import repository_root

_OF_ONE_RUN = "PARITY_RUN"
"""The id of a run, by which several processes know each other: another run has another."""


def command_line(program: str, arguments: Iterable[str]) -> str:
    """Return what to type in the repository's folder: variables, program and arguments, without passwords.

    Paths inside the repository are relative to the current folder, which the line enters where it is another one. What
    lies outside of it stays as it was given. ``program`` is the module that ``python -m`` runs, too.
    """
    here = Path.cwd()
    root = repository_root(here)
    variables = {**set_variables(["PARITY_*"]), **timed_variables()}
    variables.pop(_OF_ONE_RUN, None)
    words = [f"{name}={shlex.quote(_relative(value, root, here))}" for name, value in sorted(variables.items())]
    words += [*_program(program), shlex.join(_relative(argument, root, here) for argument in arguments)]
    enters = f"cd {shlex.quote(here.relative_to(root).as_posix())} && " if here != root else ""
    return without_passwords(enters + " ".join(filter(None, words)))


def _program(name: str) -> list[str]:
    """Return how it was started: ``python -m`` also puts the current folder where modules are looked for."""
    started = Path(sys.argv[0])
    module = {"parity": "harness"}.get(name, name)
    return ["python", "-m", module] if (started.name, started.parent.name) == ("__main__.py", module) else [name]


def _relative(word: str, root: Path, here: Path) -> str:
    """Return a word whose path, if it is one in the repository, is relative: ``--json=/repository/a.json``."""
    option, is_option, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if value == str(root) or value.startswith(f"{root}{os.sep}"):
        value = os.path.relpath(value, here)
    return f"{option}{is_option}{value}" if option else value
