"""The passes of ``compare`` on an NVIDIA GPU, as Triton kernels.

``_totals`` reads both tensors once for every sum and extreme; ``_keep`` reads them once more, counts the errors below
four brackets and keeps those inside them; ``_nonfinite`` runs only where something was not finite. Each slot (a
position in a program's tile) adds up in float64, so nothing is rounded to the inputs' precision.

What float32 represents exactly is compared in float32, which costs a third of the instructions. The next tile is loaded
before this one is worked on, because too few programs fit on a multiprocessor to hide the latency of memory.
"""

# Triton's decorator and the arguments of its kernels have no Python types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from harness.compare.totals import (
    ALL,
    COUNTS,
    NONFINITE,
    PEAKS,
    QUANTILES,
    SUMS,
    WORST,
    Bracket,
    Found,
    Measured,
    Totals,
    blocks,
    brackets_from_sample,
    elements_at,
    merged,
    order_statistics,
    ranks,
)

if TYPE_CHECKING:
    from torch import Tensor


TOTALS_BLOCK = 256  # elements a program handles at a time: of 512, only two programs fit on a multiprocessor
KEEP_BLOCK = 512
PROGRAMS = 4  # per multiprocessor
PIECE = 2**23  # elements copied at a time where a tensor is strided or of a dtype the kernels do not load
CAPACITY = 3 * 2**20  # errors kept for a bracket: 24 MiB for each of the four; enough for one pass up to 2^29 elements
SEGMENTS = 64  # of a bracket's row; a power of two
SAMPLE = 2**20  # errors sorted to place the brackets
NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.int8, torch.uint8)
WIDE = (torch.float64, torch.int64, torch.int32)


@triton.jit
def _load(actual, expected, index, n):
    """Return both tensors' elements at these flat indices, 0 beyond the end."""
    return tl.load(actual + index, mask=index < n, other=0), tl.load(expected + index, mask=index < n, other=0)


@triton.jit
def _errors(a, e):
    """Return the difference, its size, the relative error (0 where e is 0), and where that is undefined."""
    at_zero = e == 0
    difference = a.to(tl.float64) - e.to(tl.float64)
    size = tl.abs(difference)
    divisor = tl.abs(tl.where(at_zero, 1.0, e)).to(tl.float64)
    return difference, size, tl.where(at_zero, 0.0, size / divisor), at_zero & (a != 0)


@triton.jit
def _totals(actual, expected, table, slot_error, slot_turn, n, BLOCK: tl.constexpr, EXACT: tl.constexpr):
    """Write a program's sums and peaks to its column of ``table``, each slot's largest error, and that one's turn."""
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], tl.float64)
    lowest = tl.zeros([BLOCK], EXACT) - float("inf")
    absolute, relative, signed, squared = zero, zero, zero, zero
    a_sum, a_squared, e_sum, e_squared, product = zero, zero, zero, zero, zero
    relative_max, worst = zero, zero - 1
    a_max, a_least, e_max, e_least = lowest, lowest, lowest, lowest
    compared, undefined = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
    worst_at, turn = tl.zeros([BLOCK], tl.int32), 0
    index = program * BLOCK + offsets
    next_a, next_e = _load(actual, expected, index, n)
    for start in range(program * BLOCK, n, programs * BLOCK):
        index = start + offsets
        later = index + programs * BLOCK
        a = next_a.to(EXACT)
        e = next_e.to(EXACT)
        next_a, next_e = _load(actual, expected, later, n)
        valid = (index < n) & (tl.abs(a) < float("inf")) & (tl.abs(e) < float("inf"))
        a_max = tl.maximum(a_max, tl.where(valid, a, -float("inf")))
        a_least = tl.maximum(a_least, tl.where(valid, -a, -float("inf")))
        e_max = tl.maximum(e_max, tl.where(valid, e, -float("inf")))
        e_least = tl.maximum(e_least, tl.where(valid, -e, -float("inf")))
        a = tl.where(valid, a, 0.0)
        e = tl.where(valid, e, 0.0)
        d, size, ratio, has_no_ratio = _errors(a, e)
        undefined += has_no_ratio.to(tl.int32)
        compared += valid.to(tl.int32)
        a = a.to(tl.float64)
        e = e.to(tl.float64)
        absolute += size
        relative += ratio
        signed += d
        squared += d * d
        a_sum += a
        a_squared += a * a
        e_sum += e
        e_squared += e * e
        product += a * e
        relative_max = tl.where(ratio > relative_max, ratio, relative_max)
        worse = valid & (size > worst)
        worst = tl.where(worse, size, worst)
        worst_at = tl.where(worse, turn, worst_at)
        turn += 1  # noqa: SIM113 - Triton has no enumerate
    tl.store(slot_error + program * BLOCK + offsets, worst)
    tl.store(slot_turn + program * BLOCK + offsets, worst_at)
    column = table + program
    sums = (absolute, relative, signed, squared, a_sum, a_squared, e_sum, e_squared, product, compared, undefined)
    for row in tl.static_range(len(sums)):
        tl.store(column + row * programs, tl.sum(sums[row].to(tl.float64), 0))
    peaks = (worst, relative_max, a_max, a_least, e_max, e_least)
    for row in tl.static_range(len(peaks)):
        tl.store(column + (len(sums) + row) * programs, tl.max(peaks[row], 0).to(tl.float64))


