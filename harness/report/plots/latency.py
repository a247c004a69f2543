"""Latency as pictures: over batch size or sequence length, and over time. PNG and SVG.

Takes the dicts of ``Measured.to_json()`` and of ``latency_series.series()``. matplotlib is imported when a picture is
drawn, without pyplot and so without a display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotJudged
from harness.report.facts import BASELINE, RANDOM, Json, is_invalid, session_latency, session_target
from harness.report.plots.file import save_figure
from harness.report.text import ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INCHES = (11.0, 5.0)
COLOURS = ("#1f5fa8", "#d97706", "#15803d", "#b91c1c", "#7c3aed", "#0e7490", "#8c8c8c", "#a16207")
_GREY, _PALE, _RED, _GREEN = "#8c8c8c", "#dddddd", "#b91c1c", "#15803d"
_PYTORCH = {"eager": "--", "compile": ":"}


def save_bench(measured: Sequence[Json], stem: Path, *, write: bool = True) -> list[Path]:
    """Write charts of one subject, device, case and figure: latency and speed-up, over a size where one was swept.

    Of several swept sizes the first is the axis, and the others make curves of their own. A session of which no process
    counts is left out, as in the tables. Returns the paths of ``stem.png`` and ``stem.svg``; without ``write`` it only
    returns them. Raises NotJudged when matplotlib is missing or nothing has figures that count, UsageError when a file
    cannot be written.
    """
    shown = [m for m in measured if session_latency(m["session"]) is not None and not is_invalid(m["session"])]
    if not shown:
        raise NotJudged("nothing has figures that count")
    symbol = swept(shown)
    draw = (lambda figure: _curves(figure, shown, symbol)) if symbol else (lambda figure: _bars(figure, shown))
    return _save(stem, draw, write=write)


def save_history(series: Json, stem: Path) -> list[Path]:
    """Write the chart of one series, with what was accepted and where it changed; return the paths.

    Raises NotJudged when matplotlib is missing or nothing has figures, UsageError when a file cannot be written.
    """
    if all(point["ms"] is None for point in series["points"]):
        raise NotJudged("no session has figures")
    return _save(stem, lambda figure: _series(figure, series))


def swept(measured: Sequence[Json]) -> str:
    """Return the first size of which there are several values; empty where every size has one."""
    values: dict[str, set[int]] = {}
    for item in measured:
        for name, size in item["session"]["sizes"].items():
            values.setdefault(name, set()).add(size)
    return next((name for name, sizes in values.items() if len(sizes) > 1), "")


def _save(stem: Path, draw: Callable[[Figure], None], *, write: bool = True) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    save_figure(paths, INCHES, draw, write=write)
    return paths


def _title(session: Json) -> str:
    random = f", {RANDOM.lower()}" if session["weights"] == "random" else ""
    return f"{session['subject']} {session['case']}, {session['device']}{random}"


def _time_words(metric: str) -> str:
    return "GPU time" if metric == "gpu_ms" else "time of one run, host clock"


def _curves(figure: Figure, measured: Sequence[Json], symbol: str) -> None:
    """Draw latency and speed-up over one size; the range of the processes' medians is a band."""
    left, right = figure.subplots(1, 2)
    first = measured[0]["session"]
    for number, (name, items) in enumerate(_by_curve(measured, symbol).items()):
        session = items[0]["session"]
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": _PYTORCH.get(session["runner"], "-")}
        sizes = [item["session"]["sizes"][symbol] for item in items]
        times = [found for item in items if (found := session_latency(item["session"])) is not None]
        left.plot(sizes, [t[0] for t in times], marker="o", markersize=4, label=name, **style)
        left.fill_between(sizes, [t[1] for t in times], [t[2] for t in times], color=style["color"], alpha=0.2)
        _speed_up(right, items, sizes, name, style)
    for axes, words in ((left, f"ms ({_time_words(first['metric'])})"), (right, "speed-up over eager FP32")):
        axes.set_xlabel(symbol)
        axes.set_ylabel(words)
        axes.set_ylim(bottom=0)
        axes.set_xticks(
            sorted({item["session"]["sizes"][symbol] for item in measured if symbol in item["session"]["sizes"]})
        )
        axes.grid(color=_PALE, linewidth=0.6)
    right.axhline(1.0, color=_GREY, linewidth=0.8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle(_title(first), fontsize=11)


def _by_curve(measured: Sequence[Json], symbol: str) -> dict[str, list[Json]]:
    """Return what belongs on one curve: one contestant, at one value of every other size, in order of the axis."""
    found: dict[str, list[Json]] = {}
    for item in measured:
        session = item["session"]
        if symbol in session["sizes"]:
            others = [f"{name}={size}" for name, size in session["sizes"].items() if name != symbol]
            found.setdefault(" ".join([session_target(session), *others]), []).append(item)
    return {name: sorted(items, key=lambda i: i["session"]["sizes"][symbol]) for name, items in found.items()}


def _speed_up(axes: Axes, items: Sequence[Json], sizes: Sequence[int], name: str, style: dict[str, Any]) -> None:
    points = [
        (size, item["speed_up"][BASELINE], item["speed_up_intervals"].get(BASELINE))
        for size, item in zip(sizes, items, strict=True)
        if BASELINE in item["speed_up"]
    ]
    if not points:
        return
    axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", markersize=4, label=name, **style)
    for size, _, interval in points:
        if interval:
            axes.plot([size, size], interval, color=style["color"], linewidth=1)


def _bars(figure: Figure, measured: Sequence[Json]) -> None:
    """Draw one bar per contestant, with the speed-up beside it."""
    axes = figure.subplots()
    first = measured[0]["session"]
    names = [session_target(item["session"]) for item in measured]
    for number, item in enumerate(measured):
        found = session_latency(item["session"])
        assert found is not None
        middle, low, high = found
        colour = COLOURS[0] if item["session"]["runner"] == "engine" else _GREY
        axes.barh(number, middle, color=colour, height=0.6)
        axes.plot([low, high], [number, number], color="black", linewidth=1)
        factor = item["speed_up"].get(BASELINE)
        words = f"  {ms(middle)} ms" + (f", {factor:.3g}x eager FP32" if factor else "")
        axes.annotate(words, (high, number), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"ms ({_time_words(first['metric'])})")
    axes.grid(axis="x", color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.suptitle(_title(first), fontsize=11)


def _series(figure: Figure, series: Json) -> None:
    """Draw one series: every session with the range of its processes, the accepted ones filled, changes as steps."""
    axes = figure.subplots()
    points = list(enumerate(series["points"]))
    good = [(i, p) for i, p in points if p["ms"] is not None and not p["invalid"]]
    for i, p in good:
        axes.plot([i, i], [p["low"], p["high"]], color=COLOURS[0], linewidth=1, zorder=2)
    axes.plot([i for i, _ in good], [p["ms"] for _, p in good], "-o", color=COLOURS[0], markersize=4, label="session")
    accepted = [(i, p) for i, p in good if p["accepted"]]
    if accepted:
        axes.plot(
            [i for i, _ in accepted], [p["ms"] for _, p in accepted], "o", color=_GREEN, markersize=7, zorder=3,
            label="accepted: the baseline",
        )  # fmt: skip
    bad = [i for i, p in points if p["invalid"]]
    if bad:
        axes.plot(
            bad, [0.03] * len(bad), "x", color=_RED, transform=axes.get_xaxis_transform(), label="invalid environment"
        )
    for change in series["change_points"]:
        axes.axvline(change["index"] - 0.5, color=_RED, linewidth=1)
        axes.annotate(
            f"{change['change']:+.1%}", (change["index"] - 0.5, 0.97), xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0), textcoords="offset points", va="top", color=_RED, fontsize=8,
        )  # fmt: skip
    axes.set_xlabel("session, oldest first")
    axes.set_ylabel(f"ms ({_time_words(series['metric'])})")
    axes.grid(color=_PALE, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    random = f", {RANDOM.lower()}" if series["weights"] == "random" else ""
    figure.suptitle(f"{series['benchmark']}{random}", fontsize=10)
