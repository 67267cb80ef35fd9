"""All trials of a sweep on Ray: search, retraining and testing alike."""

import logging
from collections.abc import Iterator
from pathlib import Path

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig

from segbench.core.errors import SegbenchError
from segbench.core.records import StageWork
from segbench.spec.schema import Budget, Resources
from segbench.training.trial import TrialJob
from segbench.tune.adapters import QueueScheduler, QueueSearcher, Watchdog
from segbench.tune.cluster import environment, is_one_machine, max_concurrent, trial_nodes
from segbench.tune.feed import Feed
from segbench.tune.trainable import TrialActor


def run_on_ray(
    stages: Iterator[StageWork[TrialJob]],
    folder: Path,
    resources: Resources,
    budget: Budget,
    can_grow: bool = False,
) -> None:
    """Run all trials of one stage after another on the connected Ray cluster.

    Each start is a new Tune run: the queue hands out unfinished trials first, each continues from its own
    checkpoint, so nothing of Tune's state is ever restored.

    Args:
        stages: the next one is asked for when all trials of the one before have ended; workers that would wait until
            then take what is known of it.
        folder: Ray's own files; may be deleted afterwards.
        resources: of one trial.
        budget: ``max_concurrent`` is read.
        can_grow: nodes come when trials wait for them.

    Raises:
        SegbenchError: the sweep has to stop, or Tune itself failed; the same command continues.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # our records say what became of a trial, in one line
    concurrent = max_concurrent(trial_nodes(), resources, budget, can_grow)
    feed = Feed(stages)
    # On a cluster a process that waits may die with its machine, which is noticed only by its next trial, or keep one
    # that would be given back.
    can_wait = is_one_machine() and not can_grow
    scheduler = QueueScheduler(feed, num_waiting=concurrent if can_wait else 0)
    timeout_s = budget.trial_timeout_s
    tuner = tune.Tuner(
        tune.with_resources(TrialActor, {"CPU": resources.cpu, "GPU": resources.num_gpus}),
        tune_config=TuneConfig(
            search_alg=QueueSearcher(feed, concurrent),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent.resolve()),
            failure_config=FailureConfig(max_failures=0),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # each trial keeps its own
            callbacks=[Watchdog(scheduler, timeout_s)] if timeout_s is not None else [],
            verbose=0,
        ),
    )
    try:
        with environment({"TUNE_MAX_PENDING_TRIALS_PG": str(concurrent)}):  # all that may run are asked for at once
            tuner.fit()
    except tune.TuneError as error:
        raise SegbenchError(f"Ray Tune stopped: {error}; the same command continues the sweep") from error
    if feed.error is not None:
        raise feed.error
