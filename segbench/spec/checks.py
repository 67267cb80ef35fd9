"""What no single key can say: whether the sections of a valid file go together."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segbench.core.address import PACKED, is_bucket, what_is_wrong
from segbench.core.objectives import COST_METRICS, METRICS, known_goal, parse_requirement
from segbench.core.records import Scalar
from segbench.spec.fields import check_name, check_together, check_value
from segbench.spec.schema import BUILT_IN_TRAIN, Baseline, SweepSpec
from segbench.spec.source import EntryError, KeyPath, Problem, listed, nearest, show, unknown
from segbench.spec.space import Categorical, Domain, Space, Structure, baseline_values, leaves

DEFAULT_GROUPS = ("void", "flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""Groups of a sweep that names none; a test holds them equal to those of ``segbench.data.labels``."""

SEVERAL = ("tpe", "qmc", "random", "grid")
"""Algorithms that search for several metrics."""

LAYOUT = ("leftImg8bit", "gtFine")


def check_spec(spec: SweepSpec, space: Space, tree: Mapping[str, Any], is_remote: bool = False) -> list[Problem]:
    """Return all that is wrong between the sections.

    Args:
        spec: valid section by section.
        space: its search space.
        tree: the file as it stands, to tell a given key from a default.
        is_remote: the data is on another machine.
    """
    problems = [*_train(spec, tree), *_grid(spec, space), *_budget(spec), *_baselines(spec, space), *_storage(spec)]
    problems += [*_require(spec), *_several(spec)]
    if spec.is_segmentation:
        problems += [*_metric(spec), *_data(spec, tree, is_remote)]
    return problems


def _storage(spec: SweepSpec) -> Iterator[Problem]:
    if is_bucket(spec.storage) and (problem := what_is_wrong(spec.storage)):
        yield Problem(("storage",), problem)
    elif is_bucket(spec.storage) and spec.name == PACKED:
        yield Problem(("name",), f"'{PACKED}' is the folder of packed data sets in a bucket; choose another")


def _train(spec: SweepSpec, tree: Mapping[str, Any]) -> Iterator[Problem]:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", spec.train):
        yield Problem(("train",), f"must be package.module:function such as {BUILT_IN_TRAIN}, got '{spec.train}'")
    elif not spec.is_segmentation:
        for key in ("data", "training"):
            if key in tree:
                yield Problem(
                    (key,),
                    f"is for the built-in training function and not read by {spec.train}; remove it, and put what "
                    "the function needs under parameters:",
                )


def _grid(spec: SweepSpec, space: Space) -> Iterator[Problem]:
    if spec.search.algorithm != "grid":
        return
    for parameter in space.parameters:
        path = ("parameters", *parameter.name.split("."))
        if isinstance(parameter.domain, Categorical) and parameter.domain.probabilities is not None:
            yield Problem(
                (*path, "probabilities"),
                "a grid runs every value once; remove probabilities, or take search.algorithm: random",
            )
            return
        if parameter.domain.choices() is None:
            yield Problem(
                path,
                "is continuous, and search.algorithm: grid needs a list; write values or q_uniform, or take "
                "algorithm: random",
            )
            return
    points = len(space.grid())
    if points > spec.budget.trials:
        yield Problem(
            ("budget", "trials"),
            f"the grid has {points} points and runs whole, but trials={spec.budget.trials}; write trials: "
            f"{points}, list fewer values, or take search.algorithm: random",
        )


def _budget(spec: SweepSpec) -> Iterator[Problem]:
    gpu = spec.resources.gpu
    if gpu == "auto" and not spec.is_segmentation:
        yield Problem(
            ("resources", "gpu"), f"auto measures the built-in training function, not {spec.train}; give a number"
        )
    elif gpu != "auto" and gpu > 1 and gpu % 1:
        yield Problem(("resources", "gpu"), f"must be whole above 1, got {gpu:g}; fractions share one GPU")
    retrain, longest = spec.retrain, spec.scheduler.max_epochs
    if retrain is not None and retrain.top_k > spec.budget.trials:
        yield Problem(
            ("retrain", "top_k"),
            f"top_k={retrain.top_k} is above budget.trials={spec.budget.trials}; there are not so many to retrain",
        )
    if retrain is not None and retrain.epochs is not None and retrain.epochs < longest:
        yield Problem(
            ("retrain", "epochs"),
            f"epochs={retrain.epochs} is below scheduler.max_epochs={longest}; retraining is at full length or more",
        )


def _baselines(spec: SweepSpec, space: Space) -> Iterator[Problem]:
    names: list[str] = []
    for index, baseline in enumerate(spec.baselines):
        path: KeyPath = ("baselines", index)
        if baseline.name in names:
            yield Problem((*path, "name"), f"'{baseline.name}' is the name of another baseline; choose another")
        names.append(baseline.name)
        values = baseline_values(baseline, space)
        yield from _doubled(baseline, space, path)
        problems = [p for name, value in values.items() if (p := _baseline_value(name, value, path, spec, space))]
        yield from problems
        if spec.is_segmentation and not problems:
            reason = check_together(spec.training, values)
            if reason is not None:
                yield Problem((*path, "parameters"), reason)


def _doubled(baseline: Baseline, space: Space, path: KeyPath) -> Iterator[Problem]:
    whole = frozenset(parameter.name for parameter in space.parameters)
    given = [name for name, _ in leaves(baseline.parameters, whole=whole)]
    for name in dict.fromkeys(name for name in given if given.count(name) > 1):
        message = f"'{name}' is given twice, as a name with dots and nested; remove one"
        yield Problem((*path, "parameters", name), message)


