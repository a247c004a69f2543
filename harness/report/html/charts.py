"""The charts of the page, as SVG: each takes recorded figures and words, and returns one drawing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.report.facts import Json, Point, is_nonfinite_value, pareto_front, value_error
from harness.report.html import svg
from harness.report.html.svg import BOTTOM, CHARACTER, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale
from harness.report.plots import boundaries
from harness.report.words import Words

COLOURS = 6
"""Series that have a colour of their own (c0, c1, ...); more of them start again, with other dashes."""
NAMES_ABOVE = 74.0
"""Room for the module names above the plot."""
BARS = 16
"""Modules with bars; the table has all."""
BAR = 20.0
WIDEST = 3.0
"""Times the largest figure: intervals over sizes are drawn up to there."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure with its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


Series = Mapping[str, Sequence[Measurement]]


def css(index: int) -> str:
    """Return the class of the n-th series."""
    return f"c{index % COLOURS}" + (" far" if index >= COLOURS else "")


def depth(values: Sequence[Json], t: Words, title: str) -> Markup:
    """Return error along depth: accumulated and local, each with PyTorch's beside it, on a log scale.

    ``values`` are the compared ones in dataflow order. A value that is not finite has no height: it is a cross at the
    top. Suspects are ringed.
    """
    top, bottom = TOP + NAMES_ABOVE, HEIGHT + NAMES_ABOVE - BOTTOM
    x = Scale(low=0, high=max(1, *(value["depth"] for value in values)), start=LEFT, end=WIDTH - NAMES_ABOVE)
    figures = [figure for v in values for figure in (value_error(v), v["floor"], v["local"], v["local_floor"])]
    y = svg.log_scale(figures, bottom, top)
    parts = svg.axes(x, y, t("axis_depth"), t("axis_error"))
    parts += _modules(values, x, top, bottom)
    parts.append(svg.dots(_points(values, "local_floor"), x, y, "local-floor"))
    parts.append(svg.line(_points(values, "floor"), x, y, "floor"))
    accumulated = [(v["depth"], None if is_nonfinite_value(v) else _positive(value_error(v))) for v in values]
    parts.append(svg.line(accumulated, x, y, "accumulated"))
    parts.append(svg.dots(_points(values, "local"), x, y, "local"))
    suspects = [value for value in values if value["mark"] in ("suspect", "flip") and not is_nonfinite_value(value)]
    parts += svg.rings(
        [(v["depth"], _positive(v["local"]) or _positive(value_error(v))) for v in suspects], x, y, "suspect"
    )
    parts.append(svg.crosses([(x(v["depth"]), top + 6) for v in values if is_nonfinite_value(v)], "nonfinite"))
    parts.append(f'<path class="cursor" d="M{LEFT} {top}V{bottom}"/>')
    place = f'data-low="{x.low}" data-high="{x.high}" data-start="{x.start}" data-end="{x.end}"'
    return svg.drawing(parts, title, height=HEIGHT + NAMES_ABOVE, attributes=place)


def module_bars(rows: Sequence[tuple[str, float | None, float | None]], t: Words, title: str) -> Markup:
    """Return bars of time (share) and, beside them, of error (local error over floor), a module per row."""
    shown = rows[:BARS]
    names, gap = 300.0, 66.0
    room = (WIDTH - names - 2 * gap) / 2
    time = Scale(low=0, high=max((r[1] or 0 for r in shown), default=0) or 1, start=0, end=room)
    finite = [r[2] for r in shown if r[2] is not None and math.isfinite(r[2])]
    ratio = Scale(low=0, high=max([1.0, *finite]), start=0, end=room)
    left, right = names + 8, names + gap + room + 8
    parts = [svg.text(left, 14, t("axis_time_share"), "name start"), svg.text(right, 14, t("axis_ratio"), "name start")]
    for number, (name, share, times) in enumerate(shown):
        at = 24 + number * BAR
        parts.append(svg.text(names, at + 13, svg.shortened(name or t("no_module"), names - 8), "tick end"))
        if share is not None:
            parts += [svg.bar(left, at + 2, time(share), BAR - 5, "bar-time")]
            parts += [svg.text(left + time(share) + 4, at + 13, f"{share:.1%}", "tick start")]
        if times is not None:
            length = ratio(times) if math.isfinite(times) else room
            parts += [svg.bar(right, at + 2, length, BAR - 5, "bar-error" if times > 2 else "bar-floor")]
            parts += [svg.text(right + length + 4, at + 13, f"{times:.3g}x", "tick start")]
        else:
            parts.append(svg.text(right, at + 13, t("no_figure"), "tick start"))
    parts.append(svg.segment(right + ratio(1), 22, right + ratio(1), 24 + len(shown) * BAR, "limit"))
    return svg.drawing(parts, title, height=32 + len(shown) * BAR)


