"""What records say: their names, times and errors, which of them count, and what an error looks like."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.records import HARMLESS, MARKS, contestant_name, overall
from harness.report.words import Words

Json = Mapping[str, Any]
BASELINE = "eager fp32"
"""The baseline that the table's speed-up is against."""
MIB = 2**20
RANDOM = "RANDOM WEIGHTS"
UNSEEN = ("not_delivered", "unmapped")
"""Statuses of values that were not seen; inner tensors are no values, and integers were seen."""
ENGLISH = Words("en")


def target_name(data: Json) -> str:
    """Return ``rtx-fp16``."""
    return f"{data['backend']}-{data['precision']}"


def session_target(session: Json) -> str:
    """Return ``rtx-fp16`` for an engine, ``eager fp32`` for PyTorch."""
    return contestant_name(session["runner"], session["backend"], session["precision"])


def is_judged(measured: Json) -> bool:
    """Return whether it is a contestant; PyTorch without a baseline of its own is there to compare with."""
    return bool(measured["session"]["runner"] == "engine" or measured["comparison"]["verdict"] != "no_baseline")


def case_label(session: Json) -> str:
    """Return the case and the sizes: ``short batch=4``."""
    return " ".join([session["case"], *(f"{name}={size}" for name, size in session["sizes"].items())])


def newest_sessions(measured: Iterable[Any]) -> list[Any]:
    """Return the newest measurement of every benchmark on every machine; ``measured`` are oldest first."""
    found = {(item["session"]["benchmark"], item["session"]["machine"]["key"]): item for item in measured}
    return list(found.values())


def is_invalid(session: Json) -> bool:
    """Return whether none of a session's figures counts, because of what else the device did."""
    return bool(session["runs"]) and all(run["invalid"] for run in session["runs"])


def speed_up_interval(measured: Json, over: str) -> tuple[float | None, float | None]:
    """Return the ends of the 95 % interval of a speed-up over a baseline; None where there is none."""
    return measured["speed_up_intervals"].get(over) or (None, None)


def throughput(session: Json) -> float | None:
    """Return the median runs per second of the processes that count; None where none of them measured it."""
    runs = [run for run in session["runs"] if not run["invalid"]]
    loads = [run["throughput_per_s"] for run in runs if run["throughput_per_s"] is not None]
    return median(loads) if loads else None


def device_mib(session: Json) -> float | None:
    """Return the median device memory of the processes in MiB; None where none of them knows it."""
    memory = [run["device_bytes"] / MIB for run in session["runs"] if run["device_bytes"] is not None]
    return median(memory) if memory else None


def session_latency(session: Json) -> tuple[float, float, float] | None:
    """Return the median of the processes' medians, the lowest and the highest of them, in ms; None without figures."""
    values = figures(session, session["metric"], "median")
    return (median(values), min(values), max(values)) if values else None


def figures(session: Json, metric: str, figure: str) -> list[float]:
    """Return one figure of every process that has it, those in an invalid environment left out."""
    runs = [run for run in session["runs"] if not run["invalid"]] or session["runs"]
    return [run[metric][figure] for run in runs if run[metric] and run[metric][figure] is not None]


def largest_error(outputs: Iterable[Json]) -> float | None:
    """Return the largest relative error of outputs: NaN beats infinity, which beats a figure; None without figures.

    It is NaN where an element is not finite on one side only. An error is None in the JSON where the reference's norm
    is 0, which makes it infinite.
    """
    outputs = list(outputs)
    if any(output.get("mismatched_nonfinite") for output in outputs):
        return math.nan
    errors = [output["relative_l2"] for output in outputs if "relative_l2" in output]
    return math.inf if None in errors else max(errors, default=None)


