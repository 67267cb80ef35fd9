from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.core.records import Assignment, EpochRecord, TrialRecord
from segbench.search.rungs import Rungs, passes_rung, rung_scores, score_at


def trial(number: int, *scores: float) -> TrialRecord:
    assignment = Assignment(
        number=number, name=f"trial-{number}", origin="search", params={}, config={}, seed=0, max_epochs=9
    )
    epochs = tuple(EpochRecord(epoch=i, score=score, metrics={}) for i, score in enumerate(scores, start=1))
    return TrialRecord(assignment=assignment, epochs=epochs)


def test_the_first_trial_at_a_rung_passes() -> None:
    assert passes_rung(0.1, [], 3, "maximize")


@pytest.mark.parametrize(
    ("score", "others", "factor", "passes"),
    [
        (0.5, [0.6], 3, False),  # 1 of 2 may pass, one is better
        (0.5, [0.6, 0.7, 0.4, 0.3, 0.2], 3, False),  # 2 of 6 may pass, two are better
        (0.65, [0.6, 0.7, 0.4, 0.3, 0.2], 3, True),  # 2 of 6 may pass, one is better
        (0.6, [0.6, 0.1], 3, True),  # ties pass
        (0.5, [0.6, 0.1, 0.2], 2, True),  # 2 of 4
    ],
)
def test_a_trial_passes_among_the_best_share(score: float, others: list[float], factor: int, passes: bool) -> None:
    assert passes_rung(score, others, factor, "maximize") is passes
    assert passes_rung(-score, [-other for other in others], factor, "minimize") is passes


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(2, 5), st.randoms())
def test_the_order_of_the_others_does_not_matter(scores: list[float], factor: int, random: object) -> None:
    shuffled = list(scores[1:])
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert passes_rung(scores[0], scores[1:], factor, "maximize") is passes_rung(
        scores[0], shuffled, factor, "maximize"
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(2, 5))
def test_the_best_trial_always_passes(scores: list[float], factor: int) -> None:
    assert passes_rung(max(scores), scores, factor, "maximize")


def test_the_score_at_a_rung_is_the_best_up_to_there() -> None:
    record = trial(0, 0.3, 0.5, 0.4, 0.9)
    assert score_at(record.epochs, 3, "maximize") == 0.5
    assert score_at(record.epochs, 3, "minimize") == 0.3
    assert score_at(record.epochs, 5, "maximize") is None


def test_broken_scores_do_not_enter_a_rung() -> None:
    records = [trial(0, float("nan")), trial(1, float("inf"), float("nan")), trial(2, 0.2)]
    assert rung_scores(records, 1, "maximize") == {2: 0.2}


def test_rungs_built_again_from_the_records_are_the_same() -> None:
    grown = Rungs([1, 3], 3, "maximize")
    curves = {0: [0.1, 0.2, 0.3, 0.4], 1: [0.2, 0.1, 0.1], 2: [0.05]}
    for number, scores in curves.items():
        for epoch in range(1, len(scores) + 1):
            grown.enter(trial(number, *scores[:epoch]))
    again = Rungs([1, 3], 3, "maximize", [trial(number, *scores) for number, scores in curves.items()])
    assert grown.scores == again.scores == {1: {0: 0.1, 1: 0.2, 2: 0.05}, 3: {0: 0.3, 1: 0.2}}


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=40),
    st.integers(2, 4),
    st.sampled_from(["maximize", "minimize"]),
)
def test_rungs_answer_like_the_definition(reports: list[tuple[int, int]], factor: int, goal: str) -> None:
    """Ties, and trials that report again after a crash, included."""
    rungs = Rungs([1], factor, goal)  # type: ignore[arg-type]
    seen: dict[int, float] = {}
    for number, score in reports:
        others = [other for trial_number, other in seen.items() if trial_number != number]
        seen[number] = score
        rungs.enter(trial(number, score))
        assert rungs.passes(trial(number, score)) is passes_rung(score, others, factor, goal)  # type: ignore[arg-type]
    assert rungs.scores[1] == seen


def test_asking_twice_gives_the_same_answer() -> None:
    rungs = Rungs([1], 2, "maximize", [trial(0, 0.9), trial(1, 0.8)])
    rungs.enter(trial(2, 0.1))
    assert not rungs.passes(trial(2, 0.1))
    rungs.enter(trial(2, 0.1))
    assert not rungs.passes(trial(2, 0.1))
    assert len(rungs.scores[1]) == 3


def test_a_trial_that_is_nan_at_a_rung_is_in_it_live_as_after_a_restart() -> None:
    curves = {0: [0.1, 0.2, 0.3], 1: [0.2, 0.3, float("nan")], 2: [float("nan")]}
    grown = Rungs([1, 3], 3, "maximize")
    for number, scores in curves.items():
        for epoch in range(1, len(scores) + 1):
            grown.enter(trial(number, *scores[:epoch]))
    again = Rungs([1, 3], 3, "maximize", [trial(number, *scores) for number, scores in curves.items()])
    assert grown.scores == again.scores == {1: {0: 0.1, 1: 0.2}, 3: {0: 0.3, 1: 0.3}}


def test_a_report_that_skips_a_rung_is_compared_there() -> None:
    weak = trial(2, 0.1, 0.15, 0.18, 0.2)
    weak = replace(weak, epochs=(weak.epochs[0], weak.epochs[3]))
    rungs = Rungs([3], 3, "maximize", [trial(0, *[0.5] * 3), trial(1, *[0.6] * 3)])
    rungs.enter(weak)
    assert rungs.scores[3][2] == 0.2
    assert not rungs.passes(weak)
