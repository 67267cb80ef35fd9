"""A whole sweep in this process, one trial after another: the reference for every executor, and the debugger's friend.

The Ray executor is right when it makes the same decisions as this one for one worker. That is a test.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing

from segbench.core.failures import classify
from segbench.core.records import Decision, EpochReport, Failure, Job, StageWork


def run_sequential(
    stages: Iterable[StageWork[Job]],
    run_trial: Callable[[Job], Generator[EpochReport]],
) -> None:
    """Run all trials of one stage after another; an exception in a trial concerns that trial only.

    Args:
        stages: each is asked for when the one before is done, so nothing runs ahead.
        run_trial: trains one trial, from its checkpoint if it has one, and yields after each epoch.

    Raises:
        SegbenchError: a stage has to stop; it can be continued.
    """
    for work in stages:
        _run_stage(work, run_trial)


def _run_stage(work: StageWork[Job], run_trial: Callable[[Job], Generator[EpochReport]]) -> None:
    queue = work.queue
    while (assignment := queue.next()) is not None:
        number = assignment.number
        failure: Failure | None = None
        try:
            with closing(run_trial(work.make_job(assignment))) as reports:
                for report in reports:
                    if queue.report(number, report) is Decision.STOP:
                        break
        except Exception as error:  # whatever the user's function raises is the trial's failure
            failure = classify(error)
        queue.end(number, failure)
    if queue.stop_error is not None:
        raise queue.stop_error