@triton.jit
def _nonfinite(actual, expected, table, n, BLOCK: tl.constexpr, EXACT: tl.constexpr):
    """Write a program's counts of NaN and infinities and the first index in ``actual`` to its column of ``table``."""
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], tl.int64)
    a_nan, e_nan, a_bad, e_bad, mismatched, first = zero, zero, zero, zero, zero, zero + n
    for start in range(program * BLOCK, n, programs * BLOCK):
        index = start + offsets
        a, e = _load(actual, expected, index, n)
        a = a.to(EXACT)
        e = e.to(EXACT)
        bad = ~(tl.abs(a) < float("inf"))
        other = ~(tl.abs(e) < float("inf"))
        a_nan += (a != a).to(tl.int64)
        e_nan += (e != e).to(tl.int64)
        a_bad += bad.to(tl.int64)
        e_bad += other.to(tl.int64)
        mismatched += ((bad | other) & (a != e)).to(tl.int64)
        first = tl.where(bad & (index < first), index, first)
    column = table + program
    sums = (a_nan, e_nan, a_bad, e_bad, mismatched)
    for row in tl.static_range(len(sums)):
        tl.store(column + row * programs, tl.sum(sums[row], 0))
    tl.store(column + 5 * programs, tl.min(first, 0))


@triton.jit
def _append(errors, kept, row, cursors, segment, capacity):
    """Append errors to segments of a bracket's row; a cursor counts on when its segment is full."""
    place = tl.atomic_add(cursors + segment, 1, mask=kept, sem="relaxed")
    tl.store(row + segment * capacity + place, errors, mask=kept & (place < capacity))


