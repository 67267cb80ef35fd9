"""MLflow as a view of the ledgers: made equal to them by :func:`sync`, kept so by a :class:`Tracker`.

Nothing waits for MLflow: it is imported, connected to and written to in a thread; a server that cannot be reached
is tried again later, and whatever is missing at the end can be delivered by ``segbench mlflow sync``.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from segbench.core.ledger import LedgerReader, Records
from segbench.core.paths import STAGES, SweepPaths, atomic_write
from segbench.results.folder import Results, write_tables
from segbench.spec.schema import SweepSpec
from segbench.tracking.dataset import dataset_view
from segbench.tracking.runs import PARENT_KEY, RefusedError, trial_views
from segbench.tracking.sweep_run import common_tags, sweep_view

if TYPE_CHECKING:
    from segbench.tracking.delivery import Delivery

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT_S = 60
ALIASES = ("champion", "challenger")
"""In MLflow's registry: the best model of the leaderboard, and the next."""
INTERRUPT_TIMEOUT_S = 10.0
"""Ctrl-C waits so long for MLflow."""


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What a delivery achieved."""

    tracking_uri: str
    num_runs: int = 0
    """Runs that now equal the ledgers."""
    num_steps: int = 0
    """Epochs that were new to MLflow."""
    error: str | None = None
    """Why not everything was delivered; None when it was."""

    @property
    def is_complete(self) -> bool:
        """Whether MLflow equals the ledgers."""
        return self.error is None


def tracking_uri(paths: SweepPaths, spec: SweepSpec) -> str:
    """Return the sweep file's address, else $MLFLOW_TRACKING_URI, else an SQLite file in the sweep's folder."""
    return spec.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri(paths)


def sync(paths: SweepPaths, spec: SweepSpec, final: bool = False) -> SyncResult:
    """Make MLflow equal to the ledgers; may be called at any time, by any process, any number of times.

    Args:
        paths: the sweep's folder.
        spec: its resolved file.
        final: the sweep is not running (any more): unfinished trials become KILLED, tables are written and uploaded,
            models logged, and the parent run ends.

    Returns:
        What was delivered; a problem with MLflow is in ``error``, not raised.
    """
    return _Session(paths, spec).sync(final)


class Tracker:
    """Delivers to MLflow in a thread while a sweep runs; a context manager.

    Args:
        paths: the sweep's folder.
        spec: its resolved file; with ``mlflow.enabled: false`` nothing is done.
        warn: told once when MLflow cannot be reached, and at the end what is missing.
        interval_s: pause between deliveries; doubled up to a minute while MLflow cannot be reached.
    """

    def __init__(
        self,
        paths: SweepPaths,
        spec: SweepSpec,
        warn: Callable[[str], None] = _log.warning,
        interval_s: float = 5.0,
    ) -> None:
        self._session = _Session(paths, spec)
        self._root = paths.root
        self._enabled = spec.mlflow.enabled
        self._warn = warn
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="segbench-mlflow", daemon=True)
        self._result: SyncResult | None = None
        self._is_open = False

    def __enter__(self) -> "Tracker":
        if self._enabled:
            self._is_open = True
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close(timeout_s=INTERRUPT_TIMEOUT_S if is_interrupted else None)

    def finish(self) -> None:
        """Begin the last delivery: the sweep has ended. :meth:`close` waits for it."""
        self._stop.set()

    def close(self, timeout_s: float | None = None) -> SyncResult | None:
        """Deliver what is left and stop; None when MLflow is not used. Calling it again changes nothing.

        Args:
            timeout_s: give up waiting after so long; what is missing can be delivered later.
        """
        if self._is_open:
            self._is_open = False
            self.finish()
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._warn(f"MLflow takes too long; deliver the rest with: segbench mlflow sync {self._root}")
            elif self._result is not None and self._result.error is not None:
                self._warn(
                    f"MLflow at {self._result.tracking_uri} did not get everything ({self._result.error}). "
                    f"Nothing is lost; deliver it with: segbench mlflow sync {self._root}"
                )
        return self._result

    def _run(self) -> None:
        delay_s = self._interval_s
        warned = False
        while not self._stop.is_set():
            result = self._session.sync(final=False)
            delay_s = self._interval_s if result.is_complete else min(2 * delay_s, 60.0)
            if result.error is not None and not warned:
                warned = True
                self._warn(f"MLflow at {result.tracking_uri}: {result.error}; training goes on, trying again later")
            self._stop.wait(delay_s)
        self._result = self._session.sync(final=True)


class _Session:
    """Deliveries by one process: keeps the connection."""

    def __init__(self, paths: SweepPaths, spec: SweepSpec) -> None:
        self._paths = paths
        self._spec = spec
        self._uri = tracking_uri(paths, spec)
        self._delivery: Delivery | None = None
        self._ledgers = {stage: LedgerReader(paths.ledger(stage)) for stage in STAGES}
        self._news: dict[str, set[int]] = {stage: set() for stage in STAGES}
        """Numbers of the trials of which MLflow has not heard the last."""

    def sync(self, final: bool) -> SyncResult:
        lock = FileLock(self._paths.mlflow_state.with_suffix(".lock"))
        try:
            self._look()
            if not final and not any(self._news.values()):
                return SyncResult(tracking_uri=self._uri)
            with lock.acquire(timeout=_LOCK_TIMEOUT_S if final else 0):
                result = self._deliver(final)
        except Timeout:
            return SyncResult(tracking_uri=self._uri, error="another process is delivering this sweep")
        except Exception as error:  # MLflow, its database and its server fail in many ways; none may stop a sweep
            _log.debug("MLflow delivery failed", exc_info=True)
            self._delivery = None
            return SyncResult(tracking_uri=self._uri, error=_first_line(error))
        if result.is_complete:
            self._news = {stage: set() for stage in STAGES}
        return result

    def _look(self) -> None:
        """Read what is new in the ledgers: a delivery costs what there is to deliver, not the length of the sweep."""
        for stage, ledger in self._ledgers.items():
            self._news[stage] |= ledger.look()
        tests = {record.number: record.assignment.source for record in self._ledgers["test"].records}
        self._news["retrain"] |= {source for number in self._news["test"] if (source := tests[number]) is not None}

    def _deliver(self, final: bool) -> SyncResult:
        metric = self._spec.metric
        stages = (self._ledgers[stage].records for stage in STAGES)
        bounds, objectives = self._spec.requirements, metric.several
        records = Records(metric.name, metric.goal, *stages, requirements=bounds, objectives=objectives)
        if not records.search:
            return SyncResult(tracking_uri=self._uri)
        delivery = self._connect()
        tags = common_tags(self._paths, self._spec)
        try:
            if not final or PARENT_KEY not in delivery.run_ids:
                delivery.deliver(sweep_view(self._paths, self._spec, records, tags, final=False))
            num_runs, num_steps, errors = self._deliver_trials(delivery, records, tags, final)
            if final:
                self._deliver_models(delivery, records)
                delivery.save_cache()  # the tables show run ids
                write_tables(Results(self._paths, self._spec, records))
                delivery.deliver(sweep_view(self._paths, self._spec, records, tags, final=True))
        finally:
            delivery.save_cache()
        error = "; ".join(errors[:3]) or None
        return SyncResult(tracking_uri=self._uri, num_runs=num_runs + 1, num_steps=num_steps, error=error)

    def _deliver_trials(
        self, delivery: "Delivery", records: Records, tags: Mapping[str, str], final: bool
    ) -> tuple[int, int, list[str]]:
        """Return the number of runs and of new steps delivered, and what MLflow refused."""
        num_runs, num_steps = 0, 0
        errors = []
        dataset = dataset_view(self._paths, self._spec)
        only = None if final else self._news
        for view in trial_views(self._paths, records, tags, final, dataset, only):
            try:
                num_steps += 0 if delivery.is_delivered(view) else delivery.deliver(view)
                num_runs += 1
            except RefusedError as error:  # this run alone; others go on
                delivery.forget(view.key)
                errors.append(f"{view.key}: {_first_line(error)}")
        return num_runs, num_steps, errors

    def _deliver_models(self, delivery: "Delivery", records: Records) -> None:
        """Log the model of each row of the leaderboard, and register the first two."""
        results = Results(self._paths, self._spec, records)
        logged: list[str] = []
        for finalist in results.finalists:
            folder = results.model_folder(finalist)
            if not (folder / "model.safetensors").is_file():
                continue
            seed = finalist.best_seed
            key = f"search/{finalist.name}" if seed is None else f"retrain/{seed.assignment.name}"
            best = (seed or finalist.search).best(records.goal)
            delivery.deliver_model(key, folder, step=best.epoch if best else 0)
            logged.append(key)
        winners = dict(zip(ALIASES, logged, strict=False))
        delivery.register_models(self._spec.name, winners, {"sweep": self._spec.name})

    def _connect(self) -> "Delivery":
        if self._delivery is None:
            set_mlflow_defaults()
            # seconds of imports: not before it is needed
            from segbench.tracking.delivery import Delivery, create_database

            is_default = self._uri == _default_uri(self._paths)
            if is_default:
                create_database(self._paths.mlflow_db)
            self._delivery = Delivery(
                tracking_uri=self._uri,
                experiment=self._spec.mlflow.experiment or self._spec.name,
                artifacts=self._paths.mlflow_artifacts.resolve().as_uri() if is_default else None,
                sweep_id=_sweep_id(self._paths),
                cache=self._paths.mlflow_state,
            )
        return self._delivery


def _default_uri(paths: SweepPaths) -> str:
    return f"sqlite:///{paths.mlflow_db.resolve()}"


def _sweep_id(paths: SweepPaths) -> str:
    """Return the id that marks this sweep's runs; drawn once, kept beside the ledgers."""
    if not paths.sweep_id.exists():
        atomic_write(paths.sweep_id, uuid.uuid4().hex + "\n")
    return paths.sweep_id.read_text().strip()


def set_mlflow_defaults() -> None:
    """Choose settings that MLflow reads from the environment; what the user has set counts."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # we come again ourselves
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
