"""Sweep folders to report on, and an MLflow database to copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import torch
from sweep_ledgers import SweepWriter, make_spec
from tracked import Server

from segbench.paths import SweepPaths

torch.set_num_threads(1)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SweepWriter]:
    writer = SweepWriter(SweepPaths(tmp_path / "demo"))
    yield writer
    writer.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes seconds, so it is made once and copied."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session", autouse=True)
def _no_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture
def server(writer: SweepWriter, empty_database: Path) -> Server:
    writer.paths.root.mkdir(parents=True)
    shutil.copy(empty_database, writer.paths.mlflow_db)
    return Server(writer, make_spec())
