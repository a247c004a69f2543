"""From the tensors that a tap delivers to the values of the graph.

The engine inspector says which ONNX nodes each kernel holds. What a kernel writes is a value that leaves its nodes. The
contents decide which one, and in which order its elements lie: it is the value that a replay of the kernel on the
engine's own inputs comes close to. A tensor that resembles no value was made by a wrong kernel, or is no value at all:
it is mapped by name where only one value can be meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from harness.layers.engine_kernels import Candidates
from harness.layers.layouts import Expected, Fit, best_fit, same_elements
from harness.sentences import Sentence

CLEARLY = 3.0
"""Of two values that both match a tensor, the closer one is meant if the other's error is this many times larger."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one tensor of an engine was found to be."""

    fits: tuple[Fit, ...] = ()
    """One value, or the several that are concatenated in it; none for what is no value."""
    mapped_by: str = ""
    """``contents``; ``name`` when it resembles no value and only one can be meant, or others follow from it."""
    inner: bool = False
    """It is no value: a statistic, a work space, a partial result."""
    reason: str = ""


Expect = Callable[[str], Expected | None]


def decide(
    tensors: Mapping[str, torch.Tensor],
    candidates: Candidates,
    expect: Expect,
    assume: Callable[[str, torch.Tensor], Expect] | None = None,
) -> dict[str, Decision]:
    """Return what each tensor that a kernel wrote is; ``expect`` computes a candidate, or says that nothing can.

    ``assume`` returns what computes the candidates if a value were this tensor.
    """
    decisions, expected = _by_replay(tensors, candidates, expect)
    undecided = {name: tensor for name, tensor in tensors.items() if name not in decisions}
    taken = {fit.value for decision in decisions.values() for fit in decision.fits}
    leaving = [v for v in candidates.leaving if v not in taken and v not in candidates.unfinished]
    unknown = [value for value in leaving if value not in expected]
    left = {value: expected[value] for value in leaving if value in expected}
    if assume is not None:
        for name, decision in _by_consequence(undecided, left, assume).items():
            decisions[name] = decision
            left = _without(left, decision)
    for name, tensor in undecided.items():
        if name in decisions:
            continue
        if unknown:  # what nothing else computes cannot be ruled out
            decisions[name] = Decision(reason=Sentence("may_be", unknown=list(unknown)))
        elif (found := _by_name(tensor, left)) is not None:
            decisions[name] = found
            left = _without(left, found)
    for name, tensor in undecided.items():
        if name not in decisions:
            decisions[name] = _no_value(tensor, left, candidates)
    return decisions


def _by_replay(
    tensors: Mapping[str, torch.Tensor], candidates: Candidates, expect: Expect
) -> tuple[dict[str, Decision], dict[str, Expected]]:
    """Return the tensors that come close to a candidate, or to several side by side, and the candidates computed."""
    decisions: dict[str, Decision] = {}
    taken: set[str] = set()
    expected: dict[str, Expected] = {}
    # What leaves is what a kernel should write; the others are computed only when that is not what it wrote.
    for group in (candidates.leaving, candidates.inside, candidates.after, candidates.read):
        if len(decisions) == len(tensors):
            return decisions, expected
        values = {name: value for name in group if (value := expect(name)) is not None}
        expected |= values
        for name, tensor in tensors.items():
            if name not in decisions and (decision := _by_contents(tensor, values, taken)) is not None:
                decisions[name] = decision
                taken |= {fit.value for fit in decision.fits}
    parts = {name: value for name, value in expected.items() if name not in taken}
    for name, tensor in tensors.items():
        if name not in decisions and (fits := _concatenated(tensor, parts)) is not None:
            decisions[name] = Decision(fits=fits, mapped_by="contents")
    return decisions, expected


def _without(values: Mapping[str, Expected], decision: Decision) -> dict[str, Expected]:
    """Return the values that a decision has not given to a tensor."""
    taken = {fit.value for fit in decision.fits}
    return {name: value for name, value in values.items() if name not in taken}


