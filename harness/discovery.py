"""Find what is to be verified: a suite by its name, ``package.module:ATTRIBUTE``, or an ONNX file; and its targets."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness import errors, limits, reads
from harness.errors import ParityError, UsageError, no_exit, same_name, streams_kept, unknown_name
from harness.files import check_is_content
from harness.repository import in_repository, repository_root, source_of
from harness.subject import FILE, NAMED_PRECISIONS, Subject, Target, check_distinct, targets

if TYPE_CHECKING:
    import torch

    from harness.graph import InputSpec


SUITES = Path("suites")


def find_subject(
    text: str,
    *,
    suites: Path = SUITES,
    inputs: Path | None = None,
    cases: str = "",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    runs: bool = True,
) -> Subject:
    """Return the subject that the command line names.

    ``inputs`` replaces its cases by one, called ``inputs`` (for an ONNX file: ``default``), ``cases`` by the files of a
    pattern; ``shapes`` gives the sizes of an ONNX file's symbolic dimensions, without which nothing ``runs``. Raises
    UsageError with the nearest names when there is no such subject.
    """
    if cases:
        from harness.case_files import with_case_files

        if inputs or shapes:
            raise UsageError(f"--cases and {'--inputs' if inputs else '--shape'} exclude each other: the files are all")
        return with_case_files(find_subject(text, suites=suites, runs=False), cases)
    if not text.strip():
        raise UsageError("SUBJECT is empty; give a suite's name or the path of an .onnx file")
    path = Path(text)
    if path.suffix == ".onnx" or (path.is_file() and path.suffix != ".py"):
        return onnx_subject(path, inputs=inputs, shapes=shapes or {}, runs=runs)
    if shapes:
        raise UsageError(f"--shape is for ONNX files; {text} declares its own inputs")
    if path.suffix == ".py":
        subject = replace(load_suite(path), locator=text)
    elif ":" in text:
        subject = replace(load_attribute(text), locator=text, source=text)
    else:
        subject = _suite_by_name(text, suites)
    if inputs is None:
        return subject
    from harness.case_files import with_inputs

    return with_inputs(subject, inputs)


def suite_files(folder: Path) -> dict[str, Path]:
    """Return the suites of a folder by name: ``test_minilm.py`` is ``minilm``, ``sd/test_vae.py`` is ``sd/vae``."""
    if not folder.is_dir():
        raise UsageError(f"no suites folder {folder}; run in the repository's root, or give --suites DIR")
    files = sorted(folder.rglob("test_*.py"))
    return {path.relative_to(folder).with_name(path.stem.removeprefix("test_")).as_posix(): path for path in files}


def load_suite(path: Path) -> Subject:
    """Import a suite and return its SUBJECT. Raises UsageError when it has none or cannot be imported."""
    if not path.is_file():
        raise UsageError(f"suite {path} {'is a folder' if path.is_dir() else 'does not exist'}; give a file of Python")
    check_is_content(path)
    with import_path(Path.cwd()), import_path(repository_root(path)):
        module = _import_file(path, f"parity_suite_{path.stem}", what=f"suite {path}")
    return of_repository(repository_root(path), subject_of(vars(module), path), path)


def of_repository(root: Path, subject: Subject, file: Path | str) -> Subject:
    """Return a subject that says which file declares it, and whose targets name the plan files of its repository."""
    found = tuple(target_in(root, target) for target in subject.targets)
    return replace(subject, source=subject.source or source_of(root, file), targets=found)


def target_in(root: Path, target: Target) -> Target:
    """Return a target that a suite of this repository declares, with the repository's plan file."""
    if target.precision in NAMED_PRECISIONS:
        return target
    return replace(target, precision=in_repository(root, target.precision))


def load_study(folder: Path) -> Any:
    """Import ``study.py`` of a suite folder, which tries variants of a system of several engines; return the module.

    It has ``SYSTEM``, or ``variants()`` and ``run(...)``. Raises UsageError when there is none or it has neither.
    """
    path = folder / "study.py"
    if not path.is_file():
        raise UsageError(f"{folder} has no {path.name}; give a suite folder with a study, such as suites/canny2image")
    # A suite imports its neighbours from the working folder, at once and when it runs.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import_file(path, f"parity_study_{folder.resolve().name}", what=f"study {path}")
    missing = [part for part in ("run", "variants") if not callable(getattr(module, part, None))]
    if missing and not callable(getattr(module, "SYSTEM", None)):
        raise UsageError(
            f"study {path} defines no SYSTEM and no {missing[0]}(); docs/systems.md says what a study gives"
        )
    return module


