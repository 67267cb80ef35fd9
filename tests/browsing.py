"""A page in headless Chromium that remembers whatever went wrong."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[1] / "build" / "e2e"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def open_browser() -> Iterator[Any]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def listen(page: Any, allowed: tuple[str, ...] = ("file:", "data:")) -> list[str]:
    """Return a list that fills with messages of the console, errors, and requests to anywhere else."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(allowed) else complaints.append(request.url))
    page.on(
        "response",
        lambda response: None if response.status < 400 else complaints.append(f"{response.status} {response.url}"),
    )
    return complaints


CUT_OFF = """[...document.querySelectorAll('.chart')].flatMap((chart) => {
  const svg = chart.querySelector('svg');
  if (!svg) return [];
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter((text) => {
    const box = text.getBoundingClientRect();
    const isShown = text.textContent && box.width && getComputedStyle(text).opacity !== '0';
    return isShown && (box.left < frame.left - 2 || box.right > frame.right + 2 ||
      box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
  }).map((text) => chart.id + ': ' + text.textContent);
})"""
"""Texts of charts that reach beyond the chart's edge."""

OVERLAPPING = """[...document.querySelectorAll('.chart')].flatMap((chart) => {
  const found = [];
  for (const group of chart.querySelectorAll('.role-axis-label, .role-legend-label, .role-axis-title')) {
    const isShown = (text) => text.textContent && getComputedStyle(text).opacity !== '0';
    const isLevel = (text) => !/rotate\\([^0)]/.test(text.getAttribute('transform'));
    const texts = [...group.querySelectorAll('text')].filter((text) => isShown(text) && isLevel(text));
    const boxes = texts.map((text) => text.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      const [one, other] = [texts[i].textContent, texts[i + 1 + j].textContent];
      if (wide > 1 && high > 3) found.push(chart.id + ': ' + one + ' / ' + other);
    }));
  }
  return found;
})"""
"""Labels of one axis or legend that lie on each other (slanted ones are not looked at)."""
