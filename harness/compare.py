"""Measure how far one tensor is from another; whether that is too far is judged in ``tolerance``.

Inputs are widened to float64 chunk by chunk, so no copy of a whole tensor is ever made. Integers beyond 2^53 are
rounded by that; :func:`bitwise_equal` does not round. Figures other than counts are over pairs finite on both sides.
On an NVIDIA GPU with Triton the work is done by ``compare_cuda``; without Triton the chunks travel to the CPU.

Order statistics are exact and need no sorted copy: a sample gives a narrow bracket for each, one pass counts the errors
below the bracket and keeps those inside it, and the answer is picked from what was kept. A bracket that missed is
replaced by halving the range that certainly holds the answer, in the order of float64 bit patterns, so a search ends
after MOST_PASSES passes whatever the data.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import EngineFailed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = tuple[int | slice, ...]
    Errors = Sequence[float] | Array | torch.Tensor

CHUNK = 131072  # elements; with shorter steps the two workers wait for each other's GIL (65536: 18 % slower)
SERIAL = 8192  # elements below which neither PyTorch nor BLAS starts threads of its own, which would fight the workers
SORT_LIMIT = 2**15  # elements; up to here all errors are kept and no bracket is needed
LARGEST_SAMPLE = 2**15  # PyTorch gathers more than this with threads, and waiting for them takes longer than they save
WORST = 5
MOST_PASSES = 70  # a sampled bracket, its end, and at most 63 halvings
MAX_WORKERS = 8  # beyond this the workers wait for each other's Python code
QUANTILES = (
    ("absolute", "median", 1, 2),
    ("absolute", "p99", 99, 100),
    ("relative", "median", 1, 2),
    ("relative", "p99", 99, 100),
)
SUMS = (
    "absolute",
    "relative",
    "signed",
    "squared",
    "actual",
    "actual_squared",
    "expected",
    "expected_squared",
    "product",
)
ROWS = ("absolute", "relative", "actual", "expected", "signed")  # of a worker's buffers
COUNTS = ("compared", "undefined")
NONFINITE = ("nan_actual", "nan_expected", "nonfinite_actual", "nonfinite_expected", "mismatched_nonfinite")
PEAKS = ("absolute", "relative", "actual", "minus_actual", "expected", "minus_expected")


@dataclass(frozen=True, kw_only=True)
class ErrorStats:
    """The distance between two tensors of one shape. Figures are NaN where no pair is finite on both sides."""

    shape: tuple[int, ...]
    """Dimensions of both tensors."""
    dtype: str
    """Of the actual tensor, such as ``float16``."""
    absolute: dict[str, float]
    """``max``, ``mean``, ``median`` and ``p99`` of ``|a - e|``."""
    relative: dict[str, float]
    """The same of ``|a - e| / |e|``, 0 where both are 0; ``undefined`` counts the left out e = 0, a != 0."""
    relative_l2: float
    """``||a - e|| / ||e||``; for ``||e|| = 0`` it is 0 without error and infinite with one."""
    cosine: float
    """Cosine similarity; 1 when both are zero, NaN when only one is."""
    snr_db: float
    """Signal-to-noise ratio, ``-20 log10(relative_l2)``, in decibels; infinite without error."""
    effective_bits: float
    """``-log2(relative_l2)``; infinite without error."""
    bias: float
    """Mean of ``a - e`` over the RMS of ``e``; for an RMS of 0 it is 0 or infinite."""
    elements: int
    """Number of elements."""
    compared: int
    """Number of pairs finite on both sides."""
    rms_expected: float
    """Root mean square of the expected values."""
    std_actual: float
    """Standard deviation of the actual values, from sums of squares: right to 1e-7 of their RMS."""
    std_expected: float
    """Standard deviation of the expected values, likewise."""
    max_expected: float
    """Largest ``|e|``."""
    zero_actual: bool
    """Every compared actual value is 0."""
    zero_expected: bool
    """Every compared expected value is 0."""
    constant_actual: bool
    """All compared actual values are one value."""
    constant_expected: bool
    """All compared expected values are one value."""
    nonfinite_actual: int
    """Number of NaN and infinities in the actual tensor."""
    nonfinite_expected: int
    """Number of NaN and infinities in the expected tensor."""
    nan_actual: int
    """Number of NaN in the actual tensor."""
    nan_expected: int
    """Number of NaN in the expected tensor."""
    mismatched_nonfinite: int
    """Positions that hold a NaN or an infinity and not the same infinity on both sides."""
    first_nonfinite: tuple[int, ...] | None
    """Index of the first NaN or infinity of the actual tensor."""
    worst: tuple[dict[str, Any], ...]
    """``index``, ``actual`` and ``expected`` of the five largest absolute errors; of equal ones the first."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, one key per field; figures that are not finite are left as they are."""
        data = dataclasses.asdict(self)
        first = self.first_nonfinite
        return {
            **data,
            "shape": list(self.shape),
            "first_nonfinite": None if first is None else list(first),
            "worst": list(data["worst"]),
        }


