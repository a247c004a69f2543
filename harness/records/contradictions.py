"""Records whose parts contradict their verdict: what is shown of them is the worst of the parts, with these words.

A verdict is derived from its parts where it is made. A record that was edited, cut or written by a suite of its own may
say otherwise, and must not be green because of it. Each function takes a record as JSON and returns a copy: as it is,
or with the verdict that its parts leave and a reason that begins with ``contradictory``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.records.data import ResultVerdict, Verdict
from harness.records.known import NOT_LAUNCHED, why_worse
from harness.sentences import Sentence, joined

IS_WRONG = Sentence("q_wrong")
"""The question of a bisection whose answer decides whether there is anything to repair."""
_ORDER: tuple[ResultVerdict, ...] = ("pass", "not_judged", "known", "fail")
"""From the best to the worst."""
_WORDS = {"pass": Sentence("passed"), "not_judged": Sentence("was_not_judged"), "fail": Sentence("failed"),
          "known": Sentence("is_known_to_fail")}  # fmt: skip
VERDICT_WORDS = {
    "pass": Sentence("verdict_pass"), "fail": Sentence("verdict_fail"), "not_judged": Sentence("verdict_not_judged"),
    "known": Sentence("verdict_known"), "equivalent": Sentence("verdict_equivalent"),
    "improved": Sentence("verdict_improved"), "regressed": Sentence("verdict_regressed"),
    "inconclusive": Sentence("verdict_inconclusive"), "slower_clock": Sentence("verdict_slower_clock"),
    "machine_changed": Sentence("verdict_machine_changed"), "no_baseline": Sentence("verdict_no_baseline"),
    "invalid_environment": Sentence("verdict_invalid_environment"),
}  # fmt: skip
"""Every verdict as it is called within a sentence."""
CONTRADICTORY = "contradictory"
"""How the reason of such a record begins."""


def settled_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of one engine: worse outputs, metrics or values than its verdict says contradict it.

    Of a known failure they are to fail, and no worse than its entry says.
    """
    if result["verdict"] == "known":
        return _settled_known(result)
    parts: list[tuple[str, Verdict]] = [
        (Sentence("the_output", name=o["name"]), _of_output(o)) for o in result["outputs"]
    ]
    parts += [(Sentence("the_metric", name=metric["name"]), metric["verdict"]) for metric in result["metrics"]]
    parts += [*_of_cost(result.get("cost")), *_of_codes(result.get("codes"))]
    attempts = enumerate(result.get("attempts", ()), start=1)
    parts += [
        (Sentence("the_attempt", number=number), "fail") for number, one in attempts if one["failure"] == "wrong_answer"
    ]
    return _settled(result, parts or [(Sentence("no_output_there"), "not_judged")])


def _of_cost(cost: Mapping[str, Any] | None) -> list[tuple[str, Verdict]]:
    """Return the verdicts on a cost of quantisation; a part of it that was not judged need not have a limit."""
    if not cost:
        return []
    parts = [part for part in (*cost["outputs"], *cost["metrics"]) if _of_output({"allowed": {}, **part}) == "fail"]
    return [
        (Sentence("the_cost"), cost["verdict"]),
        *((Sentence("the_cost_of", name=part["name"]), "fail") for part in parts),
    ]


def _of_codes(codes: Mapping[str, Any] | None) -> list[tuple[str, Verdict]]:
    """Return the verdicts on codes, where they decide; a quantiser that cannot be seen leaves that to the others."""
    if not codes or not codes["decides"]:
        return []
    wrong = [it["name"] for it in codes["quantisers"] if it["verdict"] == "fail" or it["two_apart"]]
    return [
        (Sentence("the_codes"), codes["verdict"]),
        *((Sentence("the_codes_of", name=name), "fail") for name in wrong),
    ]


def _settled_known(result: Mapping[str, Any]) -> dict[str, Any]:
    why = _why_unknown(result, result.get("known") or {})
    if not why:
        return dict(result)
    words = Sentence("contradictory_known", why=why)
    return {**result, "verdict": "fail", "reason": joined((words, result["reason"]), ": ")}


