"""A whole stage in this process, one trial after another: the reference for every executor, and the debugger's friend.

The Ray executor is right when it makes the same decisions as this one for one worker. That is a test.
"""

from collections.abc import Callable, Generator
from contextlib import closing

from segbench.failures import classify
from segbench.records import Assignment, Decision, EpochReport, Failure, TrialQueue

RunTrial = Callable[[Assignment], Generator[EpochReport]]
"""Trains one trial, from its checkpoint if it has one, and yields after each epoch."""


def run_sequential(queue: TrialQueue, run_trial: RunTrial) -> None:
    """Run all trials of ``queue``; an exception in a trial concerns that trial only.

    Raises:
        SegbenchError: the whole stage has to stop; it can be continued.
    """
    while (assignment := queue.next()) is not None:
        number = assignment.number
        failure: Failure | None = None
        try:
            with closing(run_trial(assignment)) as reports:
                for report in reports:
                    if queue.report(number, report) is Decision.STOP:
                        break
        except Exception as error:  # whatever the user's function raises is the trial's failure
            failure = classify(error)
        queue.end(number, failure)
    if queue.stop_error is not None:
        raise queue.stop_error