def beyond(output: Json) -> tuple[float, Json | None]:
    """Return how many times its limit an output's worst figure is, and the part of it with that figure.

    Without a limit that was recorded it is infinite, and there is no part.
    """
    allowed, parts = output["allowed"], list(output["parts"])
    whole = next((p["allowed"] for p in parts if (p["kind"], p["figure"]) == ("whole", "relative_l2")), None)
    if allowed and allowed.get("relative_l2") != whole:  # a tolerance was given, and the parts were not held to it
        figures = {"relative_l2": output.get("relative_l2"), "max_absolute": _largest(output)}
        parts = [
            {"kind": "whole", "figure": figure, "error": error, "allowed": allowed[figure]}
            for figure, error in figures.items()
            if figure in allowed
        ]
    times = [math.inf if p["error"] is None or not p["allowed"] else abs(p["error"]) / p["allowed"] for p in parts]
    return max(zip(times, parts, strict=True), key=lambda one: one[0], default=(math.inf, None))


def worst_output(result: Json) -> Json | None:
    """Return the output that decides a result: of those with its verdict the one that is farthest beyond its limit.

    What is not finite comes first; indices and labels, which have no error, come last.
    """

    def badness(output: Json) -> tuple[bool, bool, float]:
        return bool(output.get("mismatched_nonfinite")), not output.get("decisions"), beyond(output)[0]

    own = [output for output in result["outputs"] if output["verdict"] == result["verdict"]]
    return max(own or result["outputs"], key=badness, default=None)


def floor_ratio(output: Json) -> float | None:
    """Return the relative error of an output over its floor; None where it lacks one of them."""
    error, floor = output.get("relative_l2"), (output.get("floor") or {}).get("relative_l2")
    return error / floor if error is not None and floor else None


def _largest(output: Json) -> float | None:
    error: float | None = (output.get("absolute") or {}).get("max")
    return error


def worst_ratio(report: Json) -> float | None:
    """Return the largest local error over its floor, of the values whose errors reach the outputs; None without one."""
    ratios = [error_ratio(value) for value in compared(report) if value["mark"] != HARMLESS]
    return max((ratio for ratio in ratios if ratio is not None and math.isfinite(ratio)), default=None)


def missed(runs: int, share: float) -> float:
    """Return the chance that a fault which comes in this share of the runs comes in none of so many."""
    return (1 - share) ** runs


def by_module(kernels: Sequence[Json]) -> dict[str, tuple[float, float, int]]:
    """Return ms, share and number of kernels per module, longest first; kernels of no known module come under ''."""
    found: dict[str, tuple[float, float, int]] = {}
    for kernel in kernels:
        time, share, count = found.get(kernel["module"], (0.0, 0.0, 0))
        found[kernel["module"]] = (time + kernel["ms"], share + kernel["share"], count + 1)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def compared(report: Json) -> list[Json]:
    """Return the values that were compared, in dataflow order."""
    return sorted((v for v in report["values"] if v["status"] == "compared"), key=lambda value: value["depth"])


def is_nonfinite_value(value: Json) -> bool:
    """Return whether the engine's value holds a NaN or an infinity that the reference does not hold."""
    return value["mark"] == "nonfinite" or bool((value["stats"] or {}).get("mismatched_nonfinite"))


def nonfinite_names(report: Json) -> set[str]:
    """Return the names of the values that hold a NaN or an infinity that the reference does not hold."""
    return {value["name"] for value in report["values"] if is_nonfinite_value(value)}


def value_error(value: Json) -> float | None:
    """Return a value's accumulated relative L2 error; None where there is none, or none that is finite."""
    figure: float | None = (value["stats"] or {}).get("relative_l2")
    return figure


def error_ratio(finding: Json) -> float | None:
    """Return the local error over the local floor: infinite over a floor of 0, None without a local error."""
    local, floor = finding["local"], finding["local_floor"]
    if local is None or floor is None:
        return None
    ratio: float = local / floor if floor else (math.inf if local else 1.0)
    return ratio


