"""The report in a real browser: no error, every chart has marks, sorting works; screenshots to look at.

make e2e      # screenshots in build/e2e
"""

import os
from pathlib import Path

import pytest
from browsing import CHROMIUM, CUT_OFF, OVERLAPPING, SCREENSHOTS, listen
from sweep_ledgers import SweepWriter, write_pictures, write_searched, write_tested

from segbench.core.paths import SweepPaths
from segbench.report.build import write_report

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

RUN = os.environ.get("SEGBENCH_E2E_RUN")
"""Folder of a real sweep to look at, instead of the synthetic one."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
EMPTY = """[...document.querySelectorAll(".chart")].filter((chart) =>
  !chart.querySelector("svg .role-mark path, svg .role-mark line, svg .role-mark text")).map((chart) => chart.id)"""
COLUMN = "[...document.querySelector('table.sortable').tBodies[0].rows].map((row) => row.cells[{}].textContent)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if RUN:
        paths = SweepPaths(Path(RUN).resolve())
    else:
        writer = SweepWriter(SweepPaths(tmp_path_factory.mktemp("sweep") / "demo"))
        write_tested(writer)
        write_pictures(writer, tmp_path_factory.mktemp("cache"))
        write_searched(writer)
        writer.close()
        paths = writer.paths
    write_report(paths)
    return paths.report


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_has_marks_and_nothing_is_wrong(browser, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints = listen(page)
    page.goto(report.as_uri())
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every((chart) => chart.dataset.drawn)", timeout=30_000
    )
    assert page.locator(".chart").count() >= 12
    assert page.evaluate(EMPTY) == []
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(OVERLAPPING) == []
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
    page.locator("table.sortable").first.locator("th", has_text="rank").click()
    assert page.evaluate(COLUMN.format(0)) == ranks[::-1]
    page.locator("table.sortable").first.locator("th", has_text="rank").click()
    assert page.evaluate(COLUMN.format(0)) == ranks
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.close()


def test_a_class_of_the_legend_can_be_seen_alone(browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    image = page.locator("img.labels").first
    image.scroll_into_view_if_needed()
    before = image.get_attribute("src")
    flat = page.locator("ul.legend button", has_text="flat")
    flat.click()
    page.wait_for_function("(old) => document.querySelector('img.labels').src !== old", arg=before)
    assert flat.get_attribute("aria-pressed") == "true"
    colors = page.evaluate("""async () => {
      const image = document.querySelector('img.labels');
      await image.decode();
      const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      const data = context.getImageData(0, 0, canvas.width, canvas.height).data, found = new Set();
      for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
      return [...found];
    }""")
    assert "0,114,178" in colors
    assert all(color == "0,114,178" or min(map(int, color.split(","))) > 220 for color in colors)
    flat.click()
    assert image.get_attribute("src") == before
    page.close()


def test_another_model_of_the_confusion_matrix_can_be_chosen(browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    chart = page.locator("#confusion-rows")
    chart.scroll_into_view_if_needed()
    select = chart.locator("select")
    select.wait_for()
    before = chart.locator("svg .role-mark text").all_text_contents()
    names = select.locator("option").all_text_contents()
    select.select_option(names[-1])
    page.wait_for_timeout(200)
    assert chart.locator("svg .role-mark text").all_text_contents() != before
    page.close()
