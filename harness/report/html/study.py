"""A study as parts of the page: the variants, quality against latency, the error over the steps, and the pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from harness.errors import UsageError
from harness.report.facts import Json, is_reference, judged_variants, tradeoff_points
from harness.report.html.parts import (
    TONES,
    Cell,
    Group,
    Line,
    Lines,
    Part,
    Picture,
    Pictures,
    PictureSet,
    Row,
    Section,
    Table,
    Tone,
    chart,
    columns,
    distinct,
    figure_columns,
    grouped,
    number,
    verdict,
    warnings,
    word,
    worst,
)
from harness.report.plots import draw_steps, draw_tradeoff, quality_words, stepped
from harness.report.text import source_words
from harness.report.verdicts import RANKS
from harness.report.words import Words

CASES = 6
"""Cases with pictures, those with the largest distance first: a page with all of them would be too large to open."""
LARGEST_IMAGE = 4 * 2**20
"""Bytes of one embedded file."""
PNG = b"\x89PNG\r\n\x1a\n"
SHARED = ("input", "edges", "reference")
OWN = ("engine", "difference")
ROLES = (*SHARED, *OWN, "sheet")
File = Callable[[str], Path]


def study_section(study: Json, file: File, id: str, t: Words) -> Section:
    """Return one study; ``file`` finds a picture that it names, or raises UsageError."""
    labels = warnings(study, t)
    variants = study["variants"]
    parts: list[Part] = [_table(study, f"{id}-variants", labels, t), _remarks(study, t)]
    parts += _pareto(study, id, labels, t)
    parts += _steps(study, id, labels, t)
    groups = [Group(id=f"{id}-table", heading=t("variants"), parts=tuple(parts), labels=labels)]
    pictures = _pictures(variants, file, labels, t)
    if pictures:
        groups.append(Group(id=f"{id}-pictures", heading=t("pictures"), parts=tuple(pictures), labels=labels))
    if any(variant["texts"] for variant in variants):
        groups.append(Group(id=f"{id}-texts", heading=t("texts"), parts=_texts(variants, id, labels, t), labels=labels))
    groups += _stages(variants, id, labels, t)
    weights = source_words(t.source(study["weights"]), study["weights_source"])
    facts = ((t("weights"), weights), (t("inputs"), t.source(study["inputs"])),
             (t("device"), study["device"]), (t("score_rule"), study["score_rule"]))  # fmt: skip
    return Section(
        id=id,
        heading=f"{t('study')}: {study['name']}",
        groups=tuple(groups),
        verdict=worst(variant["verdict"] for variant in judged_variants(study)) or "not_judged",
        facts=facts,
        labels=labels,
    )


def score_section(score: Json, id: str, t: Words) -> Section:
    """Return the judgement on one entrant's folder, picture by picture."""
    shape = (*columns(t, "picture", "latency_ms"), *figure_columns(["PD"]), *columns(t, "reason"))
    rows = tuple(
        Row(cells=(
            word(one["name"]), number(one["latency_ms"], ".4g"), number(one["pd"], ".4g"),
            word(one["reason"], "bad" if one["reason"] else ""),
        ))
        for one in score["pictures"]
    )  # fmt: skip
    lines = [Line(text=score["reason"], tone=TONES[score["verdict"]], lead=t("verdict_" + score["verdict"]))]
    lines += [Line(text=note, tone="warn") for note in score["notes"]]
    table = Table(id=f"{id}-pictures", caption=t("score_caption", count=len(rows)), columns=shape, rows=rows)
    figures = {"latency_ms": score["latency_ms"], "pd_mean": score["pd_mean"], "pd_max": score["pd_max"]}
    facts = [(t(key), "-" if value is None else f"{value:.4g}") for key, value in figures.items()]
    worth = t("none") if score["score"] is None else f"{score['score']:.4g}"
    facts.append((t("score"), f"{worth}: {score['score_rule']}"))
    group = Group(id=f"{id}-table", heading="", parts=(Lines(items=tuple(lines)), table))
    heading = f"{t('kind_of_score')}: {score['folder']}"
    return Section(id=id, heading=heading, groups=(group,), verdict=score["verdict"], facts=tuple(facts))


