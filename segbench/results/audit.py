"""The early-stopping audit: how often was it wrong to stop a trial.

Of the trials that ASHA wants to stop, a random share runs on (``scheduler.audit``, docs/report.md). The draw knows
nothing of scores, so the audited trials are a fair sample of all stops. A stop is *wrong* when the trial, at its full
length, scores better than the last of the finalists that the search would have chosen without the audit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.core.ledger import Records
from segbench.core.records import Goal, TrialRecord, TrialState
from segbench.final.selection import select_finalists
from segbench.results.statistics import Interval, binomial_interval


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the audited trials say of all stops."""

    num_stops: int
    """Trials that ASHA stopped or would have stopped, audited ones included."""
    num_running: int
    """Audited trials that have not ended; they are not counted yet."""
    wrong: tuple[str, ...]
    """Names of the audited trials whose stop was wrong."""
    num_audited: int
    interval: Interval
    """95 % interval of the rate of wrong stops among all stops (Clopper and Pearson)."""
    needed: float
    """Score of the last finalist without the audit."""
    regret: float
    """How much better the best audited trial is than the best of the others; 0 when it is not. At least so much would
    have been lost by stopping, since most stopped trials are not audited."""

    @property
    def rate(self) -> float:
        """Share of wrong stops."""
        return len(self.wrong) / self.num_audited


def measure_audit(records: Records, top_k: int) -> Audit | None:
    """Return what the audit of a search says; None before an audited trial and one that was never stopped have ended.

    Args:
        records: of the sweep.
        top_k: number of searched trials that become finalists.
    """
    search, goal = records.search, records.goal
    audited = [record for record in search if record.audited_rung is not None]
    ended = [record for record in audited if record.state.is_finished]
    rivals = _scores(select_finalists([record.as_stopped() for record in search], top_k, goal), goal)
    if not ended or not rivals:
        return None
    sign = 1 if goal == "maximize" else -1
    needed = min(rivals.values(), key=lambda score: sign * score)
    scores = _scores(ended, goal)
    wrong = tuple(name for name, score in scores.items() if sign * (score - needed) > 0)
    best = max(rivals.values(), key=lambda score: sign * score)
    return Audit(
        num_stops=len(audited) + sum(record.state is TrialState.PRUNED for record in search),
        num_running=len(audited) - len(ended),
        wrong=wrong,
        num_audited=len(ended),
        interval=binomial_interval(len(wrong), len(ended)),
        needed=needed,
        regret=max([0.0, *(sign * (score - best) for score in scores.values())]),
    )


def _scores(records: Sequence[TrialRecord], goal: Goal) -> dict[str, float]:
    """Return the best score of each searched trial that ran to its end; one that failed would not have been chosen."""
    found = {}
    for record in records:
        best = record.best(goal)
        if best is not None and record.state is TrialState.COMPLETE and record.assignment.origin != "baseline":
            found[record.assignment.name] = best.score
    return found