def compare(actual: torch.Tensor, expected: torch.Tensor, *, name: str = "") -> ErrorStats:
    """Return the distance of ``actual`` from ``expected``.

    Any real dtype, device and strides; dtypes may differ. ``name`` only words the errors.
    The median and 99th percentile of n errors are the elements at 0-based rank ``(n - 1) // 2`` and
    ``99 * (n - 1) // 100`` of the sorted errors, so they are errors that occurred, at any size.
    Float64 values are scaled so that their squares do not overflow; what is 1e140 times smaller than the largest may
    then count as 0 in sums. An ``a - e`` or a sum of relative errors beyond float64 is infinite.
    Raises EngineFailed when the shapes differ, a dtype is complex, or there is no element to compare.
    """
    label = f"output {name!r}" if name else "output"
    if actual.shape != expected.shape:
        raise EngineFailed(f"{label} has shape {list(actual.shape)}, but should have {list(expected.shape)}")
    if actual.is_complex() or expected.is_complex():
        raise EngineFailed(
            f"{label} is complex; compare its real and its imaginary part, torch.view_as_real() gives both"
        )
    if actual.numel() == 0:
        raise EngineFailed(f"{label} is empty (shape {list(actual.shape)}); nothing can be compared")
    actual, expected = actual.detach(), expected.detach()
    return _finish(actual, expected, _measure(actual, expected))


