"""Systems of several engines: networks, variants as data, error per step, times per stage, pictures or texts.

A suite's ``study.py`` gives a :class:`System`; ``parity study`` tries its variants (docs/systems.md).
"""

from __future__ import annotations

from harness.systems.networks import Networks
from harness.systems.pipeline import Network, Pipeline, Step, check_finite
from harness.systems.products import Made, Pictures, Product, Texts, Written, first_difference, of_pictures, same_tokens
from harness.systems.study import run_study
from harness.systems.system import CaseMetric, System
from harness.systems.variant import REFERENCE, Variant, choose

__all__ = [
    "REFERENCE",
    "CaseMetric",
    "Made",
    "Network",
    "Networks",
    "Pictures",
    "Pipeline",
    "Product",
    "Step",
    "System",
    "Texts",
    "Variant",
    "Written",
    "check_finite",
    "choose",
    "first_difference",
    "of_pictures",
    "run_study",
    "same_tokens",
]
