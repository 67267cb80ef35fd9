"""What MLflow holds of a sweep, for the tests of its delivery."""

import time
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import Run
from sweep_ledgers import SweepWriter

from segbench.spec.schema import SweepSpec
from segbench.tracking.tracker import SyncResult, sync, tracking_uri


class Server:
    """What MLflow holds of a sweep, read back through its own client."""

    def __init__(self, writer: SweepWriter, spec: SweepSpec) -> None:
        self.writer = writer
        self.spec = spec

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_uri(self.writer.paths, self.spec))

    def sync(self, final: bool = False) -> SyncResult:
        result = sync(self.writer.paths, self.spec, final)
        assert result.error is None
        return result

    def runs(self) -> dict[str, Run]:
        """All runs by the name of the trial, the parent by the sweep's; fails when one is there twice."""
        experiment = self.client.get_experiment_by_name("demo")
        if experiment is None:
            return {}
        found = self.client.search_runs([experiment.experiment_id], max_results=1000)
        names = [run.data.tags.get("trial", run.info.run_name) for run in found]
        assert len(set(names)) == len(names), names
        return dict(zip(names, found, strict=True))

    def history(self, name: str, key: str) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.runs()[name].info.run_id, key)
        return [(point.step, point.value) for point in points]

    def artifacts(self, name: str, folder: str | None = None) -> list[str]:
        return [file.path for file in self.client.list_artifacts(self.runs()[name].info.run_id, folder)]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited two minutes"
        time.sleep(0.02)
