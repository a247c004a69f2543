"""``parity bisect --quant``: which operators of a quantised model to leave in floats."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Document, chart, charts_folder, request_of, settings_of
from harness.files import check_writable, file_name


def run(options: argparse.Namespace) -> int:
    """Run the search, show it, and return the exit status."""
    from harness.bisect import search_quantised
    from harness.report.plots import save_quant_search
    from harness.report.text import quant_search_text

    subject, targets, cases = request_of(options)
    settings, target = settings_of(options), targets[0]
    document = Document(options, settings)
    document.start()
    stem = Path("reports") / file_name(subject.name, str(target), "quant")
    plan = options.output or stem.with_name(f"{stem.name}.toml")
    if options.output:
        check_writable(plan)
    found = search_quantised(
        subject, target, cases, settings, plan_file=plan, max_builds=options.max_builds
    ).to_json()  # fmt: skip
    with document.written(quant=found):
        print(quant_search_text(found))
        chart(save_quant_search, found, charts_folder(options) / stem.name)
        if found["plan_file"]:
            print(f"next: parity verify {subject.as_typed} -b {target.backend} -p {plan}")
    return {"pass": 0, "not_judged": 3}.get(found["verdict"], 1)