def worst_first(values: Iterable[Json]) -> list[Json]:
    """Return values from the worst to the best: non-finite ones in dataflow order, then by mark, then by ratio."""

    def key(value: Json) -> tuple[bool, float, float, float]:
        bad, ratio = is_nonfinite_value(value), error_ratio(value)
        place = value["depth"] if bad else MARKS.index(value["mark"])
        return not bad, place, 1.0 if ratio is None else -ratio, -(value_error(value) or 0.0)

    return sorted(values, key=key)


def shape_words(shape: Json, words: Words = ENGLISH) -> str:
    """Return a phrase for what an error looks like: ``scaled by 1.030``, ``entry 3 of axis 1 only (it has 12)``."""
    kind, part = shape["kind"], shape["part"]
    if kind == "decision" and part:
        kind = f"decision_{part}"
    elif kind == "non_finite" and shape["entries"]:
        kind = "non_finite_part"
    elif kind == "stale" and shape["other"]:
        kind = "stale_case"
    factor = "" if shape["factor"] is None else _figure(shape["factor"], scale=(part or kind) == "scale")
    ranges = (str(low) if low == high else f"{low}-{high}" for low, high in shape["entries"])
    fields = {**shape, "factor": factor, "entries": ", ".join(ranges), "permutation": list(shape["permutation"])}
    whole = words(f"shape_{kind}", **fields)
    return (
        words("shape_of_part", whole=whole, part=words(f"shape_{part}", **fields))
        if kind == "slice" and part
        else whole
    )


def _figure(value: float, *, scale: bool) -> str:
    """Return a factor as ``1.030`` where it is near 1, any other figure with five digits."""
    return f"{value:.3f}" if scale and 0.1 <= abs(value) < 10 and round(abs(value), 3) != 1 else f"{value:.5g}"


def short_commit(commit: str) -> str:
    """Return a commit by its first seven digits, with ``+changes`` where the tree was not clean."""
    return re.sub(r"(?<=^\w{7})\w*", "", commit)


def short_op(op: str) -> str:
    """Return ``aten.linear`` of ``aten.linear.default``."""
    return op.removesuffix(".default")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One variant on the chart of quality against latency."""

    index: int
    """Its position among the study's variants, from 0."""
    name: str
    latency_ms: float
    quality: float
    verdict: str
    limit: float | None
    """The limit of its quality figure; None where none was set."""


def study_metric(variant: Json, name: str) -> float | None:
    """Return a variant's metric by name; None where it was not judged or is not finite."""
    value: float | None = next((row["actual"] for row in variant["metrics"] if row["name"] == name), None)
    return value


def tradeoff_points(study: Json) -> tuple[list[Point], str, bool]:
    """Return the variants with latency and quality, the figure that is their quality, and whether lower is better.

    Quality is the mean PD; where no variant has one, the mean PSNR; else the first metric that says which values are
    better. The reference is no point: the others are held against it.
    """
    others = {m["name"]: m["direction"] == "lower" for v in study["variants"] for m in v["metrics"] if m["direction"]}
    for name, lower in {"pd mean": True, "psnr": False, **others}.items():
        points = [point for index in range(len(study["variants"])) if (point := _point(study, index, name))]
        if points:
            return points, name, lower
    return [], "", True


def pareto_front(points: Sequence[Point], *, lower: bool = True) -> list[Point]:
    """Return the points that no other beats in one figure without losing in the other, fastest first.

    A variant that failed is not on the front.
    """
    front: list[Point] = []
    judged = [point for point in points if point.verdict != "fail"]
    for point in sorted(judged, key=lambda p: (p.latency_ms, p.quality if lower else -p.quality)):
        better = not front or (point.quality < front[-1].quality if lower else point.quality > front[-1].quality)
        front += [point] if better else []
    return front


def _point(study: Json, index: int, name: str) -> Point | None:
    variant = study["variants"][index]
    row = next((row for row in variant["metrics"] if row["name"] == name), None)
    if row is None or row["actual"] is None or variant["latency_ms"] is None or is_reference(study, variant):
        return None
    return Point(
        index=index, name=variant["name"], latency_ms=variant["latency_ms"], quality=row["actual"],
        verdict=variant["verdict"], limit=row["allowed"],
    )  # fmt: skip


