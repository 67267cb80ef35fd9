"""The lists of trainings and tests that confirm the finalists; an executor runs them like any other trial."""

from collections.abc import Sequence
from dataclasses import replace

from segbench.core.records import Assignment, TrialRecord, TrialState
from segbench.core.seeding import derive_seed


def plan_retraining(finalists: Sequence[TrialRecord], num_seeds: int, epochs: int, sweep_seed: int) -> list[Assignment]:
    """Return one training per finalist and seed, all of length ``epochs``.

    Seed s of every finalist is drawn from (sweep seed, s): finalists are compared on the same seeds.
    """
    assignments: list[Assignment] = []
    for finalist in finalists:
        for index in range(num_seeds):
            source = finalist.assignment
            assignments.append(
                replace(
                    source,
                    number=len(assignments),
                    name=f"{source.name}-seed-{index}",
                    seed=derive_seed(sweep_seed, "retrain", index),
                    max_epochs=epochs,
                    source=source.number,
                )
            )
    return assignments


def continue_list(begun: Sequence[TrialRecord], planned: Sequence[Assignment]) -> list[Assignment]:
    """Return the trials of a stage: those that its ledger has, then the planned ones that it has not, by name.

    A number, once given, stays; a planned trial keeps its own unless another has it.

    When a sweep goes on after its end with more trials, other configurations may be chosen than the first time; what
    was trained for the earlier choice stays on the leaderboard.
    """
    names = {record.assignment.name for record in begun}
    listed = [record.assignment for record in begun]
    taken = {assignment.number for assignment in listed}
    for assignment in planned:
        if assignment.name in names:
            continue
        # trainings do not begin in the order of their numbers, so that a sweep that was stopped has gaps
        number = max(taken) + 1 if assignment.number in taken else assignment.number
        taken.add(number)
        listed.append(replace(assignment, number=number))
    return listed


def longest_first(
    begun: Sequence[TrialRecord], assignments: Sequence[Assignment], sources: Sequence[TrialRecord]
) -> list[Assignment]:
    """Return ``assignments`` in the order to run them: those that have begun, then the slowest epochs first.

    A long training that starts last would leave the other workers idle. Numbers stay, so tables do not depend on the
    measured times of the ``sources``, which the assignments repeat.
    """
    seconds = {source.number: source.seconds / max(1, len(source.epochs)) for source in sources}
    numbers = {record.number for record in begun}

    def place(assignment: Assignment) -> tuple[bool, float]:
        has_begun = assignment.number in numbers
        return not has_begun, 0.0 if has_begun else -seconds.get(assignment.source or 0, 0.0)

    return sorted(assignments, key=place)


def plan_tests(retrained: Sequence[TrialRecord]) -> list[Assignment]:
    """Return one test per finished training: a trial of one epoch that reads the test split once."""
    finished = [record for record in retrained if record.state is TrialState.COMPLETE]
    return [
        replace(record.assignment, number=number, max_epochs=1, source=record.number)
        for number, record in enumerate(finished)
    ]
