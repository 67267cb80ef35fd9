import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console
from rich.live import _RefreshThread
from sweep_ledgers import make_spec

from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.terminal.console import plain_console
from segbench.terminal.estimate import ExpectedWork, SweepView
from segbench.terminal.progress import LineProgress, LiveProgress, format_duration, progress


def trial(number: int, *scores: float, state: TrialState = TrialState.RUNNING, reason: str = "") -> TrialRecord:
    assignment = Assignment(
        number=number, name=f"trial-{number:04d}", origin="search", params={}, config={}, seed=0, max_epochs=9
    )
    epochs = [EpochRecord(epoch=i, score=score, metrics={}, seconds=10) for i, score in enumerate(scores, start=1)]
    return TrialRecord(assignment=assignment, state=state, reason=reason, epochs=epochs)


def searching(retrain_epochs: float = 0.0) -> SweepView:
    view = SweepView(ExpectedWork(40.0, retrain_epochs), "maximize")
    view.start_stage("search", 10, 9)
    return view


def test_no_time_is_estimated_before_the_first_epoch() -> None:
    view = searching()
    view.update(trial(0), "search")
    assert view.seconds_left is None


def test_time_left_is_epochs_left_times_seconds_over_concurrency() -> None:
    view = searching()
    view.update(trial(0, 0.1, state=TrialState.PRUNED), "search")
    view.update(trial(1, 0.2), "search")
    view.update(trial(2, 0.2), "search")
    left = 2 * max(4 - 1, (9 - 1) / 2) + 7 * 4
    assert view.epochs_left == left
    assert view.seconds_left == left * 10 / 2


def test_trials_that_are_enqueued_while_it_runs_raise_the_total() -> None:
    view = searching()
    for number in range(12):
        view.update(trial(number, 0.1, state=TrialState.PRUNED), "search")
    assert (view.num_ended, view.num_trials) == (12, 12)
    assert view.epochs_left == 0


def test_later_stages_count_and_the_pace_is_carried_over() -> None:
    view = searching(retrain_epochs=18)
    view.update(trial(0, 0.1, state=TrialState.COMPLETE), "search")
    assert view.epochs_left == 9 * 4 + 18
    view.start_stage("retrain", 2, 9)
    assert view.epochs_left == 18
    assert view.seconds_left == 180
    view.start_stage("test", 2, 1)
    assert view.seconds_left == 0


def test_the_best_is_the_first_of_equals_and_nan_is_never_best() -> None:
    view = searching()
    assert view.best is None
    for record in (trial(0, float("nan")), trial(1, 0.5, 0.3), trial(2, 0.5)):
        view.update(record, "search")
    assert view.best is not None
    assert view.best.number == 1


def test_lines_tell_starts_ends_and_rung_stops_but_not_epochs() -> None:
    out = io.StringIO()
    lines = LineProgress(searching(), plain_console(out, width=40), "val/miou", "maximize")
    lines.on_stage("search", 10, 9)
    running = trial(0)
    lines.on_trial(running, "search")
    for count in (1, 2):
        lines.on_trial(trial(0, *[0.25] * count), "search")
    lines.on_trial(trial(0, 0.25, 0.25, state=TrialState.PRUNED, reason="rung 2"), "search")
    lines.on_trial(trial(1, 0.5), "search")
    lines.on_trial(trial(2, state=TrialState.FAIL, reason="error: [bold]x"), "search")
    assert out.getvalue().splitlines() == [
        "search: 10 trials of at most 9 epochs",
        "search 0/10: trial-0000 starts at epoch 0/9",
        "search 1/10: trial-0000 PRUNED (rung 2) at epoch 2/9, best val/miou 0.2500; about 6 min 00 s left",
        "search 1/10: trial-0001 continues after epoch 1/9",
        "search 2/10: trial-0002 FAIL (error: [bold]x) at epoch 0/9; about 5 min 20 s left",
    ]


def test_the_live_view_shows_states_best_running_trials_and_times() -> None:
    time = [0.0]
    live = LiveProgress(searching(), "demo", "val/miou", "maximize", clock=lambda: time[0])
    for record in (trial(0, 0.5, 0.4, state=TrialState.COMPLETE), trial(1, 0.25, 0.375)):
        live.on_trial(record, "search")
    time[0] = 75
    console = plain_console(io.StringIO(), width=120)
    console.print(live.render())
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == [
        "demo: search 1/10   running 1  complete 1   elapsed 1 min 15 s, about 5 min 55 s left",
        "best val/miou 0.5000 (trial-0000, epoch 1)",
        "trial-0001  epoch 2/9  0.3750",
    ]


def test_what_runs_ahead_of_its_stage_is_shown_and_counted_when_the_stage_begins() -> None:
    out = io.StringIO()
    view = searching(retrain_epochs=18)
    lines = LineProgress(view, plain_console(out, width=40), "val/miou", "maximize")
    ahead = trial(0, 0.25)
    for number in range(9):
        view.update(trial(number, 0.5, state=TrialState.COMPLETE), "search")
    view.update(trial(9, 0.5), "search")
    lines.on_trial(replace(ahead, epochs=()), "retrain")
    lines.on_trial(ahead, "retrain")
    assert out.getvalue() == "retrain, ahead: trial-0000 starts at epoch 0/9\n"
    assert view.num_ended == 9
    assert [record.number for record in view.ahead] == [0]
    assert view.epochs_left == max(4 - 1, (9 - 1) / 2) + 18 - 1
    console = plain_console(io.StringIO(), width=120)
    console.print(LiveProgress(view, "demo", "val/miou", "maximize").render())
    assert isinstance(console.file, io.StringIO)
    assert "demo: search 9/10   running 1  complete 9  ahead 1   elapsed" in console.file.getvalue()

    view.update(trial(9, 0.5, state=TrialState.COMPLETE), "search")
    view.start_stage("retrain", 2, 9)
    assert (view.num_ended, view.ahead, view.best) == (0, [], ahead)
    assert view.epochs_left == (9 - 1) + 9


def test_many_running_trials_are_cut() -> None:
    live = LiveProgress(searching(), "demo", "val/miou", "maximize")
    for number in range(20):
        live.on_trial(trial(number), "search")
    console = plain_console(io.StringIO(), width=120)
    console.print(live.render())
    assert isinstance(console.file, io.StringIO)
    assert "and 8 more" in console.file.getvalue()


@pytest.mark.parametrize("interactive", [True, False])
def test_an_interrupt_passes_through_and_the_thread_of_the_view_ends(interactive: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=interactive, width=100)
    drawing: list[threading.Thread] = []

    def interrupted_sweep() -> None:
        with progress(make_spec(), ExpectedWork(40.0, 18), console) as observer:
            drawing.extend(thread for thread in threading.enumerate() if isinstance(thread, _RefreshThread))
            observer.on_stage("search", 10, 9)
            worker = threading.Thread(target=lambda: [observer.on_trial(trial(i, 0.5), "search") for i in range(50)])
            worker.start()
            worker.join()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_sweep()
    assert len(drawing) == interactive
    for thread in drawing:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert isinstance(console.file, io.StringIO)
    assert "trial-0000" in console.file.getvalue()


def test_a_restarted_sweep_counts_the_trials_that_it_is_told_of_at_the_start() -> None:
    view = searching()
    for number in range(10):
        view.update(replace(trial(number, 0.1), state=TrialState.COMPLETE), "search")
    assert (view.num_ended, view.epochs_left) == (10, 0)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7625, "2 h 07 min")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
