"""The default sampler, in plain Optuna studies and under the search."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from segbench.search.parzen import CategoryDensity, Guess, NumberDensity
from segbench.search.policy import SearchPolicy
from segbench.search.sampler import ParzenSampler, num_good, place_of, value_at
from tests.search.test_observations import search, sweep

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "wd": FloatDistribution(0.0, 1.0),
    "width": IntDistribution(1, 9),
    "steps": IntDistribution(8, 64, step=8),
    "units": IntDistribution(1, 1000, log=True),
    "kind": CategoricalDistribution(["a", "b", "c"]),
}


def study_of(sampler: optuna.samplers.BaseSampler, trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(sampler=sampler)
    for trial in trials:
        study.add_trial(trial)
    return study


def finished(count: int, seed: int = 0) -> list[FrozenTrial]:
    """Trials as a search with rungs leaves them."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        params = {name: value_at(d, _random_place(d, rng)) for name, d in DISTRIBUTIONS.items()}
        loss = abs(math.log10(params["lr"]) + 2) + (params["kind"] != "b")
        if rng.uniform() < 0.5:
            fields: dict[str, Any] = {"state": TrialState.COMPLETE, "value": loss}
        else:
            fields = {"state": TrialState.PRUNED, "intermediate_values": {int(rng.integers(1, 9)): loss}}
        trials.append(optuna.trial.create_trial(params=params, distributions=DISTRIBUTIONS, **fields))
    return trials


def _random_place(distribution: BaseDistribution, rng: np.random.Generator) -> float:
    is_category = isinstance(distribution, CategoricalDistribution)
    return float(rng.integers(3)) if is_category else float(rng.uniform())


def propose(study: optuna.Study) -> dict[str, Any]:
    trial = study.ask()
    return {name: trial._suggest(name, distribution) for name, distribution in DISTRIBUTIONS.items()}


