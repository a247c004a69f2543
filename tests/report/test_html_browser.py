"""The HTML page in a real browser: headless Chromium, opened from a file as people open it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as made

from harness.records import reader as records
from harness.records.writer import document
from harness.report.html import page as html

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"),
    pytest.mark.xdist_group("browser"),
]
AXE = os.environ.get("AXE_CORE", "")
"""Where axe.min.js of the npm package axe-core is: the rules of accessibility are not run without it."""
RUN_AXE = """
const done = arguments[0];
axe.run(document, {rules: {"target-size": {enabled: true}}}).then(
  (found) => done(found.violations.map((one) => [one.id, one.help, one.nodes.slice(0, 4).map((node) => node.html)])),
  (error) => done([String(error)]),
);
"""
Json = dict[str, Any]


class Browser:
    """One Chromium, and the few things that the tests ask of it."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = str(CHROMIUM)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        self.url = ""
        """The page that is open, with a query of its own: what another page did may be reported late."""
        self.earlier: list[str] = []

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, scripts: bool = True, media: str = "") -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.cdp("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.earlier += [self.url] if self.url else []
        self.url = f"{path.as_uri()}?{len(self.earlier)}."
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(self.url)
        if scripts:  # under load the driver may return before the page is whole
            ready = f"location.href === {json.dumps(self.url)} && document.readyState === 'complete'"
            WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: self.js(ready), "the page never loaded")

    def cdp(self, command: str, **values: Any) -> Json:
        found: Json = self.driver.execute_cdp_cmd(command, values)
        return found

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *values)

    def css(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def style(self, selector: str, name: str) -> str:
        return str(self.js(f"getComputedStyle(document.querySelector({json.dumps(selector)}))[{json.dumps(name)}]"))

    def column(self, table: str, number: int) -> list[str]:
        rows = f"[...document.querySelectorAll('#{table} tbody tr:not([hidden])')]"
        code = f"{rows}.map((row) => row.cells[{number}].textContent)"
        found: list[str] = self.js(code)
        return found

    def errors(self) -> list[str]:
        """Return warnings and errors of the console; those of pages that were open before arrive late under load."""
        found = [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return [entry["message"] for entry in found if not any(url in entry["message"] for url in self.earlier)]

    def requests(self) -> set[str]:
        """Return what was asked for, data and about: left out, by all documents but those that were open before."""
        found: set[str] = set()

        def seen(_: object) -> bool:
            events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
            sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
            urls = {params["request"]["url"] for params in sent if params["documentURL"] not in self.earlier}
            found.update(url for url in urls if not url.startswith(("data:", "about:")))
            return self.url in found

        WebDriverWait(self.driver, 20, poll_frequency=0.1).until(seen, "the page itself was never asked for")
        return found

    def unfold(self, table: str) -> None:
        """Show the rows without a fault too."""
        self.js(f"document.getElementById('{table}').closest('.block').querySelector('.unfold').click()")

    def settle(self) -> None:
        """Wait until what a filter asked for is drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.write(tmp_path_factory.mktemp("run"))
    return html.save_page(records.load([folder]), folder / "report.html")


@pytest.fixture(scope="module")
def chinese(page: Path) -> Path:
    return html.save_page(records.load([page.parent]), page.parent / "report.zh.html", lang="zh")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose subject, modules, values and reasons are markup that would run."""
    folder = tmp_path_factory.mktemp("hostile")
    result = json.loads(json.dumps(made.results(values=30)[2].to_json()).replace("clip", made.HOSTILE))
    result["reason"] = f'"><svg onload=alert(2)>{made.HOSTILE}' + "x" * 500
    for value in result["layers"]["values"]:
        value["module"] = f"{made.HOSTILE}.{value['module']}"
        value["name"] = f"' onmouseover='alert(3)' {value['name']}"
    data = document([result], command=f"parity verify {made.HOSTILE}", environment=made.ENVIRONMENT)
    made.save(folder / "one.json", data)
    return html.save_page(records.load([folder]), folder / "report.html")


def test_opens_from_a_file_without_requests_or_errors(browser: Browser, page: Path):
    browser.open(page)
    assert browser.js("document.querySelectorAll('table').length") > 15
    shown = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    WebDriverWait(browser, 20, poll_frequency=0.1).until(lambda _: browser.js(shown), "an image is not shown")
    assert browser.js("document.images.length") > 5
    assert browser.errors() == []
    assert browser.requests() == {browser.url}


def test_hostile_names_do_nothing(browser: Browser, hostile: Path):
    browser.open(hostile)
    assert made.HOSTILE in browser.css("#s1 h2").text
    assert browser.js("document.querySelectorAll('img, [onerror], [onload], [onmouseover]').length") == 0
    assert browser.js("document.scripts.length") == 2
    field = browser.css(".controls[data-for='s1-layers-1-values'] input[data-filter='module']")
    field.send_keys(made.HOSTILE)
    browser.settle()
    assert len(browser.column("s1-layers-1-values", 0)) >= 20
    browser.js("document.querySelector('#s1-layers-1-modules a[data-choose]').click()")
    move = "new PointerEvent('pointermove', {clientX: 600, clientY: 300})"
    browser.js(f"document.querySelector('figure[data-table] .scroll svg').dispatchEvent({move})")
    assert made.HOSTILE in browser.css(".readout").text
    browser.css("#s1-layers-1-tree .find input").send_keys("onmouseover")
    assert "onmouseover" in browser.css("#s1-layers-1-tree .found").text
    assert browser.js("document.querySelectorAll('.found [onmouseover]').length") == 0
    assert browser.errors() == []
    assert browser.requests() == {browser.url}


def test_the_policy_stops_what_would_get_in(browser: Browser, page: Path):
    browser.open(page)
    browser.js("window.reached = 0")
    markup = "<img src=x onerror='window.reached = 1'><div style='color: red' id=styled></div>"
    browser.driver.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", markup)
    browser.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.reached = 1'; document.body.append(s)"
    )
    outcome = browser.driver.execute_async_script(
        "const done = arguments[0]; fetch('https://example.invalid/').then(() => done('sent'), () => done('refused'))"
    )
    assert outcome == "refused"
    assert browser.js("window.reached") == 0
    assert browser.style("#styled", "color") != "rgb(255, 0, 0)"
    assert any("Content Security Policy" in error for error in browser.errors())
    assert not any(url.startswith("http") for url in browser.requests())


def test_sorts_by_every_kind_of_column(browser: Browser, page: Path):
    browser.open(page)
    table = "s2-layers-1-values"
    browser.unfold(table)
    headings = browser.js(f"[...document.querySelectorAll('#{table} th')].map((th) => th.textContent)")
    depth, ratio, name = (headings.index(heading) for heading in ("Depth", "Ratio", "Value"))
    button = f"#{table} th:nth-child({depth + 1}) button"
    browser.js(f"document.querySelector('{button}').click()")
    down = [int(cell) for cell in browser.column(table, depth)]
    assert down == sorted(down, reverse=True)
    assert browser.css(f"#{table} th:nth-child({depth + 1})").get_attribute("aria-sort") == "descending"
    browser.js(f"document.querySelector('{button}').click()")
    assert [int(cell) for cell in browser.column(table, depth)] == down[::-1]
    browser.js(f"document.querySelector('#{table} th:nth-child({ratio + 1}) button').click()")
    cells = browser.column(table, ratio)
    shown = [float(cell) for cell in cells if cell != "-"]
    assert shown == sorted(shown, reverse=True)
    assert set(cells[len(shown) :]) == {"-"}
    assert browser.css(f"#{table} th:nth-child({depth + 1})").get_attribute("aria-sort") == "none"
    browser.js(f"document.querySelector('#{table} th:nth-child({name + 1}) button').click()")
    assert browser.column(table, name)[1:4] == ["v_0", "v_1", "v_2"]


def test_nan_sorts_as_the_worst_and_missing_figures_last(browser: Browser, tmp_path: Path):
    result = {**made.results()[0].to_json(), "layers": made.layer_report(60, first_bad=40).to_json()}
    made.save(tmp_path / "one.json", document([result], command="", environment=made.ENVIRONMENT))
    browser.open(html.save_page(records.load([tmp_path]), tmp_path / "report.html"))
    table = "s1-layers-1-values"
    headings = browser.js(f"[...document.querySelectorAll('#{table} th')].map((th) => th.textContent)")
    column = headings.index("Accum.")
    for first, last in (("NaN", "-"), ("5", "-")):
        browser.js(f"document.querySelector('#{table} th:nth-child({column + 1}) button').click()")
        cells = browser.column(table, column)
        assert cells[-1] == last
        assert cells[0] == first or float(cells[0]) < 1e-3
    assert "NaN" in [cell for cell in browser.column(table, column) if cell != "-"][-1]


def test_filters_by_text_mark_and_module(browser: Browser, page: Path):
    browser.open(page)
    box = ".controls[data-for='s2-layers-1-values']"
    table = "s2-layers-1-values"
    suspects = len(browser.column(table, 0))
    assert "ok" not in browser.column(table, 0)
    assert browser.css(f"{box} .count").text == f"{suspects} of 301 rows"
    browser.unfold(table)
    assert browser.css(f"{box} .count").text == "301 of 301 rows"
    browser.css(f"{box} [data-filter='text']").send_keys("GELU")
    browser.settle()
    shown = browser.column(table, 3)
    assert shown
    assert set(shown) == {"aten.gelu"}
    assert browser.css(f"{box} .count").text == f"{len(shown)} of 301 rows"
    browser.css(f"{box} [data-filter='text']").clear()
    browser.js(f"document.querySelector(\"{box} [data-filter='mark']\").value = 'suspect'")
    field = browser.css(f"{box} [data-filter='module']")
    field.send_keys("text_model.encoder.layers.3")
    browser.settle()
    assert set(browser.column(table, 4)) == {"text_model.encoder.layers.3.mlp.fc2"}
    assert set(browser.column(table, 0)) == {"SUSPECT"}


def test_a_module_in_the_module_table_shows_its_values(browser: Browser, page: Path):
    browser.open(page)
    link = browser.css("#s2-layers-1-modules a[data-choose]")
    name = link.text
    browser.js("arguments[0].click()", link)
    browser.settle()
    shown = set(browser.column("s2-layers-1-values", 4))
    assert shown
    assert all(module == name or module.startswith(f"{name}.") for module in shown)


def test_the_tree_is_used_by_keyboard_and_finds_values_by_name(browser: Browser, page: Path):
    browser.open(page)
    closed = browser.css("#s2-layers-1-tree details:not([open]) > summary")
    closed.send_keys(Keys.ENTER)
    leaf = browser.js("arguments[0].parentElement.querySelector('a[data-choose]')", closed)
    module = leaf.get_attribute("data-choose")
    leaf.send_keys(Keys.ENTER)
    browser.settle()
    assert {name[: len(module)] for name in browser.column("s2-layers-1-values", 4)} == {module}
    browser.css(".controls[data-for='s2-layers-1-values'] [data-filter='module']").clear()
    browser.css("#s2-layers-1-tree .find input").send_keys("V_11")
    found = browser.driver.find_elements("css selector", "#s2-layers-1-tree .found a")
    assert [link.text.split()[0] for link in found if "v_119" in link.text] == ["v_119"]
    assert len(found) == 11
    found[0].send_keys(Keys.ENTER)
    browser.settle()
    assert found[0].text.split()[0] in browser.column("s2-layers-1-values", 2)


def test_a_module_holds_what_is_below_it_but_not_its_namesakes(browser: Browser, page: Path):
    browser.open(page)
    browser.css(".controls[data-for='s2-layers-1-values'] [data-filter='module']").send_keys(
        "text_model.encoder.layers.1"
    )
    browser.settle()
    shown = set(browser.column("s2-layers-1-values", 4))
    assert len(shown) > 3
    assert all(module.startswith("text_model.encoder.layers.1.") for module in shown)


def test_the_chart_tells_what_is_under_the_pointer(browser: Browser, page: Path):
    browser.open(page)
    move = "new PointerEvent('pointermove', {clientX: box.left + box.width / 2, clientY: box.top + 99})"
    browser.driver.execute_script(
        "const svg = document.querySelector('figure[data-table] .scroll svg'); const box = svg.getBoundingClientRect();"
        f"svg.dispatchEvent({move})"
    )
    words = browser.css(".readout").text
    assert "text_model.encoder.layers." in words
    assert "Local" in words
    assert browser.style(".cursor", "visibility") == "visible"


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, page: Path):
    browser.open(page)
    light = browser.style("body", "backgroundColor")
    assert light == "rgb(255, 255, 255)"
    browser.open(page, dark=True)
    dark = browser.style("body", "backgroundColor")
    assert dark != light
    button = browser.css("#theme")
    for colour in (light, dark, dark):
        button.click()
        assert browser.style("body", "backgroundColor") == colour
    assert button.text == "Theme: as the system"