def _table(study: Json, id: str, labels: tuple[str, ...], t: Words) -> Table:
    variants = study["variants"]
    metrics = distinct(metric["name"] for variant in variants for metric in variant["metrics"])
    shape = (
        *figure_columns(["#"]),
        *columns(t, "variant", "verdict", "latency_ms", "speed_up", "score"),
        *figure_columns(metrics, shown=2),
        *columns(t, "settings", extra=("settings",)),
    )
    rows = []
    for index, variant in enumerate(variants, start=1):
        by_name = {metric["name"]: metric for metric in variant["metrics"]}
        settings = ", ".join(f"{key}={value}" for key, value in variant["settings"].items())
        cells = [
            number(index, "d"), word(variant["name"]), _verdict(study, variant, t),
            number(variant["latency_ms"], ".4g"), number(variant["speed_up"]), number(variant["score"], ".4g"),
            *(_metric(by_name.get(name), t) for name in metrics), word(settings),
        ]  # fmt: skip
        rows.append(Row(cells=tuple(cells)))
    caption = t("variants_caption", count=len(rows))
    return Table(id=id, caption=caption, columns=shape, rows=tuple(rows), labels=labels)


def _verdict(study: Json, variant: Json, t: Words) -> Cell:
    """Return a variant's verdict; the one that the others are held against has none."""
    if is_reference(study, variant):
        return Cell(text=t("verdict_reference"), tone="muted", order=len(RANKS))
    return verdict(variant["verdict"], t)


def _metric(metric: Json | None, t: Words) -> Cell:
    if metric is None:
        return word("")
    if metric["actual"] is None:
        return Cell(
            text="NaN" if metric["verdict"] == "fail" else t("verdict_not_judged"), tone=TONES[metric["verdict"]]
        )
    tone = "" if metric["verdict"] == "pass" or _is_only_shown(metric) else TONES[metric["verdict"]]
    return number(metric["actual"], ".4g", tone=tone)


def _is_only_shown(metric: Json) -> bool:
    """Return whether a metric has a figure and no limit to judge it by: there is nothing to remark on."""
    return metric["verdict"] == "not_judged" and metric["actual"] is not None and metric["allowed"] is None


def _remarks(study: Json, t: Words) -> Lines:
    """Return why variants and their metrics did not pass, and all notes."""
    found: list[tuple[str, Tone, str]] = []
    for variant in study["variants"]:
        name = variant["name"]
        if is_reference(study, variant):
            found.append((f"{t('verdict_reference')}: {variant['reason']}", "muted", name))
        elif variant["verdict"] != "pass":
            words = f"{t('verdict_' + variant['verdict'])}: {variant['reason']}"
            found.append((words, TONES[variant["verdict"]], name))
        for metric in variant["metrics"]:
            said = any(metric["reason"] in text for text in (variant["reason"], *study["notes"]))
            if metric["verdict"] != "pass" and not said and not _is_only_shown(metric):
                found.append((f"{metric['name']}: {metric['reason']}", TONES[metric["verdict"]], name))
            if metric.get("note"):
                found.append((f"{metric['name']}: {metric['note']}", "muted", name))
        found += [(note, "muted", name) for note in variant["notes"]]
    notes = [Line(text=note, tone="warn") for note in study["notes"]]
    return Lines(items=(*notes, *grouped(found, t("many_variants"))))


def _pareto(study: Json, id: str, labels: tuple[str, ...], t: Words) -> list[Part]:
    """Return quality against latency of the variants that have both; numbers are those of the table."""
    points, quality, lower = tradeoff_points(study)
    drawn = {point.index for point in points}
    without = [
        variant["name"]
        for index, variant in enumerate(study["variants"])
        if index not in drawn and not is_reference(study, variant)
    ]
    absent = Line(text=", ".join(without), tone="warn", lead=t("not_in_chart"))
    note: list[Part] = [Lines(items=(absent,))] if without else []
    if not points:
        return note
    captions = {"pd mean": "pareto_caption", "psnr": "psnr_caption"}
    side = "lower_caption" if lower else "higher_caption"
    title = t(captions.get(quality, side), name=study["name"], quality=quality_words(quality, t))
    return [chart(partial(draw_tradeoff, study=study, t=t), f"{id}-tradeoff", title, labels), *note]


def _steps(study: Json, id: str, labels: tuple[str, ...], t: Words) -> list[Part]:
    """Return the error over the steps of the sampler, and where it is not finite."""
    shown = stepped(study)
    if not shown:
        return []
    broken = [
        Line(text=t("steps_nonfinite", step=bad), tone="bad", lead=f"{variant['name']}:")
        for variant in shown
        if (bad := next((s["step"] for s in variant["steps"] if s["free"] is None or s["forced"] is None), None))
        is not None
    ]
    drawn = chart(partial(draw_steps, study=study, t=t), f"{id}-steps", t("steps_caption"), labels)
    return [drawn, *([Lines(items=tuple(broken))] if broken else [])]