@triton.jit
def _keep(
    actual, expected, bounds, counts, cursors, rows, n, capacity,
    BLOCK: tl.constexpr, EXACT: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """Count the errors below and inside four brackets, and append those inside to the bracket's row.

    A row has segments with a cursor each, because additions to one address wait for each other; tiles begin at
    different segments, so that a period in the data does not fill one. A bracket of a single number is only counted.
    """
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    low0, high0 = tl.load(bounds), tl.load(bounds + 1)
    low1, high1 = tl.load(bounds + 2), tl.load(bounds + 3)
    low2, high2 = tl.load(bounds + 4), tl.load(bounds + 5)
    low3, high3 = tl.load(bounds + 6), tl.load(bounds + 7)
    low = tl.zeros([BLOCK], tl.float64)
    several0, several1 = low + low0 < high0, low + low1 < high1
    several2, several3 = low + low2 < high2, low + low3 < high3
    size_of_row = SEGMENTS * capacity
    zero = tl.zeros([BLOCK], tl.int32)
    below0, below1, below2, below3 = zero, zero, zero, zero
    inside0, inside1, inside2, inside3 = zero, zero, zero, zero
    tile = tl.program_id(0)
    index = program * BLOCK + offsets
    next_a, next_e = _load(actual, expected, index, n)
    for start in range(program * BLOCK, n, programs * BLOCK):
        index = start + offsets
        later = index + programs * BLOCK
        a = next_a.to(EXACT)
        e = next_e.to(EXACT)
        next_a, next_e = _load(actual, expected, later, n)
        valid = (index < n) & (tl.abs(a) < float("inf")) & (tl.abs(e) < float("inf"))
        _, size, ratio, has_no_ratio = _errors(a, e)
        defined = valid & ~has_no_ratio
        from0, from1, from2, from3 = size >= low0, size >= low1, ratio >= low2, ratio >= low3
        in0 = valid & from0 & (size <= high0)
        in1 = valid & from1 & (size <= high1)
        in2 = defined & from2 & (ratio <= high2)
        in3 = defined & from3 & (ratio <= high3)
        below0 += (valid & ~from0).to(tl.int32)
        below1 += (valid & ~from1).to(tl.int32)
        below2 += (defined & ~from2).to(tl.int32)
        below3 += (defined & ~from3).to(tl.int32)
        inside0 += in0.to(tl.int32)
        inside1 += in1.to(tl.int32)
        inside2 += in2.to(tl.int32)
        inside3 += in3.to(tl.int32)
        segment = (offsets + tile * 37) % SEGMENTS
        tile += tl.num_programs(0)
        _append(size, in0 & several0, rows, cursors, segment, capacity)
        _append(size, in1 & several1, rows + size_of_row, cursors + SEGMENTS, segment, capacity)
        _append(ratio, in2 & several2, rows + 2 * size_of_row, cursors + 2 * SEGMENTS, segment, capacity)
        _append(ratio, in3 & several3, rows + 3 * size_of_row, cursors + 3 * SEGMENTS, segment, capacity)
    column = counts + program
    sums = (below0, below1, below2, below3, inside0, inside1, inside2, inside3)
    for row in tl.static_range(len(sums)):
        tl.store(column + row * programs, tl.sum(sums[row].to(tl.int64), 0))


def handles(actual: Tensor, expected: Tensor) -> bool:
    """Return whether the kernels give right figures: they do not scale float64 values whose squares leave the range."""
    for tensor in (actual, expected):
        if tensor.dtype == torch.float64:
            low, high = (float(end) for end in torch.aminmax(tensor))
            largest = max(abs(low), abs(high))
            if not (largest == 0 or 2.0**-60 < largest < 2.0**400):
                return False
    return True


def measure(actual: Tensor, expected: Tensor) -> Measured:
    """Return the totals and the four order statistics of two tensors on one GPU.

    Extra memory: 96 MiB for the errors kept, and at most 120 MiB at a time to sort the sample or what a bracket kept.
    """
    actual, expected = (_readable(tensor) for tensor in (actual, expected))
    totals = merged([_piece_totals(start, a, e) for start, a, e in _pieces(actual, expected)])
    elements, brackets = actual.numel(), [ALL] * len(QUANTILES)
    if elements > CAPACITY:
        brackets = _sample_brackets(actual, expected)
    segment = (min(CAPACITY, elements) // KEEP_BLOCK + 2) * KEEP_BLOCK // SEGMENTS
    rows = torch.empty(len(brackets), SEGMENTS, segment, dtype=torch.float64, device=actual.device)

    def select(tries: Sequence[Bracket]) -> list[Found]:
        return _select(actual, expected, tries, rows)

    return totals, order_statistics(ranks(totals.added), brackets, select(brackets), select)


def _readable(tensor: Tensor) -> Tensor:
    """Return the tensor with at least one dimension, and bool as bytes."""
    tensor = tensor if tensor.dim() else tensor.reshape(1)
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor


def _pieces(actual: Tensor, expected: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield flat index and flat tensors for the kernels: the whole where both are contiguous, else copies of parts."""
    if all(tensor.is_contiguous() and tensor.dtype in NARROW + WIDE for tensor in (actual, expected)):
        yield 0, actual.view(-1), expected.view(-1)
        return
    for start, index in blocks(actual.shape, PIECE):
        yield start, _loadable(actual[index]), _loadable(expected[index])


def _loadable(piece: Tensor) -> Tensor:
    """Return a piece as the kernels read it; reshape alone keeps the strides of a row that is sliced or expanded."""
    return (piece if piece.dtype in NARROW + WIDE else piece.to(torch.float64)).reshape(-1).contiguous()


def _exact(a: Tensor, e: Tensor) -> tl.dtype:
    """Return the type in which a kernel may compare values."""
    return tl.float32 if a.dtype in NARROW and e.dtype in NARROW else tl.float64


def _programs(tensor: Tensor, block: int) -> int:
    multiprocessors = torch.cuda.get_device_properties(tensor.device).multi_processor_count if tensor.is_cuda else 2
    return min(-(-tensor.numel() // block), multiprocessors * PROGRAMS)


def _piece_totals(base: int, a: Tensor, e: Tensor) -> Totals:
    programs, device = _programs(a, TOTALS_BLOCK), a.device
    names = (*SUMS, *COUNTS, *PEAKS)
    additive = len(SUMS) + len(COUNTS)
    table = torch.empty(len(names), programs, dtype=torch.float64, device=device)
    error = torch.empty(programs * TOTALS_BLOCK, dtype=torch.float64, device=device)
    turn = torch.empty(programs * TOTALS_BLOCK, dtype=torch.int32, device=device)
    _totals[(programs,)](a, e, table, error, turn, a.numel(), BLOCK=TOTALS_BLOCK, EXACT=_exact(a, e))
    values = torch.cat([table[:additive].sum(1), table[additive:].amax(1)]).tolist()
    added = dict.fromkeys(NONFINITE, 0.0) | dict(zip(names[:additive], values[:additive], strict=True))
    first: list[int] = []
    if added["compared"] < a.numel():
        counts = torch.empty(len(NONFINITE) + 1, programs, dtype=torch.int64, device=device)
        _nonfinite[(programs,)](a, e, counts, a.numel(), BLOCK=TOTALS_BLOCK, EXACT=_exact(a, e))
        added |= dict(zip(NONFINITE, counts[:-1].sum(1).tolist(), strict=True))
        first = [base + int(counts[-1].min())] if added["nonfinite_actual"] else []
    return Totals(
        added=added,
        peaks=dict(zip(PEAKS, values[additive:], strict=True)),
        worst=_worst(base, a, e, error, turn),
        first_nonfinite=first,
    )


def _worst(base: int, a: Tensor, e: Tensor, error: Tensor, turn: Tensor) -> list[tuple[float, int]]:
    """Return the largest errors, from all elements of the slots that can hold one.

    Order errors by size, then by index. A slot whose own first comes after the first of five other slots holds none
    of the five. Slots ahead of the fifth are among the five largest by size; of those equal to it the earliest count.
    """
    stride = error.numel()
    count = min(WORST, stride)
    top = torch.topk(error, count)
    index = torch.arange(stride, device=a.device) + turn.long() * stride
    tied = torch.where(error == top.values[-1], index, torch.iinfo(torch.int64).max)
    slots = torch.unique(torch.cat([top.indices, torch.topk(tied, count, largest=False).indices]))
    flat = (slots[:, None] + torch.arange(0, a.numel(), stride, device=a.device)).flatten().sort().values
    flat = flat[flat < a.numel()]
    sizes = (a[flat].double() - e[flat].double()).abs()
    finite = a[flat].isfinite() & e[flat].isfinite()
    flat, sizes = flat[finite], sizes[finite]
    bar = torch.topk(sizes, min(count, len(sizes))).values[-1:]
    best = torch.cat([torch.nonzero(sizes > bar)[:, 0], torch.nonzero(sizes == bar)[:WORST, 0]])
    pairs = zip(sizes[best].tolist(), flat[best].tolist(), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    return [(size, base + place) for size, place in ordered[:WORST]]


def _sample_brackets(actual: Tensor, expected: Tensor) -> list[Bracket]:
    generator = torch.Generator(actual.device).manual_seed(0)
    flat = torch.randint(actual.numel(), (SAMPLE,), generator=generator, device=actual.device)
    a, e = elements_at(actual, flat).double(), elements_at(expected, flat).double()
    valid = a.isfinite() & e.isfinite()
    defined = valid & ~((e == 0) & (a != 0))
    absolute = (a - e).abs()
    relative = torch.where(e == 0, 0.0, absolute / e.abs())
    # Where a bracket ends does not matter, so float32 is enough, and sorts in half the time.
    sizes, ratios = absolute[valid].float(), relative[defined].float()
    return brackets_from_sample(sizes.sort().values, ratios.sort().values)


def _select(actual: Tensor, expected: Tensor, brackets: Sequence[Bracket], rows: Tensor) -> list[Found]:
    """Count what is below and inside the brackets, and keep what is inside in the segments of ``rows``."""
    number, segments, capacity = rows.shape
    bounds = torch.tensor(brackets, dtype=torch.float64, device=actual.device).flatten()
    cursors = torch.zeros(number, segments, dtype=torch.int32, device=actual.device)
    counted = torch.zeros(2 * number, dtype=torch.int64, device=actual.device)
    for _, a, e in _pieces(actual, expected):
        counts = torch.empty(2 * number, _programs(a, KEEP_BLOCK), dtype=torch.int64, device=actual.device)
        constants = {"BLOCK": KEEP_BLOCK, "EXACT": _exact(a, e), "SEGMENTS": segments}
        _keep[(counts.shape[1],)](a, e, bounds, counts, cursors, rows, a.numel(), capacity, **constants)
        counted += counts.sum(1)
    below, inside = counted.view(2, number).tolist()
    filled = cursors.tolist()
    return [_found(below[i], inside[i], filled[i], rows[i]) for i in range(number)]


def _found(below: int, inside: int, filled: Sequence[int], row: Tensor) -> Found:
    def pick(rank: int) -> float:
        kept = torch.cat([segment[:count] for segment, count in zip(row.unbind(), filled, strict=True)])
        return float(kept.sort().values[rank])

    return Found(below=below, inside=inside, pick=pick if max(filled) <= row.shape[1] else None)
