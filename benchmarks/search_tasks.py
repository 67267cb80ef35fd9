"""Learning curves as functions of a configuration, for benchmarks/search.py.

A recorded table becomes a function by blending the curves of the five nearest recorded configurations (weights one over
the squared distance; dimensions weighted by how much the best score depends on them; a parameter that only one of two
configurations has counts as far away). Where the nearest one diverged, so does the configuration.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.spec.load import LoadedSpec, spec_from
from segbench.spec.space import Categorical, Constant, Space

HERE = Path(__file__).parent
NEIGHBOURS = 5
Floats = NDArray[np.float64]

TASKSET_RANGES = {
    "learning_rate": (1e-8, 10.0), "beta1": (1e-4, 1.0), "beta2": (1e-6, 1.0), "epsilon": (1e-10, 1e3),
    "l1": (1e-8, 10.0), "l2": (1e-8, 10.0), "linear_decay": (1e-7, 1e-4), "exponential_decay": (1e-6, 1e-3),
}  # fmt: skip
LCBENCH_SETS = ("3945", "7593", "126026", "146212", "167184", "189354")
"""Of the 34: the first of each sixth, in the order of their ids."""


@dataclass(frozen=True)
class Task:
    """A search problem."""

    name: str
    parameters: Mapping[str, Any]
    """As in a sweep file."""
    length: int
    """Epochs of a full training."""
    best: float
    """Best score that is known; more is better."""
    median: float
    """Of random configurations' best scores."""
    curve: Callable[[Mapping[str, Any], int], Floats]
    """(drawn parameters, seed) -> score after each epoch, NaN from where the training diverged."""

    def spec(self, seed: int, **sections: Any) -> LoadedSpec:
        """Return a sweep file with this problem; more trials than any budget allows."""
        search = {"seed": seed, "startup_trials": 10, **sections.pop("search", {})}
        scheduler = {"max_epochs": self.length, **sections.pop("scheduler", {})}
        base = {"name": "s", "train": "objectives:none", "metric": {"name": "score"}, "mlflow": {"enabled": False}}
        more = {"parameters": self.parameters, "search": search, "scheduler": scheduler, "budget": {"trials": 1000000}}
        return spec_from({**base, **more, **sections})


class Table:
    """Recorded curves as a function.

    Args:
        space: of the recorded configurations.
        configs: what was drawn for each.
        curves: (seeds, N, epochs) scores, more is better; NaN from where a training diverged.
    """

    def __init__(self, space: Space, configs: Sequence[Mapping[str, Any]], curves: Floats) -> None:
        self._parameters = [p for p in space.parameters if not isinstance(p.domain, Constant)]
        self._is_category = np.array([isinstance(p.domain, Categorical) for p in self._parameters])
        self._places = np.array([self._place(config) for config in configs])
        self._curves = curves
        self._scales = self._importance()

    @cached_property
    def bests(self) -> Floats:
        """(N,) best score of each configuration over seeds; -inf where all diverged."""
        with np.errstate(invalid="ignore"):
            return np.where(np.isnan(self._curves), -np.inf, self._curves).max(axis=2).mean(axis=0)

    def __call__(self, config: Mapping[str, Any], seed: int = 0) -> Floats:
        """Return the curve of a configuration."""
        curves = self._curves[seed % len(self._curves)]
        distance = self._distance(self._place(config))
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        if np.isnan(curves[near[0]]).any():
            return curves[near[0]]
        near = near[~np.isnan(curves[near]).any(axis=1)]
        weights = 1 / (distance[near] + 1e-4)
        return np.asarray(weights @ curves[near] / weights.sum())

    def _place(self, config: Mapping[str, Any]) -> Floats:
        """Return a configuration as numbers: quantiles, indices of categories, NaN where it has none."""
        place = np.full(len(self._parameters), math.nan)
        for index, parameter in enumerate(self._parameters):
            if parameter.name in config:
                domain, value = parameter.domain, config[parameter.name]
                place[index] = domain.index(value) if isinstance(domain, Categorical) else domain.position(value)
        return place

    def _distance(self, place: Floats) -> Floats:
        both, one = ~np.isnan(self._places) & ~np.isnan(place), np.isnan(self._places) != np.isnan(place)
        steps = np.where(self._is_category, self._places != place, np.abs(self._places - np.nan_to_num(place)))
        return np.asarray(((np.where(both, steps, one) * self._scales) ** 2).sum(axis=1))

    def _importance(self) -> Floats:
        """Return a weight for each parameter: the root of the variance over its range of the mean rank."""
        rank = np.argsort(np.argsort(self.bests)) / len(self.bests)
        variances = []
        for column, is_category in zip(self._places.T, self._is_category, strict=True):
            has = ~np.isnan(column)
            order = np.argsort(column[has], kind="stable")
            groups = (
                [rank[has][column[has] == value] for value in np.unique(column[has])]
                if is_category
                else np.array_split(rank[has][order], 8)
            )
            variances.append(np.var([group.mean() for group in groups]) + 0.1 * np.var(rank) / len(self._parameters))
        return np.sqrt(np.array(variances) / max(variances))

    def task(self, name: str, parameters: Mapping[str, Any]) -> Task:
        """Return the search problem."""
        finite = self.bests[np.isfinite(self.bests)]
        return Task(name, parameters, self._curves.shape[2], float(finite.max()), float(np.median(finite)), self)


