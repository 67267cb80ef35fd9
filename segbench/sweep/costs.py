"""What the models of a sweep cost to run, measured once per architecture before one of its trials begins.

What was measured is a line of ``state/costs.jsonl``, and stands in the first event of every trial with that
architecture: what a decision depended on is never measured again, on whatever machine the sweep goes on.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segbench.core.config import TrialConfig
from segbench.core.errors import SpecError
from segbench.core.objectives import COST_METRICS
from segbench.core.records import Params, TrialRecord
from segbench.data.labels import build_lut
from segbench.final.cost import measure_cost
from segbench.models import FAMILIES, build_model, find_family
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space, baseline_params, build_config, with_ancestors
from segbench.training.switches import Switches, switches_for

_FREE = ("pretrained", "dropout", "drop_path")
"""Fields of a family that change nothing of a trained model's forward pass."""
MAX_AHEAD = 64
"""So many architectures are measured before the first trial, a second or two each."""
BATCH_LATENCY = "model/latency_batch_ms"


@dataclass(frozen=True, eq=False)
class Untrained:
    """A model as it would be run after its training."""

    module: nn.Module
    switches: Switches
    size: tuple[int, int]
    device: torch.device


class CostBook:
    """The costs that a sweep's requirements and metrics speak of, by architecture.

    Args:
        path: where they are kept.
        spec: says which costs are asked for, on what they are measured, and at which size.
        records: trials of earlier starts, which know theirs.
    """

    def __init__(self, path: Path, spec: SweepSpec, records: Iterable[TrialRecord] = ()) -> None:
        self._path = path
        self._spec = spec
        self._names = asked_costs(spec)
        known = [*_read(path), *((r.assignment.config, r.assignment.costs) for r in records if r.assignment.costs)]
        self._costs = {self._key(config): dict(costs) for config, costs in known}

    def of(self, config: Mapping[str, Any]) -> Params:
        """Return the costs of a configuration's model that are asked for; measured now where they are not known."""
        if not self._names:
            return {}
        key = self._key(config)
        if key not in self._costs:
            measured = measure_architecture(self._spec, TrialConfig(**config))
            self._costs[key] = {name: measured[name] for name in self._names}
            self._keep({"costs": measured, "config": json.loads(key)})
        return {name: self._costs[key][name] for name in self._names}

    def _key(self, config: Mapping[str, Any]) -> str:
        fields = architecture_fields(str(config["model"]), with_batch=BATCH_LATENCY in self._names)
        return json.dumps({name: config[name] for name in fields})

    def _keep(self, entry: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # a line that was torn by a kill was not acted upon: this one begins anew
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def asked_costs(spec: SweepSpec) -> tuple[str, ...]:
    """Return the costs that are to be known of a trial before it begins."""
    if not spec.is_segmentation:
        return ()
    asked = {requirement.metric for requirement in spec.requirements} | {other.name for other in spec.metric.others}
    return tuple(name for name in COST_METRICS if name in asked)


def architecture_fields(model: str, with_batch: bool = False) -> tuple[str, ...]:
    """Return the settings that the costs of a family's models depend on.

    Args:
        model: the family.
        with_batch: the latency of a batch is asked for.
    """
    own = (name for name in find_family(model).fields if name not in _FREE)
    return ("model", *own, "precision", "channels_last", *(("batch_size", "accumulation_steps") if with_batch else ()))


def architectures(spec: SweepSpec, space: Space) -> Iterator[Mapping[str, Any]]:
    """Yield a configuration of each architecture: those of the baselines, and of the space if they are few.

    More than :data:`MAX_AHEAD` are measured as they are proposed.
    """
    for baseline in spec.baselines:
        yield build_config(spec, baseline_params(spec, space, baseline))
    names = {name for family in FAMILIES for name in architecture_fields(family, BATCH_LATENCY in asked_costs(spec))}
    chosen = with_ancestors(space, names)
    sizes = [len(parameter.domain.choices() or ()) for parameter in chosen]
    if math.prod(sizes) in range(1, MAX_AHEAD + 1):
        for params in Space(chosen).grid():
            with suppress(SpecError):  # such a trial fails without costs
                yield build_config(spec, params)


def measure_architecture(spec: SweepSpec, config: TrialConfig) -> dict[str, Any]:
    """Return what a model costs on this machine with the cores of one trial, on its GPU if trials use one.

    The weights are random: no cost depends on them.
    """
    device = torch.device("cuda" if spec.resources.uses_gpu and torch.cuda.is_available() else "cpu")
    groups, _, _ = build_lut(spec.data.groups, spec.data.ignore)
    switches = switches_for(config, device)
    batch_size = max(1, config.batch_size // config.accumulation_steps) if BATCH_LATENCY in asked_costs(spec) else 1
    with _threads(max(1, int(spec.resources.cpu))), torch.random.fork_rng(devices=[]):
        module = build_model(replace(config, pretrained=None), len(groups))
        placed = switches.place(module, device).eval().requires_grad_(False)
        return measure_cost(Untrained(placed, switches, spec.data.size, device), batch_size)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(path: Path) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return what was measured; a line that a kill has torn is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            found.append((entry["config"], entry["costs"]))
        except ValueError:
            continue
    return found
