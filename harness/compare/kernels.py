"""The Triton kernels of ``compare`` on an NVIDIA GPU; :mod:`harness.compare.cuda` launches them.

Each slot (a position in a program's tile) adds up in float64, so nothing is rounded to the inputs' precision. What
float32 represents exactly is compared in float32 (EXACT), which costs a third of the instructions. Two tiles are on
their way while one is worked on, because too few programs fit on a multiprocessor to hide the latency of memory.
"""

# Triton's decorator and the arguments of its kernels have no Python types.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


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
def _finite(a, e):
    return (tl.abs(a) < float("inf")) & (tl.abs(e) < float("inf"))


@triton.jit
def sample(actual, expected, rows, counts, n, BLOCK: tl.constexpr, EXACT: tl.constexpr):
    """Write the absolute errors to one row and the relative to the next, infinity where there is none; count both."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, e = _load(actual, expected, index, n)
    a, e = a.to(EXACT), e.to(EXACT)
    valid = (index < n) & _finite(a, e)
    _, size, ratio, undefined = _errors(a, e)
    defined = valid & ~undefined
    tl.store(rows + index, tl.where(valid, size, float("inf")), mask=index < n)
    tl.store(rows + n + index, tl.where(defined, ratio, float("inf")), mask=index < n)
    tl.atomic_add(counts, tl.sum(valid.to(tl.int64), 0))
    tl.atomic_add(counts + 1, tl.sum(defined.to(tl.int64), 0))


@triton.jit
def _share(i):
    """Return the i-th of QUANTILES as a fraction: median and p99 of the absolute errors, then of the relative."""
    return 1 + 98 * (i % 2), 2 + 98 * (i % 2)


@triton.jit
def brackets(rows, counts, bounds, size):
    """Write the bounds of the four brackets, as ``totals.brackets_from_sample`` gives them."""
    for i in tl.static_range(4):
        count = tl.load(counts + i // 2)
        numerator, denominator = _share(i)
        share = (numerator + 0.0) / denominator
        centre = share * count.to(tl.float64)
        margin = 4.5 * tl.sqrt(centre * (1 - share)) + 2
        first = tl.floor(centre - margin).to(tl.int64)
        last = tl.ceil(centre + margin).to(tl.int64)
        row = rows + (i // 2) * size
        low = tl.load(row + first, mask=first >= 0, other=0.0)
        high = tl.load(row + last, mask=last < count, other=float("inf"))
        inner_low = low.to(tl.int64, bitcast=True) + (first >= 0).to(tl.int64)
        inner_high = high.to(tl.int64, bitcast=True) - (high > 0).to(tl.int64)
        within = inner_low <= inner_high
        tl.store(bounds + 2 * i, tl.where(within, inner_low.to(tl.float64, bitcast=True), low))
        tl.store(bounds + 2 * i + 1, tl.where(within, inner_high.to(tl.float64, bitcast=True), high))


@triton.jit
def sweep(
    actual, expected, table, slot_error, slot_turn, bounds, kept_a, kept_e, cursors, n, capacity,
    BLOCK: tl.constexpr, EXACT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Write a program's figures to its column of ``table``, each slot's largest error, and that one's turn.

    With KEEP, append the pairs whose errors are inside a bracket of several numbers to the program's part of ``kept``;
    its cursor counts on when that is full.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    offsets = tl.arange(0, BLOCK)
    zero = tl.zeros([BLOCK], tl.float64)
    lowest = tl.zeros([BLOCK], EXACT) - float("inf")
    absolute, relative, signed, squared = zero, zero, zero, zero
    a_sum, a_squared, e_sum, e_squared, product = zero, zero, zero, zero, zero
    relative_max, worst = zero, zero - 1
    a_max, a_least, e_max, e_least = lowest, lowest, lowest, lowest
    none = tl.zeros([BLOCK], tl.int32)
    compared, undefined, worst_at, turn = none, none, none, 0
    # Of each bracket: errors at or above its lower end, and 65536 for each of those that are inside.
    counts0, counts1, counts2, counts3 = none, none, none, none
    # A pair is stored a turn after its place was asked for, since the answer takes as long as a turn.
    kept, place, last_a, last_e = none > 0, none, zero.to(EXACT), zero.to(EXACT)
    if KEEP:
        low0, high0 = tl.load(bounds), tl.load(bounds + 1)
        low1, high1 = tl.load(bounds + 2), tl.load(bounds + 3)
        low2, high2 = tl.load(bounds + 4), tl.load(bounds + 5)
        low3, high3 = tl.load(bounds + 6), tl.load(bounds + 7)
        several0, several1 = zero + low0 < high0, zero + low1 < high1
        several2, several3 = zero + low2 < high2, zero + low3 < high3
        kept_a += program.to(tl.int64) * capacity
        kept_e += program.to(tl.int64) * capacity
        cursor = cursors + program + none
    stride = programs * BLOCK
    next_a, next_e = _load(actual, expected, program * BLOCK + offsets, n)
    later_a, later_e = _load(actual, expected, program * BLOCK + stride + offsets, n)
    for start in range(program * BLOCK, n, stride):
        index = start + offsets
        a = next_a.to(EXACT)
        e = next_e.to(EXACT)
        next_a, next_e = later_a, later_e
        later_a, later_e = _load(actual, expected, index + 2 * stride, n)
        valid = (index < n) & _finite(a, e)
        a_max = tl.maximum(a_max, tl.where(valid, a, -float("inf")))
        a_least = tl.maximum(a_least, tl.where(valid, -a, -float("inf")))
        e_max = tl.maximum(e_max, tl.where(valid, e, -float("inf")))
        e_least = tl.maximum(e_least, tl.where(valid, -e, -float("inf")))
        a = tl.where(valid, a, 0.0)
        e = tl.where(valid, e, 0.0)
        d, size, ratio, has_no_ratio = _errors(a, e)
        undefined += has_no_ratio.to(tl.int32)
        compared += valid.to(tl.int32)
        if KEEP:
            defined = valid & ~has_no_ratio
            from0, from1 = valid & (size >= low0), valid & (size >= low1)
            from2, from3 = defined & (ratio >= low2), defined & (ratio >= low3)
            in0, in1 = from0 & (size <= high0), from1 & (size <= high1)
            in2, in3 = from2 & (ratio <= high2), from3 & (ratio <= high3)
            counts0 += tl.where(in0, 65537, from0.to(tl.int32))
            counts1 += tl.where(in1, 65537, from1.to(tl.int32))
            counts2 += tl.where(in2, 65537, from2.to(tl.int32))
            counts3 += tl.where(in3, 65537, from3.to(tl.int32))
            fits = kept & (place < capacity)
            tl.store(kept_a + place, last_a, mask=fits)
            tl.store(kept_e + place, last_e, mask=fits)
            kept = (in0 & several0) | (in1 & several1) | (in2 & several2) | (in3 & several3)
            place = tl.atomic_add(cursor, 1, mask=kept, sem="relaxed")
            last_a, last_e = a, e
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
    if KEEP:
        fits = kept & (place < capacity)
        tl.store(kept_a + place, last_a, mask=fits)
        tl.store(kept_e + place, last_e, mask=fits)
    tl.store(slot_error + program * BLOCK + offsets, worst)
    tl.store(slot_turn + program * BLOCK + offsets, worst_at)
    column = table + program
    sums = (
        absolute, relative, signed, squared, a_sum, a_squared, e_sum, e_squared, product, compared, undefined,
        counts0 & 65535, counts0 >> 16, counts1 & 65535, counts1 >> 16,
        counts2 & 65535, counts2 >> 16, counts3 & 65535, counts3 >> 16,
    )  # fmt: skip
    for row in tl.static_range(len(sums)):
        tl.store(column + row * programs, tl.sum(sums[row].to(tl.float64), 0))
    peaks = (worst, relative_max, a_max, a_least, e_max, e_least)
    for row in tl.static_range(len(peaks)):
        tl.store(column + (len(sums) + row) * programs, tl.max(peaks[row], 0).to(tl.float64))
    first = (worst_at.to(tl.int64) * programs + program) * BLOCK + offsets
    first = tl.min(tl.where(worst == tl.max(worst, 0), first, 1 << 62), 0)
    tl.store(column + (len(sums) + len(peaks)) * programs, first.to(tl.float64))


@triton.jit
def finish(
    table, slot_error, slot_turn, slots, result, programs,
    ADDED: tl.constexpr, PEAKS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Reduce a row of the table, or find the slots that hold the five worst errors.

    Order errors by size, then by index. A program whose own first comes after the first of five others holds none of
    the five, and so it is with the slots of the five programs that are left.
    """
    columns = tl.arange(0, COLUMNS)
    there = columns < programs
    row = tl.program_id(0)
    if row < ADDED:
        tl.store(result + row, tl.sum(tl.load(table + row * programs + columns, mask=there, other=0.0), 0))
        return
    if row < ADDED + PEAKS:
        peaks = tl.load(table + row * programs + columns, mask=there, other=-float("inf"))
        tl.store(result + row, tl.max(peaks, 0))
        return
    sizes = tl.load(table + ADDED * programs + columns, mask=there, other=-2.0)
    firsts = tl.load(table + (ADDED + PEAKS) * programs + columns, mask=there, other=0.0)
    lanes = tl.arange(0, 8)
    chosen = tl.zeros([8], tl.int64) - 1
    for turn in tl.static_range(5):
        tied = sizes == tl.max(sizes, 0)
        first = tl.min(tl.where(tied, firsts, float("inf")), 0)
        column = tl.max(tl.where(tied & (firsts == first), columns, -1), 0)
        chosen = tl.where((lanes == turn) & (turn < programs), column.to(tl.int64), chosen)
        sizes = tl.where(columns == column, -2.0, sizes)
    real = (chosen[:, None] >= 0) & (tl.arange(0, BLOCK)[None, :] >= 0)
    slot = chosen[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    errors = tl.load(slot_error + slot, mask=real, other=-2.0)
    index = tl.load(slot_turn + slot, mask=real, other=0).to(tl.int64) * programs * BLOCK + slot
    for turn in tl.static_range(5):
        largest = tl.max(tl.max(errors, 1), 0)
        first = tl.min(tl.min(tl.where(errors == largest, index, 1 << 62), 1), 0)
        tl.store(slots + turn, tl.where(largest >= 0, first % (programs * BLOCK), -1))
        errors = tl.where(index == first, -2.0, errors)


@triton.jit
def ranks(results, rows, wanted, answers, pieces, width, sampled, COMPARED: tl.constexpr, WHOLE: tl.constexpr):
    """Write the rank of each of QUANTILES within its bracket; of a sample that is the WHOLE, the answer."""
    for i in tl.static_range(4):
        nothing = tl.full([], 0, tl.float64)
        compared, undefined, reached = nothing, nothing, nothing
        for piece in range(pieces):
            row = results + piece * width + COMPARED
            compared += tl.load(row)
            undefined += tl.load(row + 1)
            reached += tl.load(row + 2 + 2 * i)
        count = compared if i < 2 else compared - undefined
        numerator, denominator = _share(i)
        rank = (numerator * (count - 1)).to(tl.int64) // denominator
        if WHOLE:
            tl.store(answers + i, tl.load(rows + (i // 2) * sampled + rank, mask=count > 0, other=float("nan")))
        else:
            tl.store(wanted + i, rank - (count - reached).to(tl.int64))


@triton.jit
def _shift(low, high, BITS: tl.constexpr):
    """Return how far the bits of an error above ``low`` are shifted to give its bin."""
    log2 = ((high - low).to(tl.float64).to(tl.int64, bitcast=True) >> 52) - 1023
    return tl.maximum(log2 + 1 - BITS, 0)


@triton.jit
def bins(kept_a, kept_e, cursors, ends, bins, capacity, BLOCK: tl.constexpr, BITS: tl.constexpr):
    """Count the kept errors between two ends for each bracket, by bin: of numbers >= 0, the bits are in their order."""
    program = tl.program_id(0)
    count = tl.minimum(tl.load(cursors + program), capacity)
    kept_a += program.to(tl.int64) * capacity
    kept_e += program.to(tl.int64) * capacity
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        a, e = _load(kept_a, kept_e, index, count)
        _, size, ratio, undefined = _errors(a, e)
        for i in tl.static_range(4):
            low, high = tl.load(ends + 2 * i), tl.load(ends + 2 * i + 1)
            bits = (size if i < 2 else tl.where(undefined, -1.0, ratio)).to(tl.int64, bitcast=True)
            inside = (index < count) & (bits >= low) & (bits <= high)
            at = bins + (i << BITS) + ((bits - low) >> _shift(low, high, BITS))
            tl.atomic_add(at, 1, mask=inside, sem="relaxed")


@triton.jit
def narrow(ends, wanted, bins, BITS: tl.constexpr):
    """Narrow a bracket to the bin that holds the wanted rank, count the rank from there, and empty the bins."""
    i = tl.program_id(0)
    low, high, rank = tl.load(ends + 2 * i), tl.load(ends + 2 * i + 1), tl.load(wanted + i)
    at = bins + (i << BITS) + tl.arange(0, 1 << BITS)
    filled = tl.cumsum(tl.load(at).to(tl.int64), 0)
    before = filled <= rank
    shift = _shift(low, high, BITS)
    first = low + (tl.sum(before.to(tl.int64), 0) << shift)
    tl.store(ends + 2 * i, first)
    tl.store(ends + 2 * i + 1, tl.minimum(high, first + (((shift * 0 + 1) << shift) - 1)))
    tl.store(wanted + i, rank - tl.max(tl.where(before, filled, 0), 0))
    tl.store(at, tl.zeros([1 << BITS], tl.int32))


@triton.jit
def worst(actual, expected, slots, sizes, indices, n, stride, BLOCK: tl.constexpr, EXACT: tl.constexpr):
    """Write a slot's five largest errors and their indices, of equal ones the first; -1 where there is none."""
    program = tl.program_id(0)
    slot = tl.load(slots + program)
    nothing = tl.full([], -1, tl.float64)
    last_size, last_index = nothing + float("inf"), slot * 0 - 1
    for turn in tl.static_range(5):
        best, best_at = nothing, slot * 0
        if slot >= 0:
            for start in range(0, (n - slot + stride - 1) // stride, BLOCK):
                index = slot + (start + tl.arange(0, BLOCK)).to(tl.int64) * stride
                a, e = _load(actual, expected, index, n)
                a, e = a.to(EXACT), e.to(EXACT)
                size = tl.abs(a.to(tl.float64) - e.to(tl.float64))
                later = (size < last_size) | ((size == last_size) & (index > last_index))
                size = tl.where((index < n) & _finite(a, e) & later, size, -1.0)
                largest = tl.max(size, 0)
                first = tl.min(tl.where(size == largest, index, 1 << 62), 0)
                best_at = tl.where(largest > best, first, best_at)
                best = tl.maximum(largest, best)
        tl.store(sizes + program * 5 + turn, best)
        tl.store(indices + program * 5 + turn, best_at.to(tl.float64))
        last_size, last_index = best, best_at


@triton.jit
def nonfinite(actual, expected, table, n, BLOCK: tl.constexpr, EXACT: tl.constexpr):
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
