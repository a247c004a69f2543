"""A chart inside a page: matplotlib's SVG without ids, styles and colours of its own, so that the page's theme holds.

The content security policy of the page forbids inline style, so styles become attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from harness.errors import visible
from harness.report.plots.file import BAND, GREY, INK, PALE, RED, SERIES, SOFT, WHITE, Draw, drawn, legend

Element = ElementTree.Element
INCHES = (8.0, 3.5)
MARGINS = (0.8, 0.2, 0.2, 0.5)
"""Inches left, right, above and below of the axes."""
_POINTS = 72
"""Units of an SVG by matplotlib per inch."""
_THEME = {colour: f"var(--c{number})" for number, colour in enumerate(SERIES)} | {
    RED: "var(--bad)", GREY: "var(--far)", PALE: "var(--pale)", BAND: "var(--band)", INK: "currentColor",
    SOFT: "var(--soft)", WHITE: "var(--back)",
}  # fmt: skip
"""Variables of page.css."""
_AUTOMATIC = re.compile(r"[a-z0-9.]+_\d+$")
_SIZE = re.compile(r"([\d.]+)px")
_LONG = re.compile(r"(-?\d+\.\d)\d+")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a legend."""

    words: str
    colour: str
    shape: str
    """``line``, ``dash``, ``dot``, ``ring`` or ``cross``."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart as markup, with its legend as data."""

    svg: Markup
    legend: tuple[Entry, ...]


def embedded(
    draw: Draw,
    *,
    id: str,
    title: str,
    height: float = INCHES[1],
    margins: tuple[float, float, float, float] = MARGINS,
    cursor: bool = False,
) -> Drawing:
    """Return what ``draw`` draws, ``height`` inches high; ``title`` is what a screen reader says.

    ``id`` is the chart's own in its page. With ``cursor`` there is a line that the page's script moves, and the range
    of the first axes stands in ``data-low`` and ``data-high``, with its places in ``data-start`` and ``data-end``.
    """
    inches = (INCHES[0], height)
    with drawn(inches, draw, margins=margins, salt=id) as (text, figure):
        entries = tuple(_entry(words, handle) for words, handle in legend(figure).items())
        box, limits = figure.axes[0].get_position(), figure.axes[0].get_xlim()
    root = ElementTree.fromstring(text)
    width, height = (round(length * _POINTS) for length in inches)
    children = [*_clean(root)]
    root.clear()
    root.tag = "svg"
    root.attrib = {"viewBox": f"0 0 {width} {height}", "role": "img", "stroke-linejoin": "round"}
    ElementTree.SubElement(root, "title").text = visible(title)
    root.extend(children)
    if cursor:
        left, right = (f"{side * width:.1f}" for side in (box.x0, box.x1))
        top, bottom = ((1 - side) * height for side in (box.y1, box.y0))
        root.attrib |= {"data-low": str(limits[0]), "data-high": str(limits[1]), "data-start": left, "data-end": right}
        ElementTree.SubElement(root, "path", {"class": "cursor", "d": f"M{left} {top:.1f}V{bottom:.1f}"})
    return Drawing(svg=Markup(ElementTree.tostring(root, encoding="unicode")), legend=entries)


def _clean(parent: Element) -> Iterator[Element]:
    """Yield the elements below one, cleaned: without metadata and style sheet, and groups that say nothing."""
    for element in parent:
        element.tag = element.tag.rpartition("}")[2]
        if element.tag in ("metadata", "style"):
            continue
        inside = list(_clean(element))
        _attributes(element)
        element.tail = None
        if element.tag != "text":
            element.text = None
        if element.tag in ("g", "defs") and (not inside or (not element.attrib and element.tag == "g")):
            yield from inside
            continue
        element[:] = inside
        yield element


def _attributes(element: Element) -> None:
    """Turn styles into attributes, names into classes, and colours into those of the page."""
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for style in attributes.pop("style", "").split(";"):
        name, _, value = style.partition(":")
        if size := _SIZE.search(value) if name.strip() in ("font", "font-size") else None:
            attributes["font-size"] = size[1]
        elif name.strip() and not name.strip().startswith("font"):
            attributes[name.strip()] = value.strip()
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    given = attributes.get("id", "")
    if element.tag == "g":
        attributes.pop("id", None)
        if given and not _AUTOMATIC.match(given):
            attributes["class"] = given
    for key in ("fill", "stroke"):
        if key in attributes:
            attributes[key] = _THEME.get(attributes[key], attributes[key])
    for key in ("d", "x", "y", "transform"):
        if key in attributes:
            attributes[key] = _LONG.sub(r"\1", attributes[key]).replace("\n", "")
    element.attrib = attributes


def _entry(words: str, handle: object) -> Entry:
    """Return the entry of a matplotlib line or patch."""
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    assert isinstance(handle, Line2D)
    filled = handle.get_markerfacecolor() != "none"
    colour = to_hex(handle.get_color() if filled else handle.get_markeredgecolor())
    if handle.get_linestyle() != "None":
        shape = "dash" if handle.get_linestyle() != "-" else "line"
    else:
        shape = {"x": "cross"}.get(str(handle.get_marker()), "dot" if filled else "ring")
    return Entry(words=words.strip(), colour=_THEME.get(colour, colour), shape=shape)
