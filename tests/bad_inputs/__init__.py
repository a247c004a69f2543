"""The table of bad inputs: what each is, the command that meets it, and what must be said.

One module per kind of input, each with its ``ROWS``; a row is added to the module of its kind.
"""

from __future__ import annotations

import importlib
import pkgutil

from bad_inputs.row import Row

KINDS = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "row")


def all_rows() -> list[tuple[str, Row]]:
    """Return every row with its kind."""
    return [(kind, row) for kind in KINDS for row in importlib.import_module(f"bad_inputs.{kind}").ROWS]
