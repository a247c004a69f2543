"""Queries to a slow oracle: each is asked once, several at a time, and within a budget.

A stage of a search is a generator that yields a query and is sent the answer. It must depend on the answers alone: it
is made anew and replayed on them, and on supposed answers to learn what it would ask next.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Callable, Generator, Hashable, Mapping, MutableMapping, Sequence
from typing import Generic, Literal, TypeVar

Answer = bool | None
"""Yes, no, or None where it could not be judged; a stage is sent no for that."""
Query = TypeVar("Query", bound=Hashable)
Stage = Generator[Query, bool, None]
Ending = Literal["done", "out of calls", "interrupted"]


class _OutOfCallsError(Exception):
    """The budget is spent."""


class Oracle(Generic[Query]):
    """Owns the answers so far, the budget, and the smallest query with a yes.

    ``ask`` answers a batch of queries, ``size`` says how large one is. Raises ValueError for a negative ``max_calls``
    or a ``width`` below 1.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Query]], Sequence[Answer]],
        size: Callable[[Query], int],
        *,
        max_calls: int,
        width: int = 1,
        known: Mapping[Query, Answer],
    ) -> None:
        if max_calls < 0 or width < 1:
            raise ValueError(f"max_calls must be at least 0 and width at least 1, not {max_calls} and {width}")
        self._ask, self._size = ask, size
        self._max_calls, self._width = max_calls, width
        self.answers = {query: _as_answer(answer) for query, answer in known.items()}
        self.calls = 0
        """Queries that were asked; those known before do not count."""
        self.best = min((query for query, answer in self.answers.items() if answer), key=size, default=None)
        """The smallest query with a yes."""

    def search(self, body: Callable[[], None]) -> Ending:
        """Run a search, which calls :meth:`run` for each of its stages, and return how it ended."""
        try:
            body()
        except _OutOfCallsError:
            return "out of calls"
        except KeyboardInterrupt:
            return "interrupted"
        return "done"

    def run(self, stage: Callable[[], Stage[Query]]) -> None:
        """Ask the queries of one stage to its end; ``stage`` makes the generator."""
        while _next_query(stage(), self.answers) is not None:
            left = self._max_calls - self.calls
            if left <= 0:
                raise _OutOfCallsError
            self._ask_batch(_look_ahead(stage, self.answers, min(self._width, left)))

    def _ask_batch(self, batch: Sequence[Query]) -> None:
        self.calls += len(batch)
        for query, answer in zip(batch, self._ask(batch), strict=True):
            self.answers[query] = _as_answer(answer)
            if self.answers[query] and (self.best is None or self._size(query) < self._size(self.best)):
                self.best = query


def _as_answer(answer: Answer) -> Answer:
    """Return the answer as None or a Python bool. Raises TypeError for anything else: NaN is true."""
    if answer is None:
        return None
    if answer not in (True, False):
        raise TypeError(f"an answer must be True, False or None, not {answer!r}")
    return bool(answer)


def _next_query(stage: Stage[Query], answers: Mapping[Query, Answer]) -> Query | None:
    """Return the first query of a stage that has no answer; None when the stage ends without one."""
    try:
        query = next(stage)
        while query in answers:
            query = stage.send(answers[query] is True)
    except StopIteration:
        return None
    return query


def _look_ahead(stage: Callable[[], Stage[Query]], answers: MutableMapping[Query, Answer], width: int) -> list[Query]:
    """Return the next query and those that may follow it, the nearest first, ``width`` at most."""
    batch: list[Query] = []
    supposed: deque[dict[Query, Answer]] = deque([{}])
    # Different suppositions can lead to the same query; the bound keeps a stage near its end from being replayed for
    # every combination of answers.
    for _ in range(4 * width):
        if not supposed or len(batch) == width:
            break
        answered = supposed.popleft()
        query = _next_query(stage(), ChainMap(answered, answers))
        if query is None:
            continue
        if query not in batch:
            batch.append(query)
        supposed.extend(({**answered, query: False}, {**answered, query: True}))
    return batch
