"""``test_parts`` in a suite of its own: what passes, what fails, and what is recorded."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from bringup.conftest import subject
from fake import quiet
from planted import Fault, PlantedBackend, scaled

from harness.backends import BACKENDS
from harness.ledger import today
from harness.verify.prepare import prepare

pytest_plugins = ["pytester"]
SUITE = """
from bringup.conftest import subject
from harness.checks import test_parts

SUBJECT = subject(parts="blocks")
"""


@pytest.fixture(scope="module", autouse=True)
def loaded(kept_modules: None, tmp_path_factory: pytest.TempPathFactory):
    """Load what an export loads late: a run in this process forgets its imports, and PyTorch's bear no repetition."""
    assert prepare(subject(), quiet(tmp_path_factory.mktemp("loaded"))).program


@pytest.mark.parametrize("faults", [(), (Fault(value="softmax", change=scaled(1.1)),)], ids=["right", "wrong"])
def test_parts_of_a_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, faults: tuple[Fault, ...]):
    monkeypatch.setitem(BACKENDS, "planted", PlantedBackend(*faults))
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider")
    pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
    pytester.makepyfile(test_net=SUITE)
    result = pytester.runpytest_inprocess("--parity-json", "out.json", "--require", "planted", "--junitxml", "j.xml")
    result.assert_outcomes(passed=not faults, failed=len(faults))
    (found,) = json.loads((pytester.path / "out.json").read_text())["parts"]
    assert found["verdict"] == ("fail" if faults else "pass")
    assert [part["module"] for part in found["parts"]] == ["blocks.0", "blocks.1"]
    assert found["reason"] in (pytester.path / "j.xml").read_text().replace("&quot;", '"')
    if faults:
        result.stdout.fnmatch_lines(["*net [[]planted fp16[]] blocks.1: output_0: relative error*"])
        result.stdout.fnmatch_lines(["*next: parity parts*--prefix blocks.1"])


LEDGER = """[[known]]
subject = "net"
target = "planted fp16"
part = "blocks.1"
at_most = inf
reason = "tactic 7"
issue = "https://example.com/7"
expires = {expires}
"""


@pytest.mark.parametrize("faults", [(), (Fault(value="softmax", change=scaled(1.1)),)], ids=["passes now", "known"])
def test_a_part_that_the_ledger_knows(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, faults: Any):
    monkeypatch.setitem(BACKENDS, "planted", PlantedBackend(*faults))
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider")
    pytester.makeconftest('pytest_plugins = ["harness.plugin"]')
    (pytester.path / "known.toml").write_text(LEDGER.format(expires=today() + timedelta(days=30)))
    pytester.makepyfile(test_net=SUITE)
    result = pytester.runpytest_inprocess("--parity-json", "out.json", "--require", "planted")
    result.assert_outcomes(xfailed=len(faults), failed=not faults)
    assert result.ret == (0 if faults else 1)
    data = json.loads((pytester.path / "out.json").read_text())
    (found,), (entry,) = data["parts"], data["known"]
    assert (found["verdict"], entry["status"], entry["reached"]) == (
        ("known", "known", 1) if faults else ("fail", "failed", 1)
    )
    assert data["complete"]
    if not faults:
        result.stdout.fnmatch_lines(["*blocks.1: passes now: remove it from known.toml, entry 1*"])
