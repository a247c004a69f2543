"""What a run was asked for: folders, switches and the function that says what is happening."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import Failure, UsageError, visible
from harness.repository import as_typed, folders, repository_root


def print_progress(message: str) -> None:
    """Print one line to standard error, whatever names are in it, so that standard output stays the result."""
    print(f"parity: {visible(message)}", file=sys.stderr, flush=True)


_CHATTY = ("torch", "onnxscript", "onnx_ir", "transformers", "diffusers", "huggingface_hub")
"""Libraries that print what they log by handlers of their own."""


@contextlib.contextmanager
def others_quiet(*, verbose: bool = False) -> Iterator[None]:
    """Keep what libraries warn of and log off the terminal, or show each of them as a line of ours."""

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        if verbose:
            print_progress(f"{category.__name__}: {message} ({filename}, line {lineno})")

    last = logging.lastResort
    loggers = [] if verbose else [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        logging.lastResort = _Lines(logging.WARNING) if verbose else logging.NullHandler()
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logging.lastResort = last
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Lines(logging.Handler):
    """Prints what is logged as a line of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        print_progress(f"{record.name}: {record.getMessage()}")


GIVEN = ("engines", "references", "engines_remote", "engines_remote_mode")
"""The settings that an option gives, and an environment variable or the repository where none does."""


def _folder(name: str) -> Path:
    return folders(as_typed(repository_root(Path.cwd())))[name]


def check_limit(limit: float | None) -> None:
    """Raise UsageError for a limit that is no relative error."""
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"--limit {limit} is not a relative error; give a number above 0, such as 1e-3")


RETRYABLE: tuple[Failure, ...] = ("refused", "crash", "device", "memory", "timeout")
"""Classes of failures that another attempt may get past; a wrong answer is none of them."""
RETRIED: tuple[Failure, ...] = ("device", "crash")
"""Those that are tried again where nothing else is said."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Built once, by the command line or by the pytest plugin."""

    root: Path = field(default_factory=partial(_folder, "root"))
    """The repository of the suites, whose commit is recorded."""
    engines: Path = field(default_factory=partial(_folder, "engines"))
    """The engine cache (``PARITY_ENGINES``)."""
    engines_remote: str = field(default_factory=lambda: os.environ.get("PARITY_ENGINES_REMOTE", ""), repr=False)
    """The URL of the engine cache shared with other runners (``PARITY_ENGINES_REMOTE``); empty for none."""
    engines_remote_mode: str = field(default_factory=lambda: os.environ.get("PARITY_ENGINES_REMOTE_MODE") or "read")
    """``read``, or ``read-write`` to upload what is built (``PARITY_ENGINES_REMOTE_MODE``)."""
    references: Path = field(default_factory=partial(_folder, "references"))
    """Stored references (``PARITY_REFERENCES``)."""
    history: Path = field(default_factory=partial(_folder, "history"))
    """The folder of the history, where ``PARITY_HISTORY`` names none."""
    engine_cache: bool = True
    """Use engines built earlier; False builds every engine afresh."""
    engine_cache_bytes: int = 20 * 2**30
    """The cache is cut back to this size, least recently used first."""
    update_references: bool = False
    """Write stored references instead of holding the run against them."""
    seed_random: int | None = None
    """Replace what random operators draw by stored noise of this seed; None judges no random model."""
    device: str | None = None
    """Where PyTorch computes: ``cpu``, ``cuda``, or None for a GPU when there is one."""
    rebuild: bool = False
    """Build every module anew, whatever is remembered of it; CI does so always."""
    runs: int | None = None
    """How often each engine runs a case before it is judged; None: 8 times on a GPU, twice on a CPU."""
    retries: int = 0
    """How often an engine is tried again after a failure of these classes."""
    retry_on: tuple[Failure, ...] = RETRIED
    """Those classes."""
    limit: float | None = None
    """The relative L2 error that every output of floats may have, in place of the limits derived or declared."""
    progress: Callable[[str], None] = print_progress
    """Called with one short line whenever a long step starts or ends."""

    def __post_init__(self) -> None:
        for name in ("engines", "references"):
            folder: Path = getattr(self, name)
            if folder.exists() and not folder.is_dir():
                words = f"{folder} is no folder, and {name} are kept in one"
                raise UsageError(f"{words}; give another: --{name} DIR, or PARITY_{name.upper()}")
