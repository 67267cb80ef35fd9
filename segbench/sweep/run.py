"""The composition root: who runs a sweep, who watches it, in the order of the picture in docs/design.md.

    segbench.run(file) ── check ─> folder ─> executor ─> Sweep: search, select, retrain, test ─> results

All ways in come together in :func:`run_sweep`: ``segbench sweep FILE``, ``python -m segbench sweep FILE``,
``python -m segbench.sweep FILE`` and ``segbench.run(FILE)``. What takes seconds to import is imported where it is first
needed, much of it while Ray starts.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.address import is_bucket, join, sweep_paths, what_is_wrong
from segbench.core.errors import UserError
from segbench.core.paths import SweepPaths
from segbench.core.ready import find_sweep
from segbench.core.records import SweepObserver, TrainFunction
from segbench.spec.load import LoadedSpec, load_spec, override, spec_from
from segbench.spec.schema import SweepSpec

if TYPE_CHECKING:
    from segbench.sweep.result import SweepResult
    from segbench.sweep.stages import Executor
    from segbench.terminal.screen import Screen


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the trials of a sweep are run, this time."""

    executor: Literal["ray", "local"] = "ray"
    """Processes on this machine or a cluster; or this process, one trial after another."""
    address: str | None = None
    """Of a Ray cluster; None: this machine."""
    min_nodes: int = 0
    """Wait until so many nodes of the cluster can run trials."""
    growing: bool = False
    """Nodes come when trials wait for them."""
    resume: bool = False
    """Continue with a longer max_epochs, other parameters or another retrain section."""
    objective: TrainFunction | None = None
    """Trains a trial in place of the one that ``train:`` names; for the local executor."""


def run(
    file: "str | Path | Mapping[str, Any] | SweepSpec",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    out: str | Path | None = None,
    executor: Literal["ray", "local"] = "ray",
    objective: TrainFunction | None = None,
    observers: Sequence[SweepObserver] = (),
    address: str | None = None,
    min_nodes: int = 0,
    growing: bool = False,
    resume: bool = False,
) -> "SweepResult":
    """Run a sweep, or continue it where it stopped, and return what it found; the same as ``segbench sweep``.

    Ctrl-C (in a notebook: interrupting the kernel) raises KeyboardInterrupt and loses nothing: the same call continues.
    It works inside a running event loop and in a Jupyter kernel.

    Args:
        file: a sweep file, the name of one that comes with segbench, its content as nested mappings, or a SweepSpec.
        overrides: what to change of it, as ``{"budget.trials": 12}`` or ``["budget.trials=12"]``; later ones win.
        out: folder or bucket address of the sweep; None: ``<storage>/<name>``.
        executor: ``ray`` runs trials in processes, on this machine or a cluster; ``local`` in this process, one after
            another, where a debugger sees them.
        objective: trains a trial, in place of the function that ``train:`` names: a generator ``f(config, context)``
            that yields metrics once per epoch. For ``executor="local"``; Ray's processes need one that they can import.
        observers: hear of every stage and every report of a trial, in this process.
        address: Ray cluster to run on; None: this machine.
        min_nodes: wait until so many nodes of the cluster can run trials.
        growing: nodes come when trials wait for them: start ``budget.max_concurrent`` at once.
        resume: continue with a longer ``scheduler.max_epochs``, other ``parameters`` or another ``retrain`` section.

    Raises:
        UserError: something that you can mend, before the first trial; its text says where and how.
        SegbenchError: the sweep stopped, or no trial has a score.

    Examples:
        >>> import segbench
        >>> small = {"data.size": [32, 64], "data.num_images": [4, 2, 2], "budget.trials": 1, "baselines": [],
        ...          "scheduler.max_epochs": 1, "scheduler.grace_epochs": 1, "retrain": None, "mlflow.enabled": False}
        >>> result = segbench.run("quickstart", small, out="runs/first", executor="local")
        search: 1 trials of at most 1 epochs
        search 0/1: trial-0000 starts at epoch 0/1
        ...
        >>> result.best.name, result.status
        ('trial-0000', 'finished')

        A training of your own needs nothing but numbers:

        >>> def train(config, context):
        ...     for epoch in range(context.epoch, context.max_epochs):
        ...         yield {"score": config["x"] * (epoch + 1)}
        >>> sweep = {"name": "own", "metric": {"name": "score", "goal": "maximize"},
        ...          "parameters": {"x": {"min": 0.0, "max": 1.0}}, "scheduler": {"max_epochs": 2},
        ...          "budget": {"trials": 3}, "mlflow": {"enabled": False}}
        >>> segbench.run(sweep, executor="local", objective=train).best.params
        search: 3 trials of at most 2 epochs
        ...
        {'x': 0...}
    """
    if objective is not None and executor == "ray":
        raise UserError(
            'objective: Ray\'s processes cannot import a function object; add executor="local", or put the function in '
            "a module and name it in the file (train: module:function)"
        )
    loaded = read_sweep(file, overrides, objective)
    place = None if out is None else str(out)
    check_address("out", place)
    how = Run(executor=executor, address=address, min_nodes=min_nodes, growing=growing, resume=resume,
              objective=objective)  # fmt: skip
    finished = run_sweep(loaded, place, how, observers)
    from segbench.sweep.result import load

    return load(finished)


