"""The repository that suites belong to: its folders hold the references, engines and the history of a run of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_SECTIONS = {
    "pytest.ini": "", ".pytest.ini": "", "pyproject.toml": "[tool.pytest", "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}  # fmt: skip
"""Files that pytest is configured in, each with what it then holds; pytest's rootdir is where the nearest lies."""


def repository_root(start: Path) -> Path:
    """Return the folder of the repository that a file or folder belongs to, as pytest finds its rootdir.

    It is the nearest one upwards in which pytest is configured, else a work tree of git, else the highest with a
    conftest.py, else the current folder where ``start`` lies in it, else ``start`` itself.
    """
    start = start.resolve()
    start = start if start.is_dir() else start.parent
    above = (start, *start.parents)
    configured = (folder for folder in above if any(_is_configured(folder / name) for name in _SECTIONS))
    trees = (folder for folder in above if (folder / ".git").exists())
    conftests = (folder for folder in reversed(above) if (folder / "conftest.py").is_file())
    here = Path.cwd() if start.is_relative_to(Path.cwd()) else start
    return next((folder for found in (configured, trees, conftests) for folder in found), here)


def _is_configured(path: Path) -> bool:
    try:
        return path.is_file() and _SECTIONS[path.name] in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def folders(root: Path) -> dict[str, Path]:
    """Return the folders of a run of a repository's suites, as fields of :class:`harness.Settings`.

    ``PARITY_ENGINES`` and ``PARITY_REFERENCES`` name others; ``PARITY_HISTORY`` is read where the history is opened.
    """
    return {
        "root": root,
        "engines": Path(os.environ.get("PARITY_ENGINES") or root / "engines"),
        "references": Path(os.environ.get("PARITY_REFERENCES") or root / "reference_outputs"),
        "history": root / ".parity",
    }


def as_typed(root: Path) -> Path:
    """Return the repository's folder as an empty path where it is the current one, so that paths in it are short."""
    return Path() if root == Path.cwd() else root


def source_of(root: Path, file: Path | str) -> str:
    """Return a file's path below the repository, with ``/`` on every system: what tells two of one name apart."""
    return Path(os.path.relpath(Path(file).resolve(), root.resolve())).as_posix()


def content_of(root: Path, file: Path | str) -> str:
    """Return ``plans/mixed.toml@1a2b3c4d``: a file's path below the repository and the start of its content's hash."""
    return f"{source_of(root, file)}@{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]}"


def in_repository(root: Path, file: str) -> str:
    """Return a file that a suite names, such as a precision plan: that of its repository before one that lies here."""
    path = root / file
    return str(path) if root != Path.cwd() and path.is_file() else file
