"""What is kept, clipped and dropped of an old sweep, and that TPE learns from it."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import decisions, killed_after, run, synthetic

import segbench
from segbench.core.errors import UserError
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import Assignment, EpochRecord, TrainContext, TrainFunction, TrialRecord, TrialState
from segbench.search.policy import SearchPolicy
from segbench.search.warm_start import OldTrials, Ranked, is_usable, place, warm_start
from segbench.spec.load import LoadedSpec, load_spec
from segbench.sweep.prior import differences, find_old

SPACE = """
name: new
train: objectives:curve
metric: {name: score}
parameters:
  family: {values: [a, b]}
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  width: {when: {family: a}, min: 0, max: 100}
"""


def old(state: TrialState = TrialState.COMPLETE, **params: object) -> TrialRecord:
    assignment = Assignment(
        number=0,
        name="trial-0000",
        origin="search",
        params=params,  # type: ignore[arg-type]
        config={"width": 7},
        seed=0,
        max_epochs=1,
    )
    return TrialRecord(assignment=assignment, state=state, epochs=(EpochRecord(epoch=1, score=0.5, metrics={}),))


@pytest.mark.parametrize(
    ("record", "becomes"),
    [
        (old(family="a", lr=1e-3, width=50), {"family": "a", "lr": 1e-3, "width": 50}),
        (old(family="b", lr=1e-3, width=50), {"family": "b", "lr": 1e-3}),  # inactive there
        (old(family="a", lr=1e-3), {"family": "a", "lr": 1e-3, "width": 7}),  # was fixed in the old file
        (old(family="a", lr=1.1e-2, width=110), {"family": "a", "lr": 1e-2, "width": 100}),
        (old(family="a", lr=1e-3, width=111), None),  # more than a tenth beyond
        (old(family="b", lr=1e-1), None),
        (old(family="c", lr=1e-3), None),
        (old(family="b"), None),
        (old(TrialState.FAIL, family="b", lr=1e-3), None),
        (old(TrialState.RUNNING, family="b", lr=1e-3), None),
    ],
)
def test_each_old_trial_is_kept_clipped_or_dropped(
    record: TrialRecord, becomes: dict[str, object] | None, tmp_path: Path
) -> None:
    (tmp_path / "new.yaml").write_text(SPACE)
    loaded = load_spec(tmp_path / "new.yaml")
    usable = tuple(each for each in [record] if is_usable(each, "maximize"))
    result = warm_start([OldTrials("old", usable, 1 - len(usable))], loaded.space, "maximize")
    assert [dict(r.assignment.params) for r in result.records] == ([] if becomes is None else [becomes])
    assert result.counts.dropped == (becomes is None)
    assert result.counts.clipped == (becomes is not None and "width" in becomes and becomes["width"] == 100)


def learner(tmp_path: Path, overrides: Sequence[str] = (), trials: int = 12) -> LoadedSpec:
    old = f"search.warm_start=[{tmp_path / 'old'}]"
    return synthetic(tmp_path, trials=trials, overrides=[old, "search.seed=11", *overrides])


def by_rank(tmp_path: Path, *overrides: str) -> LoadedSpec:
    return learner(tmp_path, [f"search.warm_start=[{{path: {tmp_path / 'old'}, by_rank: true}}]", *overrides])


def test_a_sweep_learns_from_an_old_one(tmp_path: Path) -> None:
    before = run(synthetic(tmp_path, trials=30), tmp_path / "old")
    loaded = learner(tmp_path, trials=8)
    prior = warm_start(find_old(SweepPaths(tmp_path / "new"), loaded.spec), loaded.space, "maximize")
    assert prior.describe() == "30 trials kept, 0 clipped, 1 dropped"  # the baseline lies outside the space
    records = read_ledger(run(loaded, tmp_path / "new").ledger("search"))
    cold = read_ledger(
        run(synthetic(tmp_path, trials=8, overrides=["search.seed=11"]), tmp_path / "cold").ledger("search")
    )
    assert [record.number for record in records] == list(range(9))
    assert records[1].assignment.params != cold[1].assignment.params  # not a random start any more
    again = SearchPolicy(loaded.spec, loaded.space, tmp_path / "again.log", records[:5], prior).propose(5)
    assert again is not None
    assert again.params == records[5].assignment.params
    assert len(read_ledger(before.ledger("search"))) == 31


@pytest.mark.parametrize("accident", ["grown", "deleted", "moved"])
@pytest.mark.parametrize("is_by_rank", [False, True])
def test_what_becomes_of_the_old_sweep_does_not_matter_once_the_new_one_has_begun(
    accident: str, is_by_rank: bool, tmp_path: Path
) -> None:
    run(synthetic(tmp_path, trials=15), tmp_path / "old")
    loaded = by_rank(tmp_path) if is_by_rank else learner(tmp_path)
    expected = decisions(run(loaded, tmp_path / "whole"))
    with killed_after(40):
        run(loaded, tmp_path / "killed")
    if accident == "grown":
        run(synthetic(tmp_path, trials=30), tmp_path / "old")
    elif accident == "deleted":
        shutil.rmtree(tmp_path / "old")
    else:
        (tmp_path / "old").rename(tmp_path / "older")
    assert decisions(run(loaded, tmp_path / "killed")) == expected


def test_a_start_that_no_trial_followed_keeps_nothing_of_the_old_sweep(tmp_path: Path) -> None:
    run(synthetic(tmp_path, trials=15), tmp_path / "old")
    loaded = learner(tmp_path)
    with killed_after(0):  # before the first event is on disk
        run(loaded, tmp_path / "new")
    run(synthetic(tmp_path, trials=30), tmp_path / "old")
    assert decisions(run(loaded, tmp_path / "new")) == decisions(run(loaded, tmp_path / "other"))


def test_a_folder_with_another_metric_or_none_is_refused(tmp_path: Path) -> None:
    run(synthetic(tmp_path, trials=1), tmp_path / "old")
    paths = SweepPaths(tmp_path / "new")
    with pytest.raises(UserError, match=r"search\.warm_start: nowhere is not a sweep's folder"):
        find_old(paths, synthetic(tmp_path, overrides=["search.warm_start=[nowhere]"]).spec)
    other = learner(tmp_path, ["metric.goal=minimize"])
    with pytest.raises(UserError, match=r"searched for score \(maximize\), this sweep for score \(minimize\)"):
        find_old(paths, other.spec)


def test_scores_that_do_not_compare_are_refused_unless_only_their_order_counts(tmp_path: Path) -> None:
    run(synthetic(tmp_path, trials=15), tmp_path / "old")
    longer = "scheduler.max_epochs=27"
    message = (
        r"do not compare with this sweep's \(scheduler\.max_epochs: 9 there, 27 here\); write \{path: .*by_rank: true"
    )
    with pytest.raises(UserError, match=message):
        run(learner(tmp_path, [longer]), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"train: objectives:curve there, objectives:plain here"):
        find_old(SweepPaths(tmp_path / "new"), learner(tmp_path, ["train=objectives:plain"]).spec)
    loaded = by_rank(tmp_path, longer)
    prior = warm_start(find_old(SweepPaths(tmp_path / "new"), loaded.spec), loaded.space, "maximize")
    assert prior.describe() == "15 trials kept, 0 clipped, 1 dropped; 15 count by rank alone"
    assert not prior.records
    new = read_ledger(run(loaded, tmp_path / "new").ledger("search"))
    cold = read_ledger(
        run(synthetic(tmp_path, overrides=["search.seed=11", longer], trials=12), tmp_path / "cold").ledger("search")
    )
    assert new[1].assignment.params != cold[1].assignment.params


def ranked(*quantiles: float | None) -> list[Ranked]:
    records = [old(TrialState.PRUNED if q is None else TrialState.COMPLETE, family="b", lr=1e-3) for q in quantiles]
    return [Ranked(record, quantile) for record, quantile in zip(records, quantiles, strict=True)]


def test_an_old_trial_is_put_where_it_stands_among_its_own() -> None:
    def placed(scores: list[float], goal: str = "maximize") -> list[float | None]:
        records = place(ranked(None, 0.75, 0.05, 0.25), scores, goal)  # type: ignore[arg-type]
        return [record.last_score for record in records]

    assert placed([0.1, 0.5, 0.3, 0.2]) == pytest.approx([0.5, 0.4, 0.15, None])
    assert placed([0.1, 0.5, 0.3, 0.2], "minimize") == pytest.approx([0.1, 0.15, 0.4, None])
    assert placed([0.7]) == [0.7, 0.7, 0.7, None]  # never better than the best of this sweep
    order = placed([])
    assert order[-1] is None
    assert order[:-1] == sorted((score for score in order if score is not None), reverse=True)


def shifted(centre: float, ceiling: float, slope: float) -> TrainFunction:
    """Return a task whose best learning rate is ``10**centre``."""

    def train(config: Mapping[str, Any], context: TrainContext) -> Iterator[dict[str, float]]:
        distance = abs(math.log10(config["lr"]) - centre) + abs(config["a"] - 0.3) + 0.5 * abs(config["b"] - 0.6)
        yield {"score": ceiling - slope * distance}

    return train


@pytest.mark.slow
def test_an_easier_task_with_its_best_elsewhere_does_little_harm(tmp_path: Path) -> None:
    def best(out: str, seed: int, trials: int, task: TrainFunction, prior: Sequence[object] = ()) -> float:
        content = {
            "name": "shifted",
            "metric": {"name": "score"},
            "parameters": {
                "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
                "a": {"min": 0.0, "max": 1.0},
                "b": {"min": 0.0, "max": 1.0},
            },
            "search": {"seed": seed, "startup_trials": 5, "warm_start": list(prior)},
            "scheduler": {"type": "none", "max_epochs": 1},
            "budget": {"trials": trials},
            "mlflow": {"enabled": False},
        }
        result = segbench.run(content, out=tmp_path / out, executor="local", objective=task)
        assert result.best.score is not None
        return result.best.score

    easy, hard = shifted(-1.6, 0.95, 0.1), shifted(-3.0, 0.7, 0.15)
    regret = {"by score": 0.0, "by rank": 0.0, "none": 0.0}
    for seed in range(6):
        old = str(tmp_path / f"old-{seed}")
        best(old, seed, 30, easy)
        priors: dict[str, list[object]] = {"by score": [old], "by rank": [{"path": old, "by_rank": True}], "none": []}
        for name, prior in priors.items():
            regret[name] += 0.7 - best(f"{name}-{seed}", 100 + seed, 25, hard, prior)
    assert regret["by rank"] < 1.25 * regret["none"]
    assert regret["by score"] < 1.25 * regret["none"]


DATA = """
name: pictures
data: {{size: [32, {width}], num_images: [4, 2, 2]}}
parameters: {{lr: {{min: 0.1, max: 1.0}}}}
"""


def test_data_are_told_apart_by_their_digest_where_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "pictures.yaml"
    path.write_text(DATA.format(width=64))
    here = load_spec(path).spec
    path.write_text(DATA.format(width=32))
    there = load_spec(path).spec
    facts = {"digest": "a", "groups": ["flat", "sky"]}
    assert list(differences(there, {}, here, {})) == ["data.size: [32, 32] there, [32, 64] here"]
    assert list(differences(there, facts, here, facts)) == []  # other words for the same pictures
    assert list(differences(here, facts, here, {})) == []
    elsewhere = here.model_copy(update={"data": replace(here.data, root="elsewhere")})
    assert list(differences(elsewhere, facts, here, {})) == []  # told when the data are packed
    assert list(differences(elsewhere, {}, here, facts)) == ['data.root: "elsewhere" there, null here']
    assert list(differences(here, facts, here, {**facts, "digest": "b"})) == ["the pictures: digest a there, b here"]


STREETS = """
name: streets
data: {{size: [32, 64], num_images: [4, 2, 2], cache_dir: {cache}}}
training: {{width: 4, depth: 2, batch_size: 2}}
parameters: {{lr: {{distribution: log_uniform_values, min: 1e-4, max: 1e-2}}}}
scheduler: {{max_epochs: 1}}
budget: {{trials: 3, max_concurrent: 1}}
mlflow: {{enabled: false}}
"""


def test_a_sweep_on_other_pictures_is_refused_also_when_the_files_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "streets.yaml"
    path.write_text(STREETS.format(cache=tmp_path / "cache"))
    old = run(load_spec(path), tmp_path / "old")
    warm = f"search.warm_start=[{old.root}]"
    moved = load_spec(path, [warm, f"data.cache_dir={tmp_path / 'other'}"])
    assert len(read_ledger(run(moved, tmp_path / "same").ledger("search"))) == 3
    with pytest.raises(UserError, match=r"do not compare .*\(data\.seed: 0 there, 1 here\); write \{path: "):
        find_old(SweepPaths(tmp_path / "new"), load_spec(path, [warm, "data.seed=1"]).spec)
    document = json.loads(old.data.read_text())
    old.data.write_text(json.dumps({**document, "digest": "0" * 16}))  # the generator has changed since
    with pytest.raises(UserError, match=r"\(the pictures: digest 0{16} there, [0-9a-f]{16} here\)"):
        run(load_spec(path, [warm]), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    by_order = load_spec(path, [f"search.warm_start=[{{path: {old.root}, by_rank: true}}]"])
    assert len(read_ledger(run(by_order, tmp_path / "ranked").ledger("search"))) == 3
