"""Which parameters mattered: Optuna's two measures of importance over the trials of a search."""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)

from segbench.core.records import Goal, TrialRecord
from segbench.search.observations import fit, values_of
from segbench.search.study import as_distribution
from segbench.spec.space import Space

MIN_TRIALS = 8
_TREES, _DEPTH = 32, 6
"""Of the forest: with Optuna's 64 and 64 a thousand trials take a minute, with these half a second, same shares."""


def importances(
    space: Space, records: Sequence[TrialRecord], goal: Goal, seed: int = 0
) -> dict[str, Mapping[str, float]]:
    """Return the importance of each parameter by measure, most important first, each measure summing to 1.

    ``PED-ANOVA`` (Watanabe et al., 2023): how much the parameter decides whether a trial is among the best tenth.
    Conditional parameters are there. ``fANOVA`` (Hutter et al., 2014): its share of the variance of the score in a
    random forest; only parameters that every trial has. The score of a stopped trial is its best so far; baselines and
    enqueued trials are left out, because nobody drew them, and so is what was drawn outside the space as it is now.

    Returns:
        Nothing for fewer than ``MIN_TRIALS`` trials with a score.
    """
    study = optuna.create_study(direction=goal)
    for record in records:
        best = record.best(goal)
        is_drawn = record.assignment.origin == "search" and fit(record.assignment, space) is not None
        if best is not None and is_drawn:
            study.add_trial(_frozen(space, record, best.score))
    if len(study.trials) < MIN_TRIALS:
        return {}
    measures: dict[str, BaseImportanceEvaluator] = {
        "PED-ANOVA": PedAnovaImportanceEvaluator(),
        "fANOVA": FanovaImportanceEvaluator(n_trees=_TREES, max_depth=_DEPTH, seed=seed),
    }
    shares = {}
    for name, evaluator in measures.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # too few trials in a tenth, all importances equal: the numbers say so
            shares[name] = get_param_importances(study, evaluator=evaluator)
    return {
        name: {parameter: float(value) for parameter, value in share.items()}
        for name, share in shares.items()
        if any(share.values())
    }


def _frozen(space: Space, record: TrialRecord, score: float) -> optuna.trial.FrozenTrial:
    drawn = record.assignment.params
    params = {name: value for name, value in values_of(record.assignment, space).items() if name in drawn}
    distributions = {name: as_distribution(space[name]) for name in params}
    return optuna.trial.create_trial(value=score, params=params, distributions=distributions)
