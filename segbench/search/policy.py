"""The decisions of the search stage: baselines, what was asked for, what the sampler proposes; ASHA stops the weak."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segbench.core.enqueued import Enqueued, Wishes
from segbench.core.errors import SpecError
from segbench.core.objectives import violation
from segbench.core.records import Assignment, Params, Scalar, TrialRecord, TrialState, rung_reason
from segbench.core.seeding import derive_seed
from segbench.search.refused import is_refused_proposal, num_on_top
from segbench.search.rungs import is_audited, stopper_for
from segbench.search.study import Study
from segbench.search.warm_start import WarmStart, place
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space, baseline_params, build_config


def _no_costs(config: Mapping[str, Any]) -> Params:
    return {}


class SearchPolicy:
    """Implements :class:`segbench.search.queue.Policy` for the search.

    Baselines run at full length: they enter the rungs, so that searched trials are compared with them, but are
    never stopped there.

    Args:
        spec: the sweep.
        space: its search space.
        study_path: where the Optuna study is written.
        records: trials of earlier starts.
        prior: what the sampler learns from earlier sweeps.
        wishes: trials that were asked for; read before each proposal. They come on top of the budget.
        costs: what a configuration's model costs to run, of what the sweep asks for; nothing where that is not known.
    """

    def __init__(
        self,
        spec: SweepSpec,
        space: Space,
        study_path: Path,
        records: Sequence[TrialRecord] = (),
        prior: WarmStart | None = None,
        wishes: Wishes = tuple,
        costs: Callable[[Mapping[str, Any]], Params] = _no_costs,
    ) -> None:
        prior = prior or WarmStart()
        self._costs = costs
        self._requirements = tuple(bound for bound in spec.requirements if bound.is_known_before_training)
        self._num_refused = sum(is_refused_proposal(record.assignment) for record in records)
        self._spec = spec
        self._space = space
        self._grid: list[dict[str, Scalar]] | None = None
        if spec.search.algorithm == "grid":
            begun = {_key(record.assignment.params) for record in records if record.assignment.origin == "search"}
            self._grid = [point for point in _shuffled(space.grid(), spec.search.seed) if _key(point) not in begun]
        self._budget_s = None if spec.budget.trial_hours is None else spec.budget.trial_hours * 3600
        self._spent_s = sum(record.seconds for record in records)
        self._stopper = stopper_for(
            spec.scheduler, spec.metric.goal, spec.search.seed, records, self._family_of, spec.metric.several
        )
        self.study = Study(study_path, spec, space, records, prior.records)
        self._wishes = wishes
        self._taken = {record.assignment.enqueued for record in records}
        self._counts = Counter(record.assignment.origin for record in records)
        self._ranked = prior.ranked
        self._scores: list[float] = []
        for record in records:
            self._add_score(record.as_stopped())

    @property
    def num_trials(self) -> int:
        """Trials of the whole search, as far as it is known now: with baselines, and what was asked for."""
        budget = self._spec.budget.trials
        searched = budget + num_on_top(self._num_refused, budget)
        if self._grid is not None:
            searched = self._counts["search"] + len(self._grid)
        return len(self._spec.baselines) + searched + self._counts["enqueued"] + len(self._waiting())

    def propose(self, number: int) -> Assignment | None:
        """Return the next baseline, trial that was asked for, grid point or sample; None when the budget is spent."""
        proposed = self._propose(number)
        if proposed is not None:
            self._counts[proposed.origin] += 1
            self._taken.add(proposed.enqueued)
            self._num_refused += is_refused_proposal(proposed)
        return proposed

    def _propose(self, number: int) -> Assignment | None:
        is_spent = self._is_spent
        if self._counts["baseline"] < len(self._spec.baselines) and not is_spent:
            baseline = self._spec.baselines[self._counts["baseline"]]
            params = baseline_params(self._spec, self._space, baseline)
            own = replace(self._assignment(number, params), name=f"baseline-{baseline.name}", origin="baseline")
            self.study.enter(own)
            return own
        for wish in self._waiting():
            asked = replace(self._assignment(number, dict(wish.params)), origin="enqueued", enqueued=wish.id)
            self.study.enter(asked)
            return asked
        if is_spent or self.num_trials <= self._counts.total():
            return None
        if self._grid is not None:
            point = self._assignment(number, self._grid.pop(0))
            self.study.enter(point)
            return point
        if self._ranked:
            self.study.place(place(self._ranked, self._scores, self._spec.metric.goal))
        params, draws = self.study.suggest(number)
        return replace(self._assignment(number, params), draws=draws)

    def on_epoch(self, record: TrialRecord) -> None:
        """Tell the study, and count the time; of an audited trial's later epochs the study hears nothing."""
        if record.audited_rung is None:
            self.study.hear_epoch(record)
            self._stopper.enter(record)
        self._spent_s += record.epochs[-1].seconds

    def stop_reason(self, record: TrialRecord) -> str | None:
        """Return ``rung <epochs>`` when ASHA stops the trial after its last epoch, but never at its full length."""
        is_whole = record.epochs_done >= record.assignment.max_epochs
        if is_whole or record.assignment.origin == "baseline" or self._stopper.passes(record):
            return None
        return rung_reason(record.epochs_done)

    @property
    def pauses(self) -> bool:
        """Whether a trial that does not pass waits for its promotion."""
        return self._stopper.pauses

    def on_pause(self, record: TrialRecord) -> None:
        """Tell the study."""
        self.study.hear_pause(record)

    def promoted(self, waiting: Sequence[TrialRecord]) -> int | None:
        """Return the waiting trial that goes on now; None when the budget is spent, or none deserves it."""
        if self._is_spent:
            return None
        number = self._stopper.promoted(waiting)
        if number is not None:
            self.study.hear_promotion(number)
        return number

    def audits(self, number: int) -> bool:
        """Whether the draw of (sweep seed, "audit", number) falls into the share ``scheduler.audit``."""
        return is_audited(self._spec.scheduler, self._spec.search.seed, number)

    def on_end(self, record: TrialRecord) -> None:
        """Tell the study."""
        self.study.hear_end(record)
        self._add_score(record)

    def _family_of(self, record: TrialRecord) -> Hashable:
        return self._space.family_of({**record.assignment.config, **record.assignment.params})

    @property
    def _is_spent(self) -> bool:
        return self._budget_s is not None and self._spent_s >= self._budget_s

    def _waiting(self) -> list[Enqueued]:
        """Return what was asked for and has not begun."""
        return [wish for wish in self._wishes() if wish.id not in self._taken]

    def _add_score(self, record: TrialRecord) -> None:
        best = record.best(self._spec.metric.goal)
        if record.state is TrialState.COMPLETE and best is not None:
            self._scores.append(best.score)

    def _assignment(self, number: int, params: dict[str, Scalar]) -> Assignment:
        problem = ""
        config: dict[str, Any] = {}
        costs: Params = {}
        try:
            config = build_config(self._spec, params)
        except SpecError as error:
            problem = str(error)
        else:
            costs = self._costs(config)
            problem = violation(self._requirements, costs) or "" if costs else ""
        return Assignment(
            number=number,
            name=f"trial-{number:04d}",
            origin="search",
            params=params,
            config=config,
            seed=derive_seed(self._spec.search.seed, "trial", number),
            max_epochs=self._spec.scheduler.max_epochs,
            problem=problem,
            costs=costs,
        )


def _key(point: Params) -> str:
    return json.dumps(dict(point), sort_keys=True)


def _shuffled(points: list[dict[str, Scalar]], seed: int) -> list[dict[str, Scalar]]:
    """Return a grid in an order that the seed draws, so that its first trials are of every part of it."""
    order = sorted(range(len(points)), key=lambda index: derive_seed(seed, "grid", index))
    return [points[index] for index in order]