def read_sweep(
    file: "str | Path | Mapping[str, Any] | SweepSpec",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    objective: TrainFunction | None = None,
) -> LoadedSpec:
    """Return a checked sweep file, whatever it was given as.

    Raises:
        SpecError: it is wrong.
    """
    texts = [override(key, value) for key, value in overrides.items()] if isinstance(overrides, Mapping) else overrides
    if objective is not None:
        texts = [*texts, override("train", _name_of(objective))]
    return load_spec(find_sweep(file), texts) if isinstance(file, str | Path) else spec_from(file, texts)


def run_sweep(
    loaded: LoadedSpec,
    place: str | None,
    how: Run,
    observers: Sequence[SweepObserver] = (),
    stoppable: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str:
    """Run a checked sweep file to its end and return where its folder is.

    Args:
        loaded: the file.
        place: folder or bucket address; None: ``<storage>/<name>``.
        how: the trials are run.
        observers: hear of every trial.
        stoppable: entered once nothing else takes the process's signals.

    Raises:
        UserError: something that the user can mend.
        SegbenchError: the sweep stopped, or no trial has a score.
    """
    from segbench.sweep.preflight import check_sweep

    paths = sweep_paths(place or join(loaded.spec.storage, loaded.spec.name))
    with import_path(loaded.path):
        check_sweep(loaded, how.objective is not None)
        from segbench.terminal.screen import Screen

        screen = Screen()
        tracked_at = _run_stages(loaded, paths, how, observers, screen, stoppable)
    from segbench.results.folder import read_results

    screen.conclude(read_results(paths), tracked_at)
    return paths.place


def _run_stages(
    loaded: LoadedSpec,
    paths: SweepPaths,
    how: Run,
    observers: Sequence[SweepObserver],
    screen: "Screen",
    stoppable: Callable[[], AbstractContextManager[None]],
) -> str | None:
    """Run what is not done yet; return where MLflow's runs are, None without MLflow."""
    from segbench.search.warm_start import warm_start
    from segbench.storage.mirror import Mirror
    from segbench.sweep.folder import open_folder
    from segbench.sweep.prepare import get_ready, share_packed
    from segbench.sweep.prior import find_old

    with ExitStack() as stack:
        mirror = None if paths.uri is None else stack.enter_context(Mirror(paths, screen.warn))
        stack.enter_context(open_folder(paths, loaded.spec, how.resume))
        if loaded.spec.search.warm_start:
            prior = warm_start(find_old(paths, loaded.spec), loaded.space, loaded.spec.metric.goal)
            screen.tell(f"warm start: {prior.describe()}")
        loaded = share_packed(loaded, paths, screen.tell, screen.warn)
        get_ready(loaded.spec)
        with ExitStack() as running:
            execute = running.enter_context(_executor(loaded, paths, how, screen))

            # imported by now, while Ray started
            from segbench.report.live import LiveReport
            from segbench.sweep.stages import Sweep
            from segbench.tracking.tracker import Tracker, tracking_uri

            stack.enter_context(LiveReport(paths, warn=screen.warn))
            tracker = stack.enter_context(Tracker(paths, loaded.spec, warn=screen.warn))
            running.enter_context(stoppable())  # after Ray, which takes SIGTERM for itself
            progress = running.enter_context(screen.progress(loaded))
            Sweep(loaded, paths, execute, [progress, *observers], mirror).run()
            tracker.finish()  # while Ray ends
    return tracking_uri(paths, loaded.spec) if loaded.spec.mlflow.enabled else None


@contextmanager
def _executor(loaded: LoadedSpec, paths: SweepPaths, how: Run, screen: "Screen") -> "Iterator[Executor]":
    if how.executor == "local":
        from functools import partial

        from segbench.search.sequential import run_sequential
        from segbench.training.trial import run_trial

        yield lambda stages: run_sequential(stages, partial(run_trial, objective=how.objective))
        return
    from segbench.sweep.preflight import worker_modules
    from segbench.sweep.prepare import share_gpu
    from segbench.tune.cluster import check_storage, connect

    resources = loaded.spec.resources
    with connect(how.address, resources, how.min_nodes, how.growing, worker_modules(loaded)):
        from segbench.tune.run import run_on_ray

        check_storage(paths)
        if resources.gpu == "auto":
            from segbench.tune.gpu import keep_sharing

            sharing = keep_sharing(paths.sharing, share_gpu(loaded), how.growing)
            screen.tell(f"GPUs of a trial: {sharing.gpu:g} ({sharing.reason})")
            resources = resources.model_copy(update={"gpu": sharing.gpu})
        yield lambda stages: run_on_ray(stages, paths.ray, resources, loaded.spec.budget, how.growing)


def check_address(option: str, address: str | None) -> None:
    """Raise UserError when the address of a bucket in ``option`` cannot be one."""
    if address and is_bucket(address) and (problem := what_is_wrong(address)):
        raise UserError(f"{option}: {problem}")


@contextmanager
def import_path(file: Path) -> Iterator[None]:
    """Let training functions be found in the current folder and that of the sweep file, then among what is installed.

    The same whether segbench was started as a command, by ``python -m`` or from Python; Ray's workers get it too.
    """
    before = list(sys.path)
    folders = [str(folder) for folder in dict.fromkeys([Path.cwd(), file.parent.absolute()])]
    sys.path[:] = [*folders, *(entry for entry in before if entry not in ("", *folders))]
    try:
        yield
    finally:
        sys.path[:] = before


def _name_of(objective: TrainFunction) -> str:
    """Return ``module:function``, by which a sweep's folder remembers what trained it."""
    name = getattr(objective, "__name__", type(objective).__name__)
    module = getattr(objective, "__module__", None) or "__main__"
    return f"{module}:{name if name.isidentifier() else 'objective'}"
