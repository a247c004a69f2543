"""Modules that need not be built again: what was found of one, with everything that it was built from.

A module is taken from an earlier run only where its suite declares ``weights_files=``, nothing that its import and
``build()`` read has changed, and two processes have built the same module from it. A stale one would be a false pass:
docs/modules.md lists what is noticed, what is declared, and what keeps a module from being taken.
"""

# ruff: noqa: PTH100, PTH109, PTH110, PTH112, PTH113, PTH116, PTH123, PTH208
from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import harness
from harness import reads
from harness.errors import CannotWrite, UsageError, suite_code
from harness.files import file_name, write_text
from harness.graph import Unstable, stable_text
from harness.settings import Settings
from harness.stamps import stamp_of
from harness.subject import Subject
from harness.tensors import sha256_of
from harness.verify.inputs import CaseInputs
from harness.verify.subject_graph import GraphIdentity

SCHEMA = "parity-module/1"
BUILDS = 2
"""Processes that must have built the same module before a third one takes it: what is drawn without a seed differs."""
GOOD_FOR_S = 24 * 3600.0
"""It is built again after a day: whatever no file tells, such as what is downloaded, is not older than that."""
UNREAD = frozenset({
    "_", "COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL", "WINDOWID", "TERM_SESSION_ID", "PYTEST_CURRENT_TEST",
    "PYTEST_VERSION", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID",
})  # fmt: skip
"""Variables that shells, terminals and pytest set anew each time; all others tell two runs apart."""
Json = dict[str, Any]