def compare_outputs(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, ErrorStats]:
    """Return the distance of every output by name, in the order of ``expected``.

    Raises EngineFailed when the names are not the same, there are none, or a pair cannot be compared.
    """
    missing = sorted(set(expected) - set(actual))
    unexpected = sorted(set(actual) - set(expected))
    if missing or unexpected:
        parts = [f"{kind} {names}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names]
        raise EngineFailed(f"outputs differ: {', '.join(parts)}")
    if not expected:
        raise EngineFailed("there are no outputs to compare; the model must return at least one tensor")
    return {name: compare(actual[name], expected[name], name=name) for name in expected}


def bitwise_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether shape, dtype and every bit are the same: equal NaNs are equal, 0 and -0 are not."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(a.element_size())
    if bits is None or a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
        return bitwise_equal(a, b)
    return torch.equal(a.detach().view(bits), b.detach().to(a.device).view(bits))


# What a pass over the data returns, from the CPU here and from the GPU in compare_cuda.


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums, counts and extremes over pairs finite on both sides; empty ones are the start of a sum."""

    added: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*SUMS, *COUNTS, *NONFINITE), 0.0))
    """SUMS (of values times ``scale``, squares of that), COUNTS and NONFINITE."""
    peaks: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PEAKS, -math.inf))
    """The largest of each of PEAKS; ``minus_`` is of the negated values."""
    worst: list[tuple[float, int]] = field(default_factory=list)
    """The largest absolute errors with their flat index, largest first, of equal ones the lowest index first."""
    first_nonfinite: list[int] = field(default_factory=list)
    """Flat index of the first non-finite actual value, if there is one."""
    scale: float = 1.0
    """The power of two that values are multiplied with before they are squared and added."""

    def least_worst(self) -> float:
        """Return the error that another must exceed to be among the worst."""
        return self.worst[-1][0] if len(self.worst) == WORST else -1.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a pass found for one bracket [low, high]."""

    below: int
    """Number of errors below the bracket."""
    inside: int
    """Number of errors in it, its ends included."""
    pick: Callable[[int], float] | None
    """Return the error of a rank among those inside; None when they were too many to be kept."""


Bracket = tuple[float, float]
Select = Callable[[Sequence[Bracket]], list[Found]]
ALL: Bracket = (0.0, math.inf)
NOTHING: Bracket = (math.inf, 0.0)
Measured = tuple[Totals, list[float]]


def _measure(actual: torch.Tensor, expected: torch.Tensor) -> Measured:
    """Return the totals and the four order statistics, in the order of QUANTILES."""
    if actual.is_cuda and actual.device == expected.device and importlib.util.find_spec("triton") is not None:
        from harness import compare_cuda

        if compare_cuda.handles(actual, expected):
            return compare_cuda.measure(actual, expected)
    return _measure_on_cpu(actual, expected)


def _finish(actual: torch.Tensor, expected: torch.Tensor, measured: Measured) -> ErrorStats:
    """Turn sums into figures."""
    totals, quantiles = measured
    added, peaks, scale = totals.added, totals.peaks, totals.scale
    compared, defined = int(added["compared"]), int(added["compared"] - added["undefined"])

    def mean(total: str, count: int = compared) -> float:
        return added[total] / count if count else math.nan

    constant = {side: compared > 0 and peaks[side] == -peaks[f"minus_{side}"] for side in ("actual", "expected")}

    def std(side: str) -> float:
        return 0.0 if constant[side] else math.sqrt(max(mean(f"{side}_squared") - mean(side) ** 2, 0.0)) / scale

    def peak(what: str, count: int = compared) -> float:
        return peaks[what] if count else math.nan

    relative_l2 = _ratio(math.sqrt(added["squared"]), math.sqrt(added["expected_squared"])) if compared else math.nan
    decades = math.log10(relative_l2) if relative_l2 else -math.inf
    rms = math.sqrt(mean("expected_squared"))
    summary: dict[str, dict[str, float]] = {
        "absolute": {"max": peak("absolute"), "mean": mean("absolute") / scale},
        "relative": {"max": peak("relative", defined), "mean": mean("relative", defined)},
    }
    for (kind, figure, _, _), value in zip(QUANTILES, quantiles, strict=True):
        summary[kind][figure] = value
    summary["relative"]["undefined"] = int(added["undefined"])
    extremes = {side: max(peak(side), peak(f"minus_{side}")) for side in ("actual", "expected")}
    return ErrorStats(
        shape=tuple(actual.shape),
        dtype=str(actual.dtype).removeprefix("torch."),
        absolute=summary["absolute"],
        relative=summary["relative"],
        relative_l2=relative_l2,
        cosine=_cosine(added) if compared else math.nan,
        snr_db=-20 * decades,
        effective_bits=-math.log2(10) * decades,
        bias=_ratio(mean("signed"), rms) if compared else math.nan,
        elements=actual.numel(),
        compared=compared,
        rms_expected=rms / scale,
        std_actual=std("actual"),
        std_expected=std("expected"),
        max_expected=extremes["expected"],
        zero_actual=extremes["actual"] == 0,
        zero_expected=extremes["expected"] == 0,
        constant_actual=constant["actual"],
        constant_expected=constant["expected"],
        nonfinite_actual=int(added["nonfinite_actual"]),
        nonfinite_expected=int(added["nonfinite_expected"]),
        nan_actual=int(added["nan_actual"]),
        nan_expected=int(added["nan_expected"]),
        mismatched_nonfinite=int(added["mismatched_nonfinite"]),
        first_nonfinite=_unravel(totals.first_nonfinite[0], actual) if totals.first_nonfinite else None,
        worst=tuple(_pair(actual, expected, flat) for _, flat in totals.worst),
    )


def _ratio(numerator: float, denominator: float) -> float:
    """Divide; by zero gives 0 for 0 and an infinity for anything else."""
    if denominator:
        return numerator / denominator
    return math.copysign(math.inf, numerator) if numerator else 0.0


def _cosine(added: Mapping[str, float]) -> float:
    norms = math.sqrt(added["actual_squared"]) * math.sqrt(added["expected_squared"])
    if norms:
        return max(-1.0, min(1.0, added["product"] / norms))
    return 1.0 if added["actual_squared"] == added["expected_squared"] else math.nan


def _unravel(flat: int, tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, tuple(tensor.shape)))


