"""The default sampler: a univariate tree-structured Parzen estimator (TPE) behind Optuna's interface.

It works in any Optuna study. What differs from Optuna's ``TPESampler`` (all measured, see docs/method.md):

- The trials are split into good and others once per proposal, not once per parameter, over columns that grow with the
  trials; the others are an even selection of at most ``MAX_OTHERS``. So a proposal costs the same for ever.
- Fewer trials are good: a third of the square root of their number.
- One later trial in ten is drawn without looking at results, so that no category is lost for good.
- A candidate counts by the odds that a trial there trains at all, from those that diverged or ran out of memory.
- Start-up trials are stratified: each parameter's range is cut into as many parts as there are start-up trials, and
  each part is drawn from once (a Latin hypercube: McKay, Beckman and Conover, Technometrics 1979).
- Each trial has its own generator, seeded by (seed, trial number): no state is kept between proposals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from segbench.core.seeding import derive_seed
from segbench.search.pareto import places_within
from segbench.search.parzen import CategoryDensity, Density, Floats, Guess, NumberDensity

NUM_CANDIDATES = 24
"""Drawn from the good trials' density; the one with the best ratio is taken."""
MAX_GOOD = 25
"""At most so many trials are good, as in Optuna and hyperopt."""
MAX_OTHERS = 400
"""The other trials' density is made of at most so many."""

Rank = tuple[float, ...]
"""Of a trial among the others, smaller is better: kind, less epochs, loss; with several metrics the loss in each."""
BROKEN = 2.0
"""Kind of a trial that diverged, or needed more memory than there is."""


