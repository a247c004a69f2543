"""What JUnit XML has of a run: a property per figure, named as in the JSON, and the tests that died.

pytest writes the properties of a test into its ``testcase``, where servers look for them, though the schema of its
default family (xunit2) has them in a ``testsuite`` alone. Readers that hold files against the schema get them there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from _pytest.junitxml import xml_key

from harness.errors import CannotWrite, is_disk_full, visible
from harness.files import check_writable, write_bytes, write_text
from harness.records import DIED, NOT_ENDED, run_id, settled_result
from harness.temporary import temporary_folder

Json = dict[str, Any]
_LONG = frozenset({"kernels", "layers", "machine", "next_step", "notes", "worst"})
"""What is more than the figures of a verdict: the JSON has it."""


class JUnit:
    """The JUnit file of this run; without one nothing is done."""

    def __init__(self, config: pytest.Config, *, writes: bool) -> None:
        self._config = config
        path = getattr(config.option, "xmlpath", None)
        self._path = Path(path) if writes and path else None

    def start(self, asked: Iterable[str] = ()) -> None:
        """Put a file in the place of an older one that says, until pytest writes its own, that all of these died.

        Raises CannotWrite, a UsageError.
        """
        if self._path is None:
            return
        check_writable(self._path)
        names, why = list(asked), DIED
        if not names:
            names, why = ["run"], NOT_ENDED
        cases = "".join(
            f"<testcase classname='parity' name={quoteattr(name)}><error message={quoteattr(why)}/></testcase>"
            for name in names
        )
        text = (
            f"<?xml version='1.0' encoding='utf-8'?><testsuites><testsuite name='pytest' tests='{len(names)}' "
            f"errors='{len(names)}' failures='0' skipped='0'><properties><property name='parity-run' "
            f"value={quoteattr(run_id())}/></properties>{cases}</testsuite></testsuites>\n"
        )
        write_text(text, self._path)

    def name_run(self) -> None:
        """Let the file say which run it is of."""
        if (xml := self._config.stash.get(xml_key, None)) is not None:
            xml.add_global_property("parity-run", run_id())

    def describe(self, report: pytest.TestReport, properties: Mapping[str, str]) -> None:
        """Add properties to those of a test's report, or, at its end, to those of the whole file."""
        named = {visible(name): value for name, value in properties.items()}
        if self._is_of_tests:
            report.user_properties += named.items()
        elif report.when == "teardown":
            self._add_global(report.nodeid, named)

    def describe_dead(self, missing: Mapping[str, Json]) -> None:
        """Say of tests that died what they were to judge: no report of theirs is the last."""
        xml = self._config.stash.get(xml_key, None)
        if xml is None:
            return
        for test, asked in missing.items():
            named = figures(asked, {**asked, "verdict": "not_judged", "reason": DIED})
            if not self._is_of_tests:
                self._add_global(test, named)
            for reporter in xml.node_reporters_ordered if self._is_of_tests else ():
                if str(getattr(reporter, "id", "")) == test:  # one that has ended has no id
                    reporter.properties += [(visible(name), visible(value)) for name, value in named.items()]

    def leave_out_nameless(self) -> None:
        """Leave out what pytest would write without a name: attempts that died with their worker, to be run again."""
        if (xml := self._config.stash.get(xml_key, None)) is not None:
            xml.node_reporters_ordered = [one for one in xml.node_reporters_ordered if one.to_xml().get("name")]

    @property
    def _is_of_tests(self) -> bool:
        return bool(self._config.getoption("parity_junit") == "testcase")

    def _add_global(self, test: str, properties: Mapping[str, str]) -> None:
        if (xml := self._config.stash.get(xml_key, None)) is not None:
            for name, value in properties.items():
                xml.add_global_property(f"{visible(test)} {name}", value)


@contextmanager
def junit_apart(junit: Any) -> Iterator[None]:
    """Let pytest write its JUnit file elsewhere, and put that whole into its place. Raises CannotWrite.

    ``junit`` is what pytest writes it with; None where no file was asked for.
    """
    if junit is None:
        yield
        return
    path = Path(junit.logfile)
    try:
        with temporary_folder() as folder:
            junit.logfile = str(folder / "junit.xml")
            yield
            write_bytes(Path(junit.logfile).read_bytes(), path)
    except OSError as error:
        if error.filename != junit.logfile and not is_disk_full(error):
            raise
        raise CannotWrite(path, error) from error
    finally:
        junit.logfile = str(path)


def figures(asked: Mapping[str, Any] | None, result: Json | None = None, latency: Json | None = None) -> dict[str, str]:
    """Return what a test found as properties: what it is about, its verdict, and every figure by its path in the JSON.

    ``asked`` is what the test was to judge. What is ``null`` in the JSON is left out.
    """
    about: Json = {"run": run_id(), **(asked or {})}
    about.pop("test", None)
    if asked:
        about["target"] = f"{asked['backend']}-{asked['precision']}"
    found = dict(_flat(about, ""))
    if result is not None:
        found |= _flat(_with_ratios(result), "")
    if latency is not None:
        found |= _flat(_with_time(latency), "")
    return found


def _with_ratios(result: Json) -> Json:
    """Return a result with the error of each output over its floor, and beside it the figures of the worst output."""
    from harness.report import floor_ratio, worst_output

    if "outputs" not in result:
        return result
    result = settled_result(result)
    outputs = [{**output, "ratio": floor_ratio(output)} for output in result["outputs"]]
    worst = worst_output({**result, "outputs": outputs}) or {}
    floor = (worst.get("floor") or {}).get("relative_l2")
    own = {"relative_l2": worst.get("relative_l2"), "floor": floor, "ratio": worst.get("ratio")}
    return {**result, **own, "outputs": outputs}


def _with_time(latency: Json) -> Json:
    """Return a latency with the median of the processes' medians, and the lowest and the highest of them, in ms."""
    from harness.report import session_latency

    time = session_latency(latency["session"])
    if time is None:
        return latency
    return {"latency_ms": time[0], "latency_ms_low": time[1], "latency_ms_high": time[2], **latency}


def _flat(value: Any, name: str) -> Iterable[tuple[str, str]]:
    """Yield the leaves of JSON data with their paths; entries of lists go by name, or by kind and figure."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _LONG:
                yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{name}.{_name(item, number)}")
    elif isinstance(value, list):
        yield name, json.dumps(value)
    elif isinstance(value, str):
        yield from [(name, value)] if value else []
    elif value is not None:
        yield name, json.dumps(value)


def _name(item: Any, number: int) -> str:
    if isinstance(item, dict) and "name" in item:
        return str(item["name"])
    if isinstance(item, dict) and {"kind", "figure"} <= item.keys():
        return f"{item['kind']}.{item['figure']}"
    return str(number)
