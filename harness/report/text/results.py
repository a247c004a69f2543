"""Verdicts as plain text: the table, why something failed, and what to type next.

Everything here takes the dicts of ``Result.to_json()``, because that is what arrives from another process.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from harness.records import settled_result
from harness.report.facts import (
    Json,
    cost_metrics,
    cost_outputs,
    judged_parts,
    largest_error,
    missed,
    part_verdict,
    target_name,
)
from harness.report.text.tables import (
    WIDTH,
    WORDS,
    aligned,
    ascii_safe,
    explained,
    failure_word,
    number,
    plural,
    verdict_word,
    wrapped,
)
from harness.report.words import Words

_HEADINGS = ("target", "case", "output", "verdict", "rel err", "floor", "ratio", "max abs", "cosine", "bits")
_WORDS = 4
"""The first columns are words, set to the left; the rest are figures, set to the right."""


def results_table(results: Sequence[Json]) -> str:
    """Return the result table of a run: one block per subject, the reasons in full, the legend and the count."""
    if not results:
        return "no verdicts: nothing was run"
    results = [settled_result(result) for result in results]
    blocks = []
    for name in dict.fromkeys(result["subject"] for result in results):
        blocks.append(_subject_block([result for result in results if result["subject"] == name]))
    terms = {"rel err": "rel_err", "floor": "floor", "ratio": "ratio"}
    legend = explained(terms, (result["precision"] for result in results))
    runs = {codes["runs"] for result in results if (codes := result.get("codes"))}
    legend += f"; {WORDS('term_floor_quantised', runs=max(runs))}" if runs else ""
    lines = wrapped("", f"{legend}; bits: -log2(rel err); max abs: the largest absolute error.")
    blocks.append("\n".join((*lines, *runs_lines(results), verdict_counts(results))))
    return "\n\n".join(blocks)


def verdict_counts(results: Iterable[Json], *, noun: str = "verdict") -> str:
    """Return ``12 verdicts: 9 passed, 1 failed, 2 not judged (1 crash, 1 timeout)``; known failures too."""
    found = list(results)
    verdicts = [result["verdict"] for result in found]
    names = {"pass": "passed", "fail": "failed", "known": "known to fail", "not_judged": "not judged"}
    numbers = []
    for key, words in names.items():
        classes = Counter(failure_word(result.get("failure", "")) for result in found if result["verdict"] == key)
        listed = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()) if name)
        if key != "known" or key in verdicts:
            numbers.append(f"{verdicts.count(key)} {words}{f' ({listed})' if listed else ''}")
    return f"{plural(len(verdicts), noun)}: {', '.join(numbers)}"


def runs_lines(results: Iterable[Json]) -> list[str]:
    """Return how often engines ran, and how likely that is to miss a fault that comes in some of the runs."""
    targets: dict[int, list[str]] = {}
    for result in results:
        if result.get("runs"):
            targets.setdefault(result["runs"], []).append(target_name(result))
    lines = []
    for runs, names in targets.items():
        third, tenth = (_percent(missed(runs, share)) for share in (1 / 3, 0.1))
        words = f"a fault in 1 of 3 runs is missed with {third}, one in 1 of 10 with {tenth}; --runs N makes more"
        lines += wrapped(f"{runs} runs of {_distinct(names)}: ", words)
    return lines


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def failure_text(result: Json) -> str:
    """Return what is wrong with one result: a sentence per output and metric that failed, then what to type next."""
    result = settled_result(result)
    label = f"{result['subject']} [{result['backend']} {result['precision']}]"
    lines = [f"{label} {item['name']}: {item['reason']}" for item in _judged_badly(result)]
    if not lines:
        lines = [f"{label} {result['case']}: {result['reason']}"]
    lines += [f"note: {note}" for note in result.get("notes", ())]
    if result.get("next_step"):
        lines.append(f"next: {result['next_step']}")
    return ascii_safe("\n".join(lines))


def result_line(result: Json) -> str:
    """Return one line for a JUnit property: the verdict and each output's relative error and floor."""
    result = settled_result(result)
    figures = [
        f"{output['name']} {WORDS.decisions([output])}"
        if output.get("decisions")
        else f"{output['name']} rel err {number(output.get('relative_l2'))} floor {number(_floor(output))}"
        for output in result["outputs"]
    ]
    beside = (*result["metrics"], *cost_outputs(result), *cost_metrics(result))
    figures += [f"{part['name']} {part['reason']}" for part in beside]
    detail = "; ".join(figures) if result["verdict"] == "pass" else result["reason"]
    return ascii_safe(f"{verdict_word(result['verdict'])}: {detail}")


