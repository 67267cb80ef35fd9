"""Ray's view of one trial: a step is an epoch.

Tune's class interface is used, not its function interface: a stop simply closes the generator, so there is no
training thread that has to die within a time limit before the process can be used again.
"""

from collections.abc import Generator
from typing import Any

from ray.tune import Trainable

from segbench.failures import classify
from segbench.records import EpochReport
from segbench.training.memory import free_memory
from segbench.training.trial import TrialJob, run_trial

JOB = "job"
REPORT = "report"
FAILURE = "failure"
DONE = "done"


class TrialActor(Trainable):
    """A worker process that runs one trial after another."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the process with its imports and its mapped data stays."""
        self._reports.close()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch.

        An exception of the training function becomes part of the result, so the process survives it.
        """
        try:
            report = next(self._reports, None)
        except Exception as error:
            failure = classify(error)
            free_memory()  # the traceback held the tensors of the failed step
            return {FAILURE: failure, DONE: True}
        return {DONE: True} if report is None else {REPORT: report}

    def cleanup(self) -> None:
        """Close the trial."""
        self._reports.close()

    def _take(self, config: dict[str, Any]) -> None:
        job: TrialJob = config[JOB]
        self._reports: Generator[EpochReport] = run_trial(job)
