"""Cases that files hold: one by ``--inputs FILE``, or one for each ``.npz`` file of ``--cases PATTERN``."""

from __future__ import annotations

import contextlib
import functools
import glob
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.dimensions import declared_shape
from harness.errors import NotJudged, ParityError, UsageError, few, suite_code
from harness.graph import UNKNOWN_DIM, InputSpec, check_inputs, input_specs, load_inputs, load_tensors, open_onnx
from harness.subject import Subject
from harness.verify import structured_inputs

SHOWN = 8
"""Names in a sentence."""
Nested = dict[str, Any]


def case_files(pattern: str) -> dict[str, Path]:
    """Return the files of a pattern, or the ``.npz`` files of a folder, by their names as cases, numbers in order.

    Raises UsageError where there is none, and for two that would be one case.
    """
    text = f"{pattern}/*.npz" if Path(pattern).is_dir() else pattern
    paths = [Path(name) for name in glob.glob(text) if Path(name).is_file()]  # noqa: PTH207  # it may be absolute
    if not paths:
        raise UsageError(
            f"--cases {pattern}: there is no such file; give a pattern of .npz files, such as 'data/*.npz'"
        )
    found: dict[str, Path] = {}
    for path in sorted(paths, key=_in_order):
        if other := found.get(path.stem):
            raise UsageError(f"--cases {pattern}: {other} and {path} are both case {path.stem!r}; rename one")
        found[path.stem] = path
    return found


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Return what puts ``1-64`` before ``16-16``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)) if part]


def with_case_files(subject: Subject, pattern: str) -> Subject:
    """Return a subject whose cases are the files of a pattern; what is no input in them is an output to hold against.

    A file is read when its case is asked for. Raises UsageError where there is no file.
    """
    takes = functools.cache(lambda: _takes(subject))

    def read(path: Path) -> tuple[Nested, dict[str, torch.Tensor]]:
        specs, build = takes()
        arrays: Mapping[str, Any] = load_tensors(path)
        if subject.from_file is not None:
            with suite_code(f"{subject.name}: from_file() of {path}"):
                arrays = subject.from_file(dict(arrays))
        names = [spec.name for spec in specs]
        if missing := [name for name in names if name not in arrays]:
            raise UsageError(
                f"{path} has no input {missing[0]!r} of {subject.name}; "
                f"it holds {few(list(arrays), SHOWN) or 'nothing'}"
            )
        inputs = {name: arrays[name] for name in names}
        try:
            check_inputs(inputs, specs)
        except ParityError as error:
            raise type(error)(f"{path}: {error}") from error
        return build(inputs), {name: tensor for name, tensor in arrays.items() if name not in inputs}

    files = case_files(pattern)

    def cases(which: int) -> dict[str, Callable[[], Any]]:
        return {case: functools.partial(lambda path: read(path)[which], path) for case, path in files.items()}

    typed = f"{subject.as_typed} --cases {shlex.quote(pattern)}"
    return replace(subject, cases=cases(0), given=cases(1), inputs="real", typed=typed)


def with_inputs(subject: Subject, path: Path) -> Subject:
    """Return a PyTorch subject with the inputs of a file as its only case; its first case says what they look like."""
    specs, build = _takes(subject)
    load = input_loader(path, specs)
    return replace(subject, cases={"inputs": lambda: build(load())}, inputs="real", given={})


def input_loader(path: Path, specs: Sequence[InputSpec]) -> Callable[[], dict[str, torch.Tensor]]:
    """Return a case that gives a file's inputs, read once; a file that is wrong is a UsageError now."""

    @functools.cache
    def case() -> dict[str, torch.Tensor]:
        return load_inputs(path, specs)

    with contextlib.suppress(NotJudged):  # inputs that hold NaN become the verdict's reason when it is asked for
        case()
    return case


def _takes(subject: Subject) -> tuple[tuple[InputSpec, ...], Callable[[dict[str, torch.Tensor]], Nested]]:
    """Return the inputs of a subject by path, and what nests them as its first case does."""
    if subject.onnx is not None:
        return input_specs(open_onnx(subject.onnx_file)), dict
    example, structure = structured_inputs(subject, next(iter(subject.cases)))
    specs = tuple(
        InputSpec(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=declared_shape(tensor.shape, subject.dynamic.get(name, {}), unknown=UNKNOWN_DIM),
        )
        for name, tensor in example.items()
    )
    return specs, structure.build
