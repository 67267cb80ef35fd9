"""A RayJob for the KubeRay operator: the parts that a sweep needs, and all of it against the cluster's own CRD."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from segbench.cluster.file import ClusterFile, worker_groups
from segbench.cluster.rules import check_image, check_storage, locked_versions
from segbench.core.errors import UserError
from segbench.spec.source import KeyPath, Problem, unknown

_JOB = frozenset(
    {
        "activeDeadlineSeconds",
        "backoffLimit",
        "clusterSelector",
        "deletionStrategy",
        "entrypoint",
        "entrypointNumCpus",
        "entrypointNumGpus",
        "entrypointResources",
        "jobId",
        "managedBy",
        "metadata",
        "preRunningDeadlineSeconds",
        "rayClusterSpec",
        "runtimeEnvYAML",
        "shutdownAfterJobFinishes",
        "submissionMode",
        "submitterConfig",
        "submitterPodTemplate",
        "suspend",
        "ttlSecondsAfterFinished",
    }
)
_CLUSTER = frozenset(
    {
        "authOptions",
        "autoscalerOptions",
        "enableInTreeAutoscaling",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "headServiceAnnotations",
        "historyServerOptions",
        "managedBy",
        "networkPolicy",
        "rayVersion",
        "suspend",
        "tlsOptions",
        "upgradeStrategy",
        "workerGroupSpecs",
    }
)
_HEAD = frozenset(
    {
        "enableIngress",
        "headService",
        "ingressOptions",
        "labels",
        "rayStartParams",
        "resources",
        "serviceType",
        "template",
    }
)
_WORKER = frozenset(
    {
        "groupName",
        "idleTimeoutSeconds",
        "labels",
        "maxReplicas",
        "minReplicas",
        "numOfHosts",
        "priority",
        "rayStartParams",
        "replicas",
        "resources",
        "scaleStrategy",
        "suspend",
        "template",
    }
)


def check_rayjob(file: ClusterFile) -> Iterator[Problem]:
    """Yield what is wrong with a RayJob as segbench uses it; see :func:`check_crd` for everything else."""
    tree = file.source.tree
    if (tree.get("apiVersion"), tree.get("kind")) != ("ray.io/v1", "RayJob"):
        yield Problem(("kind",), "must be a RayJob of apiVersion ray.io/v1")
        return
    spec: KeyPath = ("spec",)
    cluster: KeyPath = ("spec", "rayClusterSpec")
    head: KeyPath = (*cluster, "headGroupSpec")
    groups = list(worker_groups(tree))
    yield from _unknown_keys(tree, spec, _JOB)
    yield from _unknown_keys(tree, cluster, _CLUSTER)
    yield from _unknown_keys(tree, head, _HEAD)
    for path, _ in groups:
        yield from _unknown_keys(tree, path, _WORKER)
    versions = locked_versions(Path("requirements.lock")) if Path("requirements.lock").is_file() else {}
    yield from _cluster(_at(tree, cluster), cluster, versions)
    yield from _head(_at(tree, head), head, versions)
    for path, group in groups:
        yield from _containers(group, path, versions)
        if group.get("maxReplicas", 0) < group.get("minReplicas", 0):
            yield Problem((*path, "maxReplicas"), "is below minReplicas")
    if not groups:
        yield Problem(cluster, "workerGroupSpecs is missing; the head runs no trials")
    if "segbench.sweep" not in str(_at(tree, spec).get("entrypoint", "")):
        yield Problem((*spec, "entrypoint"), "must run the sweep: python -m segbench.sweep FILE --address auto")
    if not file.storage:
        yield Problem(
            ("metadata",), "annotations: {segbench/storage: FOLDER} is missing; name where all pods see results"
        )
    else:
        yield from check_storage(file.storage_path, file.storage)


def check_crd(tree: Mapping[str, Any], crd: Path) -> Iterator[Problem]:
    """Yield where a file differs from its CRD, strictly: keys that Kubernetes would silently drop are mistakes.

    Args:
        tree: the RayJob.
        crd: what `kubectl get crd rayjobs.ray.io -o yaml` prints, or the operator's own file.

    Raises:
        UserError: ``crd`` is not such a file.
    """
    from jsonschema import Draft202012Validator
    from ruamel.yaml import YAML

    version = str(tree.get("apiVersion", "")).rpartition("/")[2]
    try:
        content = YAML(typ="safe", pure=False).load(crd)
        schemas = {item["name"]: item["schema"]["openAPIV3Schema"] for item in content["spec"]["versions"]}
        schema = schemas[version]
    except (OSError, KeyError, TypeError) as error:
        raise UserError(
            f"--crd {crd}: holds no schema of version {version}; kubectl get crd rayjobs.ray.io -o yaml"
        ) from error
    for found in Draft202012Validator(_strict(schema)).iter_errors(dict(tree)):
        path = tuple(found.absolute_path)
        if found.validator == "additionalProperties":
            known = found.schema["properties"]
            for key in found.instance.keys() - known.keys():
                yield Problem((*path, str(key)), unknown(str(key), known, "key"))
        else:
            yield Problem(path, found.message)


def _strict(schema: Any) -> Any:
    """Return a Kubernetes schema as a JSON Schema that refuses unknown keys."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(item) for key, item in schema.items() if not key.startswith("x-kubernetes-")}
    is_node = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_node and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result


def _at(tree: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
    level: Any = tree
    for part in path:
        level = level[int(part)] if isinstance(level, list) else (level or {}).get(part)
    return level if isinstance(level, Mapping) else {}


def _unknown_keys(tree: Mapping[str, Any], path: KeyPath, known: Collection[str]) -> Iterator[Problem]:
    for key in _at(tree, path):
        if key not in known:
            yield Problem((*path, key), unknown(key, known, "key"))


def _cluster(cluster: Mapping[str, Any], path: KeyPath, versions: Mapping[str, str]) -> Iterator[Problem]:
    told = cluster.get("rayVersion")
    if told is None:
        yield Problem(path, "rayVersion is missing")
    elif versions.get("ray", told) != told:
        yield Problem((*path, "rayVersion"), f"is {told}, but requirements.lock has Ray {versions['ray']}")
    if _at(cluster, ("authOptions",)).get("mode") != "token":
        yield Problem(path, "authOptions: {mode: token} is missing: any pod that reaches the head could run code")


def _head(head: Mapping[str, Any], path: KeyPath, versions: Mapping[str, str]) -> Iterator[Problem]:
    params = _at(head, ("rayStartParams",))
    for name in ("num-cpus", "num-gpus"):
        if str(params.get(name)) != "0":
            yield Problem((*path, "rayStartParams"), f'{name}: "0" is missing: the head would run trials')
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield Problem(path, "opens the head to the outside; leave serviceType ClusterIP, without enableIngress")
    yield from _containers(head, path, versions)


def _containers(group: Mapping[str, Any], path: KeyPath, versions: Mapping[str, str]) -> Iterator[Problem]:
    here = (*path, "template", "spec", "containers")
    containers = _at(group, ("template", "spec")).get("containers") or []
    if not containers:
        yield Problem(path, "template.spec.containers is missing")
    for index, container in enumerate(containers):
        if "image" not in container:
            yield Problem((*here, index), "image is missing")
        else:
            yield from check_image((*here, index, "image"), container["image"], versions)
        if not _at(container, ("resources",)).get("limits"):
            yield Problem((*here, index), "resources.limits is missing: Ray takes cores, memory and GPUs from there")