def tasks(folder: Path | None) -> Iterator[Task]:
    """Yield all problems: the segmentation curves of this folder, then those that ``folder`` has."""
    yield from segmentation()
    if folder is not None:
        for file in sorted(folder.glob("taskset_*.npz")):
            yield taskset(file)
        yield from lcbench(folder / "lcbench")
        for mnist in sorted(folder.glob("mnist_conditional_*")):
            yield mnist_nets(mnist)


def segmentation() -> Iterator[Task]:
    """Yield the problems of ``segmentation_curves.npz``, one for each data set."""
    import ruamel.yaml

    from segbench.spec.load import load_spec

    space = load_spec(HERE / "segmentation_curves.yaml").space
    parameters = ruamel.yaml.YAML(typ="safe").load(HERE / "segmentation_curves.yaml")["parameters"]
    stored = np.load(HERE / "segmentation_curves.npz")
    configs = [json.loads(text) for text in stored["configs"]]
    for name in ("camvid", "streets"):
        recorded = stored[f"{name}-recorded"]
        known = np.nonzero(recorded[0])[0]
        seeds = [seed for seed in range(len(recorded)) if recorded[seed][known].all()]
        curves = stored[name][seeds][:, known].astype(np.float64)
        yield Table(space, [configs[number] for number in known], curves).task(f"seg-{name}", parameters)


def taskset(file: Path) -> Task:
    """Return a problem of TaskSet; the loss's negative is the score."""
    stored = np.load(file, allow_pickle=True)
    names = [str(name) for name in stored["names"]]
    parameters = {
        name: {"distribution": "log_uniform_values", "min": TASKSET_RANGES[name][0], "max": TASKSET_RANGES[name][1]}
        for name in names
    }
    lows, highs = (np.array([TASKSET_RANGES[name][end] for name in names]) for end in (0, 1))
    values = np.clip(stored["hp"].astype(np.float64), lows, highs)
    configs = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    space = spec_from({"name": "t", "train": "objectives:none", "parameters": parameters}).space
    table = Table(space, configs, -stored["valid_loss"].astype(np.float64)[None])
    return table.task(file.stem.removeprefix("taskset_"), parameters)


