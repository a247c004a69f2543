"""Precision plans: which values of a graph are computed in which dtype.

A plan file is read (:func:`load_plan`) and written (:func:`write_plan`) here. A plan is matched against the value table
(:func:`assign`); :func:`harness.graph.apply` types an ONNX graph by what it says.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown_name
from harness.files import check_is_content, write_text
from harness.graph.values import Value, Values
from harness.records import plan_lines
from harness.subject import FILE, NAMED_PRECISIONS, PLAIN_PRECISIONS

SHOWN, LETTERS = 8, 100
"""How many patterns that match nothing are shown, and how much of each."""

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_FLOATS = {"float32", "float16", "bfloat16", "float64", ""}
_KEYS = ("precision", "keep_fp32", "quant_exclude")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A precision plan."""

    name: str
    """``fp32``, ``tf32``, ``fp16``, ``bf16``, ``file``, or the stem of the plan file."""
    dtype: str
    """What values are computed in: ``fp32``, ``fp16`` or ``bf16``; of ``file`` the coarsest format in the file."""
    tf32: bool = False
    """Allow TF32 in matrix products and convolutions."""
    keep_fp32: tuple[str, ...] = ()
    """Patterns of what stays in FP32: module paths, ``op:...`` or ``value:...``."""
    source: str = ""
    """The plan file; empty for a plain precision."""
    as_file: bool = False
    """Leave an ONNX file typed as it is."""
    quant_exclude: tuple[str, ...] = ()
    """Operators of a QDQ file that read floats: node names or patterns of them."""

    @property
    def compute_dtype(self) -> str:
        """The dtype of every value that no pattern keeps: ``float32``, ``float16`` or ``bfloat16``."""
        return DTYPES[self.dtype]

    @property
    def computes_in(self) -> str:
        """The plain precision of every value that no pattern keeps: ``fp32``, ``tf32``, ``fp16`` or ``bf16``."""
        return "tf32" if self.tf32 else self.dtype


def is_fp32(plan: Plan) -> bool:
    """Return whether a plan is FP32 without TF32: its engine is held against FP64."""
    return plan.dtype == "fp32" and not plan.tf32


def load_plan(precision: str, *, file_computes_in: str = "fp32") -> Plan:
    """Return the plan of a named precision or of a TOML file.

    ``file_computes_in`` is what the values of a file are computed in, for the precision ``file``. Raises UsageError for
    an unknown name, a missing file, bad TOML, unknown keys and wrong types.
    """
    if precision == FILE:
        return Plan(name=FILE, dtype=file_computes_in, as_file=True)
    if precision in PLAIN_PRECISIONS:
        return _plan(precision, precision, (), "")
    path = Path(precision)
    if path.suffix != ".toml" and not path.is_file():
        raise unknown_name("precision", precision, [*NAMED_PRECISIONS, "a plan file.toml"])
    if path.stem in NAMED_PRECISIONS:
        raise UsageError(f"plan {path} would be shown as {path.stem}, which is a precision; rename the file")
    data = _read_toml(path)
    excluded = data.get("quant_exclude", [])
    if not isinstance(excluded, list) or not all(isinstance(item, str) and item for item in excluded):
        raise UsageError(f"plan {path}: quant_exclude must be a list of node names, such as ['node_linear']")
    if unknown := sorted(set(data) - set(_KEYS)):
        raise UsageError(f"plan {path}: {unknown_name('key', unknown[0], _KEYS)}")
    base, keep = data.get("precision"), data.get("keep_fp32", [])
    if not isinstance(base, str):
        raise UsageError(f"plan {path}: precision must be one of {', '.join(NAMED_PRECISIONS)}, as a string")
    if base not in NAMED_PRECISIONS:
        raise UsageError(f"plan {path}: {unknown_name('precision', base, NAMED_PRECISIONS)}")
    if not isinstance(keep, list) or not all(isinstance(item, str) and item for item in keep):
        raise UsageError(f"plan {path}: keep_fp32 must be a list of patterns, such as ['encoder.layer.3']")
    if keep and base in ("fp32", "tf32", FILE):
        raise UsageError(f"plan {path}: keep_fp32 has nothing to keep when precision is {base!r}; remove one of them")
    if base == FILE:
        return Plan(
            name=path.stem, dtype=file_computes_in, as_file=True, source=str(path), quant_exclude=tuple(excluded)
        )
    return replace(_plan(path.stem, base, tuple(keep), str(path)), quant_exclude=tuple(excluded))


