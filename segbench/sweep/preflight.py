"""Refuse before it costs: everything that can be known of a sweep before its first trial."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from segbench.core.config import TrialConfig
from segbench.core.errors import DataError
from segbench.core.records import Scalar
from segbench.models import check_config, find_family
from segbench.spec.load import LoadedSpec
from segbench.spec.space import Space, baseline_params, build_config, with_ancestors
from segbench.training.function import load_function

MODEL_FIELDS = ("model", "variant", "pretrained")
_PRECISIONS = ("fp16", "bf16", "auto", "fp32")
_DEMAND: Mapping[str, Callable[[Any], Any]] = {
    "width": int,
    "depth": int,
    "batch_size": int,
    "precision": _PRECISIONS.index,
    "optimizer": ("sgd", "adamw").index,
    "loss": len,
    "ema_decay": lambda decay: decay is not None,
}
"""Searched settings that memory depends on -> how much a value asks for."""


def check_sweep(loaded: LoadedSpec, has_objective: bool = False) -> None:
    """Check data, models and training function of a sweep file that is valid in itself.

    Args:
        loaded: the file.
        has_objective: trials are trained by a function object, so that ``train:`` is only its name.

    Raises:
        UserError: the first thing that is wrong, with file, line and key.
    """
    spec = loaded.spec
    if not spec.is_segmentation:
        if not has_objective:
            load_function(spec.train)
        return
    for key, params in _model_choices(loaded):
        try:
            check_config(TrialConfig(**build_config(spec, params)))
        except ValueError as error:
            raise loaded.error(key, str(error)) from error
    from segbench.data import check_data  # numpy, pyarrow: not for a training function that reads no pictures

    try:
        check_data(spec.data)
    except DataError as error:
        raise loaded.error("data", str(error)) from error


def demanding_configs(loaded: LoadedSpec) -> list[TrialConfig]:
    """Return for each model that a trial can have the configuration with the most weights and the most memory."""
    spec, space = loaded.spec, loaded.space
    configs: dict[TrialConfig, None] = {}
    for _, params in _model_choices(loaded):
        most = dict(params)
        for parameter in space.parameters:
            if parameter.name in _DEMAND and space.is_active(parameter, params):
                most.setdefault(parameter.name, max(parameter.domain.probes(), key=_DEMAND[parameter.name]))
        if "accumulation_steps" in space:
            most["accumulation_steps"] = 1
        configs[replace(TrialConfig(**build_config(spec, most)), pretrained=None)] = None
    return list(configs)


def worker_modules(loaded: LoadedSpec) -> list[str]:
    """Return what a worker process should import before its first trial, so that no epoch's time holds it."""
    spec = loaded.spec
    modules = ["segbench.tune.trainable", spec.train.partition(":")[0]]
    if spec.is_segmentation:
        names = {params.get("model", spec.training.model) for _, params in _model_choices(loaded)}
        modules += sorted(find_family(str(name)).module for name in names)
    return modules


def _model_choices(loaded: LoadedSpec) -> Iterator[tuple[str, dict[str, Scalar]]]:
    """Yield (key in the file, parameters) for every model that a trial can have."""
    spec, space = loaded.spec, loaded.space
    for index, baseline in enumerate(spec.baselines):
        yield f"baselines.{index}", baseline_params(spec, space, baseline)
    chosen = with_ancestors(space, MODEL_FIELDS)
    for params in Space(chosen).grid():
        names = [name for name in MODEL_FIELDS if name in params]
        yield (f"parameters.{names[-1]}" if names else "training.model"), params
