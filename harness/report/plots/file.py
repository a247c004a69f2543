"""A matplotlib figure as files or inside a page: the same figures give the same bytes.

matplotlib is imported when a figure is drawn, without pyplot and so without a display.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import visible
from harness.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]
DPI = 150
BLUE, ORANGE, GREEN, PURPLE, TEAL, SLATE = SERIES = ("#1f5fa8", "#b85a00", "#17713a", "#8a3fa0", "#00737d", "#6a737c")
RED, GREY, PALE, BAND, INK, SOFT, WHITE = "#a8170f", "#8b949d", "#e3e6e9", "#dceaf8", "#1b1f23", "#56606a", "#ffffff"
MARKERS = "os^Dv"
"""Series that share a colour differ in their marker."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 9, "text.parse_math": False, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlesize": 9, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT,
    "grid.color": PALE, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8,
    "lines.markeredgewidth": 0.0, "savefig.facecolor": WHITE,
}  # fmt: skip


def png_and_svg(stem: Path) -> list[Path]:
    """Return ``stem.png`` and ``stem.svg``; a stem may hold dots."""
    return [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]


def save_figure(paths: Sequence[Path], inches: tuple[float, float], draw: Draw, *, title: str) -> None:
    """Write what ``draw`` draws, ``inches`` wide and high, with title and legend, into every path, by its suffix.

    Raises UsageError when a file cannot be written.
    """
    with _figure(inches, "parity", "constrained") as figure:
        draw(figure)
        figure.suptitle(visible(title), fontsize=11)
        if shown := legend(figure):
            words, handles = zip(*shown.items(), strict=True)
            figure.legend(handles, words, loc="outside lower center", ncols=min(len(words), 4))
        for path in paths:
            metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            with replacing(path) as file:
                figure.savefig(file, format=path.suffix[1:], metadata=metadata)


@contextmanager
def drawn(
    inches: tuple[float, float], draw: Draw, *, margins: tuple[float, float, float, float], salt: str
) -> Iterator[tuple[str, Figure]]:
    """Yield what ``draw`` draws as SVG, and the figure; of two salts no id in the SVG is the same.

    ``margins`` are inches left, right, above and below of the axes; to measure them takes as long as to draw.
    """
    with _figure(inches, salt, None) as figure:
        (width, height), (left, right, top, bottom) = inches, margins
        figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        draw(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        yield text.getvalue(), figure


def legend(figure: Figure) -> dict[str, Any]:
    """Return one line or patch per words of the legend."""
    found = [axes.get_legend_handles_labels() for axes in figure.axes]
    return {words: handle for handles, labels in found for handle, words in zip(handles, labels, strict=True)}


def named(words: str) -> str:
    """Return words as a legend can show them: matplotlib leaves out what begins with an underscore."""
    shown = visible(words)
    return f" {shown}" if shown.startswith("_") else shown


def dots(
    axes: Axes, points: Sequence[tuple[float, float]], *, size: float, color: str, label: str, gid: str, zorder: int
) -> None:
    """Draw points as one line of round caps: thousands of markers would make an SVG slow and large."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Line

    ends = [end for x, y in points for end in ((x, y), (x + 1e-4, y))]  # one of no length at all is not in a PNG
    line = Line(ends or [(0, 0)], [Line.MOVETO, Line.LINETO] * len(points) or [Line.MOVETO])
    line.should_simplify = False
    style = {"fill": False, "edgecolor": color, "linewidth": size, "capstyle": "round", "zorder": zorder, "gid": gid}
    axes.add_artist(PathPatch(line, snap=False, **style))  # add_patch would walk over every point in Python
    axes.update_datalim(ends)
    axes.plot([], [], "o", color=color, markersize=size, label=label)


def style_axes(axes: Axes, x: str, y: str) -> None:
    """Name both axes and draw a grid."""
    axes.set_xlabel(visible(x))
    axes.set_ylabel(visible(y))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_gid("axis")
    axes.minorticks_off()
    axes.grid()


@contextmanager
def _figure(inches: tuple[float, float], salt: str, layout: Literal["constrained"] | None) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # in SVG the reader's own font has it
        figure = Figure(figsize=inches, dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)  # so that draw can ask for the size of a text
        yield figure