def is_reference(study: Json, variant: Json) -> bool:
    """Return whether this is the variant that the others are held against, and so has no verdict of its own."""
    return variant is study["variants"][0] and variant["verdict"] != "fail"


def judged_variants(study: Json) -> list[Json]:
    """Return the variants of a study that carry a verdict: the first, which the others are held against, does not.

    A first one that failed is a failure all the same.
    """
    return [v for v in study["variants"] if not is_reference(study, v)]


def cost_outputs(result: Json) -> list[Json]:
    """Return the outputs of what quantisation costs, by names that say so; nothing where that was not asked."""
    return _named_cost((result.get("cost") or {}).get("outputs", ()))


def cost_metrics(result: Json) -> list[Json]:
    """Return the task metrics of what quantisation costs, likewise."""
    return _named_cost((result.get("cost") or {}).get("metrics", ()))


def _named_cost(parts: Iterable[Json]) -> list[Json]:
    return [{**part, "name": f"cost: {part['name']}"} for part in parts]


def judged_parts(result: Json) -> list[Json]:
    """Return everything of a result that has a verdict of its own: outputs, metrics and what quantisation costs."""
    parts = [*cost_outputs(result), *cost_metrics(result)]
    if parts and result["cost"]["verdict"] == "pass":  # an output without a limit of its own is only shown
        parts = [part for part in parts if part["verdict"] != "not_judged"]
    return [*result["outputs"], *result["metrics"], *parts]


def parity_alone(result: Json) -> Json:
    """Return a result without what quantisation costs: with the verdict that its outputs and metrics leave.

    A verdict that the cost does not explain stays.
    """
    cost = result.get("cost")
    if not cost or cost["verdict"] != result["verdict"] or result["verdict"] == "pass":
        return {**result, "cost": None}
    parts = [*result["outputs"], *result["metrics"]]
    verdict = overall(part["verdict"] for part in parts)
    reason = next((f"{part['name']}: {part['reason']}" for part in parts if part["verdict"] == verdict), "")
    failure = result["failure"] if verdict == "fail" else ""
    return {**result, "cost": None, "verdict": verdict, "reason": reason, "failure": failure}


def part_verdict(result: Json, part: Json) -> str:
    """Return the verdict on an output or a metric as it is shown: known, where the result's failure is known."""
    return "known" if result["verdict"] == "known" and part["verdict"] == "fail" else str(part["verdict"])


def about(entry: Json) -> str:
    """Return the subject that an entry of the ledger is about, and those of its parts that it names."""
    return " ".join(filter(None, (entry["subject"], ", ".join(entry["part"]))))


def known_words(known: Json | None) -> str:
    """Return what a record's entry of the ledger says of it; empty where there is none, or it says nothing."""
    if not known or not (known["why"] or known["verdict"] in ("", "fail")):
        return ""
    return known["why"] or f"known until {known['expires']}: {known['reason']} ({known['issue']})"


def bisection_verdict(found: Json) -> str:
    """Return what a bisection says of the engine it was asked about."""
    return {"none": "pass", "not_judged": "not_judged"}.get(found["kind"], "fail")


def bisected_result(found: Json) -> Json:
    """Return the verdict that a bisection is about; of one from before it held that, what its kind and finding say."""
    if found["result"]:
        result: Json = found["result"]
        return result
    nothing: dict[str, Any] = dict.fromkeys(("layers", "provenance", "engine"))
    nothing |= {"outputs": [], "metrics": [], "notes": [], "next_step": "", "owner": "", "known": None}
    target = {key: found[key] for key in ("subject", "case", "backend", "precision")}
    return {**target, **nothing, "verdict": bisection_verdict(found), "reason": found["finding"]}


def trial_verdict(trial: Json) -> str:
    """Return the verdict on a precision plan that a bisection tried."""
    return {True: "pass", False: "fail", None: "not_judged"}[trial["passed"]]
