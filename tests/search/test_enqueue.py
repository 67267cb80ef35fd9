"""Trials that are asked for while a sweep runs, or after: used once, exactly, and checked before."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from running import decisions, killed_after, local, run, synthetic

from segbench import UserError, enqueue, load
from segbench.cli import main
from segbench.core.enqueued import enqueue_params, read_enqueued
from segbench.core.ledger import read_ledger
from segbench.core.paths import SweepPaths
from segbench.core.records import TrialRecord
from segbench.spec.chosen import complete, read_values
from segbench.spec.load import LoadedSpec, load_spec
from segbench.sweep.folder import open_folder
from segbench.sweep.stages import Sweep

GOOD = {"family": "a", "lr": 1e-3, "width": 48}
"""The best that there is."""


class Asking:
    """An observer that asks for a trial when the third one ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_stage(self, stage: str, num_trials: int, max_epochs: int) -> None:
        pass

    def on_trial(self, record: TrialRecord, stage: str) -> None:
        is_third = stage == "search" and record.number == 3 and record.state.is_finished
        if is_third and not read_enqueued(SweepPaths(self.folder).enqueued):
            enqueue(self.folder, GOOD)


def run_asking(loaded: LoadedSpec, folder: Path) -> SweepPaths:
    paths = SweepPaths(folder)
    with open_folder(paths, loaded.spec):
        Sweep(loaded, paths, local, [Asking(folder)]).run()
    return paths


def test_a_running_sweep_takes_it_next_and_on_top_of_the_budget(tmp_path: Path) -> None:
    paths = run_asking(synthetic(tmp_path, trials=8), tmp_path / "a")
    records = read_ledger(paths.ledger("search"))
    assert [record.assignment.origin for record in records].index("enqueued") == 4
    assert len(records) == 1 + 8 + 1
    asked = records[4].assignment
    assert (dict(asked.params), asked.name, asked.max_epochs) == (GOOD, "trial-0004", 9)
    assert asked.enqueued == read_enqueued(paths.enqueued)[0].id
    assert load(tmp_path / "a").status == "finished"
    without = read_ledger(run(synthetic(tmp_path, trials=20), tmp_path / "b").ledger("search"))
    assert records[9].assignment.params != without[9].assignment.params  # the sampler has learnt from it


@pytest.mark.parametrize("kill_after", [9, 13, 14, 15, 16, 17, 18, 25, 40])
def test_a_kill_loses_nothing_and_uses_nothing_twice(kill_after: int, tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=12)
    expected = decisions(run_asking(loaded, tmp_path / "whole"))
    with killed_after(kill_after):
        run_asking(loaded, tmp_path / "killed")
    assert decisions(run_asking(loaded, tmp_path / "killed")) == expected


def test_a_finished_sweep_runs_it_with_the_same_command_and_ranks_again(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=4, retrain="retrain: {top_k: 1, seeds: 2}")
    paths = run(loaded, tmp_path / "a")
    before = pd.read_csv(paths.leaderboard)
    enqueue(paths.root, GOOD)
    assert load(paths.root).status == "unfinished"
    run(loaded, paths.root)
    *old, asked = read_ledger(paths.ledger("search"))
    assert len(old) == 5
    assert asked.assignment.origin == "enqueued"
    after = pd.read_csv(paths.leaderboard)
    assert after["name"][0] == "trial-0005"
    assert len(after) == len(before) + 1
    assert load(paths.root).status == "finished"
    run(loaded, paths.root)
    assert len(read_ledger(paths.ledger("search"))) == 6


def test_rungs_may_stop_it_as_any_trial_that_is_searched(tmp_path: Path) -> None:
    loaded = synthetic(tmp_path, trials=8)
    paths = run(loaded, tmp_path / "a")
    enqueue(paths.root, {**GOOD, "lr": 1e-5})
    assert read_ledger(run(loaded, paths.root).ledger("search"))[-1].reason == "rung 1"


def test_a_grid_runs_whole_beside_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        "name: g\ntrain: objectives:curve\nmetric: {name: score}\nsearch: {algorithm: grid}\nbudget: {trials: 8}\n"
        "parameters: {lr: {values: [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2]}}\nscheduler: {max_epochs: 1}\n"
        "mlflow: {enabled: false}\n"
    )

    class AskingForOne(Asking):
        def on_trial(self, record: TrialRecord, stage: str) -> None:
            if record.number == 3 and not read_enqueued(SweepPaths(self.folder).enqueued):
                enqueue(self.folder, {"lr": 1e-3})

    loaded, paths = load_spec(path), SweepPaths(tmp_path / "g")
    with open_folder(paths, loaded.spec):
        Sweep(loaded, paths, local, [AskingForOne(paths.root)]).run()
    drawn = [r.assignment.params["lr"] for r in read_ledger(paths.ledger("search")) if r.assignment.enqueued is None]
    assert sorted(drawn) == [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2]  # type: ignore[type-var]


