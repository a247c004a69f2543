"""How an engine's codes compare with the exact ones of its own inputs, at every quantiser that can be seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.records.data import Verdict


@dataclass(frozen=True, kw_only=True)
class QuantiserResult:
    """One ``QuantizeLinear``: the engine's codes against the exact codes of what the engine gave it."""

    name: str
    """The value that holds the codes."""
    kind: str
    """The ONNX type of the codes."""
    verdict: Verdict
    """``fail`` for codes that rounding does not explain, ``not_judged`` where they cannot be seen."""
    reason: str
    """One sentence."""
    elements: int = 0
    """Codes compared."""
    one_apart: int = 0
    """Codes that are the neighbour of the exact one."""
    far_from_ties: int = 0
    """Those of them whose value lies farther from the tie than rounding takes it."""
    explained: float = 0.0
    """How many neighbours the rounding of the accumulation leads one to expect, at most."""
    two_apart: int = 0
    """Codes that are two or more apart, or no number on one side only."""
    most_apart: int = 0
    """The largest distance of two codes."""
    worst: tuple[int, ...] = field(default=())
    """The index of that element."""


@dataclass(frozen=True, kw_only=True)
class CodesResult:
    """All quantisers of one engine on one case."""

    verdict: Verdict
    reason: str
    """One sentence: the first quantiser that is wrong, or the counts of all."""
    quantisers: tuple[QuantiserResult, ...]
    """In dataflow order."""
    same_bits: bool
    """Whether the engine in which the codes are seen gives the outputs of the deployed one, bit for bit."""
    reciprocal: bool
    """Whether the exact codes are those of a product with the reciprocal of the scale, as the backend quantises."""
    runs: int
    """How often the graph was run with everything moved by its rounding, for the flip floor."""
    decides: bool = True
    """False where explicit tolerances judge all outputs, and the codes are shown beside them."""
