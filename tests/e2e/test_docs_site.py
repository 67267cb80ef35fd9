"""The site of the documents in a real browser: built without a warning, loads nothing from elsewhere, can be read.

make e2e      # screenshots in build/e2e
"""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browsing import CHROMIUM, SCREENSHOTS, listen
from docs_site import ROOT, build_site

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("material", reason="mkdocs-material is not installed")

PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_site(folder)
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read(browser, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints = listen(page, allowed=("data:", address))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        page.goto(f"{address}/{name}.html")
        assert page.locator("article h1").count() == 1, name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0, name
        assert page.evaluate("document.body.dataset.mdColorScheme") == ("slate" if scheme == "dark" else "default")
        if name in ("index", "tutorial", "results"):
            page.screenshot(path=SCREENSHOTS / f"docs-{name}-{width}-{scheme}.png")
    assert complaints == []
    page.close()


def test_the_search_finds_a_setting(browser, address: str) -> None:
    page = browser.new_page()
    complaints = listen(page, allowed=("data:", address, "blob:"))
    page.goto(f"{address}/index.html")
    page.locator("input.md-search__input").click()
    page.keyboard.type("reduction_factor")
    page.locator(".md-search-result__item").first.wait_for(timeout=10_000)
    assert complaints == []
    page.close()


def test_files_of_the_repository_have_pages(browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/clusters.html")
    page.locator("article a", has_text="cluster/local.yaml").first.click()
    page.wait_for_load_state()
    assert page.locator("article h1").inner_text().startswith("cluster/local.yaml")
    assert "cluster_name" in page.locator("article").inner_text()
    page.close()


def test_a_page_opens_from_disk(browser, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.locator("article a", has_text="The sweep file").first.click()
    page.wait_for_load_state()
    assert page.url.endswith("/spec.html")
    page.close()
