"""What a case gives and what ``forward`` returns, flattened: every tensor by its path, and the same container back.

A path is the keys, field names and positions that lead to a tensor, joined by dots: ``past_key_values.0.key``.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from harness.errors import NotJudged, UsageError
from harness.sentences import Sentence
from harness.tensors import Tensors

_NUMBERS = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
COMPARED = frozenset(getattr(torch, name) for name in _NUMBERS.split())
"""The dtypes whose numbers can be compared."""
_SIMPLE = (int, float, bool, str, type(None))
_CACHE_NAMES = {"keys": "key", "values": "value"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """How the tensors of one value lie in it."""

    kind: type
    """Of the container; ``torch.Tensor`` for a tensor, and that of None for None."""
    name: str = ""
    """The path, where this is a tensor."""
    keys: tuple[str, ...] = ()
    """Keys, field names or positions of the parts."""
    parts: tuple[Structure, ...] = ()
    fixed: str = ""
    """What a cache holds beside tensors."""
    make: Callable[[list[Any]], Any] = lambda parts: None
    """Return the container of these parts."""

    @property
    def names(self) -> frozenset[str]:
        """The paths of the tensors."""
        own = {self.name} if self.kind is torch.Tensor else set()
        return frozenset(own).union(*(part.names for part in self.parts))

    def is_like(self, other: Structure) -> bool:
        """Return whether two values differ only in their tensors, and in the order of keys."""
        mine, theirs = (dict(zip(it.keys, it.parts, strict=True)) for it in (self, other))
        return (
            (self.kind, self.name, self.fixed) == (other.kind, other.name, other.fixed)
            and mine.keys() == theirs.keys()
            and all(part.is_like(theirs[key]) for key, part in mine.items())
        )

    def build(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return a new value with these tensors by path."""
        if self.kind is torch.Tensor:
            return tensors[self.name]
        return self.make([part.build(tensors) for part in self.parts])


@dataclass(frozen=True, kw_only=True)
class _Split:
    """A container taken apart."""

    keys: tuple[str, ...]
    parts: list[Any]
    make: Callable[[list[Any]], Any]
    has_positions: bool = False
    """Whether the keys are positions."""
    fixed: str = ""


def flatten_inputs(value: Mapping[str, Any], where: str) -> tuple[Tensors, Structure]:
    """Return the tensors of a case by path and the structure they lie in; ``where`` words the errors.

    Raises UsageError for what is no tensor and for two paths of one name, NotJudged for a tensor without numbers that
    can be compared.
    """
    return _flatten(dict(value), kind="input", where=f"{where}: ", advice="give tensors")


def flatten_outputs(value: Any, *, taken: Collection[str] = ()) -> Tensors:
    """Return the tensors that ``forward`` returned by path.

    A tensor alone is called ``output``, and the parts of a sequence ``output_0``, ``output_1``, ...; a path that an
    input has too (``taken``) becomes ``output.PATH``. None is left out. Raises UsageError when there is no output, one
    is no tensor, or two have one name, NotJudged for a tensor without numbers that can be compared.
    """
    tensors, _ = _flatten(value, kind="output", where="", advice="return tensors from forward()")
    if not tensors:
        raise UsageError("the subject has no outputs: forward() returned nothing to compare")
    named = {f"output.{name}" if name in taken else name: tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        clash = next(name for name in named if name.startswith("output.") and name in tensors)
        raise UsageError(f"two outputs are called {clash!r}; rename one of them")
    return named


def with_constants(value: Any, kind: str) -> tuple[Tensors, Structure]:
    """Return the tensors of any value by path, and the structure, which keeps what is no tensor as it is.

    ``kind`` names them where there is no path. Raises what :func:`flatten_inputs` raises, but not for
    what is no tensor.
    """
    return _flatten(value, kind=kind, where="", advice="give tensors", constants=True)


def _flatten(value: Any, *, kind: str, where: str, advice: str, constants: bool = False) -> tuple[Tensors, Structure]:
    tensors: Tensors = {}

    def visit(item: Any, path: str, above: tuple[int, ...]) -> Structure:
        if item is None:
            return Structure(kind=type(None))
        if isinstance(item, torch.Tensor):
            name = path or kind
            if name in tensors:
                raise UsageError(f"{where}two {kind}s are called {name!r}; rename one of them")
            tensors[name] = _ordinary(item, f"{where}{kind} {name!r}")
            return Structure(kind=torch.Tensor, name=name)
        split = _split(item)
        if constants and (split is None or id(item) in above):
            return Structure(kind=type(item), fixed=_constant(item), make=lambda parts: item)
        if split is None or id(item) in above:
            what = "holds itself" if id(item) in above else f"is a {type(item).__name__}, not a tensor"
            raise UsageError(f"{where}{kind} {path or kind!r} {what}; {advice}")
        prefix = f"{path}." if path else f"{kind}_" if split.has_positions else ""
        parts = []
        for key, part in zip(split.keys, split.parts, strict=True):
            if not prefix + key:
                raise UsageError(f"{where}an {kind} has no name; give it one")
            parts.append(visit(part, prefix + key, (*above, id(item))))
        return Structure(kind=type(item), keys=split.keys, parts=tuple(parts), fixed=split.fixed, make=split.make)

    try:
        return tensors, visit(value, "", ())
    except RecursionError as error:
        raise UsageError(f"{where}the {kind}s are nested too deeply; {advice}") from error


def _constant(value: Any) -> str:
    """Return a constant as text; of an object only its type."""
    return repr(value) if isinstance(value, (*_SIMPLE, torch.dtype, torch.device)) else type(value).__name__


def _split(value: Any) -> _Split | None:
    """Return a container's parts, or None for what is no container."""
    if _is_cache(value):
        return _split_cache(value)
    asked = itertools.count()
    parts, spec = pytree.tree_flatten(value, is_leaf=lambda _: next(asked) > 0)  # it is asked about the container first
    if not spec.is_leaf() and (parts or isinstance(value, Collection)):  # else a constant of the tracer's
        keys, has_positions = _keys(value, parts)
        return _Split(keys=keys, parts=parts, make=spec.unflatten, has_positions=has_positions)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(it.name for it in dataclasses.fields(value) if hasattr(value, it.name))
        return _Split(keys=names, parts=[getattr(value, name) for name in names], make=partial(_changed, value, names))
    if isinstance(value, Mapping):
        return _Split(keys=tuple(map(str, value)), parts=list(value.values()), make=partial(_mapping, value))
    if isinstance(value, (list, tuple)):
        keys = tuple(map(str, range(len(value))))
        return _Split(keys=keys, parts=list(value), make=type(value), has_positions=True)
    return None


def _keys(value: Any, parts: Sequence[Any]) -> tuple[tuple[str, ...], bool]:
    """Return the keys or fields of a container that PyTorch knows, else positions, and whether they are positions."""
    positions = tuple(map(str, range(len(parts)))), True
    if isinstance(value, Mapping) and len(value) == len(parts):
        return tuple(map(str, value)), False
    if any(part is value for part in parts):  # which is refused
        return positions
    try:
        paths = [path for path, _ in pytree.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)[0]]
    except ValueError:  # registered without its keys
        return positions
    names = [getattr(path[0], "name", getattr(path[0], "key", None)) for path in paths]
    return positions if None in names else (tuple(map(str, names)), False)