def worst_error(outputs: Iterable[Json], t: Words = WORDS) -> str:
    """Return the largest relative error of outputs as the tables print it; a dash where nothing was compared.

    Where all are indices, labels or codes, how many differ.
    """
    outputs = list(outputs)
    error = largest_error(outputs)
    if error is None and (words := t.decisions(outputs)):
        return words
    return "NaN/Inf" if error is not None and math.isnan(error) else number(error)


def source_words(label: str, source: str) -> str:
    """Return ``trained (hub of 2024)``: what weights or inputs are, and where they are from if that is known."""
    return f"{label} ({source})" if source else label


def _subject_block(results: Sequence[Json]) -> str:
    """Return one subject: where its figures come from, its rows, and the reasons below them."""
    rows = [row for result in results for row in _rows(result)]
    lines = [*_labels(results), *_aligned(rows)]
    if remarks := _remarks(results):
        lines += ["", *remarks]
    return ascii_safe("\n".join(lines))


def _labels(results: Sequence[Json]) -> list[str]:
    """Return the heading: the subject, and whether weights and inputs are real, and where it ran."""
    known = [result["provenance"] for result in results if result["provenance"]]
    parts = [results[0]["subject"]]
    if known:
        parts.append(f"weights: {_distinct(source_words(p['weights'], p['weights_source']) for p in known)}")
        parts.append(f"inputs: {_distinct(p['inputs'] for p in known)}")
        parts.append(f"reference: {_distinct(p['reference'] for p in known)}")
        parts.append(f"device: {_distinct(p['device'] for p in known)}")
        if any(p.get("module") == "not rebuilt" for p in known):
            parts.append("module not rebuilt")
    return wrapped("", " | ".join(parts), indent="  ")


def _rows(result: Json) -> list[tuple[list[str], str]]:
    """Return the table rows of one result, each as cells and a text that takes the place of missing figures."""
    name = target_name(result)
    rows = []
    for output in (*result["outputs"], *cost_outputs(result)):
        words = [name, result["case"], output["name"], verdict_word(part_verdict(result, output))]
        has_figures = output.get("relative_l2") is not None or output.get("absolute") is not None
        text = WORDS.decisions([output]) or output["reason"]
        rows.append((words + _figures(output), "") if has_figures else (words, text))
    if not rows:
        reason = ": ".join(filter(None, (failure_word(result.get("failure", "")), result["reason"])))
        rows.append(([name, result["case"], "-", verdict_word(result["verdict"])], reason))
    for metric in (*result["metrics"], *cost_metrics(result)):
        words = [name, result["case"], metric["name"], verdict_word(part_verdict(result, metric))]
        rows.append((words, _metric(metric)))
    return rows


def _metric(metric: Json) -> str:
    """Return a metric's figures and its limit; a metric that could not be computed has a reason instead."""
    if metric["verdict"] == "not_judged" and metric["actual"] is None:
        return str(metric["reason"])
    compared = metric.get("bound", "difference") == "difference"
    reference = f", reference {number(metric['expected'], '.6g')}" if compared else ""
    return f"metric {number(metric['actual'], '.6g')}{reference}, allowed {limit_words(metric)}"


def limit_words(metric: Json) -> str:
    """Return ``at most 12``, ``at least 30`` or ``difference 0.01``."""
    return f"{metric.get('bound', 'difference').replace('_', ' ')} {number(metric['allowed'])}"