class Memory:
    """What is remembered of one subject's module, in one file of the engine folder."""

    def __init__(self, subject: Subject, settings: Settings, inputs: CaseInputs) -> None:
        """Raises Unstable for a subject whose ``build`` or options hold what no text tells."""
        self.subject, self._root = subject, settings.root
        self._key = _key(subject, settings, inputs)
        self.path = settings.engines / "modules" / f"{file_name(subject.name)}-{_digest(self._key)[:16]}.json"

    @staticmethod
    def of(subject: Subject, settings: Settings, inputs: CaseInputs) -> Memory | None:
        """Return the memory of a subject; None for one of which nothing may be remembered."""
        suite = (settings.root / subject.source).resolve()
        if subject.weights_files is None or not settings.engine_cache or suite not in reads.suites:
            return None
        try:
            return Memory(subject, settings, inputs)
        except Unstable as error:
            settings.progress(f"{subject.name}: the module is built each time: no key holds {error}")
            return None

    def recall(self) -> Remembered | None:
        """Return the module where it need not be built; None where anything differs, or nobody knows it well enough."""
        record = self._read()
        if record.get("builds", 0) < BUILDS or time.time() - record["built"] > GOOD_FOR_S:
            return None
        return Remembered(record) if self._is_unchanged(record) else None

    def keep(self, seen: reads.Seen, found: Json, progress: Callable[[str], None]) -> str:
        """Remember a module that was built now; return the digest of what it was built from, empty for none."""
        seen.add(reads.imports)
        if seen.problems:
            progress(f"{self.subject.name}: the module is built each time: its suite {sorted(seen.problems)[0]}")
            return ""
        if changed := self._changed_meanwhile(seen):
            progress(f"{self.subject.name}: the module is not remembered: {changed} has changed since it was read")
            return ""
        now: Json = {
            "schema": SCHEMA, "key": self._key, "found": found, "built": time.time(),
            "process": f"{os.getpid()} since {reads.STARTED}", **self._sources(seen),
        }  # fmt: skip
        before = self._read()
        known = before.get("digest") == now["digest"]
        if known and before["found"] != found:
            now["builds"] = -1
            progress(
                f"{self.subject.name}: two builds of the same files gave different modules, so it is built each time: "
                "does build() draw without a seed?"
            )
        else:
            now["builds"] = before["builds"] if known else 1
            if known and before["builds"] > 0:  # else it differed once: two that are alike are chance
                now["builds"] += now["process"] != before["process"]
        try:
            write_text(json.dumps(now), self.path)
        except (CannotWrite, OSError):  # a full disk costs time in the next run, nothing else
            return ""
        return str(now["digest"])

    def _changed_meanwhile(self, seen: reads.Seen) -> str:
        """Return a file that changed after the suite's import began: who knows which content was read; or empty."""
        began = reads.suites[(self._root / self.subject.source).resolve()]
        for path in sorted({*_module_files()[0], *seen.files, *self._weights()}):
            with contextlib.suppress(OSError):
                if os.stat(path).st_ctime > began and not self._is_made_by_us(path):
                    return path
        return ""

    def _is_made_by_us(self, path: str) -> bool:
        """Return whether a temporary file was made by this process, as PyTorch makes a module when it is imported."""
        folders = (f"{self._root}{os.sep}", f"{os.getcwd()}{os.sep}")
        if not path.startswith(f"{tempfile.gettempdir()}{os.sep}") or path.startswith(folders):
            return False
        with contextlib.suppress(OSError):
            return os.stat(path).st_ctime >= reads.STARTED
        return False

    def forget(self) -> None:
        """Forget a module that came out otherwise."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> Json:
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        is_ours = isinstance(record, dict) and (record.get("schema"), record.get("key")) == (SCHEMA, self._key)
        return record if is_ours else {}

    def _sources(self, seen: reads.Seen) -> Json:
        """Return everything that the module was built from, as far as it is known."""
        own, installed = _module_files()
        read = {path for path in {*own, *seen.files} if not self._is_made_by_us(path)}
        files = {path: _file(path) for path in sorted({*read, *self._weights()})}
        files = {path: known for path, known in files.items() if known is not None or path in self._weights()}
        folders = {path: listing for path in sorted(seen.folders) if (listing := _listing(path)) is not None}
        missing = sorted(path for path in seen.missing if not os.path.exists(path))
        names = {name: _origin(name) for name in sorted(_top_level(seen.names))}
        content = {path: known[0] if known else None for path, known in files.items()}
        return {
            "files": files, "folders": folders, "missing": missing, "names": names,
            "installed": {path: stamp_of(Path(path)) for path in sorted(installed)},
            "digest": _digest([self._key, content, folders, missing, names]),
        }  # fmt: skip

    def _is_unchanged(self, record: Json) -> bool:
        files: Mapping[str, Any] = record["files"]
        return (
            {path for path in self._weights() if os.path.exists(path)} <= files.keys()
            and all(_is_same(path, known) for path, known in files.items())
            and all(_listing(path) == listing for path, listing in record["folders"].items())
            and not any(os.path.exists(path) for path in record["missing"])
            and all(stamp is not None and _stamp(path) == stamp for path, stamp in record["installed"].items())
            and all(_origin(name) == origin for name, origin in record["names"].items())
        )

    @functools.cache  # noqa: B019 - as long as the subject is prepared
    def _weights(self) -> frozenset[str]:
        """Return the files that the suite declares; those below a folder, where one is declared."""
        declared = self.subject.weights_files
        what = f"{self.subject.name}: weights_files"
        if callable(declared):
            with suite_code(f"{what}()"):
                declared = declared()
        if isinstance(declared, (str, Path)) or not isinstance(declared, Iterable):
            raise UsageError(f"{what} is {declared!r}; give a tuple of paths, or a function that returns one")
        paths = [self._root / path for path in declared]
        found = [[it for it in path.rglob("*") if it.is_file()] if path.is_dir() else [path] for path in paths]
        return frozenset(os.path.abspath(it) for several in found for it in several)


class Remembered:
    """A module as an earlier run found it."""

    def __init__(self, record: Json) -> None:
        found = record["found"]
        self.found: Json = found
        self.digest = str(record["digest"])
        self.identity = GraphIdentity(
            weights_sha256=found["weights"],
            program_sha256=found["program"],
            exporter=found["exporter"],
            lines_sha256=found["lines"],
        )
        self.output_names = tuple(found["outputs"])
        self.notes = tuple(found["notes"])
        self.sorts = bool(found["sorts"])


def _key(subject: Subject, settings: Settings, inputs: CaseInputs) -> Json:
    """Return what is the same in two runs that may share a module, but for the files."""
    return {
        "subject": [subject.name, subject.source, str(settings.root), os.getcwd(), sys.path],
        "build": stable_text(subject.build, _function_text),
        "declared": [stable_text(it) for it in (dict(subject.dynamic), dict(subject.ranges), dict(subject.options))],
        "seed": settings.seed_random,
        "inputs": {case: [sha256_of(inputs[case]), list(inputs[case])] for case in inputs},
        "harness": _harness_sha256(),
        "python": [sys.version, sys.prefix],
        "environment": _digest(sorted((name, it) for name, it in os.environ.items() if name not in UNREAD)),
        "packages": _digest(_packages()),
        "device": [torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", settings.device],
        "torch": [torch.__version__, str(torch.get_default_dtype()), torch.get_num_threads()],
    }


def _function_text(value: Any) -> str | None:
    """Return a text of a function of a file: where it stands, and what it holds; None for what is none."""
    if isinstance(value, functools.partial):
        return json.dumps([stable_text(it, _function_text) for it in (value.func, value.args, value.keywords)])
    if not inspect.isfunction(value):
        return None
    code = value.__code__
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    parts = [stable_text(it, _function_text) for it in (held, value.__defaults__, value.__kwdefaults__)]
    return json.dumps([code.co_filename, code.co_firstlineno, value.__qualname__, *parts])


@functools.cache
def _harness_sha256() -> str:
    folder = Path(harness.__file__).parent
    return _digest([[str(path), path.read_text(encoding="utf-8")] for path in sorted(folder.rglob("*.py"))])


@functools.cache
def _packages() -> list[str]:
    """Return the installed packages by the names of their descriptions, which have their versions."""
    ends = (".dist-info", ".egg-info", ".egg-link", ".pth")
    folders = [path for path in dict.fromkeys(sys.path) if os.path.isdir(path)]
    return sorted(f"{path}/{name}" for path in folders for name in os.listdir(path) if name.endswith(ends))


def _module_files() -> tuple[set[str], set[str]]:
    """Return the files of the modules that are loaded: those of a suite's own, and those of installed packages."""
    ours = f"{Path(harness.__file__).parent}{os.sep}"
    loaded = [it for it in list(sys.modules.values()) if isinstance(it, ModuleType)]
    paths = {os.path.abspath(path) for it in loaded if (path := getattr(it, "__file__", None)) and os.path.isfile(path)}
    installed = {path for path in paths if path.startswith(reads.PREFIXES)}
    return {path for path in paths - installed if not path.startswith(ours)}, installed


