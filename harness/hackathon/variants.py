"""What was tried, in a hackathon report: the variants of studies with their gain, and precision plans."""

from __future__ import annotations

from collections.abc import Sequence

from harness.hackathon.context import BOUNDS, Context, folded, informative, origin, paragraphs
from harness.records import Json
from harness.report import code, escape, is_reference, table, target_name, trial_verdict
from harness.report.text import ms, number

HELPED = 1.01
"""Latency of the first variant over this one's, from which a variant helped: 1 % is the least a mean over some ten
pictures can tell."""
_MOST_METRICS = 6


def variants(context: Context) -> list[str]:
    """Return what was tried: every study with what each variant gained, and the precision plans of every bisection."""
    lines = []
    for entry in context.records.studies:
        lines += [*_study(context, entry.data), *context.images("study", entry.document.name)]
    for entry in context.records.bisections:
        lines += _plans(context, entry.data)
    return lines


def _study(context: Context, study: Json) -> list[str]:
    words = context.words
    sources = origin(words, [study])
    labels = words("readme_origin", weights=sources["weights"], inputs=sources["inputs"])
    title = words("readme_variants", name=code(study["name"]), device=escape(study["device"]), origin=labels)
    metrics = {m["name"]: m for v in study["variants"] for m in v["metrics"]}
    names = list(metrics)[:_MOST_METRICS]
    headings = context.heads("variant", "changed", "verdict", "latency_ms", "speed_up")
    headings += [*(escape(_metric(context, metrics[name])) for name in names), words("score")]
    rows = [_variant(context, study, variant, names) for variant in study["variants"]]
    headings, rows = informative(headings, rows)
    notes = [f"- {escape(note)}" for note in study["notes"]]
    note = words("readme_variants_note", rule=escape(study["score_rule"]))
    blocks = paragraphs([title], table(headings, rows, words=3), [note], notes)
    return [*blocks, *_no_help(context, study["variants"])]


def _metric(context: Context, metric: Json) -> str:
    """Return a metric's name with its limit: ``pd max (≤ 12)``."""
    if metric["bound"] == "difference" or metric["allowed"] is None:
        return str(metric["name"])
    limit = f"{BOUNDS[metric['bound']]} {number(metric['allowed'])}"
    return f"{metric['name']}{context.words('bracketed', inner=limit)}"


def _variant(context: Context, study: Json, variant: Json, names: Sequence[str]) -> list[str]:
    settings, first = variant["settings"], study["variants"][0]
    before = first["settings"]
    changed = {k: v for k, v in settings.items() if k not in before or before[k] != v}
    differences = context.listed(context.line(escape(key), escape(value)) for key, value in changed.items())
    by_name = {metric["name"]: metric["actual"] for metric in variant["metrics"]}
    factor = _gain(variant, first)
    return [
        code(variant["name"]), context.words("readme_first") if variant is first else differences or "-",
        context.verdict("reference" if is_reference(study, variant) else variant["verdict"]),
        ms(variant["latency_ms"]), _speed_up(context, variant, factor),
        *(number(by_name.get(name)) for name in names), number(variant["score"]),
    ]  # fmt: skip


def _speed_up(context: Context, variant: Json, factor: float | None) -> str:
    """Return the speed-up against PyTorch FP32; beside it that over the first variant, where it is another."""
    known, over = number(variant["speed_up"]), number(factor)
    return (
        over if known == "-" else known if over in ("-", known) else f"{known}{context.words('bracketed', inner=over)}"
    )


def _gain(variant: Json, first: Json) -> float | None:
    if not variant["latency_ms"] or not first["latency_ms"]:
        return None
    ratio: float = first["latency_ms"] / variant["latency_ms"]
    return ratio


def _no_help(context: Context, found: Sequence[Json]) -> list[str]:
    """Return why each variant behind the first is no improvement, then what is not judged yet; a sentence for none."""
    words = context.words
    worse: dict[str, list[str]] = {}
    open_: dict[str, list[str]] = {}
    for variant in found[1:]:
        name, gain, reason = code(variant["name"]), _gain(variant, found[0]), escape(variant["reason"])
        if variant["verdict"] == "fail":
            worse.setdefault(words("readme_no_help_fail", reason=reason), []).append(name)
        elif variant["verdict"] == "not_judged" or gain is None:
            faster = words("readme_times_as_fast", name=name, factor=number(gain)) if gain is not None else name
            open_.setdefault(reason or words("not_recorded"), []).append(faster)
        elif gain < HELPED:
            worse.setdefault(words("readme_no_help_slow", gain=number(gain)), []).append(name)
    if not worse and not open_:
        return [words("readme_all_helped"), ""] if len(found) > 1 else []
    blocks = [(words("readme_no_help"), worse), (words("readme_not_yet"), open_)]
    return [
        line
        for title, reasons in blocks
        if reasons
        for line in paragraphs(
            [title], [f"- {context.line(context.listed(names), reason)}" for reason, names in reasons.items()]
        )
    ]


def _plans(context: Context, bisection: Json) -> list[str]:
    """Return the precision plans that a bisection tried, and the price of the one that passed."""
    words = context.words
    rows = [
        [
            context.listed(map(code, trial["keep_fp32"])) or words("none"), words(f"trial_{trial['where']}"),
            context.verdict(trial_verdict(trial)), escape(trial["reason"]) or "-", number(trial["error"]),
        ]
        for trial in bisection["trials"]
    ]  # fmt: skip
    if not rows:
        return []
    headings = context.heads("kept_fp32", "tried_on", "result", "remark", "relative")
    title = words("readme_plans", subject=code(bisection["subject"]), target=code(target_name(bisection)))
    costs = []
    if price := bisection["price"]:
        times = {key: ms(price[f"{key}_ms"]) for key in ("plan", "low", "fp32")}
        costs = [words("readme_price", device=escape(price["device"]), **times)]
    return [*folded(title, table(*informative(headings, rows), words=4)), *paragraphs(costs)]
