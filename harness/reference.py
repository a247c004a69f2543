"""Run an exported program in PyTorch, op by op, with a dtype per value: the reference, the truth and the floor.

The reference is FP32 with TF32 off, the truth FP64, the floor the precision plan of the engine. All three run the same
graph that the engine is built from, so a difference is the engine's and not the model's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map

from harness.errors import NotJudged, UsageError
from harness.export import Program, Tensors, on_cpu, tensor_bytes

SCHEMA = "parity-reference/1"
# Outputs kept from another version of the interpreter are other outputs.
CODE_SHA256 = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions, and restore what was set before."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@dataclass
class RunNotes:
    """What a typed run had to do beyond running the ops."""

    emulated: set[str] = dataclasses.field(default_factory=set)
    """Ops without a kernel in their dtype: computed in FP32 on rounded inputs, and rounded."""
    saturated: set[str] = dataclasses.field(default_factory=set)
    """Values with a constant outside their format, which became the format's largest finite value."""

    def lines(self) -> tuple[str, ...]:
        """Return the notes as sentences."""
        lines = []
        if self.emulated:
            lines.append(f"the floor emulates {', '.join(sorted(self.emulated))} (no kernel in this precision here)")
        if self.saturated:
            plural = "s" * (len(self.saturated) > 1)
            lines.append(f"the floor saturates {len(self.saturated)} constant{plural} outside the format's range")
        return tuple(lines)


def run_program(
    program: Program,
    inputs: Mapping[str, torch.Tensor],
    *,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
    allow_tf32: bool = False,
    weights: Mapping[str, torch.Tensor] | None = None,
    on_value: Callable[[str, torch.Tensor], None] | None = None,
    notes: RunNotes | None = None,
) -> Tensors:
    """Run the program with every FP32 value in ``dtype``, or as ``dtypes`` says by FX name; return outputs by name.

    A value is freed after its last use; ``on_value`` sees each one as it is made. Outputs have the dtype they were
    computed in. Inputs decide the device; ``weights`` that are there already need not be copied.
    """
    device = next(iter(inputs.values())).device
    runner = TypedInterpreter(
        program, dtype=dtype, dtypes=dtypes or {}, device=device, weights=weights, on_value=on_value, notes=notes
    )
    with torch.inference_mode(), tf32(allow_tf32):
        return runner.outputs(inputs)


