"""Which configurations are confirmed: pure functions of the search's records."""

import json
import math
from collections.abc import Sequence

from segbench.core.objectives import Objective, Requirement
from segbench.core.records import Goal, TrialRecord, TrialState
from segbench.search.pareto import places_within

_ORDER = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.PAUSED: 1, TrialState.RUNNING: 2, TrialState.FAIL: 3}


def rank_trials(
    records: Sequence[TrialRecord], goal: Goal, requirements: Sequence[Requirement] = ()
) -> list[TrialRecord]:
    """Return the trials, best first: COMPLETE before PRUNED, then by best score, then by number.

    A score of a few epochs is not compared with one of a full-length trial. Trials whose best epoch breaks a
    requirement stand behind all that meet them: the rules of Deb, "An efficient constraint handling method for genetic
    algorithms", Comput. Methods Appl. Mech. Engrg. 2000, section 3.
    """

    def key(record: TrialRecord) -> tuple[bool, int, float, int]:
        best = record.best(goal)
        score = math.inf if best is None else -best.score if goal == "maximize" else best.score
        is_last = bool(requirements) and (best is None or record.broken_requirement(goal, requirements) is not None)
        return (is_last, _ORDER[record.state], score, record.number)

    return sorted(records, key=key)


def rank_by_front(
    records: Sequence[TrialRecord],
    goal: Goal,
    requirements: Sequence[Requirement],
    objectives: Sequence[Objective],
) -> list[TrialRecord]:
    """Return trials that have a score as :func:`rank_trials` does, but those that came equally far by several metrics.

    First the front that none dominates, then the next one; within a front those with the most room around them
    (:func:`segbench.search.pareto.places`).
    """

    def kind(record: TrialRecord) -> tuple[bool, int]:
        return (record.broken_requirement(goal, requirements) is not None, _ORDER[record.state])

    bests = [record.best(goal) for record in records]
    losses = [record.losses_at(best, objectives) for record, best in zip(records, bests, strict=True) if best]
    groups = [kind(record) for record in records]
    places = places_within(groups, losses)
    order = sorted(range(len(records)), key=lambda index: (groups[index], places[index], records[index].number))
    return [records[index] for index in order]


def select_finalists(
    records: Sequence[TrialRecord],
    top_k: int,
    goal: Goal,
    requirements: Sequence[Requirement] = (),
    objectives: Sequence[Objective] = (),
) -> list[TrialRecord]:
    """Return all baselines that have a score, then the best ``top_k`` different searched configurations.

    With several metrics (``objectives``) the best are those of the non-dominated front, then of the next one.
    """
    usable = [record for record in records if record.state is not TrialState.FAIL and record.best(goal) is not None]
    baselines = [record for record in usable if record.assignment.origin == "baseline"]
    chosen: list[TrialRecord] = []
    seen = {_fingerprint(record) for record in baselines}
    ranked = (
        rank_by_front(usable, goal, requirements, objectives) if objectives else rank_trials(usable, goal, requirements)
    )
    for record in ranked:
        if len(chosen) < top_k and _fingerprint(record) not in seen:
            seen.add(_fingerprint(record))
            chosen.append(record)
    return [*baselines, *chosen]


def _fingerprint(record: TrialRecord) -> str:
    return json.dumps(record.assignment.config, sort_keys=True)
