"""A study as data: variants of a system of engines, and what each gained. docs/json.md documents the JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records.accuracy import MetricResult
from harness.records.data import JsonRecord, Verdict


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of one variant, beside what it should be. Paths are relative to the JSON file."""

    case: str
    """The case's name."""
    prompt: str
    """The text that it was made from."""
    seed: int
    """Of the noise that it was made from."""
    files: dict[str, str]
    """PNG files by what they show: ``input``, ``edges``, ``reference``, ``engine``, ``difference``, ``sheet``."""
    metrics: dict[str, float | None]
    """``pd``, ``lpips``, ``psnr``, ``ssim``; None where it was not judged."""
    latency_ms: float
    """Wall clock of the whole pipeline."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text of one variant, beside what it should be."""

    case: str
    """The case's name."""
    prompt: str
    """What it was written from."""
    text: str
    """In words, or its tokens where there is no tokenizer."""
    expected: str
    """The reference's."""
    tokens: int
    """How many it has."""
    first_difference: int | None
    """The place of the first token that is not the reference's, from 0; None where all are."""
    metrics: dict[str, float | None]
    """By name; None where it was not judged."""
    latency_ms: float
    """Wall clock of the whole pipeline."""


@dataclass(frozen=True, kw_only=True)
class StepError:
    """How far the engine's latents, or logits, are from the reference's after one step."""

    step: int
    """From 0."""
    timestep: int
    """The noise level that the network was asked for, or the place of the token."""
    free: float
    """Relative L2 error, both having run from the same start."""
    forced: float
    """The same when the step started from what the reference had: what this step alone adds."""


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """What one variant gave."""

    name: str
    """The variant's name."""
    settings: dict[str, Any]
    """The variant itself: precision per engine, batching, steps, graphs."""
    verdict: Verdict
    """``pass``, ``fail`` or ``not_judged``."""
    reason: str
    """One sentence."""
    latency_ms: float | None = None
    """Mean over the cases, without the first."""
    speed_up: float | None = None
    """Against the reference pipeline in PyTorch FP32, on the same machine in the same run."""
    score: float | None = None
    """By the study's score function; None where it cannot be had."""
    metrics: tuple[MetricResult, ...] = ()
    """Mean over the cases (``pd mean``, ``psnr``), and the worst (``pd max``) of those with a limit."""
    pictures: tuple[Picture, ...] = ()
    """In the order of the study's cases; empty for a system that makes none."""
    texts: tuple[Text, ...] = ()
    """The same of texts."""
    steps: tuple[StepError, ...] = ()
    """In the sampler's order; empty where the steps were not compared."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Mean time per stage: ``text encoder``, ``vae decoder``, ``host``."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""


@dataclass(frozen=True, kw_only=True)
class StudyResult(JsonRecord):
    """All variants of one study, in the order they were tried; the first is the one the others are held against."""

    name: str
    """The study's name."""
    weights: str
    """``trained`` or ``random``."""
    weights_source: str
    """Where the weights come from, in words."""
    inputs: str
    """``real`` or ``random``."""
    device: str
    """A GPU's name, or ``CPU``."""
    score_rule: str
    """The score function in one sentence."""
    variants: tuple[VariantResult, ...]
    """In the order they were tried."""
    charts: dict[str, str] = field(default_factory=dict)
    """Picture files by what they show, relative to the JSON file: ``pd against latency``, ``error over steps``."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""


def mean_latency(latencies_ms: Sequence[float]) -> float | None:
    """Return the mean without the first, which the contest leaves out; of one alone that one; of none None."""
    counted = latencies_ms[1:] or latencies_ms
    return statistics.fmean(counted) if counted else None
