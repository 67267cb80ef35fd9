"""A page in headless Chromium that remembers whatever went wrong."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[1] / "build" / "e2e"
TOLERATED = (
    r"^404 http\S+/ajax-api/2.0/mlflow/users/current$",  # MLflow asks who signed in; only a server with accounts knows
    r"ResizeObserver loop completed with undelivered notifications",  # Chromium's: a chart was laid out a frame later
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def open_browser(program: Path | str | None = CHROMIUM) -> Iterator[Any]:
    """Start Chromium, or a program that starts it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
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


class Visit:
    """A page of MLflow or optuna-dashboard, and all that went wrong on it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_page(viewport={"width": 1600, "height": 1000})
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("response", self._receive)
        self.page.on("request", lambda request: self._leave(request.url))
        self.page.goto(url)

    def _hear(self, message: Any) -> None:
        # that a request failed is told by the response, with its address
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _receive(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def _leave(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
            self.complaints.append(f"request to {url}")

    def shown_runs(self) -> set[str]:
        """Ids of all runs that the page links to."""
        links = self.page.evaluate("[...document.querySelectorAll('a')].map((link) => link.href)")
        return {match[1] for link in links if (match := re.search(r"/runs/([0-9a-f]{32})", link))}

    def finish(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        self.page.close()
        wrong = [text for text in self.complaints if not any(re.search(pattern, text) for pattern in TOLERATED)]
        assert wrong == []


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
