"""Makes MLflow equal to the run views: get-or-create by tag, one batch per run, nothing twice.

Only a client with an explicit address is used: MLflow's global state (active run, tracking address) stays the
user's. With mlflow_model.py and mlflow_view.py the only module that imports mlflow.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from segbench.core.errors import UserError
from segbench.core.paths import atomic_write
from segbench.tracking.model import MODEL_TAG, log_model, register_model
from segbench.tracking.runs import PARENT_KEY, DatasetView, Point, RefusedError, RunView

SWEEP_TAG = "segbench.sweep_id"
KEY_TAG = "segbench.key"
NAME_TAG = "mlflow.runName"

_MAX_METRICS = 900
_MAX_PARAMS = 100


@dataclass
class DeliveredRun:
    """What is known to be in MLflow of one run; remembered between processes as a cache only."""

    run_id: str
    fingerprint: str = ""
    """Of the view that was delivered completely; empty while the run goes on."""
    model_id: str = ""


@dataclass
class Progress:
    """What this process has seen of a run in MLflow."""

    last_step: int
    missing_params: dict[str, str]
    status: str
    tags: dict[str, str]
    has_dataset: bool
    has_artifacts: bool = False


def create_database(path: Path) -> None:
    """Make MLflow's SQLite file if there is none: beside its place, then renamed.

    A kill in the middle of MLflow's own migrations leaves a file that no MLflow opens again.
    """
    if path.exists():
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        temporary = Path(folder) / path.name
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)
        temporary.replace(path)


class Delivery:
    """A connection to one experiment, for the runs of one sweep.

    Args:
        tracking_uri: database or server.
        experiment: its name; made when absent.
        artifacts: where a new experiment keeps artifacts; None leaves it to the server.
        sweep_id: the tag by which the runs of this sweep are found.
        cache: file that remembers what was delivered; may be absent or of another server.
    """

    def __init__(self, tracking_uri: str, experiment: str, artifacts: str | None, sweep_id: str, cache: Path) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.client = MlflowClient(tracking_uri=tracking_uri)
        self.experiment_id = self._experiment_id(experiment, artifacts)
        self._tracking_uri = tracking_uri
        self._sweep_id = sweep_id
        self._cache = cache
        self._runs = self._read_cache()
        self._progress: dict[str, Progress] = {}

    @property
    def run_ids(self) -> dict[str, str]:
        """Run ids by key."""
        return {key: run.run_id for key, run in self._runs.items()}

    def is_delivered(self, view: RunView) -> bool:
        """Whether MLflow already has all of a view."""
        run = self._runs.get(view.key)
        return run is not None and run.fingerprint == view.fingerprint

    def deliver(self, view: RunView) -> int:
        """Make one run equal to its view and return the number of new steps.

        Raises:
            RefusedError: MLflow is there, but does not take this run (it was deleted, say).
        """
        try:
            return self._deliver(view)
        except MlflowException as error:
            if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
                raise
            raise RefusedError(str(error)) from error

    def _deliver(self, view: RunView) -> int:
        run, progress = self._open(view)
        new = [point for point in view.points if point.step > progress.last_step]
        params = [Param(*param) for param in progress.missing_params.items()]
        for start in range(0, len(params), _MAX_PARAMS):
            self.client.log_batch(run.run_id, params=params[start : start + _MAX_PARAMS], synchronous=True)
        progress.missing_params = {}
        if view.status == "RUNNING" and progress.status != "RUNNING":
            self.client.update_run(run.run_id, status="RUNNING")
            progress.status = "RUNNING"
        if view.dataset is not None and not progress.has_dataset:
            self.client.log_inputs(run.run_id, datasets=[_dataset_input(view.dataset)])
            progress.has_dataset = True
        tags_wanted = {**view.tags, **self._parent_tag(view), NAME_TAG: view.name}
        changed = {key: value for key, value in tags_wanted.items() if progress.tags.get(key) != value}
        points = [*new, *view.summary]
        batches = list(_batches(points)) or [[]]
        for metrics in batches:
            tags = [RunTag(*tag) for tag in changed.items()] if metrics is batches[-1] else []
            if metrics or tags:
                self.client.log_batch(run.run_id, metrics=metrics, tags=tags, synchronous=True)
        progress.last_step = max([progress.last_step, *(point.step for point in new)])
        progress.tags.update(changed)
        if view.status != "RUNNING" or not progress.has_artifacts:
            self._upload(run, view)
            progress.has_artifacts = True
        if view.status != "RUNNING":
            self.client.set_terminated(run.run_id, view.status, end_time=view.end_ms)
            progress.status = view.status
            run.fingerprint = view.fingerprint
        return len(new)

    def deliver_model(self, key: str, folder: Path, step: int) -> None:
        """Log the model folder of a run once."""
        run = self._runs[key]
        if run.model_id:
            return
        tags = self.client.get_run(run.run_id).data.tags
        run.model_id = tags.get(MODEL_TAG) or log_model(self.client, self.experiment_id, run.run_id, folder, step)
        self.client.set_tag(run.run_id, MODEL_TAG, run.model_id)

    def register_models(self, name: str, keys: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Put logged models into the registry, each once, and give each its alias.

        Args:
            name: of the registered model.
            keys: alias to run; an alias that is not among them is left as it is.
            tags: of new versions.
        """
        for alias, key in keys.items():
            register_model(self.client, name, self._runs[key].model_id, alias, {**tags, KEY_TAG: key})

    def save_cache(self) -> None:
        """Remember what was delivered."""
        document = {
            "tracking_uri": self._tracking_uri,
            "sweep_id": self._sweep_id,
            "experiment_id": self.experiment_id,
            "runs": {key: asdict(run) for key, run in self._runs.items()},
        }
        atomic_write(self._cache, json.dumps(document, indent=1) + "\n")

    def forget(self, key: str) -> None:
        """Look the run up again next time (it was deleted, say)."""
        self._runs.pop(key, None)
        self._progress.pop(key, None)

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        found: Experiment | None = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException as error:
                found = self.client.get_experiment_by_name(name)  # another sweep was faster
                if found is None:
                    raise error
        if found.lifecycle_stage != "active":
            raise UserError(
                f"MLflow experiment {name!r} was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or name another in mlflow.experiment"
            )
        return str(found.experiment_id)

    def _read_cache(self) -> dict[str, DeliveredRun]:
        """Return the cache if it speaks of this sweep on this server, and the server still has the sweep."""
        if not self._cache.exists():
            return {}
        document = json.loads(self._cache.read_text())
        ours = {"tracking_uri": self._tracking_uri, "sweep_id": self._sweep_id, "experiment_id": self.experiment_id}
        if any(document.get(key) != value for key, value in ours.items()):
            return {}
        runs = {key: DeliveredRun(**run) for key, run in document["runs"].items()}
        parent = self._find(PARENT_KEY)
        is_same = parent is not None and PARENT_KEY in runs and parent.info.run_id == runs[PARENT_KEY].run_id
        return runs if is_same else {}

    def _find(self, key: str) -> Run | None:
        found = self.client.search_runs(
            [self.experiment_id],
            filter_string=f"tags.`{SWEEP_TAG}` = '{self._sweep_id}' AND tags.`{KEY_TAG}` = '{key}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None

    def _open(self, view: RunView) -> tuple[DeliveredRun, Progress]:
        """Return the run of a view, made when there is none, and what it holds."""
        if view.key in self._progress:
            return self._runs[view.key], self._progress[view.key]
        run = self._find(view.key)
        if run is None:
            run = self._create(view)
        missing = {key: value for key, value in view.params.items() if key not in run.data.params}
        has_dataset = bool(run.inputs and run.inputs.dataset_inputs)
        progress = Progress(self._last_step(run, view), missing, run.info.status, dict(run.data.tags), has_dataset)
        known = self._runs.get(view.key)
        if known is None or known.run_id != run.info.run_id:
            self._runs[view.key] = DeliveredRun(run.info.run_id)
        self._progress[view.key] = progress
        return self._runs[view.key], progress

    def _create(self, view: RunView) -> Run:
        tags = {SWEEP_TAG: self._sweep_id, KEY_TAG: view.key, **view.tags, **self._parent_tag(view)}
        return self.client.create_run(self.experiment_id, start_time=view.start_ms, tags=tags, run_name=view.name)

    def _parent_tag(self, view: RunView) -> dict[str, str]:
        return {} if view.key == PARENT_KEY else {"mlflow.parentRunId": self._runs[PARENT_KEY].run_id}

    def _last_step(self, run: Run, view: RunView) -> int:
        """Return the last step that MLflow has, by a metric that is in every step; -1 when there is none."""
        for key in run.data.metrics:
            if view.points and all(key in point.metrics for point in view.points):
                return max(int(metric.step) for metric in self.client.get_metric_history(run.info.run_id, key))
        return -1

    def _upload(self, run: DeliveredRun, view: RunView) -> None:
        for name, text in view.texts.items():
            self.client.log_text(run.run_id, text, name)
        for name, path in view.files.items():
            self.client.log_artifact(run.run_id, str(path), str(Path(name).parent) if "/" in name else None)


def _dataset_input(view: DatasetView) -> DatasetInput:
    if view.root is None:
        source = CodeDatasetSource({"mlflow.source.name": "segbench.data.streets"})
    else:
        source = get_dataset_source_from_json(json.dumps({"uri": view.root}), "local")
    described = MetaDataset(source, name=view.name, digest=view.digest).to_dict()
    dataset = Dataset(**{**described, "profile": json.dumps(view.profile)})
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _batches(points: Sequence[Point]) -> Iterator[list[Metric]]:
    """Yield the points as metrics in few batches; the metrics of a step stay together, so it is there or not."""
    batch: list[Metric] = []
    for point in points:
        metrics = [Metric(key, value, point.at_ms, point.step) for key, value in point.metrics.items()]
        if batch and len(batch) + len(metrics) > _MAX_METRICS:
            yield batch
            batch = []
        batch.extend(metrics)
        while len(batch) > _MAX_METRICS:  # more than a request can carry in one epoch
            yield batch[:_MAX_METRICS]
            batch = batch[_MAX_METRICS:]
    if batch:
        yield batch