def _pair(actual: torch.Tensor, expected: torch.Tensor, flat: int) -> dict[str, Any]:
    index = _unravel(flat, actual)
    return {"index": list(index), "actual": actual[index].item(), "expected": expected[index].item()}


# Order statistics.


def ranks(added: Mapping[str, float]) -> list[int]:
    """Return the 0-based rank of each of QUANTILES; -1 where there is no error to rank."""
    counts = {"absolute": int(added["compared"]), "relative": int(added["compared"] - added["undefined"])}
    return [
        numerator * (counts[kind] - 1) // divisor if counts[kind] else -1 for kind, _, numerator, divisor in QUANTILES
    ]


def brackets_from_sample(absolute: Errors, relative: Errors) -> list[Bracket]:
    """Return a narrow bracket for each of QUANTILES from the sorted errors of a random sample.

    It spans 4.5 standard deviations of the sample's rank on both sides and leaves out its own ends: a value that many
    errors share then stands alone at an end, where counting settles it.
    """
    brackets = []
    for kind, _, numerator, divisor in QUANTILES:
        errors = absolute if kind == "absolute" else relative
        share = numerator / divisor
        centre, margin = share * len(errors), 4.5 * math.sqrt(share * (1 - share) * len(errors)) + 2
        first, last = math.floor(centre - margin), math.ceil(centre + margin)
        low = float(errors[first]) if first >= 0 else 0.0
        high = float(errors[last]) if last < len(errors) else math.inf
        inner = (math.nextafter(low, math.inf) if first >= 0 else 0.0, math.nextafter(high, 0.0))
        brackets.append(inner if inner[0] <= inner[1] else (low, high))
    return brackets


def order_statistics(
    wanted: Sequence[int], brackets: Sequence[Bracket], found: list[Found], select: Select
) -> list[float]:
    """Return the error of each wanted rank, with more passes of ``select`` where a bracket missed."""
    answers = [math.nan if rank < 0 else None for rank in wanted]
    tried, known = list(brackets), [ALL] * len(wanted)
    for _ in range(MOST_PASSES):
        for i, rank in enumerate(wanted):
            if answers[i] is None:
                answers[i], tried[i], known[i] = _settle(rank, tried[i], known[i], found[i])
        done = [answer for answer in answers if answer is not None]
        if len(done) == len(answers):
            return done
        found = select([NOTHING if answer is not None else tried[i] for i, answer in enumerate(answers)])
    raise RuntimeError(f"no order statistic after {MOST_PASSES} passes: the tensors changed while they were compared")


def _settle(rank: int, tried: Bracket, known: Bracket, found: Found) -> tuple[float | None, Bracket, Bracket]:
    """Return the answer if it is found, the bracket to try next, and the range that certainly holds the answer."""
    low, high = tried
    if rank < found.below:
        end = math.nextafter(low, 0.0)
        below = (known[0], end)
        return None, (end, end) if known == ALL else _halved(below), below
    if rank >= found.below + found.inside:
        end = math.nextafter(high, math.inf)
        above = (end, known[1])
        return None, (end, end) if known == ALL else _halved(above), above
    if low == high:
        return low, tried, tried
    if found.pick is not None:
        return found.pick(rank - found.below), tried, tried
    return None, _halved(tried), tried


