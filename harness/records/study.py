"""A study as data: variants of a system of engines, and what each gained. docs/json.md documents the JSON."""

from __future__ import annotations

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
class StepError:
    """How far the engine's latents are from the reference's after one step of the sampler."""

    step: int
    """From 0."""
    timestep: int
    """The noise level that the network was asked for."""
    free: float
    """Relative L2 error, both having run from the same start."""
    forced: float
    """The same when the step started from the reference's latents: what this step alone adds."""


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
    """Mean over the pictures, without the first."""
    speed_up: float | None = None
    """Against the reference pipeline in PyTorch FP32, on the same machine in the same run."""
    score: float | None = None
    """By the study's score function; None where it cannot be had."""
    metrics: tuple[MetricResult, ...] = ()
    """Mean over the pictures (``pd mean``, ``psnr``), and the worst (``pd max``), with their limits."""
    pictures: tuple[Picture, ...] = ()
    """In the order of the study's cases."""
    steps: tuple[StepError, ...] = ()
    """In the sampler's order; empty where the steps were not compared."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Mean time per stage: ``text encoder``, ``controlnet and unet``, ``vae decoder``, ``host``."""
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
