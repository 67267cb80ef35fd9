"""The report in a real browser: no error, every chart has marks, sorting works; screenshots to look at.

make e2e      # screenshots in build/e2e
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_ledgers import SweepWriter, write_tested

from segbench.paths import SweepPaths
from segbench.records import TrialState
from segbench.report.page.build import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "e2e"
RUN = os.environ.get("SEGBENCH_E2E_RUN")
"""Folder of a real sweep to look at, instead of the synthetic one."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
EMPTY = """[...document.querySelectorAll(".chart")].filter((chart) =>
  !chart.querySelector("svg .role-mark path, svg .role-mark line, svg .role-mark text")).map((chart) => chart.id)"""
COLUMN = "[...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[{}].textContent)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if RUN:
        paths = SweepPaths(Path(RUN))
    else:
        writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("sweep") / "demo"))
        write_tested(writer)
        for number in range(3, 20):
            params = {"model": "unet", "lr": 0.0005 * number}
            scores = [0.1, 0.02 * number]
            writer.trial("search", number, f"trial-{number}", scores, TrialState.PRUNED, "rung 2", params=params)
        writer.close()
        paths = writer.paths
    write_report(paths)
    return paths.report


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_has_marks_and_nothing_is_wrong(browser, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
    )
    page.goto(report.as_uri())
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every((chart) => chart.dataset.drawn)", timeout=30_000
    )
    assert page.locator(".chart").count() >= 12
    assert page.evaluate(EMPTY) == []
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png", full_page=True)
    page.close()


def test_the_leaderboard_sorts_and_the_theme_changes(browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    ranks = page.evaluate(COLUMN.format(0))
    page.locator("table.sortable th", has_text="rank").click()
    assert page.evaluate(COLUMN.format(0)) == ranks[::-1]
    page.locator("table.sortable th", has_text="rank").click()
    assert page.evaluate(COLUMN.format(0)) == ranks
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.close()


def test_another_model_of_the_confusion_matrix_can_be_chosen(browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    chart = page.locator("#confusion-rows")
    chart.scroll_into_view_if_needed()
    select = chart.locator("select")
    before = chart.locator("svg .role-mark text").all_text_contents()
    names = select.locator("option").all_text_contents()
    select.select_option(names[-1])
    page.wait_for_timeout(200)
    assert chart.locator("svg .role-mark text").all_text_contents() != before
    page.close()
