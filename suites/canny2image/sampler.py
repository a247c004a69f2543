"""DDIM as the original ControlNet repository samples: uniform steps, classifier-free guidance, a seeded start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from harness import UsageError

TRAIN_STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
Noise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``(latents [1, ...], timestep [1])`` to the guided noise."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the sampler; all figures as Song et al. 2020 (arXiv 2010.02502), equation 12, name them."""

    index: int
    """Counted down: 19 is the first of 20 and 0 the last, as contestants named them."""
    timestep: int
    alpha: float
    """The cumulative product of 1 - beta at this step."""
    alpha_previous: float
    """The same at the step that comes next in sampling."""
    sigma: float
    """Standard deviation of the fresh noise; 0 for eta 0."""
    compute: bool
    """Run the networks; False reuses the last guided noise."""


def schedule(steps: int, *, eta: float = 0.0, compute_steps: Sequence[int] | None = None) -> list[Step]:
    """Return the steps in the order they are taken.

    ``compute_steps`` holds the indices that run the networks; the others reuse the last guided noise. Raises UsageError
    for a number of steps that is out of range, an index that is not there, and a first step that is not computed.
    """
    if not 1 <= steps <= TRAIN_STEPS // 2:
        raise UsageError(f"{steps} steps cannot be sampled; ask for 1 to {TRAIN_STEPS // 2}")
    computed = set(range(steps)) if compute_steps is None else set(compute_steps)
    if unknown := sorted(computed - set(range(steps))):
        raise UsageError(f"step {unknown[0]} is not one of {steps} steps; they count down from {steps - 1} to 0")
    if steps - 1 not in computed:
        raise UsageError(f"step {steps - 1} is the first and has nothing to reuse; compute it")
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0).tolist()
    stride = TRAIN_STEPS // steps
    timesteps = list(range(0, TRAIN_STEPS, stride))[:steps]
    timesteps = [timestep + 1 for timestep in timesteps]  # the original adds one "to get the final alpha values right"
    previous = [0, *timesteps[:-1]]
    return [_step(index, timesteps[index], previous[index], alphas, eta, computed) for index in reversed(range(steps))]


def _step(index: int, now: int, then: int, alphas: list[float], eta: float, computed: set[int]) -> Step:
    alpha, alpha_previous = alphas[now], alphas[then]
    sigma = eta * ((1 - alpha_previous) / (1 - alpha) * (1 - alpha / alpha_previous)) ** 0.5
    return Step(
        index=index, timestep=now, alpha=alpha, alpha_previous=alpha_previous, sigma=sigma, compute=index in computed
    )


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the guided noise (classifier-free guidance, Ho and Salimans 2022)."""
    return unconditional + scale * (conditional - unconditional)


def advance(step: Step, latents: torch.Tensor, noise: torch.Tensor, fresh: torch.Tensor | None) -> torch.Tensor:
    """Return the latents after one step; ``fresh`` is unit noise, needed where sigma is not 0."""
    picture = (latents - (1 - step.alpha) ** 0.5 * noise) / step.alpha**0.5
    direction = (1 - step.alpha_previous - step.sigma**2) ** 0.5 * noise
    following = step.alpha_previous**0.5 * picture + direction
    return following if fresh is None else following + step.sigma * fresh


def sample(
    noise_of: Noise,
    start: torch.Tensor,
    steps: Sequence[Step],
    *,
    fresh: torch.Tensor | None = None,
    forced: Sequence[torch.Tensor] | None = None,
    seen: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Return the latents after all steps.

    ``fresh`` [steps, ...] is the noise that eta asks for. ``forced`` gives the latents that each step starts from
    instead of what the step before made (teacher forcing). ``seen`` is called with the latents after every step.
    """
    latents, noise = start, None
    for position, step in enumerate(steps):
        if forced is not None:
            latents = forced[position]
        if step.compute or noise is None:
            noise = noise_of(latents, torch.full((len(latents),), step.timestep, device=latents.device))
        latents = advance(step, latents, noise, fresh[position] if fresh is not None and step.sigma else None)
        if seen is not None:
            seen(latents)
    return latents


def draw(seed: int, shape: tuple[int, ...], steps: int, eta: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the start and the steps' fresh noise (None for eta 0), drawn on the CPU: a seed means one picture."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator)
    return start, torch.randn((steps, *shape), generator=generator) if eta else None
