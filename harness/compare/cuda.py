"""The passes of ``compare`` on an NVIDIA GPU.

``sweep`` reads both tensors once: every sum and extreme, the errors below and inside four brackets, and the pairs that
are inside. The brackets come from a sample (``sample``, ``brackets``); up to SAMPLE elements the sample is the whole
tensor and holds the answers. ``finish`` and ``worst`` reduce what the programs of the sweep left, ``bins`` and
``narrow`` find each order statistic among the pairs kept. All figures travel to the host once. ``nonfinite`` runs only
where something was not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from harness.compare import kernels
from harness.compare.totals import (
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
    elements_at,
    merged,
    order_statistics,
    ranks,
)

if TYPE_CHECKING:
    from torch import Tensor


BLOCK = 128  # elements a program handles at a time: with one per thread, a thread needs the fewest registers
PROGRAMS = 5  # that fit on a multiprocessor at a time, with 96 registers per thread
LARGEST = 2**30  # elements a kernel handles: its indices are 32 bits wide, its counters of a slot 16
PIECE = 2**23  # elements copied at a time where a tensor is strided or of a dtype the kernels do not load
SAMPLE = 2**19  # errors sorted to place the brackets, which then hold 1.5 % of all errors
KEPT = 32  # of so many pairs one can be kept
BITS = 13  # of the errors of a bracket give their bin
ROUNDS = 5  # until a bin holds a single number of 64 bits
NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.int8, torch.uint8)
WIDE = (torch.float64, torch.int64, torch.int32)

ADDED = (*SUMS, *COUNTS, *(f"{what}{i}" for i in range(len(QUANTILES)) for what in ("reached", "inside")))
COMPARED = ADDED.index("compared")
FIGURES = (*ADDED, *PEAKS)
"""A program's column of the table, and then the row of a piece; worst errors, their indices and the answers follow."""
INDICES = len(FIGURES) + WORST * WORST
ANSWERS = INDICES + WORST * WORST
WIDTH = ANSWERS + len(QUANTILES)


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

    Extra memory: a 16th of one tensor's for the pairs kept, and at most 60 MiB at a time to sort the sample.
    """
    actual, expected = (_readable(tensor) for tensor in (actual, expected))
    if actual.numel() <= SAMPLE:
        return _whole(_loadable(actual), _loadable(expected))

    def select(tries: Sequence[Bracket]) -> list[Found]:
        return _pass(actual, expected, torch.tensor(tries, dtype=torch.float64).to(actual.device))[2]

    totals, brackets, found = _pass(actual, expected, _sample_bounds(actual, expected))
    return totals, order_statistics(ranks(totals.added), brackets, found, select)


def _readable(tensor: Tensor) -> Tensor:
    """Return the tensor with at least one dimension, and bool as bytes."""
    tensor = tensor if tensor.dim() else tensor.reshape(1)
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor


def _pieces(actual: Tensor, expected: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield flat index and flat tensors for the kernels: views where both are contiguous, else copies of parts."""
    if all(tensor.is_contiguous() and tensor.dtype in NARROW + WIDE for tensor in (actual, expected)):
        for start in range(0, actual.numel(), LARGEST):
            yield start, actual.view(-1)[start : start + LARGEST], expected.view(-1)[start : start + LARGEST]
        return
    for start, index in blocks(actual.shape, PIECE):
        yield start, _loadable(actual[index]), _loadable(expected[index])


def _loadable(piece: Tensor) -> Tensor:
    """Return a piece as the kernels read it; reshape alone keeps the strides of a row that is sliced or expanded."""
    return (piece if piece.dtype in NARROW + WIDE else piece.to(torch.float64)).reshape(-1).contiguous()


def _exact(*tensors: Tensor) -> tuple[tl.dtype, torch.dtype]:
    """Return the type in which a kernel may compare values, for Triton and for PyTorch."""
    narrow = all(tensor.dtype in NARROW for tensor in tensors)
    return (tl.float32, torch.float32) if narrow else (tl.float64, torch.float64)


