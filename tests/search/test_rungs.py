from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median_high, median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.core.records import Assignment, EpochRecord, TrialRecord
from segbench.core.seeding import derive_seed
from segbench.search.rungs import (
    Brackets,
    MedianRule,
    Promotion,
    Rungs,
    Stopper,
    bracket_weights,
    passes_rung,
    rung_scores,
    score_at,
    stopper_for,
)
from segbench.spec.schema import Scheduler


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


def reported(stopper: Stopper, number: int, *scores: float) -> TrialRecord:
    """Let a trial report epoch after epoch, whatever is decided, and return it."""
    for epoch in range(1, len(scores) + 1):
        stopper.enter(trial(number, *scores[:epoch]))
    return trial(number, *scores)


def test_the_first_trials_wait_where_promotion_is_asked_for() -> None:
    rule = Promotion([1], 3, "maximize")
    assert [rule.passes(reported(rule, number, score)) for number, score in enumerate((0.5, 0.4))] == [False, False]
    assert rule.promoted([trial(0, 0.5), trial(1, 0.4)]) is None
    assert rule.passes(reported(rule, 2, 0.6)), "one of three may go on, and it is the best"
    assert rule.promoted([trial(0, 0.5), trial(1, 0.4)]) is None, "the one place is taken"


def test_a_weak_trial_that_arrives_makes_room_for_one_that_waits() -> None:
    rule = Promotion([1], 3, "maximize")
    waiting = [reported(rule, number, score) for number, score in enumerate((0.6, 0.5, 0.4))]
    assert rule.promoted(waiting) == 0
    assert rule.promoted(waiting[1:]) is None


def test_the_highest_rung_is_asked_first() -> None:
    rule = Promotion([1, 2], 2, "maximize")
    waiting = [reported(rule, 0, 0.5, 0.6), reported(rule, 1, 0.4, 0.5), *(reported(rule, n, 0.9) for n in (2, 3))]
    assert rule.promoted(waiting) == 0, "the best of the second rung, although those of the first are better"
    assert rule.promoted(waiting[1:]) == 2, "of equals the first"