def test_works_by_keyboard(browser: Browser, page: Path):
    browser.open(page)
    active = browser.driver.switch_to.active_element
    active.send_keys(Keys.TAB)
    skip = browser.driver.switch_to.active_element
    assert skip.get_attribute("href").endswith("#content")
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.js("document.activeElement.id") == "content"
    button = browser.css("#s2-layers-1-values th button")
    browser.js("arguments[0].focus({focusVisible: true})", button)
    assert browser.js("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    button.send_keys(Keys.SPACE)
    assert browser.css("#s2-layers-1-values th").get_attribute("aria-sort") == "ascending"
    assert browser.js("document.activeElement.textContent") == "Mark"
    summary = browser.css("#overview summary")
    summary.send_keys(Keys.ENTER)
    assert browser.js("document.querySelector('#overview details').open") is True


def test_everything_that_can_be_used_has_a_name(browser: Browser, page: Path):
    browser.open(page)
    nameless = browser.js(
        "[...document.querySelectorAll('button, input, select, a, summary, [role=group], nav, img, svg[role=img]')]"
        ".filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.alt || e.labels?.length))"
        ".map((e) => e.outerHTML.slice(0, 99))"
    )
    assert nameless == []
    levels = browser.js("[...document.querySelectorAll('main :is(h2, h3, h4), h1')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@pytest.mark.skipif(not AXE, reason="axe-core was not run: AXE_CORE does not name its axe.min.js")
@pytest.mark.parametrize("which", ["page", "chinese", "hostile"])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_axe_finds_nothing(browser: Browser, request: pytest.FixtureRequest, which: str, width: int, dark: bool):
    browser.open(request.getfixturevalue(which), width=width, dark=dark)
    opened = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
    browser.driver.execute_script(f"{opened}; {Path(AXE).read_text(encoding='utf-8')}")
    assert browser.driver.execute_async_script(RUN_AXE) == []


@pytest.mark.parametrize("which", ["page", "hostile"])
@pytest.mark.parametrize("width", [375, 320, 900])
def test_fits_a_phone_without_scrolling_sideways(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int
):
    browser.open(request.getfixturevalue(which), width=width)
    browser.js("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("document.querySelector('.scroll').scrollWidth") > 0


def test_prints_with_everything_but_the_longest_tables_unfolded(browser: Browser, page: Path):
    browser.open(page, dark=True)
    browser.css("#theme").click()
    browser.css("#theme").click()
    pdf = base64.b64decode(browser.cdp("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    browser.cdp("Emulation.setEmulatedMedia", media="print")
    assert browser.style("nav", "display") == browser.style(".controls", "display") == "none"
    assert browser.style("body", "backgroundColor") == "rgb(255, 255, 255)"
    assert browser.style(".scroll.tall", "maxHeight") == "none"
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js("[...document.querySelectorAll('details:not(.long, .compare)')].every((details) => details.open)")
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert not browser.js("[...document.querySelectorAll('details')].every((details) => details.open)")


def test_has_its_tables_without_scripts(browser: Browser, page: Path):
    def count(selector: str) -> int:
        """Count without a script; the document may have been replaced since it was asked for, while it loads."""
        try:
            root = browser.cdp("DOM.getDocument", depth=0)["root"]["nodeId"]
            return len(browser.cdp("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])
        except WebDriverException:
            return -1

    browser.open(page, scripts=False)
    try:
        WebDriverWait(browser, 20, poll_frequency=0.1).until(lambda _: count("body > script") == 2)
        assert count("#s2-layers-1-values tbody tr") == 301
        assert count("th button") == 0
        assert count(".controls:not([hidden])") == count("#theme:not([hidden])") == 0
        assert count("figure.chart svg") > 8
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


def test_the_slider_lays_the_reference_over_the_engine(browser: Browser, page: Path):
    browser.open(page)
    browser.js("document.querySelector('.compare').open = true")
    slider = browser.css(".compare input[type=range]")
    width = "document.querySelector('.compare .stack').style.getPropertyValue('--cut')"
    slider.send_keys(Keys.END)
    assert browser.js(width) == "100%"
    slider.send_keys(Keys.HOME)
    assert browser.js(width) == "0%"
    assert browser.js("document.querySelectorAll('.compare option').length") >= 3
    before = browser.js("document.querySelector('.compare .under').src")
    browser.css(".compare select").send_keys(Keys.DOWN)
    after = browser.js("document.querySelector('.compare .under').src")
    assert before != after
    assert browser.js("document.querySelector('.compare .over').naturalWidth") == 96


def test_a_link_opens_the_details_that_it_leads_into(browser: Browser, page: Path):
    browser.open(page)
    browser.js("location.hash = '#s2-latency-kernels-1'")
    browser.settle()
    assert browser.js("document.getElementById('s2-latency-kernels-1').closest('details').open") is True


def test_thousands_of_values_sort_and_filter(browser: Browser, tmp_path: Path):
    result = {**made.results()[2].to_json(), "layers": made.layer_report(3000).to_json()}
    made.save(tmp_path / "one.json", document([result], command="", environment=made.ENVIRONMENT))
    browser.open(html.save_page(records.load([tmp_path]), tmp_path / "report.html"))
    table = "s1-layers-1-values"
    box = f".controls[data-for='{table}']"
    browser.css(f"details:has(#{table}) summary").click()
    browser.unfold(table)
    assert browser.css(f"{box} .count").text == "500 of 3001 rows"
    browser.css(f"#{table} th:nth-child(2) button").click()
    assert browser.column(table, 1)[:3] == ["2999", "2998", "2997"]
    browser.css(f"{box} [data-filter='text']").send_keys("v_299")
    browser.settle()
    assert len(browser.column(table, 2)) == 11
    assert not browser.css(f"{box} .more").is_displayed()
    browser.css(f"{box} [data-filter='text']").send_keys(*[Keys.BACKSPACE] * 5)
    browser.css(f"{box} [data-filter='mark']").send_keys("ok")
    browser.settle()
    found = len(browser.column(table, 0))
    browser.css(f"{box} .more").click()
    assert found == 500 < len(browser.column(table, 0))
    assert set(browser.column(table, 0)) == {"ok"}