def _why_unknown(result: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return why a result that is said to be known is none that an entry of the ledger covers."""
    if not entry.get("reason") or not entry.get("issue") or entry["why"]:
        return Sentence("no_ledger_entry")
    if not entry["verdict"]:
        launched = entry["kind"] not in NOT_LAUNCHED or result["outputs"]
        return Sentence("was_launched") if launched else ""
    bare = settled_result({**result, "verdict": entry["verdict"]})
    return Sentence("it_passes") if bare["verdict"] == "pass" else why_worse(bare, entry)


def _of_output(output: Mapping[str, Any]) -> Verdict:
    """Return the verdict that an output's own figures leave."""
    if output.get("mismatched_nonfinite") and not output.get("nan_expected"):
        return "fail"
    if output["verdict"] == "pass" and (output.get("decisions") or {}).get("wrong") and not output["allowed"]:
        return "fail"
    verdict: Verdict = output["verdict"]
    return verdict


def settled_parts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model that was brought up: a part with a worse verdict than the whole contradicts it.

    Beside a part that was not judged one that is known to fail decides nothing.
    """
    parts = [(Sentence("the_part", module=part["module"]), _of_part(part)) for part in found["parts"]]
    parts = parts or [(Sentence("no_part_there"), "not_judged")]
    return _settled(found, [one for one in parts if one[1] != "known" or found["verdict"] == "pass"])


def _of_part(part: Mapping[str, Any]) -> ResultVerdict:
    """Return the verdict on a part; one that is said to be known fails where its entry does not cover it."""
    verdict: ResultVerdict = part["verdict"]
    if verdict != "known":
        return verdict
    entry = part["known"] or {}
    covers = entry.get("reason") and entry.get("issue") and not entry["why"]
    return "known" if covers and not (entry["verdict"] and why_worse(part, entry)) else "fail"


def settled_study(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study with its variants: a metric that failed contradicts a variant that passed.

    A metric that was not judged does not: some are only shown.
    """
    return {**study, "variants": [_settled_variant(variant) for variant in study["variants"]]}


def _settled_variant(variant: Mapping[str, Any]) -> dict[str, Any]:
    failed = [m["name"] for m in variant["metrics"] if m["verdict"] == "fail" and variant["verdict"] == "pass"]
    return _settled(variant, [(Sentence("the_metric", name=name), "fail") for name in failed])


def settled_score(score: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a contest folder: a picture that fails whatever the others are contradicts a pass."""
    return _settled(
        score,
        [(Sentence("the_picture", name=picture["name"]), "fail") for picture in score["pictures"] if picture["reason"]],
    )


def settled_bisection(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bisection: an engine that it found to be wrong contradicts that nothing is to be repaired."""
    wrong = [a["detail"] for a in found["gates"] if a["question"] == IS_WRONG and a["answer"] == "yes"]
    inside = found.get("result")
    wrong += [inside["reason"]] if inside and settled_result(inside)["verdict"] == "fail" else []
    if found["kind"] != "none" or not wrong:
        return dict(found)
    finding = Sentence("contradictory_engine", detail=wrong[0])
    return {**found, "kind": "not_judged", "finding": finding}


def settled_measurement(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measured session: times that do not count, or a ratio beyond it, contradict a good verdict."""
    comparison, runs = measured["comparison"], measured["session"]["runs"]
    found = ""
    if comparison["verdict"] in ("equivalent", "improved") and runs and all(run["invalid"] for run in runs):
        found = Sentence("no_process_counts")
    elif comparison["verdict"] == "improved" and (comparison["ratio"] or 0) > 1:
        found = Sentence("took_times", ratio=comparison["ratio"])
    if not found:
        return dict(measured)
    rule = Sentence("contradictory_measured", verdict=VERDICT_WORDS[comparison["verdict"]], found=found)
    return {**measured, "comparison": {**comparison, "verdict": "inconclusive", "rule": rule}}


def _settled(record: Mapping[str, Any], parts: Sequence[tuple[str, ResultVerdict]]) -> dict[str, Any]:
    """Return a record with the verdict that its parts leave."""
    worse = [part for part in parts if _ORDER.index(part[1]) > _ORDER.index(record["verdict"])]
    if not worse:
        return dict(record)
    name, verdict = max(worse, key=lambda part: _ORDER.index(part[1]))
    words = Sentence("contradictory_with", verdict=VERDICT_WORDS[record["verdict"]], name=name, found=_WORDS[verdict])
    reason = joined((words, record["reason"]), ": ")
    settled = {**record, "verdict": verdict, "reason": reason, "notes": [*record.get("notes", ()), words]}
    return settled | ({"failure": "wrong_answer"} if verdict == "fail" and "failure" in record else {})