def _plan(name: str, precision: str, keep_fp32: tuple[str, ...], source: str) -> Plan:
    dtype = "fp32" if precision == "tf32" else precision
    return Plan(name=name, dtype=dtype, tf32=precision == "tf32", keep_fp32=keep_fp32, source=source)


def _read_toml(path: Path) -> dict[str, Any]:
    check_is_content(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"plan {path} cannot be read ({error.strerror}); give an existing TOML file") from error
    except (ValueError, RecursionError) as error:  # also for a number of 5000 digits
        raise UsageError(f"plan {path} is not valid TOML: {error}") from error


def assign(plan: Plan, values: Values) -> dict[str, str]:
    """Return the compute dtype of every float value, by its name and by the name of its origin.

    All values of one origin (one FX node) share a dtype. Raises UsageError for patterns that match no float value.
    """
    floats = [value for value in values.values() if value.dtype in _FLOATS]
    kept: set[str] = set()
    unmatched = []
    for pattern in plan.keep_fp32:
        origins = {value.origin for value in _matching(pattern, floats)}
        kept |= origins
        if not origins:
            unmatched.append(pattern)
    if unmatched:
        hints = [f"{pattern[:LETTERS]!r}{_nearest(pattern, floats)}" for pattern in unmatched[:SHOWN]]
        more = f" and {len(unmatched) - SHOWN} more" if len(unmatched) > SHOWN else ""
        words = f"keep_fp32 matches no float value: {'; '.join(hints)}{more}"
        raise UsageError(f"plan {plan.source or plan.name}: {words}")
    dtypes = {value.origin: "float32" if value.origin in kept else plan.compute_dtype for value in floats}
    return dtypes | {value.name: dtypes[value.origin] for value in floats}


def matching(pattern: str, values: Values) -> set[str]:
    """Return the names of the values that a plan's pattern means, whatever their dtype."""
    return {value.name for value in _matching(pattern, values.values())}


def _matching(pattern: str, values: Collection[Value]) -> list[Value]:
    """Return what a pattern means: what is named just so, or else what it fits as a pattern.

    The value ``m[0]`` has a name of its own; only where nothing is called that does it mean ``m0``.
    """
    kind, name = _split(pattern)
    calls = "#" in name
    exact = [value for value in values if name in _names(kind, value, calls=calls)]
    if exact or not any(sign in name for sign in "*?["):
        return exact
    return [v for v in values if any(fnmatchcase(known, name) for known in _names(kind, v, calls=calls))]


def _names(kind: str, value: Value, *, calls: bool) -> tuple[str, ...]:
    """Return what a value is called where patterns of a kind are looked up."""
    if kind == "module":
        return _modules(value.module, calls=calls)
    return _ops(value.op) if kind == "op" else (value.name, value.origin)


def _split(pattern: str) -> tuple[str, str]:
    kind, colon, name = pattern.partition(":")
    return (kind, name) if colon and kind in ("op", "value") else ("module", pattern)


@lru_cache(maxsize=2**16)
def _modules(module: str, *, calls: bool) -> tuple[str, ...]:
    """Return a module's path and every path above it, with or without call numbers."""
    parts = (module if calls else re.sub(r"#\d+", "", module)).split(".")
    return tuple(".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _ops(op: str) -> tuple[str, ...]:
    """Return an op's name with and without its overload: aten.add.Tensor and aten.add."""
    return (op, op.rpartition(".")[0]) if op.count(".") > 1 else (op,)


def _nearest(pattern: str, values: Iterable[Value]) -> str:
    kind, name = _split(pattern)
    known = {known for value in values for known in _names(kind, value, calls="#" in name) if known}
    prefix = "" if kind == "module" else f"{kind}:"
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(prefix + item for item in near)})" if near else ""


def write_plan(path: Path, precision: str, keep_fp32: Sequence[str], *, comment: Sequence[str]) -> None:
    """Write a plan file; the comment's lines come first. Raises UsageError when it cannot be written."""
    write_text("\n".join([*(f"# {line}" for line in comment), *plan_lines(precision, keep_fp32), ""]), path)
