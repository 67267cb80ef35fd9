"""Progress of a sweep for people: a live view in a terminal, a line per event elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segbench.core.records import Goal, SweepObserver, TrialRecord
from segbench.spec.schema import SweepSpec
from segbench.terminal.estimate import ExpectedWork, SweepView

_MAX_RUNNING = 12


@contextmanager
def progress(spec: SweepSpec, work: ExpectedWork, console: Console) -> Iterator[SweepObserver]:
    """Give an observer that shows progress on ``console`` until the block ends, however it ends."""
    view = SweepView(work, spec.metric.goal)
    if not console.is_terminal:
        yield LineProgress(view, console, spec.metric.name, spec.metric.goal)
        return
    live = LiveProgress(view, spec.name, spec.metric.name, spec.metric.goal)
    with Live(get_renderable=live.render, console=console, refresh_per_second=2):
        yield live


class LiveProgress:
    """Holds what the live view shows; events come from the executor's thread, drawing from rich's.

    Args:
        view: state of the sweep.
        name: of the sweep.
        metric: the searched metric.
        goal: direction of improvement.
        clock: seconds, for the elapsed time.
    """

    def __init__(
        self, view: SweepView, name: str, metric: str, goal: Goal, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._view = view
        self._name = name
        self._metric = metric
        self._goal = goal
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Begin a stage."""
        with self._lock:
            self._view.start_stage(stage, num_trials, max_epochs)

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        """Take in a trial's news; the next drawing shows it."""
        with self._lock:
            self._view.update(record, stage)

    def render(self) -> RenderableType:
        """Return what is to be seen now."""
        with self._lock:
            if not self._view.stage:
                return Text(f"{self._name}: preparing")
            return Group(self._head(), self._running())

    def _head(self) -> Text:
        view = self._view
        counts = "  ".join(f"{state.value.lower()} {count}" for state, count in view.counts.items() if count)
        if view.ahead:
            counts += f"  ahead {len(view.ahead)}"
        times = f"elapsed {format_duration(self._clock() - self._started)}"
        left = view.seconds_left
        if left is not None:
            times += f", about {format_duration(left)} left"
        lines = [f"{self._name}: {view.stage} {view.num_ended}/{view.num_trials}   {counts}   {times}"]
        if view.best is not None:
            lines.append(f"best {describe_best(view.best, self._metric, self._goal)}")
        return Text("\n".join(lines))

    def _running(self) -> Table:
        table = Table.grid(padding=(0, 2))
        running = [*self._view.running, *self._view.ahead]
        for record in running[:_MAX_RUNNING]:
            score = "" if record.last_score is None else f"{record.last_score:.4f}"
            epoch = f"epoch {record.epochs_done}/{record.assignment.max_epochs}"
            table.add_row(Text(record.assignment.name), Text(epoch), Text(score))
        if len(running) > _MAX_RUNNING:
            table.add_row(Text(f"and {len(running) - _MAX_RUNNING} more"))
        return table


class LineProgress:
    """A line when a stage begins and when a trial starts or ends: for files and batch systems.

    Args:
        view: state of the sweep.
        console: where to.
        metric: the searched metric.
        goal: direction of improvement.
    """

    def __init__(self, view: SweepView, console: Console, metric: str, goal: Goal) -> None:
        self._view = view
        self._console = console
        self._metric = metric
        self._goal = goal
        self._lock = threading.Lock()

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        """Say that a stage begins."""
        with self._lock:
            self._view.start_stage(stage, num_trials, max_epochs)
            self._print(f"{stage}: {num_trials} trials of at most {max_epochs} epochs")

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        """Say that a trial started or ended; epochs in between are silent."""
        with self._lock:
            before = self._view.update(record, stage)
            where = f"{stage} {self._view.num_ended}/{self._view.num_trials}:"
            if stage != self._view.stage:
                where = f"{stage}, ahead:"
            name, epochs = record.assignment.name, f"epoch {record.epochs_done}/{record.assignment.max_epochs}"
            if record.state.is_finished and (before is None or not before.state.is_finished):
                reason = f" ({record.reason})" if record.reason else ""
                best = record.best(self._goal)
                score = "" if best is None else f", best {self._metric} {best.score:.4f}"
                self._print(f"{where} {name} {record.state.value}{reason} at {epochs}{score}{self._left()}")
            elif before is None:
                self._print(f"{where} {name} {'continues after' if record.epochs_done else 'starts at'} {epochs}")

    def _left(self) -> str:
        left = self._view.seconds_left
        return "" if not left else f"; about {format_duration(left)} left"

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def describe_best(record: TrialRecord, metric: str, goal: Goal) -> str:
    """Return metric, value, trial and epoch of a trial's best score."""
    best = record.best(goal)
    assert best is not None, "asked for a trial that has a score"
    return f"{metric} {best.score:.4f} ({record.assignment.name}, epoch {best.epoch})"


def format_duration(seconds: float) -> str:
    """Return ``45 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
