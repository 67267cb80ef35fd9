"""Ray's view of one trial: a step is an epoch.

Tune's class interface is used, not its function interface: a stop simply closes the generator, so there is no
training thread that has to die within a time limit before the process can be used again.
"""

import contextlib
import time
from collections.abc import Generator
from typing import Any, Literal

import ray
from ray.tune import Trainable

from segbench.core.failures import classify
from segbench.core.records import EpochReport
from segbench.training.memory import free_memory
from segbench.training.trial import TrialJob, run_trial

JOB = "job"
REPORT = "report"
FAILURE = "failure"
DONE = "done"
_LOOK_S = 1.0
"""Ask this seldom whether the node drains."""


class NodeDrainedError(Exception):
    """The trial has left its node, which goes away; raised, so that Tune does not use this process again."""


class TrialActor(Trainable):
    """A worker process that runs one trial after another."""

    _last: EpochReport | None
    """Of this run of the trial."""

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

        Raises:
            NodeDrainedError: the node goes away; what continues the trial elsewhere is written.
        """
        try:
            if self._is_unfinished() and self._is_drained():
                self._leave()
                raise NodeDrainedError(ray.util.get_node_ip_address())
            report = next(self._reports, None)
        except NodeDrainedError:
            raise
        except Exception as error:
            failure = classify(error)
            free_memory()  # the traceback held the tensors of the failed step
            return {FAILURE: failure, DONE: True}
        self._last = report
        return {DONE: True} if report is None else {REPORT: report}

    def cleanup(self) -> None:
        """Close the trial."""
        self._reports.close()

    def _take(self, config: dict[str, Any]) -> None:
        self._job: TrialJob = config[JOB]
        self._reports: Generator[EpochReport, Literal["leave"] | None] = run_trial(self._job)
        self._last = None
        self._looked = 0.0

    def _is_unfinished(self) -> bool:
        return self._last is None or self._last.epoch < self._job.assignment.max_epochs

    def _is_drained(self) -> bool:
        """Return whether this node was given notice (`ray drain-node`)."""
        if time.monotonic() - self._looked < _LOOK_S:
            return False
        self._looked = time.monotonic()
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()

    def _leave(self) -> None:
        """Write what continues the trial after its last epoch; one that has not begun leaves as it came."""
        if self._last is not None:
            with contextlib.suppress(StopIteration):
                self._reports.send("leave")
