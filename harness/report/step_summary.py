"""The summary of a CI run on GitHub's job page: what is wrong and what to type in 15 lines, all else folded below."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.errors import UsageError, few
from harness.records import Records, merged_standings, words_of_kind
from harness.report import facts, verdicts
from harness.report.ci import badge
from harness.report.facts import BASELINE, Json, case_label, is_reference, session_latency, session_target, target_name
from harness.report.markdown import code, escape, fence, table, verdict_cell
from harness.report.text import (
    WORDS,
    commands_of,
    creep_lines,
    failure_word,
    latency_word,
    ms,
    number,
    part_figures,
    runs_lines,
    worst_error,
)
from harness.report.text.tables import plural

LIMIT = 1024 * 1024 - 4096
"""Bytes; GitHub refuses a step's summary of more than 1 MiB."""
ROWS = 6
"""Engines that the first table shows, the worst first; a fold has every verdict."""
SHOWN = 20
"""Names of tests that were left out; the records have all."""
_PROBLEMS = 2
_COMMANDS = 3
_LAST_LINE = 80
"""Bytes reserved for the sentence on what was left out."""
_MARKS = {"fail": "❌", "known": "🟡", "not_judged": "⚪", "pass": "✅"}
"""By verdict, the worst first."""
_ORDER = verdicts.RANKS
_ENGINES = ("", "model / case", "engine", "error", "floor", "error / floor", "ms", "speed-up", "against baseline")
_VERDICTS = ("subject", "case", "engine", "verdict", "relative error", "floor", "error / floor")
_KNOWN = ("subject", "engine", "case", "kind", "came out", "owner", "expires", "issue")
_PARTS = ("subject", "case", "engine", "part", "verdict", "relative error", "floor", "ratio")
_TIMED = ("subject", "case", "engine", "verdict", "ms", "over eager FP32")
_VARIANTS = ("study", "variant", "verdict", "ms", "speed-up", "score")


def summary(records: Records) -> str:
    """Return Markdown: a headline, the worst engines and what to type; folded below, every reason, verdict and latency.

    What goes beyond GitHub's limit is left out and counted: a failure or a row of a table as a whole.
    """
    found = verdicts.all_verdicts(records)
    timed = verdicts.newest(entry.data for entry in records.bench)
    bisections = verdicts.by_engine(entry.data for entry in records.bisections)
    problems = _problems(records)
    top = [_headline(records, found), _counts(records, found, timed), "".join(problems[:_PROBLEMS]).rstrip()]
    top += [*_engines(records, timed), _next(records, timed, bisections), _origin(records)]
    text = "".join(f"{part}\n\n" for part in top if part)
    room, left = LIMIT - len(text.encode()) - _LAST_LINE, 0
    for opening, blocks, closing in (
        _fold("Further problems of the records", problems[_PROBLEMS:]),
        _fold("Failed", list(_failures(records, found, bisections)), is_open=True),
        _fold("Not judged", list(_not_judged(records, found))),
        _table("Known failures", _KNOWN, _known(records), len(_KNOWN)),
        _table("Parts", _PARTS, _parts(records), 5),
        _table(_speed_title(timed), _TIMED, _timed(records), 4),
        _table("Variants", _VARIANTS, _variants(records), 3),
        _table("All verdicts", _VERDICTS, _rows(records), 4, _note(records)),
        _fold("Left out by -k, --lf or --deselect", _left_out(records)),
    ):
        if blocks:
            shown, room = _fitting(blocks, room - len(f"{opening}{closing}".encode()))
            text += f"{opening}{''.join(shown)}{closing}" if shown else ""
            left += len(blocks) - len(shown)
    return f"{text}\n{left} entries left out: the records have them\n" if left else text