class TypedInterpreter(Interpreter):
    """Runs each op in the dtype its value is assigned; values that are not FP32 in the graph keep theirs."""

    def __init__(
        self,
        program: Program,
        *,
        dtype: torch.dtype,
        dtypes: Mapping[str, torch.dtype],
        device: torch.device,
        weights: Mapping[str, torch.Tensor] | None = None,
        on_value: Callable[[str, torch.Tensor], None] | None = None,
        notes: RunNotes | None = None,
    ) -> None:
        assert program.exported is not None
        super().__init__(program.exported.graph_module, garbage_collect_values=True)
        self.program, self.exported = program, program.exported
        self.dtype, self.dtypes, self.device = dtype, dtypes, device
        self.weights = weights or {}
        self.on_value, self.notes = on_value, RunNotes() if notes is None else notes

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run with these inputs and return the declared outputs by name."""
        given = self.exported.graph_signature.input_specs
        results = self.run(*(self.placeholder_value(spec, inputs) for spec in given))
        specs = self.exported.graph_signature.output_specs
        by_node = {spec.arg.name: result for spec, result in zip(specs, results, strict=True)}
        return {name: by_node[node] for name, node in self.program.outputs.items()}

    def placeholder_value(self, spec: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
        """Return what a placeholder of the graph stands for: an input, a weight or a constant."""
        if spec.kind is InputKind.USER_INPUT:
            return inputs[spec.arg.name].to(self.device)
        if spec.target in self.weights:
            return self.weights[spec.target].to(self.device)
        store = self.exported.state_dict if spec.target in self.exported.state_dict else self.exported.constants
        return store[spec.target].to(self.device)

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        wanted = self.dtype_of(n)
        result = self._call(n, args, kwargs, wanted)
        if self.on_value is not None and isinstance(result, torch.Tensor):
            self.on_value(n.name, result)
        return result

    def dtype_of(self, node: Node) -> torch.dtype | None:
        """Return the dtype this node computes in; None for a node whose results are not FP32 in the graph."""
        results = [value for value in tree_leaves(node.meta.get("val")) if isinstance(value, torch.Tensor)]
        if not any(value.dtype in FLOATS for value in results):
            return None
        return self.dtypes.get(node.name, self.dtype)

    def _call(self, node: Node, args: Any, kwargs: Any, wanted: torch.dtype | None) -> Any:
        # A kernel of another device or dtype may lay its result out differently than the traced one did, and a view of
        # it may then not exist; reshape is the same mathematics.
        function: Any = torch.ops.aten.reshape.default if node.target in _VIEWS else node.target
        args, kwargs = tree_map(self._to_device, (args, kwargs))
        if wanted is None:  # comparisons, indices, shapes: on the inputs as they are, at their highest precision
            highest = self._highest((args, kwargs))
            args, kwargs = tree_map(lambda value: cast(value, highest), (args, kwargs))
            return function(*args, **kwargs)
        typed = tree_map(lambda value: self._typed(node, value, wanted), (args, kwargs))
        try:
            result = function(*typed[0], **typed[1])
        except (NotImplementedError, RuntimeError) as error:
            if "not implemented for" not in str(error) or wanted not in (torch.float16, torch.bfloat16):
                raise
            self.notes.emulated.add(str(node.target))
            exact = tree_map(lambda value: self._typed(node, value, torch.float32), typed)
            result = function(*exact[0], **exact[1])
        return tree_map(lambda value: cast(value, wanted), result)

    def _to_device(self, value: Any) -> Any:
        return self.device if isinstance(value, torch.device) else value

    def _highest(self, values: Any) -> torch.dtype:
        present = {value.dtype for value in tree_leaves(values) if isinstance(value, torch.Tensor)}
        for dtype in (torch.float64, torch.float32):
            if dtype in present:
                return dtype
        # FP16 and BF16 hold values the other cannot, so their common precision is FP32.
        return (
            torch.float32
            if {torch.float16, torch.bfloat16} <= present
            else next(iter(present & set(FLOATS)), self.dtype)
        )

    def _typed(self, node: Node, value: Any, wanted: torch.dtype) -> Any:
        if isinstance(value, torch.dtype):
            return wanted if value in FLOATS else value
        if isinstance(value, float) and wanted in (torch.float16, torch.bfloat16):
            # What PyTorch itself writes when the model is in this precision: finfo(dtype).min, not -inf.
            limit = torch.finfo(wanted).max
            if limit < abs(value) < float("inf"):
                self.notes.saturated.add(node.name)
                return limit if value > 0 else -limit
        return cast(value, wanted)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast a tensor of the graph's working precision; integers, booleans and everything else stay."""
    if isinstance(value, torch.Tensor) and (value.dtype in FLOATS or value.dtype is torch.float64):
        return value.to(dtype)
    return value


def sha256_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