def _top_level(names: Iterable[str]) -> set[str]:
    """Return the first parts of modules' names, those of modules that are loaded among them."""
    every = {name.partition(".")[0] for name in (*names, *list(sys.modules))}
    return {name for name in every if name not in sys.stdlib_module_names and not name.startswith("parity_suite_")}


def _origin(name: str) -> str | None:
    """Return where a name would be imported from now; None where there is no such module."""
    try:
        spec = importlib.machinery.PathFinder.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    return spec.origin or json.dumps(list(spec.submodule_search_locations or ()))


def _file(path: str) -> list[Any] | None:
    """Return a file's hash and its stamp; None for one that is not there."""
    stamp = _stamp(path)
    try:
        with open(path, "rb") as file:
            return [hashlib.file_digest(file, "sha256").hexdigest(), stamp]
    except OSError:
        return None


def _is_same(path: str, known: list[Any] | None) -> bool:
    """Return whether a file is what it was: by its stamp, or else by its content."""
    if known is not None and known[1] is not None and _stamp(path) == known[1]:
        return True
    now = _file(path)
    return (now and now[0]) == (known and known[0])


def _stamp(path: str) -> list[int] | None:
    stamp = stamp_of(Path(path))
    return None if stamp is None else list(stamp)


def _listing(folder: str) -> str | None:
    try:
        return _digest(sorted(os.listdir(folder)))
    except OSError:
        return None


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