def test_it_finds_the_best_in_a_plain_study() -> None:
    def loss(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        depth = trial.suggest_int("depth", 1, 9) if kind == "b" else 1
        return float(abs(math.log10(trial.suggest_float("lr", 1e-5, 1, log=True)) + 2) + 0.1 * abs(depth - 6))

    study = optuna.create_study(sampler=ParzenSampler(seed=0))
    study.optimize(loss, n_trials=100)
    assert study.best_params["kind"] == "b"
    assert study.best_value < 0.25


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@given(place=st.floats(0, 1))
def test_a_place_is_that_of_its_value(name: str, place: float) -> None:
    distribution = DISTRIBUTIONS[name]
    value = value_at(distribution, min(int(place * 3), 2) if name == "kind" else place)
    assert distribution._contains(distribution.to_internal_repr(value))
    assert value_at(distribution, place_of(distribution, value)) == pytest.approx(value) if name != "kind" else True


@pytest.mark.parametrize("count", [3, 40])
def test_a_proposal_depends_on_the_seed_the_number_and_the_results_alone(count: int) -> None:
    """Not on the order in which trials ended, nor on proposals made before."""
    trials = finished(count)
    whole = study_of(ParzenSampler(seed=1), trials)
    asked_before = study_of(ParzenSampler(seed=1), trials[: count // 2])
    asked_before.sampler.before_trial(asked_before, trials[-1])
    for trial in trials[count // 2 :]:
        asked_before.add_trial(trial)
    proposed = propose(whole)
    assert propose(asked_before) == proposed
    assert propose(study_of(ParzenSampler(seed=2), trials)) != proposed


def test_start_up_trials_cover_each_range_evenly() -> None:
    study = optuna.create_study(sampler=ParzenSampler(seed=3, num_startup=12))
    drawn = [propose(study) for _ in range(12)]
    assert sorted(int(params["wd"] * 12) for params in drawn) == list(range(12))
    assert sorted(params["kind"] for params in drawn) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


@given(st.lists(st.floats(0, 1), max_size=20), st.integers(0, 2**31))
@settings(max_examples=50)
def test_a_density_of_numbers_sums_to_one_and_draws_inside(places: list[float], seed: int) -> None:
    density = NumberDensity.fit(np.array(places))
    grid = (np.arange(20000) + 0.5) / 20000
    assert np.exp(density.log_pdf(grid)).mean() == pytest.approx(1, abs=0.01)
    drawn = density.draw(100, np.random.default_rng(seed))
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_a_density_of_categories_has_some_of_each() -> None:
    density = CategoryDensity.fit(np.array([0.0, 0.0, 2.0]), 3)
    assert np.exp(density.log_pdf(np.arange(3.0))) == pytest.approx([7 / 12, 1 / 12, 4 / 12])


def test_draws_follow_the_density() -> None:
    density = NumberDensity.fit(np.array([0.2, 0.25, 0.9]))
    drawn = np.sort(density.draw(20000, np.random.default_rng(0)))
    edges = np.linspace(0, 1, 21)
    grid = (np.arange(20000) + 0.5) / 20000
    expected = np.exp(density.log_pdf(grid)).reshape(20, -1).mean(axis=1) / 20
    assert np.histogram(drawn, edges)[0] / 20000 == pytest.approx(expected, abs=0.012)


def test_the_number_of_good_trials_grows_slowly() -> None:
    assert [num_good(n) for n in (1, 9, 10, 100, 1000, 10**5)] == [1, 1, 2, 4, 11, 25]


def test_the_cost_of_a_proposal_does_not_grow() -> None:
    """Densities are made of a bounded number of trials: counted, because time is not tested."""
    sampler = ParzenSampler(seed=0)
    study = study_of(sampler, finished(3000))
    sampler.before_trial(study, study.ask()._cached_frozen_trial)
    split = next(split for split in sampler._splits.values() if split is not None)
    assert len(split.good) == num_good(3000)
    assert 200 <= len(split.others) <= 400


@pytest.mark.parametrize("place", [0.2, 0.9])
def test_a_guess_draws_early_trials_near_it(place: float) -> None:
    def early(guesses: dict[str, Guess]) -> float:
        study = optuna.create_study(sampler=ParzenSampler(seed=0, guesses=guesses))
        return float(np.mean([abs(propose(study)["wd"] - place) for _ in range(10)]))

    assert early({"wd": Guess(place, 2.0)}) < early({})


def test_a_wrong_guess_does_little_harm(tmp_path: Path) -> None:
    def regret(prior: dict[str, Any], seed: int) -> float:
        lr = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0, **prior}
        loaded = sweep({"lr": lr}, search={"seed": seed}, scheduler={"type": "none", "max_epochs": 1})
        records = search(loaded, lambda c, _: -abs(math.log10(c["lr"]) + 2), tmp_path / f"{seed}-{len(prior)}")
        return -max(best.score for record in records if (best := record.best("maximize")))

    wrong = [regret({"prior": 0.9, "prior_confidence": "high"}, seed) for seed in range(5)]
    assert np.mean(wrong) < 0.15, "of a range of 5"


def test_one_and_true_are_two_values(tmp_path: Path) -> None:
    loaded = sweep({"x": {"values": [1, True, "1"]}}, scheduler={"type": "none", "max_epochs": 1})
    records = search(loaded, lambda c, _: float(c["x"] is True), tmp_path / "a")
    late = [record.assignment.params["x"] for record in records[12:]]
    assert sum(value is True for value in late) > len(late) / 2


@pytest.mark.parametrize("algorithm", ["tpe", "tpe-multivariate", "gp", "cmaes", "qmc", "random"])
def test_every_algorithm_searches_a_conditional_space(algorithm: str, tmp_path: Path) -> None:
    parameters = {
        "kind": {"values": ["a", "b"]},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
        "depth": {"min": 1, "max": 5, "when": {"kind": "a"}},
    }
    loaded = sweep(
        parameters, search={"algorithm": algorithm, "startup_trials": 4}, scheduler={"type": "none", "max_epochs": 1}
    )
    records = search(loaded, lambda c, _: -abs(math.log10(c["lr"]) + 2), tmp_path / "a")
    assert len(records) == 20
    assert len({record.assignment.params["lr"] for record in records}) > 15
    assert all(("depth" in r.assignment.params) == (r.assignment.params["kind"] == "a") for r in records)


def test_baselines_that_name_little_do_not_damage_the_search(tmp_path: Path) -> None:
    """Told whole, they leave the search about as good as without any."""
    parameters = {name: {"min": 0.0, "max": 1.0} for name in ("a", "b", "c", "d")}

    def regret(seed: int, baselines: list[dict[str, Any]]) -> float:
        loaded = sweep(
            parameters, search={"seed": seed}, scheduler={"type": "none", "max_epochs": 1}, budget={"trials": 60},
            baselines=baselines,
        )  # fmt: skip
        records = search(
            loaded,
            lambda c, _: -sum((c.get(name, 0.9) - 0.4) ** 2 for name in parameters),
            tmp_path / f"{seed}-{len(baselines)}",
        )
        searched = [record for record in records if record.assignment.origin == "search"]
        return -max(best.score for record in searched if (best := record.best("maximize")))

    partial = [{"name": "one", "parameters": {"a": 0.9}}, {"name": "two", "parameters": {"b": 0.8, "c": 0.9}}]
    with_them, without = (np.mean([regret(seed, given) for seed in range(12)]) for given in (partial, []))
    assert with_them < 1.1 * without + 0.005, (with_them, without)


def test_the_policy_proposes_the_same_after_a_restart(tmp_path: Path) -> None:
    loaded = sweep({"x": {"min": 0.0, "max": 1.0}, "k": {"values": ["a", "b"]}}, scheduler={"max_epochs": 3})
    records = search(loaded, lambda c, e: c["x"] * e, tmp_path / "a")
    for number in (5, 12, 19):
        policy = SearchPolicy(loaded.spec, loaded.space, tmp_path / f"{number}.log", records[:number])
        again = policy.propose(number)
        assert again is not None
        assert again.params == records[number].assignment.params