def write_summary(text: str) -> Path | None:
    """Append to the file that GitHub names in GITHUB_STEP_SUMMARY and return it; None where it names none.

    Raises UsageError when the file cannot be written.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    path = Path(name)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write GITHUB_STEP_SUMMARY {path}: {error.strerror or error}") from error
    return path


def _headline(records: Records, found: Sequence[verdicts.Judged]) -> str:
    """Return how many models fail, or were not judged in full, and where they ran."""
    worst = verdicts.by_model(found)
    counts = {verdict: list(worst.values()).count(verdict) for verdict in _ORDER}
    models = plural(len(worst), "model")
    if counts["fail"]:
        words = f"{counts['fail']} of {models} {'fail' if counts['fail'] > 1 else 'fails'}"
    elif not found:
        words = "nothing was recorded"
    elif not any(one.verdict == "pass" for one in found):
        words = f"of {models} nothing was judged"
    elif counts["not_judged"]:
        words = f"nothing failed, {counts['not_judged']} of {models} not judged in full"
    else:
        words = f"{models} pass{'es' if len(worst) == 1 else ''}"
        words += f", {counts['known']} with known failures" if counts["known"] else ""
    colour = badge(records)["color"]
    mark = {"red": _MARKS["fail"], "brightgreen": _MARKS["pass"]}.get(colour, "⚠️")
    problems = verdicts.problems(records)
    words += f"; {plural(len(problems), 'problem')} of the records" if problems else ""
    devices = ", ".join(map(escape, records.devices))
    return f"## {mark} parity: {words}{f' on {devices}' if devices else ''}"


def _worst_of(found: Iterable[str]) -> str:
    return min(found, key=_ORDER.index)


def _counts(records: Records, found: Sequence[verdicts.Judged], timed: Sequence[Json]) -> str:
    """Return how many verdicts of each kind failed, passed and were not reached, the commit and the versions."""
    failed = [one.kind for one in found if one.verdict == "fail"]
    slower = [one["comparison"]["ratio"] for one in timed if verdicts.latency_verdict(one) == "fail"]
    parts = [
        f"**{failed.count(kind)} {kind} failed**" for kind in verdicts.KINDS if kind in failed and kind != "latency"
    ]
    if "latency" in failed:
        by = max((ratio for ratio in slower if ratio), default=None)
        parts.append(f"**{failed.count('latency')} slower{f' ({_change(by)})' if by else ''}**")
    names = {"pass": "passed", "known": "known to fail", "not_judged": "not judged"}
    left = {verdict: sum(one.verdict == verdict and not one.lacks_baseline for one in found) for verdict in names}
    parts += [f"{left[verdict]} {words}" for verdict, words in names.items() if left[verdict] or verdict == "pass"]
    lacking = sum(one.lacks_baseline for one in found)
    parts += [f"{lacking} without a baseline"] if lacking else []
    parts += [code(facts.short_commit(commit)) for commit in records.commits[:1]]
    return " · ".join([*parts, *map(escape, records.versions)])


def _problems(records: Records) -> list[str]:
    """Return a line for everything that the records lack, that expires soon, or creeps up."""
    rising = [f"warning: {sentence}" for sentence in creep_lines(records.trends)]
    return [f"- {escape(one)}\n" for one in (*verdicts.problems(records), *_expiring(records), *rising)]


def _expiring(records: Records) -> list[str]:
    """Return a sentence for each entry of a ledger that expires soon, each once."""
    found = (
        f"{one['file']}, entry {one['entry']} ({one['subject']}) expires on {one['expires']}: mend it, or give it a day"
        for one in records.known
        if one["expires_soon"]
    )
    return list(dict.fromkeys(found))


def _engines(records: Records, timed: Sequence[Json]) -> list[str]:
    """Return a table of model and engine with the worst case of each, the worst engine first, and what is not shown."""
    cases: dict[tuple[str, str], list[Json]] = {}
    for entry in records.results:
        cases.setdefault((entry.data["subject"], target_name(entry.data)), []).append(entry.data)
    worst = sorted(
        ((min(found, key=_badness), len(found)) for found in cases.values()), key=lambda one: _badness(one[0])
    )
    if not worst:
        return []
    rows = [_engine(result, count, timed) for result, count in worst[:ROWS]]
    more = f"and {plural(len(worst) - ROWS, 'engine')} more: see all verdicts" if len(worst) > ROWS else ""
    return ["\n".join(table(_ENGINES, rows, words=3)), more]


def _badness(result: Json) -> tuple[int, float]:
    output = facts.worst_output(result)
    return _ORDER.index(result["verdict"]), -(facts.beyond(output)[0] if output else 0.0)


def _engine(result: Json, cases: int, timed: Sequence[Json]) -> list[str]:
    engine = target_name(result)
    name = (result["subject"], engine)
    sessions = [one for one in timed if (one["session"]["subject"], session_target(one["session"])) == name]
    own = [one for one in sessions if one["session"]["case"] == result["case"]] or sessions
    shown = min(own, key=lambda one: _ORDER.index(verdicts.latency_verdict(one)), default=None)
    label = f"{code(result['subject'])} / {escape(result['case'])}{f' (worst of {cases})' if cases > 1 else ''}"
    mark = _worst_of([result["verdict"], *(verdicts.latency_verdict(one) for one in own if not _is_unheld(one))])
    return [_MARKS[mark], label, code(engine), *_figures(result), *_times(shown)]


def _is_unheld(measured: Json) -> bool:
    return bool(measured["comparison"]["verdict"] == "no_baseline")


def _figures(result: Json) -> list[str]:
    """Return the error of the output that is the farthest beyond its limit, that output's floor, and their ratio."""
    output = facts.worst_output(result)
    if output is None:
        return ["-", "-", "-"]
    if count := output.get("mismatched_nonfinite"):
        error = f"NaN/Inf {count}/{output['elements']}"
    else:
        error = worst_error([output])
    named = f" ({code(output['name'])})" if len(result["outputs"]) > 1 else ""
    floor = (output["floor"] or {}).get("relative_l2")
    return [error + named, number(floor), number(facts.floor_ratio(output))]


