"""What ``resources.gpu: auto`` means on a cluster: decided on its GPUs, where it can be measured."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segbench.core.errors import SegbenchError, UserError
from segbench.training.sharing import Sharing, no_gpu, strictest

_PATIENCE_S = 900.0
"""A machine with a GPU that the cluster asks for has come after so long, or does not come."""


def keep_sharing(file: Path, decide: Callable[[], Sharing], can_grow: bool = False) -> Sharing:
    """Return what was decided when the sweep began; decided now, and written to ``file``, if nothing was.

    That there was no GPU is asked anew at each start.
    """
    kept = Sharing.load(file)
    if kept is not None and kept.gpu and (can_grow or gpu_nodes(ray.nodes())):
        return kept
    decided = share_on_cluster(decide, can_grow)
    decided.save(file)
    return decided


def share_on_cluster(decide: Callable[[], Sharing], can_grow: bool = False) -> Sharing:
    """Return the share of a GPU that suffices on every node that has one now; measured on all of them at once.

    Args:
        decide: measures and decides on the machine where it is called.
        can_grow: nodes come when tasks wait for them; then one with a GPU is waited for.

    Raises:
        UserError: a configuration does not fit on a GPU, or no GPU came.
        SegbenchError: a measurement failed.
    """
    nodes = gpu_nodes(ray.nodes())
    if not nodes and not can_grow:
        return no_gpu("no node has a GPU")
    places = [{"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)} for node in nodes] or [{}]
    waiting = [_decide.options(**place).remote(decide) for place in places]
    try:
        return strictest(ray.get(waiting, timeout=None if nodes else _PATIENCE_S))
    except GetTimeoutError as error:
        for task in waiting:
            ray.cancel(task)
        raise UserError(
            f"resources.gpu: auto: no machine with a GPU came in {_PATIENCE_S / 60:g} minutes; give a number (0 trains "
            "on cores)"
        ) from error
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, SegbenchError) else SegbenchError(f"probe: {error.cause}")
        raise cause from None


def gpu_nodes(nodes: list[Mapping[str, Any]]) -> list[str]:
    """Return the ids of living nodes that have a GPU."""
    return [node["NodeID"] for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]


@ray.remote(num_cpus=0, num_gpus=1, max_calls=1)  # type: ignore[untyped-decorator]
def _decide(decide: Callable[[], Sharing]) -> Sharing:
    """Decide with a whole GPU to itself; the process ends afterwards and leaves nothing on the device."""
    return decide()