class OutputCache:
    """Outputs that PyTorch computed earlier, in files named after everything they were computed from.

    A file is a SHA-256 digest, a line of JSON with the run's notes, and safetensors data. One that does not match its
    digest is computed again.
    """

    LIMIT_BYTES = 2**30

    def __init__(self, folder: Path, *, enabled: bool) -> None:
        self.folder, self.enabled = folder, enabled

    def get(
        self, key: Mapping[str, Any], compute: Callable[[], tuple[Tensors, tuple[str, ...]]], device: torch.device
    ) -> tuple[Tensors, tuple[str, ...]]:
        """Return the outputs and notes for a key, computing and keeping them where there are none."""
        if not self.enabled:
            return compute()
        path = self.folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.outputs"
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                notes, _, data = content[32:].partition(b"\n")
                outputs = {name: tensor.to(device) for name, tensor in load_tensors(data).items()}
                return outputs, tuple(json.loads(notes))
        outputs, lines = compute()
        data = tensors_to_bytes(on_cpu(outputs))
        with contextlib.suppress(OSError):  # a full disk costs time in the next run, nothing else
            self._write(path, json.dumps(lines).encode() + b"\n" + data)
        return outputs, lines

    def clear(self) -> int:
        """Remove everything and return the bytes freed."""
        return self._shrink(0)

    def _write(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            scratch.write_bytes(hashlib.sha256(content).digest() + content)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        self._shrink(self.LIMIT_BYTES)

    def _shrink(self, limit: int) -> int:
        """Remove the oldest files until the rest fits the limit."""
        files = sorted(self.folder.glob("*.outputs"), key=lambda file: file.stat().st_mtime)
        sizes = [file.stat().st_size for file in files]
        excess, freed = sum(sizes) - limit, 0
        for file, size in zip(files, sizes, strict=True):
            if freed >= excess:
                break
            file.unlink(missing_ok=True)
            freed += size
        return freed


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a stored reference belongs to."""

    weights_sha256: str
    inputs_sha256: str
    program_sha256: str
    torch: str
    """The torch version: another one exports another text for the same model."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A reference read from disk."""

    fp32: Tensors
    fp64: Tensors
    provenance: dict[str, Any]


def update_command(typed: str, case: str) -> str:
    """Return the command that computes a stored reference again."""
    return f"parity reference {typed} --case {shlex.quote(case)}"


class StaleReference(UsageError):
    """A stored reference belongs to other weights, inputs or another program."""


class ReferenceStore:
    """References on disk: ``<folder>/<subject>/<case>.safetensors`` and ``.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, subject: str, case: str) -> Path:
        """Return where a case's tensors are kept."""
        return self.folder / subject / f"{case}.safetensors"

    def save(
        self, subject: str, case: str, identity: Identity, *, fp32: Tensors, fp64: Tensors, provenance: dict[str, Any]
    ) -> Path:
        """Write a reference; the JSON goes last and holds the tensors' checksum, so a torn write is seen."""
        path = self.path(subject, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"fp32/{name}": value for name, value in fp32.items()}
        tensors |= {f"fp64/{name}": value for name, value in fp64.items()}
        data = tensors_to_bytes(on_cpu(tensors))
        record = {
            "schema": SCHEMA,
            **dataclasses.asdict(identity),
            "tensors_sha256": hashlib.sha256(data).hexdigest(),
            **provenance,
        }
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        return path

    def load(self, subject: str, case: str, identity: Identity, *, typed: str = "") -> Stored | None:
        """Return the stored reference, or None when there is none.

        ``typed`` is what reaches the subject on the command line, where that is not its name.
        Raises StaleReference when it belongs to something else or its file is damaged; the text says what changed.
        """
        path = self.path(subject, case)
        if not path.exists() and not path.with_suffix(".json").exists():
            return None
        again = f"run: {update_command(typed or shlex.quote(subject), case)}"
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            raise StaleReference(f"stored reference {path} cannot be read ({error}); {again}") from error
        if not isinstance(record, dict) or hashlib.sha256(data).hexdigest() != record.get("tensors_sha256"):
            raise StaleReference(f"stored reference {path} is damaged (checksum differs); {again}")
        if changed := self._changes(record, identity):
            raise StaleReference(f"stored reference {path} is stale: {' and '.join(changed)} changed; {again}")
        tensors = load_tensors(data)
        return Stored(
            fp32={name.removeprefix("fp32/"): value for name, value in tensors.items() if name.startswith("fp32/")},
            fp64={name.removeprefix("fp64/"): value for name, value in tensors.items() if name.startswith("fp64/")},
            provenance=record,
        )

    @staticmethod
    def _changes(record: Mapping[str, Any], identity: Identity) -> list[str]:
        names = ["weights", "inputs"]
        if record.get("torch") == identity.torch:  # the program's text compares only under one exporter
            names.append("program")
        changes = []
        for name in names:
            before, now = str(record.get(f"{name}_sha256")), getattr(identity, f"{name}_sha256")
            if before != now:
                changes.append(f"the {name} ({before[:8]} -> {now[:8]})")
        return changes


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of ``expected``, in float64; inf when either is not finite."""
    difference = (actual.double() - expected.double()).norm().item()
    norm = expected.double().norm().item()
    if not math.isfinite(difference) or not math.isfinite(norm):
        return math.inf
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def finite_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return :func:`relative_l2` over the finite elements; inf when shapes or the places of the others differ."""
    finite = expected.isfinite()
    if actual.shape != expected.shape or not torch.equal(actual.isfinite(), finite):
        return math.inf
    return relative_l2(actual[finite], expected[finite])


def total_error(actual: Tensors, expected: Tensors) -> float:
    """Return the largest relative L2 error of any output; infinite where one is not finite or has another shape."""
    return max((finite_error(actual[name], tensor) for name, tensor in expected.items()), default=math.inf)


def require_close(actual: Tensors, expected: Tensors, *, limit: float, sentence: str) -> None:
    """Raise NotJudged with ``sentence`` (which gets ``{name}`` and ``{error}``) when an output differs by more."""
    for name, tensor in expected.items():
        other = actual[name]
        if torch.equal(other.to(tensor.dtype), tensor):
            continue
        floats = tensor.is_floating_point()
        error = finite_error(other, tensor) if floats else float((other != tensor).double().mean())
        if error > limit:
            raise NotJudged(sentence.format(name=name, error=f"{error:.3g}"))