def _is_cache(value: Any) -> bool:
    """Return whether this is a cache of transformers, or one of its layers; that package is not imported for it."""
    module = sys.modules.get("transformers.cache_utils")
    kinds = [getattr(module, name, None) for name in ("Cache", "CacheLayerMixin", "LinearAttentionCacheLayerMixin")]
    return isinstance(value, tuple(kind for kind in kinds if kind is not None))


def _split_cache(value: Any) -> _Split:
    """Return the tensors of a cache but its private ones; layers go by their positions, ``keys`` by ``key``."""
    keys, parts = [], []
    for name, item in vars(value).items():
        if name == "layers":
            keys += [str(index) for index in range(len(item))]
            parts += item
        elif name.startswith("_"):
            continue
        elif _is_cache(item) or any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(item)):
            keys.append(_CACHE_NAMES.get(name, name))
            parts.append(item)
    return _Split(keys=tuple(keys), parts=parts, make=partial(_cache, value, tuple(keys)), fixed=_numbers(value))


def _numbers(value: Any) -> str:
    """Return the numbers and texts that a cache holds, as text."""
    held = vars(value)
    simple = [name for name in held if all(isinstance(leaf, _SIMPLE) for leaf in pytree.tree_leaves(held[name]))]
    return repr([(name, held[name]) for name in sorted(simple)])


def _cache(value: Any, keys: tuple[str, ...], parts: list[Any]) -> Any:
    """Return a cache with other parts; what it notes down is copied, since a run changes it."""
    made = copy.copy(value)
    given = dict(zip(keys, parts, strict=True))
    for name, item in vars(value).items():
        if name == "layers":
            made.layers = [given[str(index)] for index in range(len(item))]
        elif (key := _CACHE_NAMES.get(name, name)) in given:
            setattr(made, name, given[key])
        elif isinstance(item, (dict, list, set)):
            setattr(made, name, copy.copy(item))
    return made


def _changed(value: Any, names: tuple[str, ...], parts: list[Any]) -> Any:
    made = copy.copy(value)
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(made, name, part)  # a frozen one too
    return made


def _mapping(value: Mapping[Any, Any], parts: list[Any]) -> Any:
    """Return a mapping with other parts: of the same type, where that can be written to."""
    made = dict(zip(value, parts, strict=True))
    if not hasattr(value, "__setitem__"):
        return made
    changed: Any = copy.copy(value)
    for key, part in made.items():
        changed[key] = part
    return changed


def _ordinary(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """Return a tensor as one of plain numbers. Raises NotJudged, naming ``what``, where they cannot be compared."""
    if torch.compiler.is_exporting():
        return tensor  # a stand-in of the tracer; the real one was seen before
    problem, dtype = no_plain_numbers(tensor), str(tensor.dtype).removeprefix("torch.")
    if not problem and tensor.is_complex():
        problem = Sentence("is_complex", dtype=dtype)
    if not problem and tensor.dtype not in COMPARED:
        problem = Sentence("dtype_not_compared", dtype=dtype)
    if problem:
        raise NotJudged(Sentence("value_trouble", name=what, trouble=problem))
    return tensor.detach().as_subclass(torch.Tensor).resolve_neg()


def no_plain_numbers(tensor: torch.Tensor) -> str:
    """Return why a tensor is no block of numbers in memory, and what to do; empty for one that is."""
    if tensor.is_nested:
        return Sentence("is_nested")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return Sentence("no_plain_numbers", name=type(tensor).__name__)
    if tensor.is_quantized:
        return Sentence("is_quantised_tensor", dtype=str(tensor.dtype).removeprefix("torch."))
    if tensor.layout != torch.strided:
        return Sentence("is_sparse", layout=str(tensor.layout).removeprefix("torch."))
    return Sentence("is_meta") if tensor.is_meta else ""
