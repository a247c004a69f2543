"""The figures of a hackathon report: charts drawn from records, and pictures that studies made, in one folder.

Labels in charts are English in every language: matplotlib's own fonts have no Chinese characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.errors import NotJudged, ParityError
from harness.files import file_name, write_bytes
from harness.records import Entry, Json, Records
from harness.report import BASELINE, is_invalid, is_reference, newest_sessions, target_name
from harness.report.plots import save_bench, save_layers

FOLDER = "figures"
"""Beside the README."""
_PICTURES = (".png", ".svg", ".jpg", ".jpeg")
Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, or why there is none."""

    title: str
    """What it shows, as plain text."""
    path: str
    """Relative to the README; empty when it could not be made."""
    why: str = ""
    """Why there is none; such a figure is missing from the report, unless there was nothing to draw."""


def bench_groups(records: Records) -> dict[Key, list[Json]]:
    """Return the session that counts of everything that was timed, by what one table compares.

    That is subject, case, device and how. The session is the newest, or the newest that was timed against PyTorch FP32
    where one was. A machine's key has the backend's version in it, so PyTorch and an engine on one device share its
    class only.
    """
    groups: dict[Key, list[Json]] = {}
    for measured in _that_count([entry.data for entry in records.bench]):
        session = measured["session"]
        key = (session["subject"], session["case"], session["device"], session["machine"]["class_key"])
        groups.setdefault((*key, session["metric"], session["l2"]), []).append(measured)
    return groups


def _that_count(measured: Sequence[Json]) -> list[Json]:
    """Return one measurement of each benchmark on each machine: a session without a baseline takes none's speed-up."""
    newest = {identity(item): item for item in newest_sessions(measured)}
    compared = [one for one in measured if BASELINE in one["speed_up"] and not is_invalid(one["session"])]
    return list({**newest, **{identity(item): item for item in newest_sessions(compared)}}.values())


def identity(measured: Json) -> tuple[str, str]:
    """Return what was timed, and on which machine."""
    return measured["session"]["benchmark"], measured["session"]["machine"]["key"]


def draw(records: Records, folder: Path, *, write: bool = True) -> dict[Key, tuple[Figure, ...]]:
    """Draw and copy every figure into ``folder``/figures; return them by what they belong to.

    Without ``write`` nothing is drawn: the figures are those that there would be.
    Keys: ``("bench", *key of bench_groups)``, ``("layers", document, subject, case, target)`` and
    ``("study", document)``. A figure that could not be made says why. Raises UsageError when nothing can be written.
    """
    found: dict[Key, tuple[Figure, ...]] = {}
    for key, measured in bench_groups(records).items():
        found["bench", *key] = _bench(key, measured, folder, write)
    for entry in records.layers:
        found["layers", entry.document.name, *_names(entry.data)] = (_layers(entry, folder, write),)
    for entry in records.studies:
        found["study", entry.document.name] = tuple(_study(entry, folder, write))
    return found


def _names(data: Json) -> Key:
    return data["subject"], data["case"], target_name(data)


def _bench(key: Key, measured: Sequence[Json], folder: Path, write: bool) -> tuple[Figure, ...]:
    """Draw one chart per size that was swept, the other sizes at their smallest; none where there is one size."""
    symbols = list(dict.fromkeys(name for item in measured for name in item["session"]["sizes"]))
    figures = []
    for symbol in symbols:
        shown = [item for item in measured if symbol in item["session"]["sizes"]]
        for other in symbols[: symbols.index(symbol)]:
            smallest = min((item["session"]["sizes"].get(other, 0) for item in shown), default=0)
            shown = [item for item in shown if item["session"]["sizes"].get(other, 0) == smallest]
        if len({item["session"]["sizes"][symbol] for item in shown}) > 1:
            title = f"{key[0]}/{key[1]}: {symbol}"
            stem = folder / FOLDER / file_name("latency", *key[:3], key[3][:8], *key[4:], symbol)
            figures.append(_drawn(title, stem, partial(save_bench, shown, write=write)))
    return tuple(figures)


def _layers(entry: Entry, folder: Path, write: bool) -> Figure:
    names = _names(entry.data)
    stem = folder / FOLDER / file_name("layers", entry.document.name, *names)
    return _drawn(f"{names[0]}/{names[1]} [{names[2]}]", stem, partial(save_layers, entry.data, write=write))


def _drawn(title: str, stem: Path, save: Callable[[Path], list[Path]]) -> Figure:
    try:
        png = next(path for path in save(stem) if path.suffix == ".png")
    except NotJudged as error:
        return Figure(title=title, path="", why=str(error))
    return Figure(title=title, path=f"{FOLDER}/{png.name}")


def _study(entry: Entry, folder: Path, write: bool) -> list[Figure]:
    """Copy a study's charts, and the first picture's sheet of every variant but the reference."""
    study, name = entry.data, entry.data["name"]
    wanted = [(f"{name}: {what}", file) for what, file in study["charts"].items()]
    for variant in (one for one in study["variants"] if not is_reference(study, one)):
        sheets = [p["files"]["sheet"] for p in variant["pictures"] if "sheet" in p["files"]]
        wanted += [(f"{name}, {variant['name']}", sheets[0])] if sheets else []
    return [_copied(title, entry, file, folder, write) for title, file in wanted]


def _copied(title: str, entry: Entry, file: str, folder: Path, write: bool) -> Figure:
    try:
        source = entry.document.file(file)
    except ParityError as error:
        return Figure(title=title, path="", why=str(error))
    if source.suffix.lower() not in _PICTURES:
        return Figure(title=title, path="", why=f"{file!r} is no picture ({', '.join(_PICTURES)})")
    name = f"{file_name('study', entry.document.name, title)}{source.suffix.lower()}"
    copy = folder / FOLDER / name
    if write and not (copy.exists() and copy.samefile(source)):
        write_bytes(source.read_bytes(), copy)
    return Figure(title=title, path=f"{FOLDER}/{name}")
