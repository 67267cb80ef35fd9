"""Connecting to Ray, what fits on it, and whether its nodes see the same files."""

import importlib
import logging
import math
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import ray
from ray.exceptions import LocalRayletDiedError, NodeDiedError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ruamel.yaml import YAML

from segbench.core.errors import StorageError, UserError
from segbench.core.paths import SweepPaths
from segbench.spec.schema import Budget, Resources
from segbench.storage.bucket import Bucket

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard file per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us; the ledger needs no farewell
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's snapshots are never read, and grow with the sweep
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a training function finds its files where the command was given
}
_LOCAL = {
    "RAY_enable_metrics_collection": "0",  # nobody reads them: there is no dashboard
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else Ray starts a process a core ahead, and as many again for trials that come before those have their imports.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_preload_python_modules": "segbench.tune.preload",
}

_RAY_SETS = ("RAY_CLIENT_MODE", "RAY_AUTH_MODE", "PYTHONBREAKPOINT")
"""In the process that starts it."""

_log = logging.getLogger(__name__)
_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster file on the head."""
_PATIENCE_S = 300.0
"""Machines that `ray up` sets up have joined after so long, or never do."""
_SIGHT_S = 15.0
"""A network file system shows a new file to others after so long."""
_GONE = (TaskUnschedulableError, NodeDiedError, WorkerCrashedError, LocalRayletDiedError)
"""What Ray says of a task whose node has died."""
_MEETING = ".seen-"
_FOR_BUCKETS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Where the driver finds its bucket, and so all nodes; no secrets: those each node has of its own."""

Node = Mapping[str, float]
"""What one machine has: resource -> amount."""


@contextmanager
def connect(
    address: str | None,
    resources: Resources,
    min_nodes: int = 0,
    can_grow: bool = False,
    preload: Sequence[str] = (),
) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at ``address``; leave it at the end.

    Args:
        address: of the cluster; None for a Ray of this process only.
        resources: of one trial.
        min_nodes: wait for so many nodes that run trials.
        can_grow: nodes come when trials wait for them, so what is there now says little.
        preload: modules that the worker processes of a Ray on this machine import before they take a trial.

    Raises:
        UserError: no cluster answers at ``address``, or no trial fits on any node that it has or can get.
    """
    paths = {"PYTHONPATH": os.pathsep.join(own_paths())}
    local = {**_LOCAL, **paths, "SEGBENCH_PRELOAD": ",".join(preload)}
    # a second of imports, while Ray's processes start
    threading.Thread(target=importlib.import_module, args=("segbench.tune.run",), daemon=True).start()
    with _sigterm_kept(), environment({**_ENVIRONMENT, **(local if address is None else {})}):
        _start_ray(address, paths)
        try:
            _wait_for_nodes(min_nodes)
            coming = growable_nodes() if can_grow else []
            if coming is not None:
                check_resources([*trial_nodes(), *coming], resources)
            yield
        finally:
            ray.shutdown()


def _start_ray(address: str | None, paths: Mapping[str, str]) -> None:
    try:
        with _without_dashboard() if address is None else nullcontext():
            ray.init(
                address=address or "local",  # else Ray joins whatever cluster ran last on this machine
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                runtime_env=None if address is None else {"env_vars": {**paths, **bucket_variables()}},
            )
    except ConnectionError as error:
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); start one with `ray up` or `ray start "
            "--head`, or leave the option out to run on this machine"
        ) from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what the caller does about SIGTERM: Ray takes it for itself, and keeps it when it has ended."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that Ray and its processes read, and put back what the caller had: a notebook goes on after us."""
    before = {key: os.environ.get(key) for key in (*values, *_RAY_SETS)}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """Let Ray think that its dashboard is not installed, as where there is ``ray[tune]`` alone.

    Else its processes import a web server that nobody asks: a second of the start, on two cores.
    """
    module = "ray.dashboard.optional_deps"
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]  # what Python documents for a module not to be found
    try:
        yield
    finally:
        sys.modules.pop(module, None)
        if before is not None:
            sys.modules[module] = before


def bucket_variables() -> dict[str, str]:
    """Return the variables by which this process finds its bucket, without those that hold a user or a password."""
    return {key: os.environ[key] for key in _FOR_BUCKETS if os.environ.get(key) and "@" not in os.environ[key]}


def own_paths() -> list[str]:
    """Return where this process finds the user's modules: its import path without what is installed.

    Installed packages stay behind the standard library, as in this process: a PYTHONPATH would put them before it, and
    one that shadows a standard module (the old `typing`, say) would end Ray's own processes.
    """
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    paths = [Path(path or os.getcwd()) for path in sys.path if not path.startswith(installed)]
    return [str(path) for path in paths if not {"site-packages", "dist-packages"} & set(path.parts)]


