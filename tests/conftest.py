"""Settings of all tests, and what several folders of them share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sitecustomize  # noqa: F401  # what SEGBENCH_TEST_PRECISION changes
from hypothesis import settings

if TYPE_CHECKING:
    from sweep_ledgers import SweepWriter
    from tracked import Server

# the same examples every time, and no test depends on how fast the machine is
settings.register_profile("segbench", deadline=None, derandomize=True)
settings.load_profile("segbench")

if "SEGBENCH_TEST_PRECISION" in os.environ:  # also in the processes that tests start
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split()])


@pytest.fixture(autouse=True, scope="session")
def _no_tracking_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: bit-exact, and faster for models this small."""
    import torch  # seconds, which most tests need not wait for

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def writer(tmp_path: Path) -> "Iterator[SweepWriter]":
    """A sweep's folder to report on, whose ledgers the test writes."""
    from sweep_ledgers import SweepWriter

    from segbench.core.paths import SweepPaths

    writer = SweepWriter(SweepPaths(tmp_path / "demo"))
    yield writer
    writer.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes seconds, so it is made once and copied."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def server(writer: "SweepWriter", empty_database: Path) -> "Server":
    """The database beside a sweep's folder."""
    from sweep_ledgers import make_spec
    from tracked import Server

    writer.paths.root.mkdir(parents=True)
    shutil.copy(empty_database, writer.paths.mlflow_db)
    return Server(writer, make_spec())
