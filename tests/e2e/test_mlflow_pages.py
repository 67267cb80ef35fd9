"""MLflow's pages as `segbench compare` prints them, and optuna-dashboard, in a real browser; screenshots to look at.

Nothing of segbench runs in these pages, so their scripts' own errors are MLflow's and optuna-dashboard's. What is
tolerated of them stands in browsing.TOLERATED, with the reason; anything else fails the test.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsing import CHROMIUM, Visit

from segbench.core.ledger import read_records
from segbench.core.paths import SweepPaths
from segbench.results.folder import read_delivered
from segbench.tracking.comparison import choose_runs

pytest.importorskip("playwright", reason="playwright is not installed")

BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]

SWEEP = """
name: streets
data: {size: [32, 64], num_images: [8, 4, 8]}
training: {batch_size: 4}
parameters:
  model: {values: [unet, segformer]}
  lr: {distribution: log_uniform_values, min: 1e-3, max: 1e-2}
  width: {values: [4, 8], when: {model: unet}}
baselines: [{name: unet, parameters: {model: unet, width: 4, lr: 2e-3}}]
search: {startup_trials: 3}
scheduler: {max_epochs: 3, grace_epochs: 1, reduction_factor: 2}
budget: {trials: 8, max_concurrent: 1}
resources: {cpu: 1}
retrain: {top_k: 2, seeds: 2}
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> SweepPaths:
    """A real sweep: of SEGBENCH_E2E_RUN, or a small one made here."""
    if run := os.environ.get("SEGBENCH_E2E_RUN"):
        return SweepPaths(Path(run))
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(SWEEP)
    command = [sys.executable, "-m", "segbench.sweep", "sweep.yaml", "--executor", "local", "--out", "runs"]
    environment = {**os.environ, "SEGBENCH_CACHE": str(folder / "cache")}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return SweepPaths(folder / "runs")


@contextmanager
def running(command: list[str], log: Path, sign: str) -> Iterator[str]:
    """Run a command until ``sign`` stands in what it prints; yield that, and end it as Ctrl-C does."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=environment)
    try:
        deadline = time.monotonic() + 200
        while sign not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def addresses(paths: SweepPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What `segbench compare` prints, while its server runs."""
    command = [str(BIN / "segbench"), "compare", str(paths.root), "--top", "3"]
    log = tmp_path_factory.mktemp("compare") / "log"
    with running(command, log, "until Ctrl-C") as printed:
        again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert again.splitlines() == printed.splitlines()[:-1], "the running server is found, and left alone"
        yield dict(re.findall(r"^(comparison|run table|charts) +(http\S+)$", printed, re.MULTILINE))
    url = re.search(r"http://[^/]+", printed)
    assert url is not None
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url[0]}/health", timeout=5)


@pytest.fixture(scope="module")
def chosen(paths: SweepPaths) -> set[str]:
    """Ids of the runs that should be shown: four retrained seeds (six with the baseline's), three trials."""
    keys = choose_runs(read_records(paths, "val/miou", "maximize"), 3)
    assert len([key for key in keys if key.startswith("search/")]) == 3
    return {read_delivered(paths).run_ids[key] for key in keys}


def test_the_comparison_shows_exactly_the_chosen_runs(browser, addresses: dict[str, str], chosen: set[str]) -> None:
    visit = Visit(browser, addresses["comparison"])
    visit.page.get_by_text(f"Comparing {len(chosen)} Runs").wait_for(timeout=60_000)
    visit.page.locator(".js-plotly-plot .parcoords").first.wait_for(timeout=60_000)
    assert visit.shown_runs() == chosen
    assert visit.page.locator(".js-plotly-plot .y-axis").count() >= 3
    assert visit.page.get_by_text("#01 ").count() >= 1
    axes = visit.page.locator(".js-plotly-plot .axis-title").all_text_contents()
    assert axes[-1] == "val/miou", "what was searched on is drawn without being asked for"
    visit.finish("mlflow-comparison")


def test_the_run_table_shows_exactly_the_chosen_runs(browser, addresses: dict[str, str], chosen: set[str]) -> None:
    visit = Visit(browser, addresses["run table"])
    visit.page.get_by_text("matching runs").wait_for(timeout=60_000)
    visit.page.locator(".ag-row a").nth(len(chosen) - 1).wait_for(timeout=60_000)
    assert f"{len(chosen)} matching runs" in visit.page.inner_text("body")
    assert visit.shown_runs() == chosen
    headers = visit.page.locator(".ag-header-cell").all_inner_texts()
    assert {"best/val/miou", "test/miou", "lr", "model"} <= {header.strip() for header in headers}
    visit.finish("mlflow-run-table")


def test_the_charts_have_marks(browser, addresses: dict[str, str]) -> None:
    visit = Visit(browser, addresses["charts"])
    visit.page.locator(".js-plotly-plot .point, .js-plotly-plot .js-line").first.wait_for(
        state="attached", timeout=60_000
    )
    visit.finish("mlflow-charts")


def test_the_study_opens_in_optuna_dashboard(browser, paths: SweepPaths, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BIN / "optuna-dashboard"), "--port", str(port), str(paths.study)]
    with running(command, tmp_path / "log", "Listening at"):
        visit = Visit(browser, f"http://127.0.0.1:{port}/dashboard/studies/0")
        visit.page.locator(".js-plotly-plot .trace, .js-plotly-plot .point").first.wait_for(
            state="attached", timeout=60_000
        )
        visit.page.wait_for_timeout(2_000)
        visit.finish("optuna-dashboard")
