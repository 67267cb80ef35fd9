"""Milliseconds of a proposal after 100, 1,000 and 10,000 finished trials, in the space of sweeps/compare.yaml.

    python benchmarks/proposal.py

``segbench`` is what a sweep does (study, journal and window of trials included); ``sampler`` the sampler alone in an
Optuna study in memory, beside Optuna's own there (univariate, and as segbench had it before). Processor time, median.
"""

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna

from segbench.core.records import Assignment, EpochRecord, TrialRecord, TrialState
from segbench.core.seeding import derive_seed
from segbench.search.sampler import ParzenSampler
from segbench.search.study import Study, as_distribution, guesses_of
from segbench.spec.load import LoadedSpec, load_spec
from segbench.spec.space import Constant

SWEEP = Path(__file__).parents[1] / "sweeps" / "compare.yaml"
COUNTS = (100, 1000, 10000)
PROPOSALS = 15


def main() -> None:
    """Print the table."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    loaded = load_spec(SWEEP, ["data.dataset=streets", "data.root=null"])  # no data are needed
    counts = COUNTS[:1] if "--quick" in sys.argv else COUNTS
    print(f"| proposals over {len(loaded.space.parameters)} parameters | " + " | ".join(map(str, counts)) + " |")
    print("|---|" + "---|" * len(counts))
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "sampler": lambda: ParzenSampler(seed=0, guesses=guesses_of(loaded.space)),
        "Optuna's TPESampler": lambda: optuna.samplers.TPESampler(seed=0, multivariate=False),
        "Optuna's, multivariate, group": lambda: optuna.samplers.TPESampler(seed=0, multivariate=True, group=True),
    }
    print("| segbench | " + " | ".join(f"{in_a_sweep(loaded, count):.1f}" for count in counts) + " |", flush=True)
    for name, make in samplers.items():
        cells = [
            f"{alone(loaded, make(), count):.1f}" if count <= 1000 or name == "sampler" else "" for count in counts
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def records(loaded: LoadedSpec, count: int) -> list[TrialRecord]:
    """Return trials as a search with rungs leaves them: a third complete, the others stopped."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        params: dict[str, Any] = {}
        for parameter in loaded.space.parameters:
            if loaded.space.is_active(parameter, params):
                domain = parameter.domain
                params[parameter.name] = (
                    domain.value if isinstance(domain, Constant) else domain.value_at(rng.uniform())
                )
        assignment = Assignment(
            number=number, name=f"trial-{number:04d}", origin="search", params=params, config=params, seed=0,
            max_epochs=20,
        )  # fmt: skip
        epochs = 20 if number % 3 == 0 else 2
        score = 0.5 - abs(math.log10(float(params["lr"])) + 3) / 10 + 0.01 * rng.normal()
        made.append(
            TrialRecord(
                assignment=assignment,
                state=TrialState.COMPLETE if epochs == 20 else TrialState.PRUNED,
                epochs=(EpochRecord(epoch=epochs, score=score, metrics={}),),
            )
        )
    return made


def in_a_sweep(loaded: LoadedSpec, count: int) -> float:
    """Return the milliseconds of a proposal of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder) / "optuna.log", loaded.spec, loaded.space, records(loaded, count))
        return median_ms(lambda index: study.suggest(count + index))


def alone(loaded: LoadedSpec, sampler: optuna.samplers.BaseSampler, count: int) -> float:
    """Return the milliseconds of a proposal in a study in memory."""
    distributions = {
        p.name: as_distribution(p) for p in loaded.space.parameters if not isinstance(p.domain, Constant) and not p.when
    }
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for record in records(loaded, count):
        rng = np.random.default_rng(derive_seed(0, "alone", record.number))
        trial = optuna.trial.create_trial(
            params={
                name: distribution.to_external_repr(
                    rng.integers(len(distribution.choices))
                    if isinstance(distribution, optuna.distributions.CategoricalDistribution)
                    else int(rng.integers(distribution.low, distribution.high + 1))
                    if isinstance(distribution, optuna.distributions.IntDistribution)
                    else float(rng.uniform(distribution.low, distribution.high))
                )
                for name, distribution in distributions.items()
            },
            distributions=distributions,
            state=optuna.trial.TrialState[record.state.name],
            value=record.last_score if record.state is TrialState.COMPLETE else None,
            intermediate_values={record.epochs_done: record.last_score},
        )
        study.add_trial(trial)

    def propose(index: int) -> None:
        trial = study.ask()
        for name, distribution in distributions.items():
            trial._suggest(name, distribution)

    return median_ms(propose)


def median_ms(propose: Callable[[int], object]) -> float:
    """Return the median milliseconds of processor time; the first proposal, which fills caches, does not count."""
    propose(0)
    times = []
    for index in range(1, PROPOSALS + 1):
        started = time.process_time()
        propose(index)
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