def trial_nodes() -> list[Node]:
    """Return what each living node has for trials; the head of a cluster has no cores for them."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [node for node in found if node.get("CPU", 0) > 0]


def is_one_machine() -> bool:
    """Return whether the cluster is one machine, which does not go away while its driver lives."""
    return sum(bool(node["Alive"]) for node in ray.nodes()) == 1


def growable_nodes() -> list[Node] | None:
    """Return what each type of node that the autoscaler may start has; None where only the autoscaler knows."""
    config = ray._private.state.state.get_cluster_config()  # of the newer autoscaler, as with KubeRay
    if config is not None and config.node_group_configs:
        return [dict(group.resources) for group in config.node_group_configs if group.max_count]
    if not _BOOTSTRAP.expanduser().is_file():
        return None
    tree = YAML(typ="safe").load(_BOOTSTRAP.expanduser())
    types = dict(tree.get("available_node_types", {}))
    types.pop(tree.get("head_node_type"), None)
    return [kind.get("resources", {}) for kind in types.values() if kind.get("max_workers", 1)]


def check_resources(nodes: Sequence[Node], resources: Resources) -> None:
    """Raise UserError when one trial asks for more than any node has."""
    for key, wanted in (("CPU", resources.cpu), ("GPU", resources.num_gpus)):
        have = max((node.get(key, 0.0) for node in nodes), default=0.0)
        if wanted > have:
            name = f"resources.{key.lower()}"
            raise UserError(
                f"{name}={wanted:g}, but there are {have:g} {key}s{' on a node' if len(nodes) > 1 else ''}; lower it, "
                f"for example with --set {name}={min(have, 1):g}"
            )


def max_concurrent(nodes: Sequence[Node], resources: Resources, budget: Budget, can_grow: bool = False) -> int:
    """Return how many trials run at a time: what fits, at most ``budget.max_concurrent``.

    On a cluster that grows it is ``budget.max_concurrent`` itself: trials that wait are what makes it grow.
    """
    if can_grow and budget.max_concurrent is not None:
        return budget.max_concurrent
    fits, gpus = 0, resources.num_gpus
    for node in nodes:
        places = math.floor(node.get("CPU", 0.0) / resources.cpu)
        fits += min(places, math.floor(node.get("GPU", 0.0) / gpus)) if gpus else places
    return max(1, min(fits, budget.max_concurrent or fits))


def check_storage(paths: SweepPaths) -> None:
    """Write on this node, read and write on every other one: a sweep's folder must be the same on all.

    A folder and a bucket are asked in the same way; the latter needs the same address and rights on each node.

    Raises:
        UserError: a node does not see it.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node["NodeName"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here}
    if not others:
        return
    bucket = Bucket(paths.uri or f"file://{paths.root.resolve()}", patience_s=_SIGHT_S)
    meeting = f"{_MEETING}{uuid.uuid4().hex[:8]}"
    try:
        bucket.write(f"{meeting}/head", b"seen?")
        questions = {
            node_id: _answer.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(
                bucket.uri, meeting, node_id
            )
            for node_id in others
        }
        blind = {}
        for node_id, question in questions.items():
            try:
                if reason := ray.get(question):
                    blind[others[node_id]] = reason
            except _GONE:  # since we asked which nodes there are: its trials run elsewhere
                del others[node_id]
        deadline = time.monotonic() + _SIGHT_S
        while missing := set(others) - {name.rpartition("/")[2] for name in bucket.entries(meeting)}:
            if blind or time.monotonic() > deadline:
                raise _not_shared(paths, blind or dict.fromkeys((others[node_id] for node_id in missing), ""))
            time.sleep(0.2)
    finally:
        with suppress(StorageError, OSError):
            bucket.delete(bucket.entries(meeting))
            if paths.uri is None:
                (paths.root / meeting).rmdir()


def _not_shared(paths: SweepPaths, blind: Mapping[str, str]) -> UserError:
    names = ", ".join(sorted(blind))
    if paths.uri is None:
        return UserError(
            f"storage: {paths.root} is not the same folder on all nodes: {names} and this one do not see what the "
            "other writes; name a folder on a shared disk or a bucket (storage: in the sweep file, or metadata.storage "
            "in the cluster file)"
        )
    reason = next((reason for reason in blind.values() if reason), "they do not see what this one writes")
    return UserError(
        f"storage: {paths.uri} cannot be used from all nodes: {names}: {reason}; each node needs the rights and, for a "
        "store that is not Amazon's, AWS_ENDPOINT_URL"
    )


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _answer(uri: str, meeting: str, name: str) -> str:
    """Look for the driver's file on another node, and leave one for it; return why that did not work."""
    deadline = time.monotonic() + _SIGHT_S
    try:
        bucket = Bucket(uri, patience_s=_SIGHT_S)
        while f"{meeting}/head" not in bucket.entries(meeting):
            if time.monotonic() > deadline:
                return "it does not see what the head writes"
            time.sleep(0.2)
        bucket.write(f"{meeting}/{name}", b"seen")
    except (StorageError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _wait_for_nodes(min_nodes: int) -> None:
    """Wait until so many nodes that run trials have joined; after some minutes go on with those that have."""
    deadline = time.monotonic() + _PATIENCE_S
    before = -1
    while (now := len(trial_nodes())) < min_nodes:
        if time.monotonic() > deadline and now:
            _log.warning("going on with %d of %d nodes; `ray up` again sets up those that failed", now, min_nodes)
            return
        if now != before:
            _log.warning("waiting for nodes: %d of %d have joined", now, min_nodes)
            before = now
        time.sleep(1.0)