def _sorted_errors(a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sorted errors of flat tensors, absolute and relative, and how many there are of each."""
    rows = torch.empty(2, a.numel(), dtype=torch.float64, device=a.device)
    counts = torch.zeros(2, dtype=torch.int64, device=a.device)
    block = 8 * BLOCK
    kernels.sample[(triton.cdiv(len(a), block),)](a, e, rows, counts, len(a), BLOCK=block, EXACT=_exact(a, e)[0])
    return rows.sort().values, counts


def _sample_bounds(actual: Tensor, expected: Tensor) -> Tensor:
    """Return the bounds of a bracket for each of QUANTILES, from a random sample."""
    generator = torch.Generator(actual.device).manual_seed(0)
    flat = torch.randint(actual.numel(), (SAMPLE,), generator=generator, device=actual.device)
    rows, counts = _sorted_errors(*(_loadable(elements_at(tensor, flat)) for tensor in (actual, expected)))
    bounds = torch.empty(len(QUANTILES), 2, dtype=torch.float64, device=actual.device)
    kernels.brackets[(1,)](rows, counts, bounds, SAMPLE)
    return bounds


def _most_programs(device: torch.device) -> int:
    """Return an odd number: with a period of the data, such as its channels, programs then share all of it alike."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return PROGRAMS * processors - 1


def _whole(a: Tensor, e: Tensor) -> Measured:
    """Return totals and order statistics from all errors, sorted."""
    rows, _ = _sorted_errors(a, e)
    result = _sweep_piece(a, e)
    kernels.ranks[(1,)](result, rows, result, result[ANSWERS:], 1, WIDTH, a.numel(), COMPARED=COMPARED, WHOLE=True)
    line = result.tolist()
    return _totals(0, a, e, line), line[ANSWERS:]


def _pass(actual: Tensor, expected: Tensor, bounds: Tensor) -> tuple[Totals, list[Bracket], list[Found]]:
    """Return the totals, the brackets, and what they hold."""
    device, number, programs = actual.device, len(QUANTILES), _most_programs(actual.device)
    capacity = actual.numel() // KEPT // programs + 64
    kept = torch.empty(2, programs, capacity, dtype=_exact(actual, expected)[1], device=device)
    cursors = torch.zeros(programs, dtype=torch.int32, device=device)
    results = torch.stack([_sweep_piece(a, e, (bounds, *kept, cursors)) for _, a, e in _pieces(actual, expected)])
    wanted = torch.empty(number, dtype=torch.int64, device=device)
    kernels.ranks[(1,)](results, results, wanted, results, len(results), WIDTH, 0, COMPARED=COMPARED, WHOLE=False)
    ends, bins = bounds.clone().view(torch.int64), torch.zeros(number, 1 << BITS, dtype=torch.int32, device=device)
    for _ in range(ROUNDS):
        kernels.bins[(programs,)](kept[0], kept[1], cursors, ends, bins, capacity, BLOCK=8 * BLOCK, BITS=BITS)
        kernels.narrow[(number,)](ends, wanted, bins, BITS=BITS)
    chosen = ends[:, 0].contiguous().view(torch.float64)
    flat = torch.cat([results.flatten(), cursors.amax().double()[None], chosen, bounds.flatten()]).tolist()
    lines = [flat[i : i + WIDTH] for i in range(0, results.numel(), WIDTH)]
    most, *rest = flat[results.numel() :]
    totals = [_totals(*piece, line) for piece, line in zip(_pieces(actual, expected), lines, strict=True)]
    added = [sum(line[i] for line in lines) for i in range(len(ADDED))]
    found = [_found(added, i, None if most > capacity else answer) for i, answer in enumerate(rest[:number])]
    return merged(totals), list(zip(rest[number::2], rest[number + 1 :: 2], strict=True)), found


def _sweep_piece(a: Tensor, e: Tensor, keep: tuple[Tensor, ...] = ()) -> Tensor:
    """Launch the kernels that leave a piece's figures in the row that is returned; ``keep``: bounds, kept, cursors."""
    device, exact = a.device, _exact(a, e)[0]
    programs = min(triton.cdiv(a.numel(), BLOCK), _most_programs(device))
    table = torch.empty(len(FIGURES) + 1, programs, dtype=torch.float64, device=device)
    errors = torch.empty(programs * BLOCK, dtype=torch.float64, device=device)
    turns = torch.empty(programs * BLOCK, dtype=torch.int32, device=device)
    slots = torch.empty(WORST, dtype=torch.int64, device=device)
    result = torch.empty(WIDTH, dtype=torch.float64, device=device)
    capacity = keep[1].shape[1] if keep else 0
    kernels.sweep[(programs,)](
        a, e, table, errors, turns, *(keep or (table,) * 4), a.numel(), capacity,
        BLOCK=BLOCK, EXACT=exact, KEEP=bool(keep),
    )  # fmt: skip
    kernels.finish[(len(FIGURES) + 1,)](
        table, errors, turns, slots, result, programs,
        ADDED=len(ADDED), PEAKS=len(PEAKS), COLUMNS=triton.next_power_of_2(programs), BLOCK=BLOCK,
    )  # fmt: skip
    kernels.worst[(WORST,)](
        a, e, slots, result[len(FIGURES) :], result[INDICES:], a.numel(), programs * BLOCK, BLOCK=1024, EXACT=exact
    )
    return result


def _totals(base: int, a: Tensor, e: Tensor, line: Sequence[float]) -> Totals:
    """Return a piece's totals from its row of figures; what is not finite is counted by a kernel of its own."""
    added = dict.fromkeys(NONFINITE, 0.0) | dict(zip((*SUMS, *COUNTS), line, strict=False))
    first: list[int] = []
    if added["compared"] < a.numel():
        programs = min(triton.cdiv(a.numel(), BLOCK), _most_programs(a.device))
        counts = torch.empty(len(NONFINITE) + 1, programs, dtype=torch.int64, device=a.device)
        kernels.nonfinite[(programs,)](a, e, counts, a.numel(), BLOCK=BLOCK, EXACT=_exact(a, e)[0])
        *numbers, least = torch.cat([counts[:-1].sum(1), counts[-1:].amin(1)]).tolist()
        added |= dict(zip(NONFINITE, numbers, strict=True))
        first = [base + least] if added["nonfinite_actual"] else []
    largest = zip(line[len(FIGURES) : INDICES], line[INDICES:ANSWERS], strict=True)
    worst = sorted((-size, base + int(place)) for size, place in largest if size >= 0)
    return Totals(
        added=added,
        peaks=dict(zip(PEAKS, line[len(ADDED) :], strict=False)),
        worst=[(-size, place) for size, place in worst[:WORST]],
        first_nonfinite=first,
    )


def _found(line: Sequence[float], i: int, answer: float | None) -> Found:
    """Return what the i-th bracket holds by the added figures; the answer is the one of its wanted rank."""
    figures = dict(zip(ADDED, line, strict=True))
    count = figures["compared"] - (figures["undefined"] if QUANTILES[i][0] == "relative" else 0)
    pick = None if answer is None else lambda _: answer
    return Found(below=int(count - figures[f"reached{i}"]), inside=int(figures[f"inside{i}"]), pick=pick)
