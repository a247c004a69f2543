"""Small pieces of SVG: scales, axes, lines, dots and bars. Colours are classes of the page's style sheet.

Text is escaped here, and there is no inline style, which the page's content security policy forbids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from harness.report.markdown import visible

XY = tuple[float, float | None]
WIDTH, HEIGHT = 860.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 16.0, 14.0, 42.0
CHARACTER = 6.4
"""Width of a character of a label, roughly; a CJK character takes two."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From data to a coordinate of the drawing."""

    low: float
    high: float
    start: float
    """Coordinate of ``low``."""
    end: float
    """Coordinate of ``high``."""
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value; one outside of the range is put on its border."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, max(value, self._least)))
        part = (min(max(value, low), high) - low) / (high - low)
        return round(self.start + part * (self.end - self.start), 1)

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf


def log_scale(values: Iterable[float | None], start: float, end: float) -> Scale:
    """Return a scale over whole decades that holds every positive value; at least two decades."""
    positive = [value for value in values if value is not None and 0 < value < math.inf]
    if not positive:
        return Scale(low=1e-6, high=1.0, start=start, end=end, log=True)
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    low = min(low, high - 2)
    return Scale(low=10.0**low, high=10.0**high, start=start, end=end, log=True)


def linear_scale(values: Iterable[float | None], start: float, end: float, *, zero: bool = False) -> Scale:
    """Return a scale between round numbers that holds every finite value, and 0 where asked."""
    found = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    low, high = (min(0.0, *found), max(0.0, *found)) if zero else (min(found), max(found))
    if low == high:
        low, high = (low - abs(low) * 0.1, high + abs(high) * 0.1) if low else (0.0, 1.0)
    step = _step(high - low)
    return Scale(low=math.floor(low / step) * step, high=math.ceil(high / step) * step, start=start, end=end)


def ticks(scale: Scale) -> list[float]:
    """Return the round values of a scale: decades, or about five steps."""
    if scale.log:
        low, high = round(math.log10(scale.low)), round(math.log10(scale.high))
        return [10.0**power for power in range(low, high + 1, max(1, (high - low) // 6))]
    step = _step(scale.high - scale.low)
    return [scale.low + i * step for i in range(round((scale.high - scale.low) / step) + 1)]


def tick_text(value: float) -> str:
    """Return a tick as people write it: ``0.25``, ``1e-5``."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if 0 < abs(value) < 1e-3 else f"{value:.4g}"


def shown(words: str) -> Markup:
    """Return text as markup, with what cannot be seen made visible."""
    return escape(visible(words))


def drawing(parts: Iterable[str], title: str, *, height: float = HEIGHT, attributes: str = "") -> Markup:
    """Return a whole drawing; ``title`` is what a screen reader says. ``attributes`` is markup of our own."""
    size = f'viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img"'
    return Markup(f"<svg {size} {attributes}><title>{shown(title)}</title>{''.join(parts)}</svg>")


def axes(x: Scale, y: Scale, x_label: str, y_label: str, *, x_ticks: Sequence[tuple[float, str]] = ()) -> list[str]:
    """Return grid lines, ticks and labels of both axes."""
    left, right = sorted((x.start, x.end))
    top, bottom = sorted((y.start, y.end))
    parts = []
    for value in ticks(y):
        at = y(value)
        parts += [segment(left, at, right, at, "grid"), text(left - 6, at + 4, tick_text(value), "tick end")]
    for value, words in x_ticks or [(value, tick_text(value)) for value in ticks(x)]:
        parts += [segment(x(value), bottom, x(value), bottom + 4, "axis"), text(x(value), bottom + 16, words, "tick")]
    parts.append(segment(left, bottom, right, bottom, "axis"))
    parts.append(text((left + right) / 2, bottom + 33, x_label, "name"))
    middle = (top + bottom) / 2
    parts.append(f'<text class="name" transform="translate(14 {middle:.1f}) rotate(-90)">{shown(y_label)}</text>')
    return parts


def text(x: float, y: float, words: str, css: str = "") -> str:
    """Return text; the classes ``start`` and ``end`` say which end of it lies at x, else its middle does."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{shown(words)}</text>'


def segment(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return one straight line."""
    return f'<path class="{css}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def line(points: Sequence[XY], x: Scale, y: Scale, css: str) -> str:
    """Return a line through points, broken where one has no value."""
    drawn, pen = [], "M"
    for across, up in points:
        if up is None:
            pen = "M"
            continue
        drawn.append(f"{pen}{x(across):g} {y(up):g}")
        pen = "L"
    return f'<path class="line {css}" d="{"".join(drawn)}"/>' if drawn else ""


def dots(points: Iterable[XY], x: Scale, y: Scale, css: str) -> str:
    """Return points as dots, all in one path: thousands of them stay quick."""
    drawn = [f"M{x(across):g} {y(up):g}h0" for across, up in points if up is not None]
    return f'<path class="dots {css}" d="{"".join(drawn)}"/>' if drawn else ""


def rings(points: Iterable[XY], x: Scale, y: Scale, css: str) -> list[str]:
    """Return points as rings."""
    return [
        f'<circle class="{css}" cx="{x(across):g}" cy="{y(up):g}" r="5"/>' for across, up in points if up is not None
    ]


def crosses(places: Iterable[tuple[float, float]], css: str) -> str:
    """Return crosses. Coordinates, not data."""
    drawn = [f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" for x, y in places]
    return f'<path class="{css}" d="{"".join(drawn)}"/>' if drawn else ""


def whisker(x: float, low: float, high: float, css: str) -> str:
    """Return an interval: a vertical line with ends. Coordinates, not data."""
    ends = "".join(f"M{x - 4:.1f} {y:.1f}h8" for y in (low, high))
    return f'<path class="whisker {css}" d="M{x:.1f} {low:.1f}L{x:.1f} {high:.1f}{ends}"/>'


def bar(x: float, y: float, width: float, height: float, css: str) -> str:
    """Return a filled rectangle."""
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"/>'


def shortened(words: str, room: float) -> str:
    """Return the end of a name that fits into ``room``: the end of a module path tells more than its start."""
    most = max(4, int(room / CHARACTER))
    return words if len(words) <= most else f"…{words[1 - most :]}"


def _step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten that divides a span into four to ten steps."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6.5)
