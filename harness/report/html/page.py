"""The report as one HTML file, from recorded JSON alone: no network, no server, nothing but what the file holds.

``page()`` is a function of the records: the same records give the same bytes. Scripts and styles are allowed by their
hash only, and images only as data, so that nothing in a record is executed or loaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.errors import visible
from harness.files import write_text
from harness.records import MARKS, Records
from harness.report import verdicts
from harness.report.against import changes
from harness.report.facts import Json, judged_variants
from harness.report.html import overview
from harness.report.html.against import changes_section
from harness.report.html.parts import (
    Code,
    Details,
    Facts,
    Group,
    Line,
    Lines,
    Part,
    Row,
    Section,
    Table,
    columns,
    distinct,
    word,
)
from harness.report.html.quant_search import quant_section
from harness.report.html.study import score_section, study_section
from harness.report.html.subjects import Known, subject_section
from harness.report.text import creep_lines, part_counts
from harness.report.words import Language, Words

PRINTED = 20
"""Rows of a table that are printed, as in page.css."""
SCRIPT_WORDS = ("rows_shown", "show_all", "theme_auto", "theme_light", "theme_dark", "compare", "engine",
                "compare_slider", "sort_by", "readout", "copy", "copied")  # fmt: skip
"""Words that the script needs."""


def page(records: Records, *, lang: Language = "en", against: tuple[str, Records] | None = None) -> str:
    """Return the page. Sessions that belong to one series are shown as such.

    ``against`` are earlier records with their name: what changed since comes first.
    """
    t = Words(lang)
    records, against = t.records(records), against and (against[0], t.records(against[1]))
    known = _by_subject(records)
    sections = [subject_section(one, f"s{n}", t) for n, one in enumerate(known, start=1)]
    studies = [
        study_section(entry.data, entry.document.file, f"study{n}", t)
        for n, entry in enumerate(records.studies, start=1)
    ]
    labels = tuple(distinct(label for section in (*sections, *studies) for label in section.labels))
    said = creep_lines(records.trends, t)
    summary = overview.overview(_items(known, records, t), records, labels, t, warnings=said)
    scores = [score_section(entry.data, f"score{n}", t) for n, entry in enumerate(records.scores, start=1)]
    changed = [changes_section(changes(against[1], records), against[0], t)] if against else []
    quant = [quant_section(entry.data, f"quant{n}", t) for n, entry in enumerate(records.quant_searches, start=1)]
    chapters = [*changed, *sections, *quant, *studies, *scores, _machine(records, t), _reproduce(records, t), _terms(t)]
    names = [one.subject for one in known] + [entry.data["subject"] for entry in records.quant_searches]
    names += [entry.data["name"] for entry in records.studies]
    names += [entry.data["folder"] for entry in records.scores]
    return _render(summary, chapters, names, lang, t)


def save_page(
    records: Records, path: Path, *, lang: Language = "en", against: tuple[str, Records] | None = None
) -> Path:
    """Write the page in one step and return its path. Raises UsageError when the file cannot be written."""
    write_text(page(records, lang=lang, against=against), path)
    return path


def _by_subject(records: Records) -> list[Known]:
    """Return all that is known, by subject, in the order in which subjects first occur."""
    found: dict[str, Known] = {}

    def of(subject: str) -> Known:
        return found.setdefault(subject, Known(subject=subject))

    for entry in records.results:
        of(entry.data["subject"]).results.append(entry.data)
    for entry in records.bisections:
        of(entry.data["subject"]).bisections.append(entry.data)
    for entry in records.parts:
        of(entry.data["subject"]).parts.append(entry.data)
    for entry in records.bench:
        of(entry.data["session"]["subject"]).bench.append(entry.data)
    for entry in records.not_measured:
        of(entry.data["subject"]).missing.append(entry.data)
    for trend in records.trends:
        of(trend["subject"]).trends.append(trend)
    return list(found.values())


def _items(known: Sequence[Known], records: Records, t: Words) -> list[overview.Item]:
    """Return every verdict with the place in the page that explains it."""
    items, item_of = [], overview.Item.of
    for n, one in enumerate(known, start=1):
        newest = verdicts.by_engine(one.bisections)
        for result in one.results:
            items += overview.result_items(result, newest, f"#s{n}-outputs", t)
        for i, found in enumerate(one.parts, start=1):
            items.append(item_of(verdicts.parts_item(found), part_counts(found["parts"]), f"#s{n}-parts-{i}"))
        for i, found in enumerate(one.bisections, start=1):
            items.append(item_of(verdicts.bisection_item(found, t), found["kind"], f"#s{n}-bisect-{i}"))
        items += [overview.latency_item(measured, f"#s{n}-latency", t) for measured in verdicts.newest(one.bench)]
        items += [item_of(verdicts.missing_item(item), "", f"#s{n}-latency") for item in one.missing]
    for n, entry in enumerate(records.studies, start=1):
        study = entry.data
        items += [overview.variant_item(study, variant, f"#study{n}") for variant in judged_variants(study)]
    items += [overview.score_item(e.data, f"#score{n}") for n, e in enumerate(records.scores, start=1)]
    return items


def _machine(records: Records, t: Words) -> Section:
    """Return every machine that something was recorded on."""
    groups = []
    for n, (environment, names) in enumerate(records.environments, start=1):
        facts = [(t("recorded_in"), ", ".join(names)), *_environment(environment, t)]
        groups.append(Group(id=f"machine-{n}", heading=_device(environment), parts=(Facts(rows=tuple(facts)),)))
    if not groups:
        line = Line(text=t("no_environment"), tone="warn")
        groups.append(Group(id="machine-none", heading="", parts=(Lines(items=(line,)),)))
    return Section(id="machine", heading=t("environment"), groups=tuple(groups))


def _device(environment: Json) -> str:
    gpus = distinct(gpu.get("name") for gpu in environment["gpus"])
    return ", ".join(map(str, gpus)) or str(environment["cpu"]) or "CPU"


def _environment(environment: Json, t: Words) -> list[tuple[str, str]]:
    gpus = [
        f"{gpu.get('name')}, {(gpu.get('memory_bytes') or 0) / 2**30:.1f} GiB, {gpu.get('compute_capability')}"
        for gpu in environment["gpus"]
    ]
    rows = [("GPU", "; ".join(gpus) or environment["no_gpu"] or t("not_recorded"))]
    rows += [(t("driver"), environment["driver"] or t("none")), ("CUDA", environment["cuda"] or t("none"))]
    rows += [("CPU", f"{environment['cpu']}, {environment['cpu_count']} {t('cores')}")]
    rows += [(t("system"), environment["platform"]), ("Python", environment["python"])]
    rows += [(name, version or t("not_installed")) for name, version in environment["packages"].items()]
    for name, backend in environment["backends"].items():
        why = backend.get("unavailable") or backend.get("cannot_run")
        rows.append((name, ": ".join(filter(None, (backend.get("version"), why))) or "-"))
    return rows


def _reproduce(records: Records, t: Words) -> Section:
    """Return the commands and commits behind the figures, the files they were read from, and remarks on those."""
    parts: list[Part] = []
    if records.commits:
        parts.append(Facts(rows=((t("commit"), ", ".join(records.commits)),)))
    if records.commands:
        parts.append(Code(label=t("commands"), text="\n".join(records.commands)))
    else:
        parts.append(Lines(items=(Line(text=t("no_commands"), tone="warn"),)))
    rows = tuple(
        Row(cells=(word(doc.name), word(doc.command), word(t("yes") if doc.complete else t("no")), word(doc.error)))
        for doc in records.documents
    )
    shape = columns(t, "file", "command", "complete", "error")
    table = Table(id="documents", caption=t("documents_caption", count=len(rows)), columns=shape, rows=rows)
    parts.append(Details(summary=table.caption, parts=(table,)))
    remarks = tuple(Line(text=sentence, tone="muted") for sentence in (*records.twice, *records.foreign))
    parts += [Lines(items=remarks)] if remarks else []
    return Section(
        id="reproduce", heading=t("reproduce"), groups=(Group(id="commands", heading="", parts=tuple(parts)),)
    )


def _terms(t: Words) -> Section:
    keys = ("rel_err", "floor", "ratio", "local", "accumulated", "effect", "share", "bias", "verdict_known")
    marks = (f"mark_{mark}" for mark in MARKS if mark != "not_judged")
    rows = tuple((t(key), t(f"term_{key}")) for key in (*keys, "verdict_not_judged", *marks))
    return Section(
        id="terms", heading=t("terms"), groups=(Group(id="terms-list", heading="", parts=(Facts(rows=rows),)),)
    )


def _render(
    summary: overview.Overview, chapters: Sequence[Section], names: Sequence[str], lang: Language, t: Words
) -> str:
    from jinja2 import Environment, StrictUndefined

    package = files("harness.report.html")
    style, script, source = (
        package.joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
        for name in ("page.css", "page.js", "page.html.j2")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              finalize=_shown)  # fmt: skip
    return environment.from_string(source).render(
        t=t,
        lang="zh-CN" if lang == "zh" else "en",
        title=f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else t("title"),
        overview=summary,
        printed=PRINTED,
        sections=[summary.section, *chapters],
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=_script_data({key: t(key) for key in SCRIPT_WORDS}),
    )


def _shown(value: Any) -> Any:
    """Return text with what cannot be seen made visible: a name must not turn the direction of the page's text."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "\n".join(visible(line) for line in value.split("\n"))


def _policy(style: str, script: str) -> str:
    """Return the content security policy: this style, this script and data images, and nothing from anywhere else."""
    allowed = {"script-src": _hash(script), "style-src": _hash(style), "img-src": "data:"}
    rules = [f"{kind} {what}" for kind, what in allowed.items()]
    return "; ".join(["default-src 'none'", *rules, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _script_data(data: Any) -> Markup:
    """Return JSON that can stand in a script element: no ``<`` in it, so that nothing can end the element early."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