def _import_file(path: Path, name: str, *, what: str) -> ModuleType:
    """Import a file as a module of this name. Raises UsageError with ``what`` when that is impossible."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with import_errors(what), reads.importing(path):
        spec.loader.exec_module(module)
    return module


def subject_of(names: Mapping[str, Any], path: Path | str) -> Subject:
    """Return SUBJECT of a suite's module. Raises UsageError when it is missing or something else."""
    if "SUBJECT" not in names:
        raise UsageError(f"suite {path} defines no SUBJECT; add SUBJECT = Subject(name=..., build=..., ...)")
    if len(lines := _subject_lines(Path(path))) > 1:
        raise UsageError(f"suite {path} defines SUBJECT in lines {' and '.join(map(str, lines))}; leave one of them")
    return _checked(names["SUBJECT"], f"suite {path}: SUBJECT")


def _subject_lines(path: Path) -> list[int]:
    """Return where a suite gives SUBJECT a value that is not made of the one before."""
    return [
        statement.lineno
        for statement in ast.parse(path.read_bytes()).body
        if isinstance(statement, ast.Assign)
        and any(isinstance(name, ast.Name) and name.id == "SUBJECT" for name in statement.targets)
        and not any(isinstance(part, ast.Name) and part.id == "SUBJECT" for part in ast.walk(statement.value))
    ]


def load_attribute(text: str) -> Subject:
    """Return the subject at ``package.module:ATTRIBUTE``, looked up from the working folder too."""
    module_name, _, attribute = text.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"{text!r} is not package.module:ATTRIBUTE; give both a module and a name in it")
    with import_errors(f"module {module_name!r}"), import_path(Path.cwd()):
        module = importlib.import_module(module_name)
    if not hasattr(module, attribute):
        known = [name for name, value in vars(module).items() if isinstance(value, Subject)]
        raise unknown_name(f"subject in module {module_name}", attribute, known)
    return _checked(getattr(module, attribute), text)


def _checked(value: Any, what: str) -> Subject:
    if not isinstance(value, Subject):
        raise UsageError(f"{what} is a {type(value).__name__}; make it a harness.Subject")
    return value


def list_subjects(folder: Path) -> list[dict[str, Any]]:
    """Return every suite of a folder as plain data; one that cannot be loaded says why under ``problem``."""
    rows = []
    for name, path in suite_files(folder).items():
        row: dict[str, Any] = {"name": name, "path": str(path), "problem": ""}
        try:
            subject = load_suite(path)
        except ParityError as error:
            row["problem"] = str(error)
        else:
            row |= {
                "subject": subject.name,
                "cases": list(subject.cases),
                "range_cases": list(subject.range_cases),
                "pairs": [(target.backend, target.precision_name) for target in subject.targets],
                "targets": [str(target) for target in subject.targets],
                **{name: getattr(subject, name) for name in ("source", "owner", "weights", "weights_source", "inputs")},
            }
        rows.append(row)
    return rows


def onnx_subject(
    path: Path, *, inputs: Path | None, shapes: Mapping[str, tuple[int, ...]], runs: bool = True
) -> Subject:
    """Return a subject for an ONNX file, with the inputs of a file or seeded random ones, made if it ``runs``.

    Raises UsageError when the model or the inputs cannot be read or do not fit, or a symbolic dimension has no size.
    """
    from harness import graph

    with limits.step("reading the file", subject=path.stem):
        model = graph.open_onnx(path)
    specs = graph.input_specs(model)
    if inputs is not None:
        if shapes:
            raise UsageError("--shape and --inputs exclude each other: the shapes are those of the inputs")
        from harness.case_files import input_loader

        case = input_loader(inputs, specs)
    else:
        by_input, by_symbol = _split_shapes(shapes, specs)

        @functools.cache
        def generated() -> dict[str, torch.Tensor]:
            with limits.step("generating inputs", subject=path.stem):
                return graph.generate_inputs(model, shapes=by_input, symbols=by_symbol)

        def case() -> dict[str, torch.Tensor]:
            return dict(generated())

        if runs:
            generated()

    return Subject(
        name=path.stem,
        onnx=path,
        source=source_of(repository_root(Path.cwd()), path),
        cases={"default": case},
        targets=_onnx_targets((FILE,) if graph.is_typed(model) else ("fp32", "fp16")),
        weights="file",
        weights_source=path.name,
        inputs="real" if inputs is not None else "random",
    )


