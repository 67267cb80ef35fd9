"""Settings of all tests, and what several folders of them share."""

import builtins
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if find_spec("torch") is None:  # `make test-python`: what comes to need torch, a whole module or one test, is skipped
    _import = builtins.__import__

    def _import_or_skip(name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return _import(name, *args, **kwargs)
        except ModuleNotFoundError as error:
            asking = (args[0] if args else kwargs.get("globals")) or {}
            ours = str(asking.get("__file__", "")).startswith((str(Path(__file__).parent), _PACKAGE))
            if error.name == "torch" and ours:
                pytest.skip("needs torch", allow_module_level=True)
            raise

    _PACKAGE = str(Path(str(find_spec("segbench").origin)).parent)  # type: ignore[union-attr]
    builtins.__import__ = _import_or_skip


@pytest.fixture(autouse=True, scope="session")
def _no_tracking_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that start Ray, which take longest: of two processes neither is left with one at the end."""
    if not config.pluginmanager.has_plugin("randomly"):
        long = {item.path for item in items if item.get_closest_marker("ray")}
        items.sort(key=lambda item: item.path not in long)


@contextmanager
def _left_as_found() -> Iterator[None]:
    """Put back what all tests of a process share: no test may depend on which others ran before it."""
    environment, folder, path = dict(os.environ), Path.cwd(), list(sys.path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    levels = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    threads = torch.get_num_threads() if (torch := sys.modules.get("torch")) else 0
    yield
    if os.environ != environment:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = path
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for logger, level, propagate, is_disabled in levels:
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, is_disabled
    if torch is not None:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _modules_leave_nothing() -> Iterator[None]:
    with _left_as_found():
        yield


@pytest.fixture(autouse=True)
def _tests_leave_nothing(_modules_leave_nothing: None) -> Iterator[None]:
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)  # nor on what others drew
    with _left_as_found():
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