def _by_contents(tensor: torch.Tensor, values: Mapping[str, Expected], taken: Collection[str]) -> Decision | None:
    fits = [fit for name, value in values.items() if (fit := best_fit(tensor, name, value)) is not None]
    fits = sorted((fit for fit in fits if fit.error < values[fit.value].close), key=lambda fit: fit.error)
    if not fits:
        return None
    closest = fits[0]
    rivals = [fit for fit in fits if fit.error <= CLEARLY * max(closest.error, 1e-12)]
    if len(rivals) == 1:
        return Decision(fits=(closest,), mapped_by="contents")
    names = [name for name in values if name in {fit.value for fit in rivals}]
    if not all(same_elements(values[closest.value].replay, values[name].replay) for name in names):
        return Decision(reason=Sentence("contents_match_all", names=list(names)))
    # A reshape or a transposition holds the same numbers: one tensor of the engine stands for all of them.
    chosen = next((name for name in reversed(names) if name not in taken), names[-1])
    reason = Sentence("same_numbers_as", names=[name for name in names if name != chosen])
    return Decision(fits=tuple(f for f in rivals if f.value == chosen), mapped_by="contents", reason=reason)


def _by_consequence(
    undecided: Mapping[str, torch.Tensor],
    left: Mapping[str, Expected],
    assume: Callable[[str, torch.Tensor], Expect],
) -> dict[str, Decision]:
    """Decide tensors that resemble no value: if one of them is taken as a (wrong) value, others follow from it."""
    if len(undecided) < 2 or len(left) < 2:
        return {}
    explanations: list[dict[str, Decision]] = []
    for value, wanted in left.items():
        for name, tensor in undecided.items():
            fit = best_fit(tensor, value, wanted)
            if fit is None:
                continue
            expect = assume(value, fit.tensor)
            rest = {other: found for other in left if other != value and (found := expect(other)) is not None}
            explained: dict[str, Decision] = {}
            for other, its in undecided.items():
                if other != name and (decision := _by_contents(its, rest, ())) is not None and decision.fits:
                    explained[other] = decision
            if explained:
                reason = Sentence("follows_from_it")
                explanations.append({name: Decision(fits=(fit,), mapped_by="name", reason=reason), **explained})
    most = max(map(len, explanations), default=0)
    best = [found for found in explanations if len(found) == most]
    # Tensors of NaN are interchangeable.
    values = {frozenset(decision.fits[0].value for decision in found.values()) for found in best}
    alike = not any(undecided[name].isfinite().any() for found in best for name in found)
    return best[0] if len(best) == 1 or (alike and len(values) == 1) else {}


def _by_name(tensor: torch.Tensor, left: Mapping[str, Expected]) -> Decision | None:
    """Decide a tensor that resembles no value by what a kernel has to write and has not written yet."""
    whole = {name: value for name, value in left.items() if value.replay.numel() == tensor.numel()}
    fits = [fit for name, value in whole.items() if (fit := best_fit(tensor, name, value)) is not None]
    if len(fits) > 1:
        names = ", ".join(fit.value for fit in fits)
        return Decision(reason=Sentence("resembles_none", names=names))
    return Decision(fits=tuple(fits), mapped_by="name") if fits else None


def _no_value(tensor: torch.Tensor, left: Mapping[str, Expected], candidates: Candidates) -> Decision:
    if left:
        shapes = ", ".join(f"{name} {list(value.replay.shape)}" for name, value in left.items())
        kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        return Decision(reason=Sentence("cannot_hold_kernel", kind=kind, shapes=shapes))
    if candidates.unfinished:
        return Decision(inner=True, reason=Sentence("on_the_way_to", unfinished=sorted(candidates.unfinished)))
    return Decision(inner=True, reason=Sentence("internal_to_kernel"))


def _concatenated(tensor: torch.Tensor, values: Mapping[str, Expected]) -> tuple[Fit, ...] | None:
    """Return the values that lie side by side in a tensor's last dimension (one GEMM for several), or None."""
    if tensor.dim() < 2 or len(values) < 2 or not tensor.numel():
        return None
    rows, start, left = tensor.numel() // tensor.shape[-1], 0, dict(values)
    fits: list[Fit] = []
    while start < tensor.shape[-1]:
        found: Fit | None = None
        for name, value in left.items():
            width, rest = divmod(value.replay.numel(), rows)
            if rest or not width or start + width > tensor.shape[-1]:
                continue
            part = tensor[..., start : start + width]
            fit = best_fit(part, name, value) if value.can_be(part) else None
            if fit is not None and fit.error < value.close and (found is None or fit.error < found.error):
                found = fit
        if found is None:
            return None
        start += left.pop(found.value).replay.numel() // rows
        fits.append(
            Fit(value=found.value, tensor=found.tensor, layout=Sentence("part_of_concatenation"), error=found.error)
        )
    return tuple(fits) if len(fits) > 1 else None