def _times(measured: Json | None) -> list[str]:
    if measured is None:
        return ["-", "-", "-"]
    time = session_latency(measured["session"])
    ratio = measured["comparison"]["ratio"]
    mark = _MARKS["fail"] if verdicts.latency_verdict(measured) == "fail" else ""
    against = f"{_change(ratio)} {mark}".strip() if ratio else latency_word(measured["comparison"]["verdict"])
    return [ms(time[0] if time else None), number(measured["speed_up"].get(BASELINE)), against]


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _next(records: Records, timed: Sequence[Json], bisections: verdicts.Bisections) -> str:
    """Return the first commands to type, those of what failed before those of what was not judged."""
    worst = sorted((entry.data for entry in records.results if entry.data["verdict"] != "pass"), key=_badness)
    commands = [line for one in worst for line in commands_of(one, verdicts.bisection_of(one, bisections))[:1]]
    commands += [one["comparison"].get("next_step", "") for one in timed if verdicts.latency_verdict(one) == "fail"]
    first = list(dict.fromkeys(filter(None, commands)))
    return f"**Do next:** {' · '.join(map(code, first[:_COMMANDS]))}" if first else ""


def _origin(records: Records) -> str:
    """Return where weights and inputs are from: figures of random ones say nothing of a trained model."""
    origins = {"weights": records.weights, "inputs": records.inputs, "on": records.devices}
    return "; ".join(f"{key}: {escape(', '.join(known) or 'not recorded')}" for key, known in origins.items())


def _failures(records: Records, found: Sequence[verdicts.Judged], bisections: verdicts.Bisections) -> Iterator[str]:
    """Yield what failed with its reason and what to type, each owner's under their name; those of nobody come last."""
    failed = [entry.data for entry in records.results if entry.data["verdict"] == "fail"]
    for owner in sorted({result["owner"] for result in failed}, key=lambda owner: (not owner, owner)):
        own = [_failure(result, bisections) for result in failed if result["owner"] == owner]
        name = code(owner) if owner else "no owner"
        yield (f"\n**{name}**: {len(own)} failed\n\n" if any(one["owner"] for one in failed) else "") + own[0]
        yield from own[1:]
    said = {(one.name, one.reason) for one in found if one.kind == "accuracy"}
    others = [one for one in found if one.verdict == "fail" and one.kind not in ("accuracy", "cost")]
    for one in others:
        if one.kind != "bisection" or (one.name, one.reason) not in said:
            yield f"- {one.kind}: {code(one.name)}: {escape(one.reason)}\n"


def _failure(result: Json, bisections: verdicts.Bisections) -> str:
    label = f"{code(result['subject'])}/{code(result['case'])} [{code(target_name(result))}]"
    failed = [one for one in verdicts.result_items(result, bisections) if one.verdict == "fail"]
    lines = [f"- {label}: {escape('cost: ' * (one.kind == 'cost') + one.reason)}" for one in failed]
    if commands := commands_of(result, verdicts.bisection_of(result, bisections)):
        lines += ["", *(f"  {line}" for line in fence(commands, "bash")), ""]
    return "".join(f"{line}\n" for line in lines)


