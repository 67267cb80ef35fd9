"""Connecting to Ray, and what fits on it."""

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from segbench.errors import UserError
from segbench.spec.schema import Budget, Resources

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard file per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us; the ledger needs no farewell
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's snapshots are never read, and grow with the sweep
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def connect(address: str | None, resources: Resources) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at ``address``; leave it at the end.

    Raises:
        UserError: no cluster answers at ``address``, or no trial fits on it.
    """
    os.environ.update(_ENVIRONMENT)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(own_paths())}},
        )
    except ConnectionError as error:
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with `ray up` or `ray start "
            "--head`, or leave the option out to run on this machine"
        ) from error
    try:
        check_resources(ray.cluster_resources(), resources)
        yield
    finally:
        ray.shutdown()


def own_paths() -> list[str]:
    """Return where this process finds the user's modules: its import path without the Python installation."""
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    return [path or os.getcwd() for path in sys.path if not path.startswith(installed)]


def check_resources(available: dict[str, float], resources: Resources) -> None:
    """Raise UserError when one trial asks for more than the whole cluster has."""
    for key, wanted in (("CPU", resources.cpu), ("GPU", resources.gpu)):
        have = available.get(key, 0.0)
        if wanted > have:
            name = f"resources.{key.lower()}"
            raise UserError(
                f"{name}={wanted:g}, but there are {have:g} {key}s; lower it, for example with "
                f"--set {name}={min(have, 1):g}"
            )


def max_concurrent(available: dict[str, float], resources: Resources, budget: Budget) -> int:
    """Return how many trials run at a time: what fits, at most ``budget.max_concurrent``."""
    fits = math.floor(available.get("CPU", 1.0) / resources.cpu)
    if resources.gpu:
        fits = min(fits, math.floor(available.get("GPU", 0.0) / resources.gpu))
    return max(1, min(fits, budget.max_concurrent or fits))