def over_sizes(series: Series, t: Words, title: str, x_label: str, y_label: str, *, one: bool = False) -> Markup:
    """Return figures with intervals over a size, such as the batch; ``one`` draws the line of no speed-up."""
    points = [point for line in series.values() for point in line]
    most = WIDEST * max(point.y for point in points)
    sizes = sorted({point.x for point in points})
    even = sizes[0] <= 0 or sizes[-1] / sizes[0] < 4
    x = Scale(low=sizes[0], high=sizes[-1], start=LEFT + 24, end=WIDTH - RIGHT - 24, log=not even)
    if sizes[0] == sizes[-1]:
        x = Scale(low=sizes[0] - 1, high=sizes[0] + 1, start=x.start, end=x.end)
    y = svg.linear_scale([min(end, most) for end in _ends(points) if end is not None], HEIGHT - BOTTOM, TOP, zero=True)
    parts = svg.axes(x, y, x_label, y_label, x_ticks=[(size, f"{size:g}") for size in sizes])
    parts += [svg.segment(LEFT, y(1), WIDTH - RIGHT, y(1), "limit")] if one else []
    for number, line in enumerate(series.values()):
        ordered = sorted(line, key=lambda point: point.x)
        parts.append(svg.line([(point.x, point.y) for point in ordered], x, y, css(number)))
        parts += _marked([_cut(point, most) for point in ordered], x, y, css(number))
    return svg.drawing(parts, title)


def _cut(point: Measurement, most: float) -> Measurement:
    """Return a point whose interval ends where the chart does: one that says nothing must not hide the others."""
    return point if point.high is None else dataclasses.replace(point, high=min(point.high, max(point.y, most)))


def history(sessions: Sequence[Json], changes: Sequence[Json], t: Words, title: str) -> Markup:
    """Return a series of sessions, oldest first: accepted ones are ringed, and lines show where the level changed.

    ``sessions`` and ``changes`` are ``points`` and ``change_points`` of ``latency_series.series``. One in an invalid
    environment has no height, because its figure does not count: it is a cross at the bottom.
    """
    points = [
        Measurement(x=i, y=found["ms"], low=found["low"], high=found["high"])
        for i, found in enumerate(sessions)
        if found["ms"] is not None and not found["invalid"]
    ]
    x = Scale(low=0, high=max(1, len(sessions) - 1), start=LEFT + 12, end=WIDTH - RIGHT - 12)
    y = svg.linear_scale(_ends(points), HEIGHT - BOTTOM, TOP + 14)
    every = max(1, math.ceil(len(sessions) / 8))
    labels = [(float(i), found["recorded_at"][:10]) for i, found in enumerate(sessions) if i % every == 0]
    parts = []
    accepted = [(point.x, point.y) for point in points if sessions[int(point.x)]["accepted"]]
    if accepted:
        low, high = y(max(ms for _, ms in accepted)), y(min(ms for _, ms in accepted))
        parts.append(svg.bar(LEFT, low - 2, WIDTH - RIGHT - LEFT, high - low + 4, "band"))
    parts += svg.axes(x, y, t("axis_session"), t("axis_ms"), x_ticks=labels)
    for change in changes:
        at = x(change["index"] - 0.5)
        parts.append(svg.segment(at, TOP + 14, at, HEIGHT - BOTTOM, "change"))
        parts.append(svg.text(at, TOP + 8, f"{change['change']:+.1%}", "tick changed"))
    parts.append(svg.line([(point.x, point.y) for point in points], x, y, "c0 thin"))
    for point in points:
        parts += _marked([point], x, y, "c0")
    parts += svg.rings(accepted, x, y, "accepted")
    invalid = [(x(i), HEIGHT - BOTTOM - 8) for i, found in enumerate(sessions) if found["invalid"]]
    parts.append(svg.crosses(invalid, "invalid"))
    return svg.drawing(parts, title)