def _stages(variants: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> list[Group]:
    stages = distinct(stage for variant in variants for stage in variant["stages_ms"])
    if not stages:
        return []
    rows = tuple(
        Row(cells=(word(v["name"]), *(number(v["stages_ms"].get(stage), ".4g") for stage in stages)))
        for v in variants
        if v["stages_ms"]
    )
    shape = (*columns(t, "variant"), *figure_columns(stages, shown=7))
    table = Table(id=f"{id}-stages-table", caption=t("stages_caption"), columns=shape, rows=rows, labels=labels)
    return [Group(id=f"{id}-stages", heading=t("stages"), parts=(table,), labels=labels)]


def _texts(variants: Sequence[Json], id: str, labels: tuple[str, ...], t: Words) -> tuple[Part, ...]:
    """Return the texts by case, each variant's below the reference's; the first cases only."""
    by_case: dict[str, list[tuple[Json, Json]]] = {}
    for variant in variants:
        for text in variant["texts"]:
            by_case.setdefault(text["case"], []).append((variant, text))
    names = distinct(name for shown in by_case.values() for _, text in shown for name in text["metrics"])
    rows = tuple(
        Row(cells=(
            word(case), word(variant["name"]), number(text["tokens"], "d"), number(text["first_difference"], "d"),
            *(number(text["metrics"].get(name), ".4g") for name in names), word(text["text"]),
        ))
        for case, shown in list(by_case.items())[:CASES]
        for variant, text in shown
    )  # fmt: skip
    shape = (
        *columns(t, "case", "variant", "tokens", "first_difference"),
        *figure_columns(names, shown=3),
        *columns(t, "text"),
    )  # fmt: skip
    table = Table(id=f"{id}-texts-table", caption=t("texts_caption"), columns=shape, rows=rows, labels=labels)
    left = len(by_case) - CASES
    more = Lines(items=(Line(text=t("more_texts", count=left), tone="muted"),))
    return (table, more) if left > 0 else (table,)


def _pictures(variants: Sequence[Json], file: File, labels: tuple[str, ...], t: Words) -> list[Part]:
    """Return the pictures by case, so that what the variants share is there once; the worst cases only."""
    cases: dict[tuple[str, str, int], list[tuple[Json, Json]]] = {}
    for variant in variants:
        for picture in variant["pictures"]:
            if picture["files"]:
                key = (picture["case"], picture["prompt"], picture["seed"])
                cases.setdefault(key, []).append((variant, picture))
    ordered = sorted(cases.items(), key=lambda item: -max(_badness(picture) for _, picture in item[1]))
    parts: list[Part] = []
    for (case, prompt, seed), shown in ordered[:CASES]:
        heading = t("picture_heading", case=case, prompt=prompt, seed=seed)
        parts.append(Pictures(heading=heading, sets=tuple(_case(shown, file, t)), labels=labels))
    if len(ordered) > CASES:
        parts.append(Lines(items=(Line(text=t("more_pictures", count=len(ordered) - CASES), tone="muted"),)))
    return parts


def _badness(picture: Json) -> float:
    """Return the distance by which pictures are ordered; one that could not be judged comes first."""
    value = picture["metrics"].get("pd")
    return float("inf") if value is None else float(value)


def _case(shown: Sequence[tuple[Json, Json]], file: File, t: Words) -> list[PictureSet]:
    """Return the pictures of one case: what the variants share once, then each variant's own beside its figures."""
    shared = []
    for role in SHARED:
        name = next((picture["files"][role] for _, picture in shown if role in picture["files"]), "")
        shared += [_picture(name, role, file, t)] if name else []
    sets = [PictureSet(heading="", items=tuple(shared))] if shared else []
    for variant, picture in shown:
        figures = ", ".join(f"{key.upper()} {_figure(value, t)}" for key, value in picture["metrics"].items())
        heading = f"{variant['name']}: {figures}; {_figure(picture['latency_ms'], t)} ms"
        own = [role for role in OWN if role in picture["files"]]
        roles = own or [role for role in picture["files"] if role not in SHARED]
        if roles:
            items = tuple(_picture(picture["files"][role], role, file, t) for role in roles)
            sets.append(PictureSet(heading=heading, items=items))
    return sets


def _picture(name: str, role: str, file: File, t: Words) -> Picture:
    """Return a PNG file as a picture, or why it is none."""
    words = t("picture_" + role) if role in ROLES else role
    try:
        path = file(name)
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST_IMAGE else b""
    except UsageError as error:
        return Picture(words=words, problem=str(error))
    except OSError as error:
        return Picture(words=words, problem=t("picture_unreadable", name=name, why=error.strerror or error))
    if size > LARGEST_IMAGE:
        return Picture(words=words, problem=t("picture_large", name=name, mib=size / 2**20))
    if not data.startswith(PNG):
        return Picture(words=words, problem=t("picture_no_png", name=name))
    uri = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(words=words, data=uri, role=role if role in ("reference", "engine") else "")


def _figure(value: float | None, t: Words) -> str:
    return t("verdict_not_judged") if value is None else format(value, ".4g")