@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.integers(2, 4),
    st.sampled_from([1, -1]),
    st.randoms(use_true_random=False),
)
def test_promotion_is_that_of_the_paper(scores: list[int], factor: int, sign: int, random: object) -> None:
    """Whenever all who deserve it have been promoted, none that waits is among the best ``n // factor``."""
    rule = Promotion([1], factor, "maximize" if sign == 1 else "minimize")
    waiting: dict[int, TrialRecord] = {}
    for number, score in enumerate(scores):
        arrived = reported(rule, number, sign * score)
        num_better = sum(other > score for other in scores[:number])
        assert rule.passes(arrived) is (num_better < (number + 1) // factor)
        if not rule.passes(arrived):
            waiting[number] = arrived
        while random.random() < 0.5:  # type: ignore[attr-defined]  # workers are not always free
            promoted = rule.promoted(list(waiting.values()))
            best = max(waiting, key=lambda n: (scores[n], -n), default=None)
            deserves = best is not None and sum(s > scores[best] for s in scores[: number + 1]) < (number + 1) // factor
            assert promoted == (best if deserves else None)
            if promoted is None:
                break
            del waiting[promoted]


def test_a_trial_that_skips_rungs_waits_at_the_highest_that_it_has_reached() -> None:
    rule = Promotion([1, 2, 3], 2, "maximize")
    for number in range(3):
        reported(rule, number, 0.1, 0.1, 0.1)
    late = replace(trial(3, 0.2, 0.2, 0.2, 0.2), epochs=(EpochRecord(epoch=4, score=0.2, metrics={}),))
    rule.enter(late)
    assert all(rule.scores[rung][3] == 0.2 for rung in (1, 2, 3))
    assert rule.passes(late)
    assert rule.promoted([late]) == 3


@pytest.mark.parametrize(
    ("curves", "last"),
    [
        ({}, 2),
        ({0: [0.1, 0.2, 0.3, 0.4]}, 2),  # of one trial there is no order
        ({0: [0.1, 0.2, 0.3, 0.4], 1: [0.2, 0.3]}, 2),  # the same order at 1 and at 2
        ({0: [0.1, 0.4, 0.5, 0.6], 1: [0.2, 0.3]}, 4),  # another at 2, and one trial at 4
        ({0: [0.1, 0.4, 0.5, 0.6], 1: [0.2, 0.3, 0.3, 0.3]}, 4),  # the same at 2 and at 4
        ({0: [0.1, 0.4, 0.5, 0.6], 1: [0.2, 0.3, 0.7, 0.7]}, 5),  # another at each: to the full length
        ({0: [0.1, 0.2], 1: [0.2, 0.3], 2: [0.9]}, 2),  # who has not come to the second says nothing
    ],
)
def test_pasha_goes_no_further_than_the_order_changes(curves: dict[int, Sequence[float]], last: int) -> None:
    rule = Promotion([1, 2, 4], 2, "maximize", is_progressive=True)
    for number, scores in curves.items():
        reported(rule, number, *scores)
    assert rule._last_useful_rung() == last


def test_pasha_promotes_up_to_the_second_rung_at_first() -> None:
    rule = Promotion([1, 2, 4], 2, "maximize", is_progressive=True)
    firsts = [reported(rule, number, score) for number, score in enumerate((0.1, 0.2, 0.3, 0.4))]
    assert rule.promoted(firsts) == 3
    waiting = [reported(rule, 3, 0.4, 0.5), reported(rule, 2, 0.3, 0.4), *firsts[:2]]
    assert rule.promoted(waiting) is None, "the two stand at 2 as they stood at 1"
    assert rule.promoted([*waiting[:2], reported(rule, 1, 0.2, 0.6)]) == 1, "now three stand in another order"


def curves_of(random: object) -> dict[int, list[float]]:
    """Return trials of one to eight epochs."""
    return {
        number: [round(random.random(), 2) for _ in range(random.randint(1, 8))]  # type: ignore[attr-defined]
        for number in range(random.randint(0, 14))  # type: ignore[attr-defined]
    }


@given(
    st.sampled_from(["asha", "asha-promote", "pasha", "hyperband", "median", "none"]),
    st.sampled_from(["maximize", "minimize"]),
    st.randoms(use_true_random=False),
)
def test_a_rule_built_again_from_the_records_answers_the_same(kind: str, goal: str, random: object) -> None:
    """Reports come in any order between trials, as from several workers."""
    curves = curves_of(random)
    scheduler = Scheduler.model_validate({"type": kind, "max_epochs": 9, "grace_epochs": 1})
    grown = stopper_for(scheduler, goal, 5)  # type: ignore[arg-type]
    done = dict.fromkeys(curves, 0)
    while left := [number for number, scores in curves.items() if done[number] < len(scores)]:
        number = random.choice(left)  # type: ignore[attr-defined]
        done[number] += 1
        grown.enter(trial(number, *curves[number][: done[number]]))
    records = [trial(number, *scores) for number, scores in curves.items()]
    again = stopper_for(scheduler, goal, 5, records)  # type: ignore[arg-type]
    assert [again.passes(record) for record in records] == [grown.passes(record) for record in records]
    assert again.promoted(records) == grown.promoted(records)


def brackets(factor: int = 3, records: Sequence[TrialRecord] = ()) -> Brackets:
    return Brackets([1, 3, 9], factor, "maximize", lambda number: derive_seed(0, "bracket", number) / 2**31, records)


def test_a_bracket_has_the_share_of_trials_that_hyperband_gives_it() -> None:
    assert bracket_weights(3, 3) == [27 / 4, 9 / 3, 3 / 2, 1]
    rule, count = brackets(), 20_000
    found = Counter(rule.bracket_of(number) for number in range(count))
    total = sum(bracket_weights(3, 3))
    for bracket, weight in enumerate(bracket_weights(3, 3)):
        share = weight / total
        assert abs(found[bracket] / count - share) <= 4 * (share * (1 - share) / count) ** 0.5


def test_trials_compare_with_those_of_their_bracket_and_with_baselines() -> None:
    rule = brackets()
    mine = {bracket: [n for n in range(200) if rule.bracket_of(n) == bracket][:3] for bracket in range(4)}
    for number in mine[1]:
        reported(rule, number, 0.9, 0.9, 0.9)
    assert rule.passes(reported(rule, mine[0][0], 0.1, 0.1, 0.1)), "the first of its bracket"
    assert rule.passes(reported(rule, mine[1][2], 0.1)), "bracket 1 has no rung at 1"
    assert not rule.passes(reported(rule, mine[1][2], 0.1, 0.1, 0.1))
    assert all(rule.passes(reported(rule, mine[3][0], *[0.0] * epochs)) for epochs in range(1, 10)), "has no rungs"

    fresh = brackets()
    baseline = trial(500, 0.5, 0.5, 0.5)
    fresh.enter(replace(baseline, assignment=replace(baseline.assignment, origin="baseline")))
    for bracket in (0, 1):
        assert not fresh.passes(reported(fresh, mine[bracket][0], 0.1, 0.1, 0.1)), "a baseline is in every bracket"


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=1, max_size=12), st.sampled_from([1, -1]))
def test_the_median_rule_is_that_of_the_paper(curves: list[list[int]], sign: int) -> None:
    """Best so far against the median of the others' means; of two in the middle the one that is easier to beat."""
    rule = MedianRule(2, 9, "maximize" if sign == 1 else "minimize")
    for number, scores in enumerate(curves):
        record = reported(rule, number, *(sign * score for score in scores))
        means = [sign * fmean(other) for other in curves[:number]]
        best = sign * max(scores)
        is_below = len(means) >= 4 and (best < median_low(means) if sign == 1 else best > median_high(means))
        assert rule.passes(record) is not is_below
        assert rule.passes(trial(number, sign * scores[0])), "not before its first epoch"


def test_the_median_rule_waits_for_four_others_and_looks_past_what_is_not_finite() -> None:
    rule = MedianRule(1, 9, "maximize")
    for number, score in enumerate((0.5, 0.5, 0.1, float("nan"))):
        reported(rule, number, score)
    assert rule.passes(reported(rule, 4, 0.05)), "three others have a mean"
    assert rule.passes(reported(rule, 5, 0.1)), "two of four are better: half are not more than half"
    assert not rule.passes(reported(rule, 6, 0.01))
