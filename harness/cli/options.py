"""Options that several commands share, and what they become: settings, a subject, targets, cases, files."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import limits, stopping, watcher
from harness.arguments import as_path, gib, shape
from harness.cli.against import with_against
from harness.errors import CannotWrite, ParityError, UsageError, few
from harness.repository import as_typed, folders, repository_root
from harness.settings import RETRIED, print_progress
from harness.shared_options import SHARED

if TYPE_CHECKING:
    from harness.settings import Settings
    from harness.subject import Subject, Target


T = TypeVar("T")
SHOWN = 8
"""Names of what is missing that are printed; the JSON has all."""
INTERRUPTED = 130
"""The exit status of a run whose output nobody reads any more."""
_SUBJECT_HELP = "a suite's name (see `parity list`), package.module:ATTRIBUTE, or the path of an .onnx file"


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], words: str, *, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """Add a command; ``run(options)`` returns the exit status. Options that it does not add have their defaults."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=words, description=f"{words[0].upper()}{words[1:]}.", aliases=aliases
    )
    parser.add_argument("--verbose", action="store_true", help="show what the libraries used warn of as well")
    parser.set_defaults(
        run=run, backend=[], precision=[], case=[], require=[], engines=None, references=None, device=None,
        engines_remote=None, engines_remote_mode=None,
        no_engine_cache=False, update_references=False, runs=None, seed_random=None, limit=None,
        timeout=None, records=True, memory=None, lock_timeout=None, retries=0, retry_on=RETRIED,
        against=None, cost_limit=None,
    )  # fmt: skip
    return parser