def _not_judged(records: Records, found: Sequence[verdicts.Judged]) -> Iterator[str]:
    """Yield each reason once, with how many it kept from a verdict, their names, and what to type."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for entry in records.results:
        one, commands = verdicts.result_items(entry.data)[0], "\n".join(commands_of(entry.data))
        if one.verdict == "not_judged":
            reasons.setdefault((one.failure, one.reason, commands), []).append(one.name)
    for one in found:
        if one.verdict == "not_judged" and one.kind not in ("accuracy", "latency"):
            reasons.setdefault((one.failure, one.reason, ""), []).append(f"{one.kind} {one.name}")
    for entry in records.not_measured:
        one = verdicts.missing_item(entry.data)
        if one.verdict == "not_judged":
            reasons.setdefault((one.failure, one.reason, ""), []).append(f"latency {one.name}")
    for (failure, reason, typed), names in reasons.items():
        kind = f" ({failure_word(failure)})" if failure else ""
        named = few([code(name) for name in names], SHOWN)
        lines = [f"- {plural(len(names), 'verdict')}: {escape(reason)}{kind}: {named}"]
        lines += ["", *(f"  {line}" for line in fence(typed.split("\n"), "bash")), ""] if typed else []
        yield "".join(f"{line}\n" for line in lines)


def _left_out(records: Records) -> list[str]:
    """Return the names of the tests of engines that -k, --lf and --deselect left out."""
    names = [code(str(entry.get("test", ""))) for entry in records.left_out]
    return [f"{len(names)}: {few(names, SHOWN)}\n"] if names else []


def _known(records: Records) -> list[list[str]]:
    """Return a row per entry of the ledgers, with the worst that became of it in any of the runs."""
    return [
        [
            code(facts.about(one)), code(", ".join(one["target"])),
            code(", ".join(one["case"])) if one["case"] else "all",
            words_of_kind(one["kind"]), one["status"].replace("_", " "), escape(one["owner"]) or "-",
            escape(one["expires"]), escape(one["issue"]),
        ]
        for one in merged_standings(records.known)
    ]  # fmt: skip


def _rows(records: Records) -> list[list[str]]:
    rows = []
    for result in (entry.data for entry in records.results):
        names = map(code, (result["subject"], result["case"], target_name(result)))
        failure = failure_word(result["failure"])
        word = f"{verdict_cell(WORDS, result['verdict'])}{f' ({failure})' if failure else ''}"
        rows.append([*names, word, *_figures(result)])
    return rows


def _note(records: Records) -> str:
    """Return what stands below the verdicts: what the floor is, and how likely so many runs miss a fault."""
    results = [entry.data for entry in records.results]
    runs = [escape(line.strip()) for line in runs_lines(results)]
    return f"\nfloor: {WORDS.floor(r['precision'] for r in results)}\n" + (f"\n{' '.join(runs)}\n" if runs else "")


def _speed_title(timed: Sequence[Json]) -> str:
    """Return how much was timed, and what to type where nothing of it has a baseline."""
    lacking = [one for one in timed if _is_unheld(one)]
    title = f"Speed: {len(timed)} timed"
    if not lacking:
        return title
    subjects = sorted({one["session"]["subject"] for one in lacking})
    commands = few([f"<code>parity accept {escape(name)} --why ...</code>" for name in subjects], _PROBLEMS)
    return f"{title}, {len(lacking)} without a baseline: {commands}"


def _parts(records: Records) -> list[list[str]]:
    """Return a row per part of a model that was brought up, as far as the run came."""
    return [
        [*map(code, (e.data["subject"], e.data["case"], target_name(e.data), part["module"])),
         verdict_cell(WORDS, part["verdict"]), *part_figures(part)]
        for e in records.parts for part in e.data["parts"] if part["reached"]
    ]  # fmt: skip


def _timed(records: Records) -> list[list[str]]:
    """Return a row per newest session of everything that was timed, PyTorch included."""
    rows = []
    for measured in facts.newest_sessions(entry.data for entry in records.bench):
        session, time = measured["session"], session_latency(measured["session"])
        names = [session["subject"], case_label(session), session_target(session)]
        label = [*map(code, names), latency_word(measured["comparison"]["verdict"])]
        rows.append([*label, ms(time[0] if time else None), number(measured["speed_up"].get(BASELINE))])
    return rows


def _variants(records: Records) -> list[list[str]]:
    return [
        [
            code(entry.data["name"]), code(variant["name"]),
            verdict_cell(WORDS, "reference" if is_reference(entry.data, variant) else variant["verdict"]),
            ms(variant["latency_ms"]), number(variant["speed_up"]), number(variant["score"]),
        ]
        for entry in records.studies
        for variant in entry.data["variants"]
    ]  # fmt: skip


def _fold(title: str, blocks: list[str], *, is_open: bool = False) -> tuple[str, list[str], str]:
    """Return the opening, the blocks and the closing of a part that is folded up, unless it is to be open."""
    opened = " open" if is_open else ""
    return f"\n<details{opened}><summary>{title}: {len(blocks)}</summary>\n\n", blocks, "\n</details>\n"


def _table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], words: int, note: str = ""
) -> tuple[str, list[str], str]:
    """Return the opening, the rows and the closing, with a note, of a table that is folded up."""
    first, second, *lines = table(headings, rows, words=words)
    opening = f"\n<details><summary>{title}</summary>\n\n{first}\n{second}\n"
    return opening, [f"{line}\n" for line in lines], f"{note}\n</details>\n"


def _fitting(blocks: Sequence[str], room: int) -> tuple[list[str], int]:
    """Return the blocks that fit into ``room`` bytes, in their order, and the bytes that are left."""
    shown = []
    for block in blocks:
        size = len(block.encode())
        if size <= room:
            shown.append(block)
            room -= size
    return shown, room
