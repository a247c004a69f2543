"""JUnit of records: one test case per verdict, and an error for whatever keeps the records from being whole.

pytest writes its own while it runs; this is for a record that several runs made, or the command line.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from harness.errors import visible
from harness.records import Records
from harness.report import verdicts


def junit_xml(records: Records) -> str:
    """Return a JUnit file: what failed, what was not judged (skipped), and as errors the faults of the records."""
    found, faults = verdicts.all_verdicts(records), verdicts.problems(records)
    faults += [] if found or faults else ["nothing was recorded that has a verdict"]
    counts = {
        "tests": len(found) + len(faults),
        "failures": sum(one.verdict == "fail" for one in found),
        "errors": len(faults),
        "skipped": sum(one.verdict == "not_judged" for one in found),
    }
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": "parity", **{key: str(n) for key, n in counts.items()}})
    properties = ElementTree.SubElement(suite, "properties")
    for run in dict.fromkeys(document.run for document in records.documents if document.run):
        ElementTree.SubElement(properties, "property", name="parity-run", value=run)
    seconds = {verdicts.result_item(entry.data).name: entry.data["timings_s"].get("judge") for entry in records.results}
    for one in found:
        took = seconds.get(one.name) if one.kind == "accuracy" else None
        time: dict[str, str] = {} if took is None else {"time": f"{took:.3f}"}
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"parity.{one.kind}", "name": visible(one.name), **time}
        )
        if one.verdict != "pass":
            kind = "failure" if one.verdict == "fail" else "skipped"
            ElementTree.SubElement(case, kind, message=visible(one.reason))
    for number, fault in enumerate(faults, start=1):
        case = ElementTree.SubElement(suite, "testcase", classname="parity.records", name=f"fault {number}")
        ElementTree.SubElement(case, "error", message=visible(fault))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
