"""Takes the pictures of the documents from the report of a finished sweep.

    segbench sweep sweeps/quickstart.yaml --set scheduler.audit=0.4 --set budget.trials=18 --out runs/pictures
    python docs/pictures.py runs/pictures                  # writes docs/images/report*.png

Needs Chromium and playwright (`pip install 'segbench[dev]'`). Pictures have 256 colours, so that each stays small.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDTH_PX, SCALE, MAX_BYTES = 1280, 1.25, 300_000
PARTS = {
    "report": ("body", "#trust", 0),
    "report-trust": ("#trust", "#pictures", 0),
    "report-pictures": ("#pictures", "#costs", 640),
    "report-search": ("#search", "#run", 1250),
}
"""Picture -> where it begins, where it ends, and its greatest height in pixels (0: any)."""


def main(folder: str) -> None:
    """Write all pictures."""
    report = Path(folder).resolve() / "report.html"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH_PX, "height": 900}, device_scale_factor=SCALE, color_scheme="light"
        )
        page.goto(report.as_uri())
        for chart in page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('.chart')].every((chart) => chart.dataset.drawn)")
        page.evaluate("document.getElementById('theme').style.visibility = 'hidden'")
        for name, (first, last, height) in PARTS.items():
            _save(_cut(page, first, last, height), IMAGES / f"{name}.png")
        browser.close()


def _cut(page: Page, first: str, last: str, height: int) -> bytes:
    top, bottom = (
        page.evaluate("(name) => document.querySelector(name).getBoundingClientRect().top + scrollY", name)
        for name in (first, last)
    )
    end = min(bottom, top + height) if height else bottom
    clip = {"x": 0, "y": top, "width": WIDTH_PX, "height": end - top}
    return page.screenshot(full_page=True, clip=clip)


def _save(screenshot: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {picture.width}x{picture.height}, {size / 1000:.0f} kB")  # noqa: T201
    assert size <= MAX_BYTES, f"{path} is larger than {MAX_BYTES} bytes"


if __name__ == "__main__":
    main(sys.argv[1])