def add_subject(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add what names a subject, which may be ``optional``, and its inputs."""
    parser.add_argument("subject", metavar="SUBJECT", help=_SUBJECT_HELP, nargs="?" if optional else None)
    parser.add_argument(
        "--inputs", type=as_path, metavar="FILE", help="inputs: .npz, or what polygraphy --save-inputs wrote"
    )
    parser.add_argument(
        "--shape", action="append", default=[], type=shape, metavar="NAME=DIMS",
        help="an ONNX input's shape (x=1,3,224,224) or symbolic dimension (batch=2); repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--fold-bias", action="store_true",
        help="of an ONNX file: an INT32 bias and its DequantizeLinear become the floats that they give",
    )  # fmt: skip
    add_shared(parser, "--cases")
    add_suites(parser)


def add_suites(parser: argparse.ArgumentParser) -> None:
    """Add where suites are."""
    parser.add_argument("--suites", type=_suites, default=_DEFAULT, metavar="DIR", help="default: suites")


def add_cases(parser: argparse.ArgumentParser) -> None:
    """Add what chooses cases."""
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="only this case; repeatable")


def add_shared(parser: argparse.ArgumentParser, *options: str) -> None:
    """Add options that pytest has, too."""
    for option in options:
        parser.add_argument(option, **SHARED[option])


def add_computing(parser: argparse.ArgumentParser, *, builds: bool = True, budget: bool = True) -> None:
    """Add where PyTorch computes, where engines and references are, and how long things may take.

    ``builds`` says whether the command builds engines, ``budget`` whether it and its subject may have a time of theirs.
    """
    add_shared(parser, "--seed-random")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="where PyTorch computes; default: a GPU if there is one"
    )
    add_folders(parser)
    add_shared(parser, "--timeout", *["--build-timeout"] * builds, *["--run-timeout", "--budget"] * budget)
    parser.add_argument(
        "--memory", type=gib, metavar="GIB",
        help="the most memory of the host that such a step may take; default: 0.9 of what is free (PARITY_MEMORY)",
    )  # fmt: skip


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add what chooses targets."""
    parser.add_argument("-b", "--backend", action="append", default=[], metavar="BACKEND", help="see `parity doctor`")
    parser.add_argument(
        "-p", "--precision", action="append", default=[], metavar="PRECISION",
        help="fp32, tf32, fp16, bf16, file (ONNX as it is typed) or a plan file; with -b: each in each",
    )  # fmt: skip


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add where engines and references are."""
    add_engines(parser)
    add_shared(parser, "--references")


def add_engines(parser: argparse.ArgumentParser) -> None:
    """Add where engines are, and how long to wait for one that another process builds."""
    add_shared(parser, "--lock-timeout", "--engines", "--engines-remote", "--engines-remote-mode")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of the options."""
    from harness.settings import GIVEN, Settings

    given = {name: vars(options)[name] for name in GIVEN if vars(options)[name]}
    where: Any = folders(as_typed(_root(options))) | given
    return Settings(
        engine_cache=not options.no_engine_cache, update_references=options.update_references, device=options.device,
        runs=options.runs, seed_random=options.seed_random, retries=options.retries, retry_on=options.retry_on,
        rebuild=bool(vars(options).get("require")), **where,
    )  # fmt: skip


def _root(options: argparse.Namespace) -> Path:
    """Return the repository of the suite that a command names, else the one that it is run in."""
    subject, suites = Path(vars(options).get("subject") or ""), vars(options).get("suites", Path())
    suite = subject if subject.suffix == ".py" else suites
    return repository_root(suite if suite.exists() else Path.cwd())


class _Default(str):
    """A default that is looked up when it is needed, by the option's type."""


_DEFAULT = _Default()


def _suites(text: str) -> Path:
    """Return where suites are; by default ``suites`` here, else in the repository that this folder belongs to."""
    if not isinstance(text, _Default):
        return as_path(text)
    from harness.discovery import SUITES

    above = repository_root(Path.cwd()) / SUITES
    return above if above.is_dir() and not SUITES.is_dir() else SUITES


def _typed(options: argparse.Namespace) -> str:
    """Return the part of the command that names the subject and its inputs, as a shell reads it."""
    from harness.discovery import SUITES

    words = [options.subject]
    if options.suites != SUITES:
        words += ["--suites", str(options.suites)]
    if options.inputs:
        words += ["--inputs", str(options.inputs)]
    words += ["--cases", options.cases] if options.cases else []
    for name, sizes in options.shape:
        words += ["--shape", f"{name}={','.join(map(str, sizes))}"]
    words += ["--fold-bias"] if options.fold_bias else []
    words += ["--against", options.against] if options.against else []
    words += ["--cost-limit", str(options.cost_limit)] if options.cost_limit is not None else []
    if options.seed_random is not None:
        words += ["--seed-random", str(options.seed_random)]
    return shlex.join(words)


def charts_folder(options: argparse.Namespace) -> Path:
    """Return where charts go: beside the JSON, or reports/."""
    json: Path | None = options.json
    return json.parent if json else Path("reports")


def chart(save: Callable[[Any, Path], list[Path]], data: Any, stem: Path) -> None:
    """Draw with a function of ``harness.report.plots``; print the paths, or why there is no chart."""
    try:
        print(f"chart: {', '.join(str(path) for path in save(data, stem))}")
    except ParityError as error:  # the figures are printed already
        print(f"no chart: {error}")


def start_record(path: Path, command: str, *, error: str = "", **keys: Any) -> None:
    """Put a record that says so in the place of one of an earlier run. Raises UsageError where that is impossible."""
    from harness import files, records

    files.check_writable(path)
    data = records.document([], environment={}, command=command, complete=False, error=error)
    records.save_json(data | keys, path)


def ended_by() -> str:
    """Return what ended a run that was ended early: its time, or a signal."""
    return str(limits.time_was_up() or stopping.words())


def not_reached(records: Iterable[Any]) -> str:
    """Return that the budget was spent, and which of these records have no verdict for that; empty where none has."""
    from harness.records import name_of, words_of

    names = [words_of(name_of(vars(record))) for record in records if getattr(record, "limit", "") == "--budget"]
    return f"{limits.spent_budget()}: {len(names)} not judged: {few(names, SHOWN)}" if names else ""


class Document:
    """The JSON file of a run, rewritten after every result: a run that breaks off keeps them."""

    def __init__(self, options: argparse.Namespace, settings: Settings, *, path: Path | None = None) -> None:
        """``path`` takes the place of ``--json``. Raises UsageError for a path that cannot be written."""
        from harness.backends import environment

        self.path: Path | None = path or options.json
        self.command: str = options.command_line
        self._options = options
        if self.path:
            start_record(self.path, self.command)
        self.environment = environment(settings) if self.path else {}
        self._is_said = False
        if self.path:  # what is left should a step without an end have to end the process
            watcher.keep_record(self.path, self._data(complete=False, error=""))

    def start(self, **keys: Any) -> None:
        """Write what is known of the run before it finds anything; should it end early, the reason stands beside it."""
        self._options.started = {"environment": self.environment, **keys}
        if self.path is not None:
            start_record(self.path, self.command, **self._options.started)
            watcher.keep_record(self.path, self._data(complete=False, error="") | keys)

    def write(self, *, complete: bool = False, error: str = "", **keys: Any) -> None:
        """Write the document with these keys; does nothing without a path."""
        from harness import records

        if self.path is not None:
            data = self._data(complete=complete, error=error) | keys
            records.save_json(data, self.path)
            self._options.recorded = True
            watcher.keep_record(self.path, data)

    def _data(self, *, complete: bool, error: str) -> dict[str, Any]:
        from harness import records

        return records.document([], environment=self.environment, command=self.command, complete=complete, error=error)

    def collect(
        self,
        items: Iterable[T],
        keys: Callable[[list[T]], dict[str, Any]],
        show: Callable[[list[T]], None],
        *,
        of: int | None = None,
    ) -> tuple[list[T], bool]:
        """Collect the results of a run; return them, and whether a signal ended the run.

        ``keys`` turns the results so far into what is written after each. When the run raises, the error is written
        with them, ``show`` prints them, and the error is raised again. While the file cannot be written, the run goes
        on: its results are shown, and the last writing raises. ``of`` is how many items there will be, where that is
        known: after the last one :meth:`written` writes, at once.
        """
        found: list[T] = []
        with stopping.last_words(lambda: self.write(error=stopping.words(), **keys(found))):
            try:
                for item in items:
                    found.append(item)
                    if len(found) != of:
                        self._try(**keys(found))
            except KeyboardInterrupt:
                self._try(error=ended_by(), **keys(found))
                return found, True
            except Exception as error:
                self._try(error=str(error), **keys(found))
                if found:
                    show(found)
                raise
        return found, False

    @contextlib.contextmanager
    def written(self, *, interrupted: bool = False, **keys: Any) -> Iterator[None]:
        """Write the document, complete unless keys say otherwise, and let the block show the same.

        Whoever reads what is shown may close it, so it comes second; where the file cannot be written, what was found
        is shown all the same, and CannotWrite raised after it. An interrupted run only says so.
        """
        ending = {"complete": False, "error": ended_by()} if interrupted else {"complete": True}
        problem: CannotWrite | None = None
        try:
            self.write(**{**ending, **keys})
        except CannotWrite as error:
            problem = error
        yield
        if problem is not None and not interrupted:
            raise problem
        if problem is not None:
            print_progress(str(problem))

    def _try(self, **keys: Any) -> None:
        """Write the document, or say once that it cannot be written now; the last writing says why."""
        try:
            self.write(**keys)
        except CannotWrite:
            if not self._is_said:
                print_progress(f"{self.path}: not written so far; the run goes on, and its results are shown")
            self._is_said = True


def request_of(
    options: argparse.Namespace, *, runs: bool = True
) -> tuple[Subject, tuple[Target, ...], tuple[str, ...]]:
    """Return subject, targets and cases, for a command that ``runs`` them. Raises UsageError for an unknown name."""
    from harness import discovery

    discovery.check_backends([*options.backend, *options.require])
    shapes = dict(options.shape)
    if len(shapes) < len(options.shape):
        twice = next(name for name in shapes if [known for known, _ in options.shape].count(name) > 1)
        raise UsageError(f"--shape gives {twice} twice; give it once")
    subject = discovery.find_subject(
        options.subject, suites=options.suites, inputs=options.inputs, cases=options.cases, shapes=shapes,
        runs=runs and not options.against,
    )  # fmt: skip
    subject = replace(with_against(options, subject), typed=_typed(options))
    discovery.check_precisions(options.precision, also=[target.precision_name for target in subject.targets])
    targets = discovery.select_targets(subject, options.backend, options.precision)
    return subject, targets, discovery.check_cases(subject, options.case)
