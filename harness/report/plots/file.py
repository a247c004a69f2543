"""A matplotlib figure as files: the same figures give the same bytes.

matplotlib is imported when a figure is drawn, without pyplot and so without a display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotJudged
from harness.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 150
BLUE, ORANGE, RED, GREY, PALE = "#1f5fa8", "#d97706", "#b91c1c", "#8c8c8c", "#dddddd"


def save_figure(
    paths: Sequence[Path], inches: tuple[float, float], draw: Callable[[Figure], None], *, write: bool = True
) -> None:
    """Write what ``draw`` draws, ``inches`` wide and high, into every path, as the kind that its suffix names.

    Without ``write`` only look for matplotlib. Raises NotJudged when it is missing, UsageError when a file cannot be
    written.
    """
    if find_spec("matplotlib") is None:
        raise NotJudged("matplotlib is not installed; pip install matplotlib")
    if not write:
        return
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "parity", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)  # so that draw can ask for the size of a text
        draw(figure)
        for path in paths:
            metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            with replacing(path) as file:
                figure.savefig(file, format=path.suffix[1:], metadata=metadata)
