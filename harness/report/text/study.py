"""A study as plain text: the table of variants, why one failed or was not judged, where the time goes.

Takes the dict of ``StudyResult.to_json()``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import settled_study
from harness.report.facts import Json, is_reference, judged_variants, study_metric
from harness.report.text.results import verdict_counts
from harness.report.text.tables import aligned, ascii_safe, number, verdict_word

OF_PICTURES = (
    "PD: perceptual distance, LPIPS: lower is better; PSNR in dB, SSIM: higher is better; against the first variant."
)
LEGEND = "latency: mean over the {} without the first; speed-up: latency of the first variant over this one's."
_METRICS = {"PD mean": "pd mean", "PD max": "pd max", "LPIPS": "lpips", "PSNR": "psnr", "SSIM": "ssim"}
_WORDS = 80
"""Letters of a text that are shown."""


def study_text(study: Json) -> str:
    """Return the study as text."""
    study = settled_study(study)
    metrics = _metrics(study)
    headings = ("variant", "verdict", *metrics, "latency ms", "speed-up", "score")
    rows = [_row(study, variant, metrics) for variant in study["variants"]]
    lines = [_head(study), *aligned([headings, *rows]), ""]
    lines += _reasons(study["variants"])
    lines += [f"{v['name']}: note: {note}" for v in study["variants"] for note in v["notes"]]
    lines += ["", *stage_lines(study), *text_lines(study)]
    lines += [f"note: {note}" for note in study["notes"]]
    lines += [f"chart: {what}: {file}" for what, file in study["charts"].items()]
    has_texts = any(variant["texts"] for variant in study["variants"])
    lines += [f"score: {study['score_rule']}", *([OF_PICTURES] if _METRICS.keys() & metrics.keys() else [])]
    lines += [LEGEND.format("texts" if has_texts else "pictures"), study_counts(study)]
    return ascii_safe("\n".join(lines))


def study_counts(study: Json) -> str:
    """Return ``6 variants: 3 passed, 1 failed, 2 not judged``; the first, being the reference, is not counted."""
    return verdict_counts(judged_variants(study), noun="variant")


def _reasons(variants: Sequence[Json]) -> list[str]:
    """Return why variants did not pass; those of one reason stand together."""
    names: dict[str, list[str]] = {}
    for variant in variants:
        if variant["verdict"] != "pass":
            names.setdefault(variant["reason"], []).append(variant["name"])
    return [f"{', '.join(same)}: {reason}" for reason, same in names.items()]


def stage_lines(study: Json) -> list[str]:
    """Return a table of mean milliseconds per stage and of the whole; nothing where no stage was timed."""
    timed = [variant for variant in study["variants"] if variant["stages_ms"]]
    names = list(dict.fromkeys(name for variant in timed for name in variant["stages_ms"]))
    rows = [(v["name"], *(number(v["stages_ms"].get(name)) for name in names), number(v["latency_ms"])) for v in timed]
    return [*aligned([("ms per stage", *names, "whole"), *rows], words=1), ""] if rows else []


def text_lines(study: Json) -> list[str]:
    """Return the reference's texts, each with the first difference of every variant that wrote another."""
    first, *others = study["variants"]
    lines = []
    for index, right in enumerate(first["texts"]):
        lines.append(f"{right['case']}: {_cut(right['text'])}")
        for variant in others:
            for text in variant["texts"][index : index + 1]:  # one that failed has none
                if text["first_difference"] is not None:
                    where = f"token {text['first_difference']} of {text['tokens']} differs"
                    lines.append(f"  {variant['name']}: {where}: {_cut(text['text'])}")
    return [*lines, ""] if lines else []


def _cut(text: str) -> str:
    return text if len(text) <= _WORDS else f"{text[:_WORDS]} ..."


def _metrics(study: Json) -> dict[str, str]:
    """Return the columns of metrics; with a perceptual distance those that go with it."""
    names = dict.fromkeys(metric["name"] for variant in study["variants"] for metric in variant["metrics"])
    if not names or {"pd mean", "pd max"} & names.keys():
        names = dict.fromkeys((*_METRICS.values(), *names))
    headings = {name: heading for heading, name in _METRICS.items()}
    return {headings.get(name, name): name for name in names}


def _head(study: Json) -> str:
    weights = f"weights: {study['weights']} ({study['weights_source']})"
    return f"{study['name']} | {weights} | inputs: {study['inputs']} | device: {study['device']}"


def _row(study: Json, variant: Json, metrics: Mapping[str, str]) -> tuple[str, ...]:
    figures = [number(study_metric(variant, name), ".4g") for name in metrics.values()]
    timing = (number(variant["latency_ms"], ".4g"), number(variant["speed_up"]), number(variant["score"]))
    verdict = verdict_word("reference" if is_reference(study, variant) else variant["verdict"])
    return variant["name"], verdict, *figures, *timing
