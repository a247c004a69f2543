"""A bisection that is interrupted anywhere says so, keeps what it verified, and claims nothing that it did not find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bisecting import Bisect, require_honest, without_taps
from planted import PLANTED, PlantedBackend, PlantedSession

from harness import NotJudged
from harness.bisect import bisection
from harness.bisect.screening import Screen
from harness.verify.references import References

WATCHED = (
    (PlantedBackend, "build"), (PlantedSession, "run"), (PlantedSession, "tap"), (References, "reference"),
    (References, "typed"), (Screen, "rank"),
)  # fmt: skip
"""What a bisection spends its time in."""
PARTS = 7
"""Interruptions of one bisection, from its first moment to its last."""


class Clock:
    """Counts the moments of a bisection and interrupts it in one of them."""

    now = 0
    stop = 0

    def tick(self) -> None:
        self.now += 1
        if self.now == self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Clock]:
    """Return a function that starts a clock anew."""
    clock = Clock()

    def watched(function: Any) -> Any:
        def watch(*arguments: Any, **options: Any) -> Any:
            clock.tick()
            return function(*arguments, **options)

        return watch

    def untimed(*_: Any) -> Any:
        raise NotJudged("how often an engine runs while it is timed is chance")

    monkeypatch.setattr(bisection, "price", untimed)
    for owner, name in WATCHED:
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))

    def start(stop: int) -> Clock:
        clock.now, clock.stop = 0, stop
        return clock

    return start


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("growing_stream", True),
        ("wrong_kernel", True),
        ("wrong_kernel", False),
        ("nan_unobserved", True),
        ("wrong_epsilon", True),
    ],
)
def test_an_interruption_loses_nothing_and_invents_nothing(
    name: str, taps: bool, bisected: Bisect, timed: Callable[[int], Clock]
):
    options = {} if taps else {"prepare_engine": without_taps}
    bisected(PLANTED[name], **options)  # from now on engines and outputs are cached, and every run takes the same steps
    clock = timed(0)
    whole, _ = bisected(PLANTED[name], **options)
    assert not whole.interrupted
    last = clock.now
    for part in range(PARTS):
        timed(max(1, last * (part + 1) // (PARTS + 1)))
        found, _ = bisected(PLANTED[name], **options)
        require_honest(found, whole)