def _baseline_value(name: str, value: Scalar, path: KeyPath, spec: SweepSpec, space: Space) -> Problem | None:
    here = (*path, "parameters", name)
    if not spec.is_segmentation:
        names = [parameter.name for parameter in space.parameters]
        if name not in names:
            return Problem(here, unknown(name, names, "parameter"))
        if isinstance(value, Structure) and not _may_be_structure(space[name].domain):
            return Problem(
                here, f"is {show(value)}, and {name} is a single value; a baseline has one for each parameter"
            )
        return None
    try:
        check_name(name, here)
        check_value(name, value, here)
    except EntryError as error:
        return error.problem
    return None


def _may_be_structure(domain: Domain) -> bool:
    return any(isinstance(value, Structure) for value in domain.probes())


def _require(spec: SweepSpec) -> Iterator[Problem]:
    known = [*reported_metrics(spec), *COST_METRICS]
    for name, text in spec.require.items():
        path: KeyPath = ("require", name)
        if spec.is_segmentation and name not in known:
            guess = nearest(name, known)
            hint = f"did you mean '{guess}'?" if guess else f"allowed: {listed([*METRICS, *COST_METRICS])}"
            yield Problem(path, f"'{name}' is neither reported by the training function nor measured; {hint}")
            continue
        try:
            parse_requirement(name, text)
        except ValueError as error:
            yield Problem(path, str(error))


def _several(spec: SweepSpec) -> Iterator[Problem]:
    """Yield what is wrong with a list of metrics, its first one aside."""
    if not spec.metric.others:
        return
    names = [objective.name for objective in spec.metric.objectives]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem(("metric",), f"'{name}' is listed twice; remove one")
    known = [*reported_metrics(spec), *COST_METRICS]
    for index, other in enumerate(spec.metric.others, start=1):
        better = known_goal(other.name)
        if spec.is_segmentation and other.name not in known:
            guess = nearest(other.name, known)
            hint = f"did you mean '{guess}'?" if guess else f"allowed: {listed([*METRICS, *COST_METRICS])}"
            yield Problem(("metric", index), f"'{other.name}' is neither reported nor measured; {hint}")
        elif spec.is_segmentation and better is not None and other.goal != better:
            message = f"{other.goal} would look for the worst {other.name}; write goal: {better}"
            yield Problem(("metric", index), message)
    if spec.search.algorithm not in SEVERAL:
        message = f"{spec.search.algorithm} searches for one metric; for several take one of {listed(SEVERAL)}"
        yield Problem(("search", "algorithm"), message)
    if spec.scheduler.type == "median":
        yield Problem(("scheduler", "type"), "median compares one metric; for several write type: asha")
    if spec.search.warm_start:
        yield Problem(("search", "warm_start"), "is for one metric, and this sweep has several; remove it")


def reported_metrics(spec: SweepSpec) -> list[str]:
    """Return the metrics of an epoch of the built-in training function that can be searched for."""
    groups = [group for group in spec.data.groups or DEFAULT_GROUPS if group not in spec.data.ignore]
    return [*METRICS, *(f"val/iou/{group}" for group in groups)]


def _metric(spec: SweepSpec) -> Iterator[Problem]:
    name, goal = spec.metric.name, spec.metric.goal
    path: KeyPath = ("metric", "name")
    known = reported_metrics(spec)
    if name not in known:
        guess = nearest(name, known)
        if name.startswith("test/"):
            yield Problem(path, f"'{name}': the test split is read once, at the end; write '{guess or 'val/miou'}'")
        else:
            hint = f"did you mean '{guess}'?" if guess else f"allowed: {listed(METRICS)}, val/iou/<group>"
            yield Problem(path, f"'{name}' is not reported by the training function; {hint}")
        return
    if name == "val/miou_official" and (spec.data.groups is not None or spec.data.ignore):
        yield Problem(path, "val/miou_official needs the default groups; remove data.groups and data.ignore")
    better = known_goal(name)
    if goal != better:
        yield Problem(("metric", "goal"), f"{goal} would look for the worst {name}; write goal: {better}")


def _data(spec: SweepSpec, tree: Mapping[str, Any], is_remote: bool) -> Iterator[Problem]:
    data = spec.data
    given = tree.get("data", {}).get("packed")
    if given and is_bucket(given) and (problem := what_is_wrong(given)):
        yield Problem(("data", "packed"), problem)
    if min(data.size) < 1:
        yield Problem(("data", "size"), f"must be at least 1 pixel each way, got {list(data.size)}")
    if min(data.num_images) < 1:
        yield Problem(("data", "num_images"), f"must be at least 1 for each split, got {list(data.num_images)}")
    for index, group in enumerate(data.ignore):
        groups = tuple(data.groups or DEFAULT_GROUPS)
        if group not in groups:
            yield Problem(("data", "ignore", index), unknown(group, groups, "group"))
    if data.dataset == "streets":
        if data.root is not None:
            yield Problem(("data", "root"), "is not read for dataset: streets; write dataset: cityscapes, or remove it")
        return
    if data.root is None and not given:
        yield Problem(("data",), "root is missing; dataset: cityscapes needs the folder with leftImg8bit/ and gtFine/")
        return
    if is_remote or data.root is None:
        return
    root = Path(data.root).expanduser()
    if data.packed and not root.is_dir():  # preflight asks whether the packed set is there
        return
    missing = [f"{name}/" for name in LAYOUT if not (root / name).is_dir()]
    if not root.is_dir():
        yield Problem(
            ("data", "root"),
            f"there is no folder '{data.root}' (seen from {Path.cwd().name}/); give the one with leftImg8bit/ and "
            "gtFine/",
        )
    elif missing:
        yield Problem(("data", "root"), f"'{data.root}' has no {' and no '.join(missing)}; give the folder that has")
