"""A cluster file as segbench sees it: where each key stands, and which nodes it can bring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segbench.cluster.instances import find_instance
from segbench.core.errors import SpecError
from segbench.spec.source import KeyPath, Problem, Source, read_source
from segbench.tune.launcher import complete_config

Kind = Literal["aws", "gcp", "azure", "local", "vsphere", "external", "kubernetes"]


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """One kind of machine that a cluster can have."""

    name: str
    path: KeyPath
    """Where it stands in the file."""
    cpu: float | None
    """Cores for trials; None: found out on the machine itself."""
    gpu: float | None
    max_nodes: int
    min_nodes: int

    def fits(self, cpu: float, gpu: float) -> int | None:
        """Return how many trials run at a time on one such node; None if that is found out on the machine."""
        if self.cpu is None or self.gpu is None:
            return None
        return int(min(self.cpu // cpu, self.gpu // gpu if gpu else float("inf")))


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file that could be read; it may still have mistakes."""

    source: Source
    kind: Kind
    config: Mapping[str, Any]
    """With Ray's defaults; as it stands where Ray would refuse it."""
    refused: tuple[Problem, ...]
    """Why Ray would refuse it."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def storage(self) -> str | None:
        """Folder or bucket that all nodes see, from ``metadata.storage``."""
        metadata = self.source.tree.get("metadata")
        annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
        if self.kind == "kubernetes":
            return annotations.get("segbench/storage") if isinstance(annotations, Mapping) else None
        return metadata.get("storage") if isinstance(metadata, Mapping) else None

    @property
    def storage_path(self) -> KeyPath:
        """Where the storage is written in the file."""
        return ("metadata", "annotations", "segbench/storage") if self.kind == "kubernetes" else ("metadata", "storage")

    @property
    def mlflow(self) -> str | None:
        """``metadata.mlflow``: ``server`` for one on the head, the address of its database, or of a server."""
        metadata = self.source.tree.get("metadata")
        given = metadata.get("mlflow") if isinstance(metadata, Mapping) and self.kind != "kubernetes" else None
        return None if given is None else str(given)

    @property
    def workers(self) -> tuple[NodeType, ...]:
        """The types of node that run trials."""
        if self.refused:
            return ()
        if self.kind == "kubernetes":
            return tuple(_worker_groups(self.source.tree))
        if self.kind == "local":
            count = len(self.config["provider"]["worker_ips"])
            path: KeyPath = ("provider", "worker_ips")
            return (NodeType(name="worker_ips", path=path, cpu=None, gpu=None, max_nodes=count, min_nodes=count),)
        return tuple(self._node_types())

    @property
    def max_nodes(self) -> int:
        """Workers at a time, at most."""
        total = sum(kind.max_nodes for kind in self.workers)
        return total if self.kind == "kubernetes" else min(total, self.config.get("max_workers", total))

    @property
    def min_nodes(self) -> int:
        """Workers that come without being asked for."""
        return sum(kind.min_nodes for kind in self.workers)

    def places(self, cpu: float, gpu: float) -> int | None:
        """Return how many trials of this size can ever run at a time; None if only the machines know."""
        left, places = self.max_nodes, 0
        fits = [(kind.fits(cpu, gpu), kind.max_nodes) for kind in self.workers]
        if any(each is None for each, _ in fits):
            return None
        for each, count in sorted(fits, reverse=True):
            taken = min(count, left)
            left -= taken
            places += (each or 0) * taken
        return places

    def _node_types(self) -> Iterator[NodeType]:
        for name, given in self.config["available_node_types"].items():
            if name == self.config["head_node_type"]:
                continue
            node_config = given.get("node_config", {})
            known = find_instance(str(node_config.get("InstanceType", "")))
            resources = given.get("resources", {})
            yield NodeType(
                name=name,
                path=("available_node_types", name),
                cpu=resources.get("CPU", known.cpu if known else None),
                gpu=resources.get("GPU", known.gpu if known else None),
                max_nodes=given["max_workers"],
                min_nodes=given["min_workers"],
            )


def read_cluster(path: Path) -> ClusterFile:
    """Read a cluster file.

    Raises:
        SpecError: it is no YAML mapping, or a script.
    """
    if path.suffix == ".sh":
        raise SpecError(f"{path}: this is a script, not a cluster file; in a SLURM allocation it is run by sbatch")
    if not path.exists():
        raise SpecError(
            f"{path}: there is no such cluster file; `segbench cluster init` writes those that come with segbench "
            "to cluster/: local.yaml, gpu.yaml, gcp.yaml and kuberay.yaml"
        )
    source = read_source(path)
    if "apiVersion" in source.tree:
        return ClusterFile(source, "kubernetes", source.tree, ())
    config, refused = complete_config(source.tree)
    provider = source.tree.get("provider")
    kind = provider.get("type") if isinstance(provider, Mapping) else None
    return ClusterFile(source, kind or "external", config, tuple(refused))


def worker_groups(tree: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield (path, group) for each worker group of a RayJob."""
    groups = tree.get("spec", {}).get("rayClusterSpec", {}).get("workerGroupSpecs", ())
    for index, group in enumerate(groups):
        yield ("spec", "rayClusterSpec", "workerGroupSpecs", index), group


def _worker_groups(tree: Mapping[str, Any]) -> Iterator[NodeType]:
    for path, group in worker_groups(tree):
        limits: Mapping[str, Any] = {}
        for container in group.get("template", {}).get("spec", {}).get("containers", ())[:1]:
            limits = container.get("resources", {}).get("limits", {})
        yield NodeType(
            name=str(group.get("groupName", "?")),
            path=path,
            cpu=_quantity(limits.get("cpu")),
            gpu=_quantity(limits.get("nvidia.com/gpu", 0)),
            max_nodes=int(group.get("maxReplicas", group.get("replicas", 0))),
            min_nodes=int(group.get("minReplicas", 0)),
        )


def _quantity(value: Any) -> float | None:
    """Return a Kubernetes quantity of cores: 4, "4", "500m"."""
    text = str(value)
    try:
        return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return None