class ParzenSampler(BaseSampler):  # type: ignore[misc]
    """A univariate TPE sampler, of one or several metrics.

    Args:
        seed: of every draw, together with the trial's number.
        num_startup: trials drawn without looking at results.
        first: number of the first trial that is drawn; those before it are baselines and the like.
        guesses: where an expert expects the best value, by parameter.
        random_share: share of the later trials that are drawn without looking at results.

    Examples:
        >>> import optuna
        >>> study = optuna.create_study(sampler=ParzenSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=30)
        >>> study.best_value < 1e-2
        True
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        num_startup: int = 10,
        first: int = 0,
        guesses: Mapping[str, Guess] | None = None,
        random_share: float = 0.1,
    ) -> None:
        self._seed = seed
        self._num_startup = num_startup
        self._first = first
        self._guesses = dict(guesses or {})
        self._random_share = random_share
        self._columns = Columns()
        self._splits: dict[int, Split | None] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: no parameter is drawn together with another."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Split the trials for this proposal."""
        shown = study.get_trials(deepcopy=False)
        others = [other for other in shown if other.number != trial.number]
        self._columns.update(others, study.directions)
        self._splits[trial.number] = self._split(trial.number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value for one parameter."""
        rng = np.random.default_rng(derive_seed(self._seed, f"sampler/{param_name}", trial.number))
        split = self._splits.get(trial.number)
        if split is None:
            place = self._place_at_start(trial.number, param_name, param_distribution, rng)
        else:
            place = self._best_candidate(split, param_name, param_distribution, rng)
        return value_at(param_distribution, place)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forget the proposal's split."""
        self._splits.pop(trial.number, None)

    def _split(self, number: int) -> "Split | None":
        """Return the split; None where the trial is drawn without looking at results."""
        num_finished = self._columns.num_finished
        if num_finished < self._num_startup:
            return None
        if derive_seed(self._seed, "sampler-random", number) < self._random_share * 2**31:
            return None
        return self._columns.split(num_good(num_finished, self._columns.num_losses))

    def _place_at_start(
        self, number: int, name: str, distribution: BaseDistribution, rng: np.random.Generator
    ) -> float:
        guess = self._guesses.get(name)
        if guess is not None and rng.uniform() < guess.weight / (guess.weight + 2):
            return float(_density(distribution, np.empty(0), guess).draw(1, rng)[0])
        parts = max(self._num_startup, 1)
        cycle, index = divmod(max(number - self._first, 0), parts)
        order = np.random.default_rng(derive_seed(self._seed, f"strata/{name}", cycle)).permutation(parts)
        u = (order[index] + rng.uniform()) / parts
        return float(int(u * len(distribution.choices))) if isinstance(distribution, CategoricalDistribution) else u

    def _best_candidate(
        self, split: "Split", name: str, distribution: BaseDistribution, rng: np.random.Generator
    ) -> float:
        good, others = self._columns.places(name, distribution, split)
        hopeful = _density(distribution, good, self._guesses.get(name))
        candidates = hopeful.draw(NUM_CANDIDATES, rng)
        if not isinstance(distribution, CategoricalDistribution):
            candidates = _rounded(distribution, candidates)
        gain = hopeful.log_pdf(candidates) - _density(distribution, others).log_pdf(candidates)
        sound, broken = self._columns.outcomes(name, distribution, split)
        if len(broken):
            odds = _density(distribution, broken).log_pdf(candidates) - _density(distribution, sound).log_pdf(
                candidates
            )
            gain -= np.log1p(len(broken) / max(len(sound), 1) * np.exp(odds))
        return float(candidates[np.argmax(gain)])


def num_good(num_finished: int, num_losses: int = 1) -> int:
    """Return how many of the finished trials are good: a third of the square root, 1 to ``MAX_GOOD``.

    With several metrics three times as many: a front takes more trials to draw than a peak.
    """
    share = math.sqrt(num_finished) / 3 if num_losses == 1 else math.sqrt(num_finished)
    return min(max(1, math.ceil(share)), MAX_GOOD)


@dataclass(frozen=True)
class Split:
    """Rows of the good trials and of the others, each by trial number."""

    good: NDArray[np.intp]
    others: NDArray[np.intp]


class Columns:
    """The trials of a study as numpy columns, to which each result is appended once."""

    def __init__(self) -> None:
        self._results: list[FrozenTrial] = []
        self._seen: list[object] = []
        """What each result was, by row: the trials of other sweeps are given other values."""
        self._rows: dict[int, int] = {}
        """Trial number -> row of its last result: one that waited has another when it has gone on."""
        self._ranks: Floats = np.empty((0, 3))
        self._places: dict[str, Floats] = {}
        self._shown: NDArray[np.intp] = np.empty(0, np.intp)
        self._running: list[FrozenTrial] = []
        self.num_losses = 1

    @property
    def num_finished(self) -> int:
        """Trials that have a result, good or bad."""
        return len(self._shown)

    def update(self, shown: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> None:
        """Append what is new among the trials that the study shows, by number, and note which those are."""
        finished = [trial for trial in shown if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        new = [trial for trial in finished if not self._has(trial)]
        for trial in new:
            self._rows[trial.number] = len(self._results)
            self._results.append(trial)
            self._seen.append(_result(trial))
        if new:
            ranks = np.array([rank(trial, directions) for trial in new])
            self._ranks = np.vstack([self._ranks.reshape(-1, ranks.shape[1]), ranks])
            self.num_losses = len(directions)
        self._shown = np.array([self._rows[trial.number] for trial in finished], np.intp)
        self._running = [trial for trial in shown if trial.state is TrialState.RUNNING]

    def split(self, count: int) -> Split:
        """Return the best ``count`` trials, and an even selection of the others."""
        ranks = self._ranks[self._shown]
        losses = ranks[:, 2] if self.num_losses == 1 else _places(ranks)
        order = np.lexsort((losses, ranks[:, 1], ranks[:, 0]))  # stable: of equal ones the first
        good, others = np.sort(order[:count]), np.sort(order[count:])
        stride = max(1, -(-len(others) // MAX_OTHERS))
        return Split(self._shown[good], self._shown[others[::stride]])

    def places(self, name: str, distribution: BaseDistribution, split: Split) -> tuple[Floats, Floats]:
        """Return the places of one parameter in the good trials and in the others, where they have it.

        Those that run are among the others: so several workers do not all try the same.
        """
        column = self._column(name, distribution)
        running = np.array([_place_in(trial, name, distribution) for trial in self._running])
        good = column[split.good]
        others = np.concatenate([column[split.others], running])
        return good[~np.isnan(good)], others[~np.isnan(others)]

    def outcomes(self, name: str, distribution: BaseDistribution, split: Split) -> tuple[Floats, Floats]:
        """Return the places of one parameter in the trials that trained and in those that broke down."""
        column = self._column(name, distribution)
        rows = np.concatenate([split.good, split.others])
        is_broken = self._ranks[rows, 0] == BROKEN
        sound, broken = column[rows[~is_broken]], column[rows[is_broken]]
        return sound[~np.isnan(sound)], broken[~np.isnan(broken)]

    def _has(self, trial: FrozenTrial) -> bool:
        row = self._rows.get(trial.number)
        return row is not None and self._seen[row] == _result(trial)

    def _column(self, name: str, distribution: BaseDistribution) -> Floats:
        """Return the places of one parameter, by row; NaN where a trial has none."""
        column = self._places.get(name, np.empty(0))
        new = [_place_in(trial, name, distribution) for trial in self._results[len(column) :]]
        self._places[name] = column = np.concatenate([column, new])
        return column


def _result(trial: FrozenTrial) -> object:
    """Return what changes when a trial that was seen before has another result."""
    return trial.state, None if trial.values is None else tuple(trial.values), len(trial.intermediate_values)


def rank(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> Rank:
    """Return where a finished trial stands: complete ones by value, then stopped ones, those that came further first.

    A stopped trial without a report is behind all that had one; one whose last report was NaN broke down: it is last.
    """
    if len(directions) > 1:
        return _rank_of_several(trial, directions)
    sign = -1.0 if directions[0] == StudyDirection.MAXIMIZE else 1.0
    if trial.state is TrialState.COMPLETE and trial.values is not None:
        return (0.0, 0.0, sign * trial.values[0])
    if trial.state is TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return (BROKEN, 0.0, 0.0) if math.isnan(value) else (1.0, -float(step), sign * value)
    return (1.0, 0.0, 0.0)


def _rank_of_several(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> Rank:
    """Return :func:`rank` for several metrics; a stopped trial's values are those where it was stopped."""
    if trial.values is None or any(math.isnan(value) for value in trial.values):
        return (BROKEN, 0.0, *(0.0 for _ in directions))
    signs = (-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions)
    losses = (sign * value for sign, value in zip(signs, trial.values, strict=True))
    return (0.0, 0.0, *losses) if trial.state is TrialState.COMPLETE else (1.0, -float(trial.last_step or 0), *losses)


def _places(ranks: Floats) -> Floats:
    """Return where each trial stands among those that came equally far, as in MOTPE: by non-dominated rank.

    Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator" (JAIR 73, 2022), section 4.2; within a front by
    crowding distance instead of the hypervolume.
    """
    groups = [tuple(row) for row in ranks[:, :2].tolist()]
    return np.array(places_within(groups, ranks[:, 2:].tolist()), np.float64)


def place_of(distribution: BaseDistribution, value: Any) -> float:
    """Return where a value lies in its distribution: 0 to 1, or the index of a category."""
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    low, high = _ends(distribution)
    x = math.log(value) if distribution.log else float(value)
    return min(max((x - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def value_at(distribution: BaseDistribution, place: float) -> Any:
    """Return the value at a place, the inverse of :func:`place_of`."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(place)]
    low, high = _ends(distribution)
    x = low + place * (high - low)
    value = math.exp(x) if distribution.log else x
    if isinstance(distribution, IntDistribution):
        steps = round((value - distribution.low) / distribution.step)
        return min(max(distribution.low + steps * distribution.step, distribution.low), distribution.high)
    if distribution.step is not None:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    return min(max(value, distribution.low), distribution.high)


def _ends(distribution: BaseDistribution) -> tuple[float, float]:
    """Return the ends of a range as it is searched; a whole number has half a step on either side."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    half = 0.5 * distribution.step if distribution.step is not None else 0.0
    low, high = distribution.low - half, distribution.high + half
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _rounded(distribution: BaseDistribution, places: Floats) -> Floats:
    """Return the places of the values that can be had."""
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        return places
    return np.array([place_of(distribution, value_at(distribution, place)) for place in places])


def _place_in(trial: FrozenTrial, name: str, distribution: BaseDistribution) -> float:
    """Return the place of a parameter's value in a trial; NaN where it has none that could be drawn."""
    if name not in trial.params:
        return math.nan
    value = trial.params[name]
    if isinstance(distribution, CategoricalDistribution):
        return place_of(distribution, value) if value in distribution.choices else math.nan
    return place_of(distribution, value)


def _density(distribution: BaseDistribution, places: Floats, guess: Guess | None = None) -> Density:
    if isinstance(distribution, CategoricalDistribution):
        return CategoryDensity.fit(places, len(distribution.choices), guess)
    return NumberDensity.fit(places, guess)
