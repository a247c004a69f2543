"""The codes of a quantised engine, a line per quantiser. Everything here takes the dict of ``Result.to_json()``."""

from __future__ import annotations

from harness.report.facts import Json
from harness.report.text.tables import aligned, ascii_safe, number, verdict_word, wrapped

_HEADINGS = ("codes", "kind", "verdict", "elements", "1 apart", "explained", "far", ">=2 apart", "most")
_WORDS = 3


def codes_text(result: Json) -> str:
    """Return a table of the quantisers in dataflow order, with the reason of each that is not right; empty for none."""
    codes = result.get("codes")
    if not codes:
        return ""
    lines = aligned([list(_HEADINGS), *(_row(one) for one in codes["quantisers"])], words=_WORDS)
    reasons = [f"{one['name']}: {one['reason']}" for one in codes["quantisers"] if one["verdict"] != "pass"]
    how = "the product with the reciprocal of the scale" if codes["reciprocal"] else "the quotient by the scale"
    terms = (
        f"exact codes: FP64 on the engine's own inputs of each quantiser, {how}, ties to even; explained: codes that "
        "rounding is expected to move at most; far: one apart though farther from a tie than rounding takes them"
    )
    lines += [line for text in dict.fromkeys(reasons) for line in wrapped("", text)]
    return ascii_safe("\n".join([*lines, *wrapped("", terms)]))


def _row(one: Json) -> list[str]:
    counts = (one["elements"], one["one_apart"], None, one["far_from_ties"], one["two_apart"], one["most_apart"])
    cells = [number(one["explained"]) if count is None else str(count) for count in counts]
    return [one["name"], one["kind"], verdict_word(one["verdict"]), *cells]
