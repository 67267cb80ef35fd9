"""The sweep file and its sections as pydantic models: frozen, unknown keys refused, every field described."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from segbench.core.config import DataConfig, TrialConfig
from segbench.core.objectives import Objective, Requirement, known_goal, parse_requirement
from segbench.core.paths import is_safe_name
from segbench.core.records import Goal
from segbench.spec.domains import DISTRIBUTIONS, Confidence

BUILT_IN_TRAIN = "segbench.training.loop:train"


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Metric(Section):
    """What is optimised; or a list of metrics, as names or `{name, goal}`, of which the first one steers."""

    name: str = Field("val/miou", description="a metric that the training function reports")
    goal: Goal = Field("maximize", description="direction of improvement")
    others: tuple[Objective, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _list_is_several(cls, given: object) -> object:
        if isinstance(given, dict) and "others" in given:
            raise ValueError("unknown key 'others'; several metrics are a list: [val/miou, model/latency_ms]")
        if not isinstance(given, list):
            return given
        if not given:
            raise ValueError("is an empty list; name a metric, such as val/miou")
        first, *others = map(_metric_entry, given)
        return {**first, "others": tuple(Objective(**other) for other in others)}

    @model_serializer(mode="wrap")
    def _several_are_a_list(self, plain: SerializerFunctionWrapHandler) -> Any:
        first = dict(plain(self))
        others = first.pop("others")
        return [first, *others] if others else first

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All metrics, the one of curves, best epochs and patience first."""
        return (Objective(self.name, self.goal), *self.others)

    @property
    def several(self) -> tuple[Objective, ...]:
        """All metrics where there is more than one; else none."""
        return self.objectives if self.others else ()


def _metric_entry(given: object) -> dict[str, Any]:
    """Return an entry of a list of metrics as a mapping with its goal."""
    entry = {"name": given} if isinstance(given, str) else given
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry.keys() <= {"name", "goal"}:
        raise ValueError(f"a metric in a list is a name, or {{name: ..., goal: ...}}, got {given!r}")
    goal = entry.get("goal", known_goal(entry["name"]))
    if goal not in get_args(Goal):
        raise ValueError(
            f"'{entry['name']}' in a list needs a goal: {{name: {entry['name']}, goal: maximize}}, or minimize"
        )
    return {"name": entry["name"], "goal": goal}


class Baseline(Section):
    """A named configuration that runs first, at full length, and stays in the table to be beaten."""

    name: str = Field(description="shown on the leaderboard")
    parameters: dict[str, Any] = Field(description="values that differ from `training:`; need not lie in the space")

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        if not is_safe_name(name):
            raise ValueError(f"{name!r} must be letters, digits, '.', '_' or '-', at most 80")
        return name


class OldSweep(Section):
    """An earlier sweep to learn from; its folder alone stands for ``{path: folder}``."""

    path: str = Field(description="folder or bucket address of the sweep")
    by_rank: bool = Field(
        False, description="true: its scores do not compare with this sweep's, only their order counts"
    )

    @model_validator(mode="before")
    @classmethod
    def _folder_is_enough(cls, given: object) -> object:
        if isinstance(given, str):
            return {"path": given}
        if not isinstance(given, dict) or "path" not in given or not given.keys() <= {"path", "by_rank"}:
            raise ValueError(f"must be a sweep's folder, or {{path: folder, by_rank: true}}, got {given!r}")
        return given


_OLD_SWEEP_JSON: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["path"],
            "properties": {"path": {"type": "string"}, "by_rank": {"type": "boolean", "default": False}},
        },
    ]
}


class Search(Section):
    """How configurations are proposed."""

    algorithm: Literal["tpe", "tpe-multivariate", "gp", "cmaes", "qmc", "random", "grid"] = Field(
        "tpe", description="sampler: ours (tpe), or Optuna's; docs/method.md compares them"
    )
    seed: int = Field(0, ge=0, description="seed of every random draw of the sweep")
    startup_trials: int = Field(10, ge=0, description="random trials before TPE learns from results")
    warm_start: tuple[Annotated[OldSweep, WithJsonSchema(_OLD_SWEEP_JSON)], ...] = Field(
        (),
        description="folders of earlier sweeps whose trials TPE learns from, each as text or `{path, by_rank}` "
        "(docs/method.md: kept, clipped, dropped)",
    )