def pareto(points: Sequence[Point], t: Words, title: str, *, lower: bool = True, named: bool = True) -> Markup:
    """Return quality (y) against latency (x) with the front of variants that no other beats in both.

    ``lower`` is for perceptual distance, where lower is better; else it is PSNR. Points carry the number of their row
    in the table, and where ``named`` their name. Variants that failed are crosses and never on the front.
    """
    y_values = [point.quality for point in points]
    limits = [point.limit for point in points if point.limit is not None]
    limit = (min(limits) if lower else max(limits)) if limits else None
    near = limit if limit is not None and limit <= 3 * max(y_values) else None
    x = svg.linear_scale([point.latency_ms for point in points], LEFT + 12, WIDTH - RIGHT - 12, zero=True)
    y = svg.linear_scale([*y_values, near], HEIGHT - BOTTOM, TOP, zero=True)
    parts = svg.axes(x, y, t("axis_latency"), t("axis_pd" if lower else "axis_psnr"))
    if near is not None:
        parts.append(svg.segment(LEFT, y(near), WIDTH - RIGHT, y(near), "limit"))
        parts.append(svg.text(WIDTH - RIGHT, y(near) - 5, t("axis_limit", limit=f"{near:g}"), "tick end"))
    front = pareto_front(points, lower=lower)
    steps: list[svg.XY] = [(point.latency_ms, point.quality) for point in front[:1]]
    for before, after in itertools.pairwise(front):
        steps += [(after.latency_ms, before.quality), (after.latency_ms, after.quality)]
    parts.append(svg.line(steps, x, y, "front"))
    for point in points:
        if point.verdict != "fail":
            style = "big " + ("c2" if point in front else "c5")
            parts.append(svg.dots([(point.latency_ms, point.quality)], x, y, style))
    failed = [(x(point.latency_ms), y(point.quality)) for point in points if point.verdict == "fail"]
    parts.append(svg.crosses(failed, "failed"))
    words = [f"{point.index + 1} {point.name}" if named else str(point.index + 1) for point in points]
    parts += _labels([(x(p.latency_ms), y(p.quality), name) for p, name in zip(points, words, strict=True)])
    return svg.drawing(parts, title)


def steps(series: Mapping[str, tuple[Sequence[svg.XY], str]], count: int, t: Words, title: str) -> Markup:
    """Return errors over the steps of a sampler, on a log scale; each series is its points and its class."""
    x = Scale(low=0, high=max(1, count - 1), start=LEFT + 12, end=WIDTH - RIGHT - 12)
    y = svg.log_scale([value for points, _ in series.values() for _, value in points], HEIGHT - BOTTOM, TOP)
    every = max(1, math.ceil(count / 12))
    parts = svg.axes(x, y, t("axis_step"), t("axis_error"), x_ticks=[(i, str(i)) for i in range(0, count, every)])
    for points, style in series.values():
        kept = [(at, _positive(value)) for at, value in points]
        parts += [svg.line(kept, x, y, style), svg.dots(kept, x, y, style)]
    return svg.drawing(parts, title)


def _marked(points: Sequence[Measurement], x: Scale, y: Scale, style: str) -> list[str]:
    """Return points as dots with their intervals."""
    parts = [
        svg.whisker(x(point.x), y(point.high), y(point.low), style)
        for point in points
        if point.low is not None and point.high is not None
    ]
    return [*parts, svg.dots([(point.x, point.y) for point in points], x, y, f"big {style}")]


def _labels(places: Sequence[tuple[float, float, str]]) -> list[str]:
    """Return the names of points, beside them and not on each other: above the point, or below it, or further up."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for x, y, words in sorted(places):
        width = len(words) * CHARACTER
        left = x + 8 if x + 8 + width <= WIDTH else x - 8 - width
        up = next(
            shift
            for shift in itertools.count(0)
            if all(abs(y + _shift(shift) - other) >= 13 or left > end or left + width < start
                   for start, end, other in taken)
        )  # fmt: skip
        at = y + _shift(up)
        taken.append((left, left + width, at))
        parts.append(svg.text(left, at, words, "label start"))
    return parts


def _shift(n: int) -> float:
    """Return the n-th place to try, from the point down: just above, just below, then further away."""
    return (-6.0, 15.0)[n % 2] + (-13 if n % 2 == 0 else 13) * (n // 2)


def _modules(values: Sequence[Json], x: Scale, top: float, bottom: float) -> list[str]:
    """Return where modules begin: a line each, and the names for which there is room."""
    parts, free = [], -math.inf
    for at, name, level in sorted(boundaries(values), key=lambda boundary: boundary[0]):
        parts.append(svg.segment(x(at), top, x(at), bottom, f"module level{level}"))
        if x(at) - free >= 15:
            free = x(at)
            words = svg.shortened(name, min(NAMES_ABOVE * 1.5, (WIDTH - free) / 0.77))
            turn = f"translate({free + 3:.1f} {top - 4:.1f}) rotate(-40)"
            parts.append(f'<text class="module-name start" transform="{turn}">{svg.shown(words)}</text>')
    return parts


def _points(values: Sequence[Json], key: str) -> list[svg.XY]:
    return [(value["depth"], _positive(value[key])) for value in values]


def _positive(value: float | None) -> float | None:
    """Return a value that a log scale can show."""
    return value if value is not None and value > 0 else None


def _ends(points: Sequence[Measurement]) -> list[float | None]:
    pick: Sequence[Callable[[Measurement], float | None]] = (lambda p: p.y, lambda p: p.low, lambda p: p.high)
    return [end(point) for point in points for end in pick]