def _halved(bracket: Bracket) -> Bracket:
    """Return the lower half of a bracket, by bit patterns: those of floats >= 0 are ordered as the floats are."""
    first, last = (int(np.float64(end).view(np.int64)) for end in bracket)
    return bracket[0], float(np.int64(first + (last - first) // 2).view(np.float64))


# On the CPU.


def _measure_on_cpu(actual: torch.Tensor, expected: torch.Tensor) -> Measured:
    if actual.is_contiguous() and expected.is_contiguous():
        actual, expected = actual.view(-1), expected.view(-1)
    actual, expected = (tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in (actual, expected))
    elements = actual.numel()
    brackets, capacity = [ALL] * len(QUANTILES), elements
    if elements > SORT_LIMIT:
        brackets, capacity = _sample_brackets(actual, expected), elements // 8
    scale = _scale(actual, expected)
    totals, found = _sweep(actual, expected, brackets, capacity, Totals(scale=scale))
    answers = order_statistics(
        ranks(totals.added), brackets, found, lambda tries: _sweep(actual, expected, tries, capacity, None)[1]
    )
    return totals, answers


def blocks(shape: Sequence[int], size: int) -> list[tuple[int, Index]]:
    """Cut a shape into runs of at most ``size`` elements, consecutive in row-major order: (flat start, index)."""
    split = next(k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= size)
    inner = math.prod(shape[split + 1 :])
    rows = size // inner
    parts: list[tuple[int, Index]] = []
    for number, outer in enumerate(np.ndindex(*shape[:split])):
        base = number * shape[split] * inner
        starts = range(0, shape[split], rows)
        parts.extend((base + start * inner, (*outer, slice(start, start + rows))) for start in starts)
    return parts


def take(tensor: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Return elements by flat row-major index, whatever the strides, without a copy of the tensor."""
    import torch

    return tensor.view(-1)[flat] if tensor.is_contiguous() else tensor[torch.unravel_index(flat, tensor.shape)]


def _sample_brackets(actual: torch.Tensor, expected: torch.Tensor) -> list[Bracket]:
    """Return brackets from a random sample; equal spacing would meet the data's own period."""
    import torch

    elements = actual.numel()
    positions = np.random.default_rng(0).integers(0, elements, min(LARGEST_SAMPLE, elements // 16))
    flat = torch.from_numpy(np.sort(positions))
    values = np.stack([_floats(take(tensor, flat.to(tensor.device))) for tensor in (actual, expected)])
    values = values[:, np.isfinite(values).all(axis=0)]
    rows = np.empty((len(ROWS), values.shape[1]))
    rows[2:4] = values
    with np.errstate(all="ignore"):
        defined, _ = _errors(rows)
    return brackets_from_sample(np.sort(rows[0]), np.sort(defined))


def _floats(piece: torch.Tensor, out: Array | None = None) -> Array:
    """Return a piece as a flat float64 array, in ``out`` where one is given."""
    import torch

    array = np.empty(piece.numel()) if out is None else out[: piece.numel()]
    if piece.device.type == "cpu" and piece.dtype in (torch.float32, torch.float16, torch.float64):
        np.copyto(array.reshape(piece.shape), piece.numpy())
        return array
    target = torch.from_numpy(array).view(piece.shape)
    if piece.dim() == 1 and piece.device.type == "cpu":
        for first in range(0, piece.numel(), 4 * SERIAL):
            target[first : first + 4 * SERIAL].copy_(piece[first : first + 4 * SERIAL])
    else:
        target.copy_(piece)
    return array


def _dots(a: Array, b: Array) -> Array:
    """Return the dot product of each row of a and b, in pieces short enough for BLAS to stay in this thread."""
    rows, size = a.shape
    whole = size - size % SERIAL
    parts = np.matmul(a[:, :whole].reshape(rows, -1, 1, SERIAL), b[:, :whole].reshape(rows, -1, SERIAL, 1))
    rest = np.matmul(a[:, None, whole:], b[:, whole:, None])
    dots: Array = parts.sum(axis=(1, 2, 3)) + rest[:, 0, 0]
    return dots


def _scale(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the power of two that keeps squares in range; only float64 values can leave it."""
    import torch

    if torch.float64 not in (actual.dtype, expected.dtype):
        return 1.0
    buffers, largest = np.empty((2, CHUNK)), 0.0
    for _, index in blocks(actual.shape, CHUNK):
        a, e = (np.abs(_floats(t[index], row)) for t, row in zip((actual, expected), buffers, strict=True))
        finite = np.isfinite(a) & np.isfinite(e)
        largest = max(largest, float(np.maximum(a, e).max(initial=0.0, where=finite)))
    exponent = math.frexp(largest)[1]
    return 1.0 if -60 < exponent < 400 else math.ldexp(1.0, min(-exponent, 1000))


def _errors(rows: Array) -> tuple[Array, Array]:
    """Compute the other ROWS from a and e; return the defined relative errors and the sum of every row.

    An undefined relative error is 0 in its row. Relative errors are right only where all values are finite.
    """
    absolute, relative, a, e, signed = rows
    np.subtract(a, e, out=signed)
    np.abs(signed, out=absolute)
    np.divide(signed, e, out=relative)
    np.abs(relative, out=relative)
    defined, sums = relative, rows.sum(axis=1)
    if not math.isfinite(sums[1]):
        zero = e == 0
        relative[zero] = 0.0
        defined = relative[~(zero & (signed != 0))]
        sums[1] = relative.sum()
    return defined, sums


def _sweep(
    actual: torch.Tensor, expected: torch.Tensor, brackets: Sequence[Bracket], capacity: int, totals: Totals | None
) -> tuple[Totals, list[Found]]:
    """Pass once over the data, with as many threads as PyTorch uses; NumPy and PyTorch release the GIL in each step."""
    import torch

    parts = blocks(actual.shape, CHUNK)
    workers = max(1, min(torch.get_num_threads(), MAX_WORKERS, len(parts)))
    shares = [parts[i * len(parts) // workers : (i + 1) * len(parts) // workers] for i in range(workers)]

    def work(share: Sequence[tuple[int, Index]]) -> tuple[Totals, list[_Kept]]:
        own = None if totals is None else Totals(scale=totals.scale)
        return _sweep_share(actual, expected, share, [_Kept(bracket, capacity) for bracket in brackets], own)

    if workers == 1:
        results = [work(parts)]
    else:
        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(work, shares))
    kept = [_found([share[i] for _, share in results], capacity) for i in range(len(brackets))]
    return merged([share for share, _ in results]), kept


def _sweep_share(
    actual: torch.Tensor,
    expected: torch.Tensor,
    share: Sequence[tuple[int, Index]],
    kept: list[_Kept],
    totals: Totals | None,
) -> tuple[Totals, list[_Kept]]:
    size = min(CHUNK, actual.numel())
    buffers, masks = np.empty((len(ROWS), size)), np.empty((2, size), dtype=bool)
    with np.errstate(all="ignore"):
        for start, index in share:
            pieces = actual[index], expected[index]
            rows = buffers[:, : pieces[0].numel()]
            a, e = (_floats(piece, row) for piece, row in zip(pieces, rows[2:4], strict=True))
            defined, sums = _errors(rows)
            positions = None
            if not math.isfinite(sums[0]):
                if totals is not None:
                    _count_nonfinite(totals, a, e, start)
                positions = np.flatnonzero(np.isfinite(a) & np.isfinite(e))
                finite = rows[2:4, positions]
                rows = buffers[:, : positions.size]
                rows[2:4] = finite
                defined, sums = _errors(rows)
            if totals is not None and rows.size:
                _add(totals, rows, sums, defined.size)
                if totals.peaks["absolute"] > totals.least_worst():
                    _keep_worst(totals, rows[0], start, positions)
            for bracket, (kind, *_) in zip(kept, QUANTILES, strict=True):
                bracket.add(rows[0] if kind == "absolute" else defined, masks)
    return totals or Totals(), kept


def _count_nonfinite(totals: Totals, a: Array, e: Array, start: int) -> None:
    added, bad, mine = totals.added, ~(np.isfinite(a) & np.isfinite(e)), np.flatnonzero(~np.isfinite(a))
    added["nan_actual"] += int(np.isnan(a).sum())
    added["nan_expected"] += int(np.isnan(e).sum())
    added["nonfinite_actual"] += mine.size
    added["nonfinite_expected"] += int((~np.isfinite(e)).sum())
    added["mismatched_nonfinite"] += int((bad & (a != e)).sum())
    if mine.size and not totals.first_nonfinite:
        totals.first_nonfinite.append(start + int(mine[0]))


def _add(totals: Totals, rows: Array, sums: Array, defined: int) -> None:
    """Add a chunk; one call for several rows, since after each call the workers wait for each other."""
    added, peaks, size = totals.added, totals.peaks, rows.shape[1]
    largest, least = rows[:4].max(axis=1).tolist(), rows[2:4].min(axis=1).tolist()
    chunk = (largest[0], largest[1] if defined else -math.inf, largest[2], -least[0], largest[3], -least[1])
    for name, value in zip(PEAKS, chunk, strict=True):
        peaks[name] = max(peaks[name], value)
    if totals.scale != 1.0:
        scaled = rows * totals.scale
        np.subtract(scaled[2], scaled[3], out=scaled[4])
        np.abs(scaled[4], out=scaled[0])
        relative_sum, rows = sums[1], scaled
        sums = scaled.sum(axis=1)
        sums[1] = relative_sum
    for name, value in zip(ROWS, sums.tolist(), strict=True):
        added[name] += value
    squares = _dots(rows[2:], rows[2:])
    for name, value in zip(("actual_squared", "expected_squared", "squared"), squares.tolist(), strict=True):
        added[name] += value
    added["product"] += float(_dots(rows[2:3], rows[3:4])[0])
    added["compared"] += size
    added["undefined"] += size - defined


def _keep_worst(totals: Totals, absolute: Array, start: int, positions: NDArray[np.intp] | None) -> None:
    """Update the list of the worst; chunks come in rising order, so an equal error later is not worse."""
    candidates = np.flatnonzero(absolute > totals.least_worst())
    if candidates.size > WORST:
        errors = absolute[candidates]
        bar = np.partition(errors, errors.size - WORST)[errors.size - WORST]
        candidates = np.concatenate([candidates[errors > bar], candidates[errors == bar][:WORST]])
    flat = candidates if positions is None else positions[candidates]
    new = zip(absolute[candidates].tolist(), (flat + start).tolist(), strict=True)
    totals.worst[:] = sorted([*totals.worst, *new], key=lambda pair: (-pair[0], pair[1]))[:WORST]


def merged(parts: Sequence[Totals]) -> Totals:
    """Return the totals of several parts, given in the order of the data."""
    worst = sorted((pair for part in parts for pair in part.worst), key=lambda pair: (-pair[0], pair[1]))
    return Totals(
        added={name: math.fsum(part.added[name] for part in parts) for name in parts[0].added},
        peaks={name: max(part.peaks[name] for part in parts) for name in parts[0].peaks},
        worst=worst[:WORST],
        first_nonfinite=[flat for part in parts for flat in part.first_nonfinite][:1],
        scale=parts[0].scale,
    )


class _Kept:
    """The errors inside one bracket, until they are more than the capacity."""

    def __init__(self, bracket: Bracket, capacity: int) -> None:
        self.bracket, self.capacity = bracket, capacity
        self.below = self.inside = 0
        self.values: list[Array] = []

    def add(self, errors: Array, masks: NDArray[np.bool_]) -> None:
        """Count and keep the errors of one chunk; the masks are scratch space, as fresh arrays cost page faults."""
        low, high = self.bracket
        inside = np.greater_equal(errors, low, out=masks[0, : errors.size])
        reached = int(np.count_nonzero(inside))
        self.below += errors.size - reached
        if reached * 16 < errors.size:
            errors = errors[inside]
            inside = errors <= high
        else:
            np.logical_and(inside, np.less_equal(errors, high, out=masks[1, : errors.size]), out=inside)
        if low == high or self.inside > self.capacity:
            self.inside += int(np.count_nonzero(inside))
            self.values.clear()
        else:
            self.values.append(errors[inside])
            self.inside += self.values[-1].size


def _found(kept: Sequence[_Kept], capacity: int) -> Found:
    inside = sum(part.inside for part in kept)
    arrays = [array for part in kept for array in part.values]
    pick = None if inside > capacity else lambda rank: float(np.partition(np.concatenate(arrays), rank)[rank])
    return Found(below=sum(part.below for part in kept), inside=inside, pick=pick)