class Scheduler(Section):
    """When trials stop early."""

    type: Literal["auto", "asha", "asha-promote", "hyperband", "pasha", "median", "none"] = Field(
        "auto",
        description="asha stops weak trials at rungs; asha-promote lets them wait there; hyperband: asha in brackets; "
        "pasha: no longer than the order changes; median: below the others' median; auto: docs/method.md",
    )
    max_epochs: int = Field(20, ge=1, description="length of a full trial")
    grace_epochs: int | None = Field(
        None, ge=1, description="epochs before the first rung; null: a twentieth of max_epochs"
    )
    reduction_factor: int = Field(3, ge=2, description="one trial in so many passes a rung")
    rung_spacing: float | None = Field(
        None, gt=1, description="a rung's epochs over those of the one before; null: the root of reduction_factor"
    )
    audit: float = Field(0.0, ge=0, le=1, description="share of stopped trials that run on: was it right to stop?")

    @model_validator(mode="after")
    def _fits(self) -> "Scheduler":
        if self.grace_epochs is not None and self.grace_epochs > self.max_epochs:
            raise ValueError(f"grace_epochs={self.grace_epochs} is above max_epochs={self.max_epochs}; lower it")
        if self.audit and self.pauses:
            raise ValueError(f"audit={self.audit}: type={self.type} stops no trial for good; write type: asha")
        return self

    @property
    def first_rung(self) -> int:
        """Epochs before the first rung: at least a twentieth of a full trial, where nothing else is asked for."""
        return self.grace_epochs or math.ceil(self.max_epochs / 20)

    @property
    def pauses(self) -> bool:
        """Whether a trial that does not pass a rung waits there."""
        return self.type in ("asha-promote", "pasha")

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared, ascending; never includes max_epochs; empty without rungs."""
        if self.type in ("none", "median"):
            return ()
        spacing = math.sqrt(self.reduction_factor) if self.rung_spacing is None else self.rung_spacing
        return rung_epochs(self.first_rung, self.max_epochs, spacing)


def rung_epochs(first: int, max_epochs: int, spacing: float) -> tuple[int, ...]:
    """Return ``first``, ``first * spacing``, ``first * spacing ** 2``, ... below ``max_epochs``, in whole epochs."""
    epochs: list[int] = []
    exact = float(first)
    while round(exact) < max_epochs:
        epochs.append(round(exact))
        exact *= spacing
    return tuple(dict.fromkeys(epochs))


class Budget(Section):
    """When the search ends."""

    trials: int = Field(20, ge=1, description="search trials; baselines come on top")
    max_concurrent: int | None = Field(None, ge=1, description="trials at a time; null: as many as the resources allow")
    trial_hours: float | None = Field(
        None, gt=0, description="start no trial after so many hours of training, summed over trials"
    )
    max_failures: int = Field(1, ge=0, description="how often a trial that raised or hung is tried again")
    trial_timeout_s: float | None = Field(
        None, gt=0, description="a trial that reports nothing for so long is hanging; null: wait for ever"
    )


class Resources(Section):
    """What one trial occupies."""

    cpu: float = Field(1, gt=0, description="cores; also the number of threads of a trial")
    gpu: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        0, description="GPUs; fractions put several trials on one; auto: measured (docs/speed.md)"
    )

    @field_validator("gpu", mode="before")
    @classmethod
    def _gpu_is_number_or_auto(cls, given: object) -> object:
        is_number = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < float("inf")
        if not is_number and given != "auto":
            raise ValueError(f"must be a number of at least 0, or auto, got {given!r}")
        return given

    @property
    def uses_gpu(self) -> bool:
        """Whether trials train on a GPU where there is one."""
        return self.gpu != 0

    @property
    def num_gpus(self) -> float:
        """GPUs that a trial surely asks for; what auto means is known when it was measured."""
        return 0.0 if self.gpu == "auto" else self.gpu


class Retrain(Section):
    """How the best configurations are confirmed."""

    top_k: int = Field(3, ge=1, description="number of search trials retrained")
    seeds: int = Field(3, ge=1, description="trainings of each, with different seeds")
    epochs: int | None = Field(None, ge=1, description="length; null: scheduler.max_epochs")
    data: Literal["train", "train+val"] = Field(
        "train", description="train+val: no validation left, so the last epoch is kept"
    )


class Mlflow(Section):
    """Where runs are logged."""

    enabled: bool = Field(True, description="false: no MLflow")
    tracking_uri: str | None = Field(
        None, description="null: $MLFLOW_TRACKING_URI, or an SQLite file in the sweep's folder"
    )
    experiment: str | None = Field(None, description="null: the sweep's name")


_REQUIRE_JSON: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^\s*[<>]=?\s*[-+.0-9eE]+\s*$"},
    "default": {},
}
CONFIDENCES = get_args(Confidence)

_FIXED_JSON: dict[str, Any] = {"type": ["number", "string", "boolean"]}
_ENTRY_JSON: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "properties": {
        "value": {"description": "anything; lists and mappings only for a training function of your own"},
        "values": {"type": "array", "minItems": 1, "uniqueItems": True},
        "probabilities": {
            "type": "array",
            "items": {"type": "number", "minimum": 0},
            "minItems": 1,
            "description": "of each of the values; they sum to 1",
        },
        "min": {"type": "number"},
        "max": {"type": "number"},
        "distribution": {"enum": list(DISTRIBUTIONS)},
        "q": {"type": "number", "exclusiveMinimum": 0, "description": "values are multiples of q"},
        "mu": {"type": "number", "description": "mean (of the logarithm for log_normal)"},
        "sigma": {"type": "number", "exclusiveMinimum": 0, "description": "standard deviation"},
        "a": {"type": "number", "exclusiveMinimum": 0, "description": "first shape of beta"},
        "b": {"type": "number", "exclusiveMinimum": 0, "description": "second shape of beta"},
        "prior": {"description": "a guess at the best value"},
        "prior_confidence": {"enum": list(CONFIDENCES), "description": "how sure the guess is; default: medium"},
        "when": {
            "type": "object",
            "minProperties": 1,
            "description": "exists only where these parameters have these values",
        },
        "parameters": {"$ref": "#/properties/parameters"},
    },
}


class SweepSpec(Section):
    """A sweep file."""

    name: str = Field(description="name of the sweep: its folder, and its MLflow experiment")
    description: str = Field("", description="free text")
    train: str = Field(BUILT_IN_TRAIN, description="package.module:function that trains one trial")
    metric: Metric = Metric()
    require: Annotated[dict[str, Any], WithJsonSchema(_REQUIRE_JSON)] = Field(
        {},
        description='bounds that a model must keep, such as `model/latency_ms: "< 30"`; one that is known to break a '
        "`model/...` bound is never trained (docs/method.md)",
    )
    data: DataConfig = Field(DataConfig(), description="what is trained on")
    training: TrialConfig = Field(TrialConfig(), description="settings that all trials share")
    parameters: dict[str, Any] = Field(description="the search space, spelled as in W&B sweeps")
    baselines: tuple[Baseline, ...] = ()
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    resources: Resources = Resources()
    retrain: Retrain | None = Field(None, description="null: the leaderboard ranks the search trials")
    mlflow: Mlflow = Mlflow()
    storage: str = Field("runs", description="folder or bucket (`s3://...`) in which the sweep's folder is made")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON Schema of a sweep file, for editors; what it cannot say is checked by the reader."""
        schema = super().model_json_schema(*args, **kwargs)
        settings = schema["$defs"]["DataConfig"]["properties"]
        pair = {key: settings["size"].pop(key) for key in ("type", "prefixItems", "minItems", "maxItems")}
        settings["size"]["anyOf"] = [{"type": "integer", "minimum": 1}, pair]
        several = {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Metric"}]}}
        del schema["$defs"]["Metric"]["properties"]["others"]
        schema["$defs"].pop("Objective")
        metric = schema["properties"]["metric"]
        schema["properties"]["metric"] = {"anyOf": [{"$ref": metric.pop("$ref")}, several], **metric}
        schema["properties"]["parameters"]["additionalProperties"] = {"anyOf": [_FIXED_JSON, _ENTRY_JSON]}
        return schema

    @property
    def is_segmentation(self) -> bool:
        """Whether the built-in training function is used (else `data` and `training` do not apply)."""
        return self.train == BUILT_IN_TRAIN

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What ``require:`` asks for, of a file that is right."""
        return tuple(parse_requirement(metric, text) for metric, text in self.require.items())

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, name: str) -> str:
        if not is_safe_name(name):
            raise ValueError(f"{name!r} must be letters, digits, '.', '_' or '-', at most 80")
        return name


RENAMED: Mapping[str, str] = {
    "max_t": "scheduler.max_epochs",
    "epochs": "scheduler.max_epochs",
    "num_epochs": "scheduler.max_epochs",
    "max_iter": "scheduler.max_epochs",
    "grace_period": "scheduler.grace_epochs",
    "min_iter": "scheduler.grace_epochs",
    "eta": "scheduler.reduction_factor",
    "early_terminate": "scheduler.type",
    "pruner": "scheduler.type",
    "num_samples": "budget.trials",
    "num_trials": "budget.trials",
    "n_trials": "budget.trials",
    "run_cap": "budget.trials",
    "count": "budget.trials",
    "n_jobs": "budget.max_concurrent",
    "num_workers": "budget.max_concurrent",
    "max_concurrent_trials": "budget.max_concurrent",
    "timeout": "budget.trial_hours",
    "hours": "budget.trial_hours",
    "time_budget_s": "budget.trial_hours",
    "method": "search.algorithm",
    "sampler": "search.algorithm",
    "search_alg": "search.algorithm",
    "seed": "search.seed",
    "n_startup_trials": "search.startup_trials",
    "program": "train",
    "objective": "train",
    "constraints": "require",
    "requirements": "require",
    "project": "mlflow.experiment",
    "experiment_name": "mlflow.experiment",
    "mode": "metric.goal",
    "direction": "metric.goal",
    "cpus": "resources.cpu",
    "num_cpus": "resources.cpu",
    "gpus": "resources.gpu",
    "num_gpus": "resources.gpu",
    "resources_per_trial": "resources",
    "space": "parameters",
    "search_space": "parameters",
    "param_space": "parameters",
    "params": "parameters",
    "out": "storage",
    "storage_path": "storage",
    "output_dir": "storage",
    "num_seeds": "retrain.seeds",
    "path": "data.root",
    "data_dir": "data.root",
    "image_size": "data.size",
    "learning_rate": "training.lr",
    "wd": "training.weight_decay",
    "decay": "training.weight_decay",
    "batch": "training.batch_size",
    "bs": "training.batch_size",
    "opt": "training.optimizer",
    "architecture": "training.model",
    "family": "training.model",
    "backbone": "training.variant",
    "encoder": "training.variant",
    "channels": "training.width",
    "criterion": "training.loss",
    "lr_scheduler": "training.schedule",
    "early_stopping": "training.patience",
    "grad_clip": "training.clip_norm",
    "amp": "training.precision",
    "ema": "training.ema_decay",
    "hflip": "training.flip",
}
"""Names that users know from W&B, Ray Tune and Optuna -> where it stands here, for error messages."""


def sections() -> dict[str, type]:
    """Return the class that describes each section, by the section's key; the whole file under ``""``."""
    found: dict[str, type] = {"": SweepSpec}
    for name, info in SweepSpec.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and (issubclass(kind, Section) or is_dataclass(kind)):
                found[name] = kind
    return found


_FROM_LISTS = frozenset({"others"})
"""Fields that no file names: they come of a list."""


def section_keys(section: type) -> tuple[str, ...]:
    """Return the keys that a section may have."""
    if issubclass(section, BaseModel):
        return tuple(name for name in section.model_fields if name not in _FROM_LISTS)
    assert is_dataclass(section)
    return tuple(field.name for field in fields(section))