def mnist_nets(folder: Path) -> Task:
    """Return a problem of conditional MNIST networks: three budgets, joined by straight lines over 8 epochs."""
    stored = json.loads((folder / "configspace.json").read_text())
    conditions = {c["child"]: {c["parent"]: c.get("values") or [c["value"]]} for c in stored.get("conditions", [])}
    ordered = sorted(stored["hyperparameters"], key=lambda entry: entry["name"] in conditions)
    parameters: dict[str, Any] = {}
    for entry in ordered:
        if entry["type"] == "categorical":
            domain: dict[str, Any] = {"values": entry["choices"]}
        elif entry["log"]:
            kind = "q_log_uniform_values" if "int" in entry["type"] else "log_uniform_values"
            domain = {"distribution": kind, "min": entry["lower"], "max": entry["upper"]}
        else:
            domain = {"min": entry["lower"], "max": entry["upper"]}
        when = conditions.get(entry["name"])
        parameters[entry["name"]] = {**domain, "when": when} if when else domain
    configs = list(json.loads((folder / "configs.json").read_text()).values())
    budgets = np.full((len(configs), 3), math.nan)
    for line in (folder / "history.jsonl").read_text().splitlines():
        number, epochs, _, costs, *_, status, _ = json.loads(line)
        if status == 1 and costs[0] is not None:
            budgets[number, round(epochs / 8 * 3) - 1] = costs[0]
    curves = np.array([np.interp(range(1, 9), [0, 8 / 3, 16 / 3, 8], [0.1, *row]) for row in budgets])
    space = spec_from({"name": "t", "train": "objectives:none", "parameters": parameters}).space
    return Table(space, configs, curves[None]).task(folder.name.replace("_conditional", ""), parameters)


def lcbench(folder: Path) -> Iterator[Task]:
    """Yield problems of LCBench's surrogate (YAHPO Gym); the best known score is from a random and a local search."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    codes = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]
    parameters = {
        "batch_size": {"distribution": "q_log_uniform_values", "min": 16, "max": 512},
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        "momentum": {"min": 0.1, "max": 0.99},
        "weight_decay": {"min": 1e-5, "max": 0.1},
        "num_layers": {"min": 1, "max": 5},
        "max_units": {"distribution": "q_log_uniform_values", "min": 64, "max": 1024},
        "max_dropout": {"min": 0.0, "max": 1.0},
    }
    space = spec_from({"name": "t", "train": "objectives:none", "parameters": parameters}).space
    for name in LCBENCH_SETS:
        curve = Surrogate(session, codes[name], tuple(parameters))
        best, median = search_widely(space, curve)
        yield Task(f"lc-{name}", parameters, 52, best, median, curve)


@dataclass(frozen=True)
class Surrogate:
    """One data set of LCBench."""

    session: Any
    code: int
    names: tuple[str, ...]

    def __call__(self, config: Mapping[str, Any], seed: int = 0) -> Floats:
        """Return validation accuracy in percent after 1 to 52 epochs."""
        rows = np.empty((52, 8), np.float32)
        rows[:, 0] = np.arange(1, 53)
        rows[:, 1:] = [config[name] for name in self.names]
        inputs = [entry.name for entry in self.session.get_inputs()]
        (found,) = self.session.run(None, {inputs[0]: np.full((52, 1), self.code, np.int32), inputs[1]: rows})
        return np.asarray(found[:, 1], np.float64)


def search_widely(space: Space, curve: Callable[[Mapping[str, Any], int], Floats]) -> tuple[float, float]:
    """Return the best score found by 1,000 random draws and 500 local steps, and the draws' median."""
    rng = np.random.default_rng(0)
    draws = rng.uniform(size=(1000, len(space.parameters)))

    def score(place: Floats) -> float:
        pairs = zip(space.parameters, place.tolist(), strict=True)
        return float(curve({p.name: p.domain.value_at(u) for p, u in pairs}, 0).max())

    scores = np.array([score(place) for place in draws])
    top = [(scores[index], draws[index]) for index in np.argsort(-scores)[:5]]
    for step in range(500):
        value, place = top[step % 5]
        moved = np.clip(place + rng.normal(size=place.shape) * rng.choice([0.02, 0.1, 0.3]), 0.001, 0.999)
        if (better := score(moved)) > value:
            top[step % 5] = (better, moved)
    return max(value for value, _ in top), float(np.median(scores))
