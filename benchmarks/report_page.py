"""How fast the page of a large network opens: ``python -m benchmarks.report_page``.

Needs Chromium, chromedriver and selenium. Writes the page of a look at 5,000 values (made up) and opens it five times.
The figures are those of the browser's performance API, from the start of the navigation.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import UsageError
from harness.records import LayerReport, Result, ValueFinding, document, load, save_json
from harness.report.html import save_page

TIMES = 5
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
SCRIPT = """
const [entry] = performance.getEntriesByType('navigation');
const [paint] = performance.getEntriesByName('first-contentful-paint');
return [paint ? paint.startTime : NaN, entry.domContentLoadedEventEnd, entry.loadEventEnd];
"""


def a_page(folder: Path, values: int) -> Path:
    """Write the page of a look into a made-up network, every 50th value of which is wrong."""
    found = tuple(_value(number, values) for number in range(values))
    names = {"subject": "net", "case": "one", "backend": "rtx", "precision": "fp16"}
    report = LayerReport(
        **names, mode="unfused", values=found, modules=(), observer=(), trusted=True, weights="random", inputs="random",
        device="made up",
    )  # fmt: skip
    result = Result(**names, verdict="fail", reason="made up", layers=report)
    save_json(document([result.to_json()], command="", environment={}), folder / "one.json")
    return save_page(load([folder]), folder / "report.html")


def _value(number: int, values: int) -> ValueFinding:
    wrong, module = number % 50 == 49, f"encoder.layers.{number * 48 // values}.mlp.fc{number % 9}"
    return ValueFinding(
        name=f"linear_{number}", op="aten.linear.default", module=module, source="model.py:1", depth=number,
        status="compared", floor=1e-3, local=3e-3 if wrong else 1e-3, local_floor=1e-3,
        mark="suspect" if wrong else "ok",
    )  # fmt: skip


def opened(page: Path) -> list[list[float]]:
    """Return first paint, content loaded and load in ms, of each time that the page was opened."""
    try:
        from selenium import webdriver
    except ImportError as error:
        raise UsageError("selenium is not installed: pip install selenium") from error
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        found = []
        for _ in range(TIMES):
            driver.get("about:blank")
            driver.get(page.as_uri())
            found.append(driver.execute_script(SCRIPT))
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=5000)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        page = a_page(Path(folder), options.values)
        print(
            f"{options.values} values, {page.stat().st_size / 1e6:.1f} MB, made in {time.perf_counter() - start:.1f} s"
        )
        columns = zip(*opened(page), strict=True)
        for name, figures in zip(("first paint", "content loaded", "load"), columns, strict=True):
            print(f"{name:15} {statistics.median(figures):6.0f} ms, {min(figures):.0f} to {max(figures):.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