def _figures(output: Json) -> list[str]:
    error, floor = output.get("relative_l2"), _floor(output)
    ratio = error / floor if error is not None and floor else None
    return [
        number(error),
        number(floor),
        number(ratio),
        number((output.get("absolute") or {}).get("max")),
        number(output.get("cosine"), ".7g"),
        number(output.get("effective_bits")),
    ]


def _aligned(rows: Sequence[tuple[list[str], str]]) -> list[str]:
    """Return heading and rows as aligned lines; a text that does not fit beside its words goes below the table."""
    rows = [([ascii_safe(cell) for cell in cells], ascii_safe(text)) for cells, text in rows]
    cells = [list(_HEADINGS), *(cells for cells, _ in rows)]
    width = sum(max(len(row[i]) + 2 for row in cells) for i in range(_WORDS))
    lines = aligned(cells, words=_WORDS)
    for i, (_, text) in enumerate(rows, start=1):
        if text:
            lines[i] = f"{lines[i]:<{width}}{text if len(text) <= WIDTH - width else '(reason below)'}"
    return lines


def _remarks(results: Sequence[Json]) -> list[str]:
    """Return, wrapped and in full, why results did not pass and notes, then what to type next; each of them once.

    What failed and was looked into is explained by its first lines, which stand above the table.
    """
    bare = [result for result in results if result["verdict"] != "fail" or not result.get("layers")]
    where: dict[str, list[Json]] = {}
    for result in results:
        sentences = [f"{item['name']}: {item['reason']}" for item in _judged_badly(result)]
        passes_now = (result.get("known") or {}).get("verdict") == "pass"
        if result["verdict"] != "pass" and (not sentences or passes_now):
            sentences = [result["reason"]]
        sentences = sentences if result in bare else []
        sentences += _codes(result)
        sentences += [f"{metric['name']}: {metric['note']}" for metric in result["metrics"] if metric.get("note")]
        sentences += [f"note: {note}" for note in result.get("notes", ())]
        owner = result.get("owner") if result["verdict"] != "pass" else ""
        sentences += [f"owner: {owner}"] if owner else []
        for sentence in dict.fromkeys(sentences):
            where.setdefault(sentence, []).append(result)
    lines = [line for text, found in where.items() for line in wrapped(f"{_whose(found, results)}: ", text)]
    steps = dict.fromkeys(result["next_step"] for result in bare if result.get("next_step"))
    return lines + [f"    {line}" for step in steps for line in f"next: {step}".splitlines()]  # whole: to be copied


def _codes(result: Json) -> list[str]:
    """Return what the codes of a quantised engine say, where they are not among what went wrong."""
    codes = result.get("codes")
    if not codes:
        return []
    right = [codes["reason"]] if codes["verdict"] == "pass" or not codes["decides"] else []
    outputs = [f"{o['name']}: {o['reason']}" for o in result["outputs"] if o["verdict"] == "pass"]
    seen = any(one["verdict"] != "not_judged" for one in codes["quantisers"])
    words = "the engine in which codes are seen gives other bits than the deployed one; outputs are the deployed one's"
    return [*(f"codes: {one}" for one in right), *outputs, *([words] if seen and not codes["same_bits"] else [])]


def _whose(found: Sequence[Json], results: Sequence[Json]) -> str:
    """Return the targets that a sentence concerns, with the cases unless it concerns all of them."""
    labels = []
    for name in dict.fromkeys(map(target_name, found)):
        cases = [result["case"] for result in found if target_name(result) == name]
        all_cases = [result["case"] for result in results if target_name(result) == name]
        labels += [name] if len(all_cases) > 1 and cases == all_cases else [f"{name} {case}" for case in cases]
    return ", ".join(labels)


def _judged_badly(result: Json) -> list[Json]:
    codes = result.get("codes")
    found = [{**codes, "name": "codes"}] if codes and codes["decides"] else []
    return [item for item in (*found, *judged_parts(result)) if item["verdict"] != "pass"]


def _floor(output: Json) -> float | None:
    value: float | None = (output.get("floor") or {}).get("relative_l2")
    return value


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts)) or "-"
