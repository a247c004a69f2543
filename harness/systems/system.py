"""A system of several engines, as a study tries it: its networks, its variants, and what is measured of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from harness.records import MetricResult, Verdict
from harness.sentences import Sentence, joined
from harness.subject import InputsKind, Subject, Weights
from harness.systems.pipeline import Network, Pipeline
from harness.systems.products import Pictures, Product
from harness.systems.variant import REFERENCE, Variant

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class CaseMetric:
    """A metric of what a variant makes of one case against what the reference makes of it."""

    name: str
    function: Callable[[Any, Any], Any]
    """``(actual, expected)`` to a number. NotJudged, where it cannot be computed here, is no failure; NaN is one."""
    better: Literal["lower", "higher"]
    limit: float | None = None
    """What the worst case may have; None for a figure that is shown and not judged."""
    largest: float = math.inf
    """What counts in the place of more, such as the PSNR of identical pictures."""


class System(ABC):
    """Several networks that make something of a case. A suite's own says which, and how (``docs/systems.md``)."""

    name: str
    """As studies show it."""
    weights: Weights
    weights_source: str
    """In words."""
    inputs: InputsKind = "random"
    notes: Sequence[str] = ()
    """What a reader must know beside the figures."""
    variants: Sequence[Variant] = (
        Variant(name="pytorch-fp16", backend="torch"),
        Variant(name="fp32", precision="fp32"),
        Variant(name="fp16"),
        Variant(name="bf16", precision="bf16"),
    )
    """What is tried."""
    reference: Variant = REFERENCE
    metrics: Sequence[CaseMetric] = ()
    product: Product = Pictures()
    score_rule: str = "none"
    """The score that ``judge`` gives, in one sentence."""

    subjects: Mapping[str, Subject] = MappingProxyType({})
    """The networks by name, where every variant runs the same ones; else give ``networks`` and ``subject``."""
    pipeline_type: type[Pipeline]
    """What makes something of a case, where it takes no more than networks, a variant and a device."""

    def networks(self, variant: Variant) -> Sequence[str]:
        """Return the names of the networks that a variant runs."""
        return tuple(self.subjects)

    def subject(self, network: str, variant: Variant) -> Subject:
        """Return one network as a subject; those of one name are one engine."""
        return self.subjects[network]

    @abstractmethod
    def cases(self, count: int) -> Mapping[str, Any]:
        """Return so many cases by name. Raises UsageError for more than there are."""

    def pipeline(self, networks: Mapping[str, Network], variant: Variant, device: torch.device) -> Pipeline:
        """Return what makes something of a case with these networks."""
        return self.pipeline_type(networks, variant, device)

    def check(self, variant: Variant) -> None:
        """Raise UsageError for a variant that cannot be run; asked before any network is made."""
        return None

    def judge(
        self, metrics: Sequence[MetricResult], values: Mapping[str, Sequence[float | None]], latency_ms: float
    ) -> tuple[Verdict, str, float | None]:
        """Return verdict, reason and score of a variant. ``values`` are by metric and case, None for not judged.

        By default metrics that fail are a failure, those within their limits a pass, and none with a limit neither.
        """
        limited = [metric for metric in metrics if math.isfinite(metric.allowed)]
        for verdict, found in (("fail", metrics), ("not_judged", limited)):
            if wrong := [metric for metric in found if metric.verdict == verdict]:
                return wrong[0].verdict, Sentence("of", name=wrong[0].name, reason=wrong[0].reason), None
        if not limited:
            return "not_judged", Sentence("no_metric_limited"), None
        return "pass", joined(Sentence("of", name=metric.name, reason=metric.reason) for metric in limited), None