def select_targets(subject: Subject, backends: Sequence[str], precisions: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets asked for.

    Both given: every backend in every precision. One given: the subject's own targets that have it, or, where it names
    none, its precisions on that backend (its backends in that precision). None given: the subject's own targets.
    """
    if backends and precisions:
        both = targets(*dict.fromkeys(backends), precisions=tuple(dict.fromkeys(precisions)))
        check_distinct(both)
        return both
    chosen: list[Target] = []
    for backend in backends:
        own = [target for target in subject.targets if target.backend == backend]
        chosen += own or [Target(backend, target.precision) for target in subject.targets]
    for precision in precisions:
        own = [target for target in subject.targets if precision in (target.precision, target.precision_name)]
        chosen += own or [Target(target.backend, precision) for target in subject.targets]
    check_distinct(chosen)
    return tuple(dict.fromkeys(chosen)) if backends or precisions else subject.targets


def check_backends(names: Sequence[str]) -> None:
    """Raise UsageError for a backend that does not exist."""
    from harness.backends import BACKENDS

    for name in names:
        if name not in BACKENDS:
            raise unknown_name("backend", name, BACKENDS)


def check_precisions(names: Sequence[str], also: Sequence[str] = ()) -> None:
    """Raise UsageError for what is neither a plain precision, nor in ``also``, nor a plan file that can be read."""
    for name in names:
        if name in NAMED_PRECISIONS or name in also:
            continue
        path = Path(name)
        if path.suffix != ".toml" and not path.is_file():
            raise unknown_name("precision", name, {*NAMED_PRECISIONS, *also, "a plan file.toml"})
        from harness.graph import load_plan

        load_plan(name)


def check_cases(subject: Subject, names: Sequence[str]) -> tuple[str, ...]:
    """Return the cases asked for, or all of the suite. Raises UsageError for one that the subject does not have."""
    known = [*subject.cases, *subject.range_cases]
    for name in names:
        if name not in known:
            raise unknown_name(f"case of {subject.name}", name, known)
    return tuple(dict.fromkeys(names)) or tuple(subject.cases)


def _suite_by_name(name: str, folder: Path) -> Subject:
    files = suite_files(folder)
    if name in files:
        return load_suite(files[name])
    loaded: dict[str, tuple[Subject, Path]] = {}
    for path in files.values():
        # A suite that is broken cannot be the one asked for, and `parity list` says what is wrong with it.
        try:
            subject = load_suite(path)
        except ParityError:
            continue
        if subject.name == name and name in loaded and loaded[name][0] is not subject:
            raise same_name(name, loaded[name][1], path)
        loaded[subject.name] = subject, path
    if name not in loaded:
        raise unknown_name("subject", name, {*files, *loaded})
    return loaded[name][0]


def _onnx_targets(precisions: Sequence[str]) -> tuple[Target, ...]:
    """Return what an ONNX file is verified on by default: all that is installed, in these precisions."""
    from harness.backends import BACKENDS

    usable = [name for name, backend in BACKENDS.items() if name != "torch" and backend.unavailable() is None]
    return targets(*(usable or ["ort-cpu"]), precisions=precisions)


@contextlib.contextmanager
def import_path(folder: Path) -> Iterator[None]:
    """Import from a folder too, as ``python -m`` does; a console script does not."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def import_errors(what: str) -> Iterator[None]:
    """Turn any exception of an import into a UsageError that names the file and the line."""
    try:
        with no_exit(), streams_kept(), limits.step(f"importing {what}"):
            yield
    except UsageError as error:
        raise UsageError(f"{error} ({raised_in(error)})") from error
    except (ParityError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # sys.exit() and pytest.skip() at module level are no Exception
        # The last frame of a failed import is the import system's own.
        where = "" if isinstance(error, ImportError) else f" ({raised_in(error)})"
        raise UsageError(f"{what} cannot be loaded: {type(error).__name__}: {error}{where}") from error


def raised_in(error: BaseException) -> str:
    """Return the file and the line of a suite that an error comes from, not those of the code it calls here."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(errors.__file__).parent
    theirs = (
        frame for frame in reversed(frames)
        if not (path := Path(frame.filename)).is_relative_to(ours) and "_pytest" not in path.parts and path.is_file()
    )  # fmt: skip
    frame = next(theirs, frames[-1])
    return f"{frame.filename}, line {frame.lineno}"


def _split_shapes(
    shapes: Mapping[str, tuple[int, ...]], specs: Sequence[InputSpec]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Sort what ``--shape`` gave into shapes of inputs and sizes of symbols."""
    names = {spec.name for spec in specs}
    symbols = {dim for spec in specs for dim in spec.shape or () if isinstance(dim, str)}
    by_input, by_symbol = {}, {}
    for name, dims in shapes.items():
        if name in names:
            by_input[name] = dims
        elif name not in symbols:
            raise unknown_name("input or dynamic dimension", name, names | symbols)
        elif len(dims) != 1:
            raise UsageError(f"--shape {name}: {name} is one dimension; give one number")
        else:
            by_symbol[name] = dims[0]
    return by_input, by_symbol