def test_a_line_that_a_kill_has_torn_is_nothing_and_harms_no_other(tmp_path: Path) -> None:
    paths = run(synthetic(tmp_path, trials=1), tmp_path / "a")
    paths.enqueued.write_bytes(b'\n{"id": "0", "par')
    enqueue(paths.root, GOOD)
    with paths.enqueued.open("ab") as file:
        file.write(b'\n{"id": "1", "params": {}')
    assert [dict(entry.params) for entry in read_enqueued(paths.enqueued)] == [GOOD]


def test_of_many_that_ask_at_once_each_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "state" / "enqueued.jsonl"
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: enqueue_params(path, {"lr": number}), range(200)))
    found = read_enqueued(path)
    assert len({entry.id for entry in found}) == 200
    assert sorted(found, key=lambda entry: entry.id) == sorted(asked, key=lambda entry: entry.id)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=5"], "lr=5 is outside the space; lr is 1e-05 to 0.1"),
        (["lr=fast"], "lr='fast' is outside the space; lr is 1e-05 to 0.1"),
        (["family=c", "lr=1e-3"], "family='c' is outside the space; family is 'a', 'b'"),
        (["lrr=1e-3"], "unknown parameter 'lrr'; did you mean 'lr', which is 1e-05 to 0.1?"),
        (["batch=3"], "unknown parameter 'batch'; the parameters are family, lr, width, momentum"),
        (["family=b", "lr=1e-3", "width=9"], "width exists only where family is 'a', and here family is 'b'; leave it"),
        (["family=a", "lr=1e-3"], "missing: width (8 to 96); objectives:curve has no values of its own"),
        (["lr"], "'lr': write NAME=VALUE, such as lr=3e-4"),
        (["lr=1e-3", "lr=1e-4"], "'lr' is given twice; remove one"),
        (["lr=[1, 2]"], "'lr=[1, 2]': the value must be a number, text, true, false or null"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run(synthetic(tmp_path, trials=1), tmp_path / "a")
    with pytest.raises(SystemExit) as caught:
        main(["enqueue", str(paths.root), *words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not paths.enqueued.exists()


def test_the_command_says_what_runs_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run(synthetic(tmp_path, trials=1), tmp_path / "a")
    main(["enqueue", str(paths.root), "lr=3e-4", "family=a", "width=20"])
    said = capsys.readouterr().out
    assert "family=a, lr=0.0003, width=20" in said
    assert f"segbench sweep {paths.spec} --out {paths.root}" in said
    main(["status", str(paths.root)])
    assert "2/3" in capsys.readouterr().out


def test_a_bucket_and_a_folder_without_a_sweep_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/x: two processes cannot append to one object"):
        enqueue("s3://bucket/x", GOOD)
    with pytest.raises(UserError, match=r"is not a sweep's folder"):
        enqueue(tmp_path, GOOD)
    (tmp_path / "sweep.yaml").write_text(synthetic(tmp_path).path.read_text())
    with pytest.raises(UserError, match=r"no trial has begun there"):
        enqueue(tmp_path, GOOD)


SEGMENTATION = """
name: streets
data: {size: [32, 64]}
training: {width: 4, depth: 2, batch_size: 2, lr: 2e-3}
parameters:
  model: {values: [unet, segformer]}
  norm: {when: {model: unet}, values: [batch, group]}
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  flip: 0.5
  head_lr_multiplier: {when: {model: segformer}, distribution: q_uniform, min: 1, max: 10, q: 0.5}
"""


def test_what_is_not_named_is_as_in_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "streets.yaml"
    path.write_text(SEGMENTATION)
    loaded = load_spec(path)
    values = complete(loaded.spec, loaded.space, read_values(["norm=group"]))
    assert values == {"model": "unet", "norm": "group", "lr": 2e-3, "flip": 0.5}
    values = complete(loaded.spec, loaded.space, read_values(["model=segformer", "lr=3e-4", "head_lr_multiplier=2.5"]))
    assert values == {"model": "segformer", "lr": 3e-4, "flip": 0.5, "head_lr_multiplier": 2.5}
    for words, message in (
        (["width=8"], "'width' is not searched here but fixed to 4; the parameters are model, norm, lr, flip"),
        (["model=segformer", "head_lr_multiplier=2.2"], r"head_lr_multiplier is 1 to 10 in steps of 0\.5"),
    ):
        with pytest.raises(UserError, match=message):
            complete(loaded.spec, loaded.space, read_values(words))
