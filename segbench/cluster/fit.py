"""Whether a sweep can run on a cluster: its trials fit, and what it names is there for all nodes."""

import ast
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from segbench.cluster.file import ClusterFile
from segbench.cluster.rules import canonical, check_storage, locked_versions
from segbench.cluster.tracking import check_tracking
from segbench.spec.load import packed_place
from segbench.spec.schema import SweepSpec
from segbench.spec.source import Problem, listed


def storage_of(spec: SweepSpec, file: ClusterFile) -> str:
    """Return where the sweep's folder is made: the sweep's own storage if all nodes can see it, else the cluster's."""
    is_own = "://" in spec.storage or spec.storage.startswith("/")
    return spec.storage if is_own else file.storage or spec.storage


def is_local(folder: str) -> bool:
    """Whether other machines cannot know what a folder's name means."""
    return "://" not in folder and not folder.startswith(("/", "~"))


def check_fit(spec: SweepSpec, file: ClusterFile, code: Sequence[Path]) -> Iterator[Problem]:
    """Yield what is wrong with a valid sweep file on this cluster.

    Args:
        spec: the sweep.
        file: a cluster file that Ray accepts.
        code: the files that are copied to the cluster, relative to the current folder.
    """
    yield from _resources(spec, file)
    storage = storage_of(spec, file)
    if storage == spec.storage:
        yield from check_storage(("storage",), storage)
    yield from _folders(spec, packed_place(spec, storage))
    yield from check_tracking(spec)
    if not spec.is_segmentation:
        yield from _train(spec.train, code)


def _resources(spec: SweepSpec, file: ClusterFile) -> Iterator[Problem]:
    wanted = spec.resources
    if file.places(wanted.cpu, wanted.num_gpus) != 0:
        return
    for key, number in (("gpu", wanted.num_gpus), ("cpu", wanted.cpu)):
        have = {kind.name: getattr(kind, key) for kind in file.workers}
        if number > max(have.values()):
            told = listed(f"{name} {count:g}" for name, count in have.items())
            yield Problem(
                ("resources", key),
                f"a trial asks for {number:g}, and no type of node has so many: {told}",
            )
            return
    if file.max_nodes == 0:
        yield Problem(("resources",), f"{file.path} allows no workers (max_workers)")
    else:
        told = listed(f"{kind.name} {kind.cpu:g} cpu and {kind.gpu:g} gpu" for kind in file.workers)
        yield Problem(
            ("resources",),
            f"a trial asks for {wanted.cpu:g} cpu and {wanted.num_gpus:g} gpu, which no type of node has together: "
            f"{told}",
        )


def _folders(spec: SweepSpec, packed: str | None) -> Iterator[Problem]:
    advice = "is a folder of this machine; name it as all nodes see it, with an absolute path"
    if spec.is_segmentation:
        root = None if packed else spec.data.root  # where a packed set is fetched, no node needs the pictures
        for key, value in (("root", root), ("cache_dir", spec.data.cache_dir), ("packed", spec.data.packed)):
            if value and is_local(value):
                yield Problem(("data", key), f"'{value}' {advice}")
    for index, old in enumerate(spec.search.warm_start):
        if "://" not in old.path and not old.path.startswith("/"):
            yield Problem(("search", "warm_start", index), f"'{old.path}' {advice}")


def _train(name: str, code: Sequence[Path]) -> Iterator[Problem]:
    """Yield why the nodes could not import a training function of the user's; nothing of it is run here."""
    module, _, function = name.partition(":")
    stem = Path(*module.split("."))
    for place in (stem.with_suffix(".py"), stem / "__init__.py"):
        if place in code:
            names = _top_level(place)
            if function not in names:
                yield Problem(("train",), f"{place} has no '{function}'; it has: {listed(sorted(names))}")
            return
    top = module.split(".")[0]
    locked = Path("requirements.lock")
    dists = packages_distributions().get(top, [])
    if locked.is_file() and {canonical(dist) for dist in dists} & locked_versions(locked).keys():
        return
    here = " (it is installed here)" if find_spec(top) else ""
    yield Problem(
        ("train",),
        f"'{module}' is neither among the files that are copied to the cluster (those in {Path.cwd()} that git "
        f"does not ignore) nor in requirements.lock{here}; move it there",
    )


def _top_level(place: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(place.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}
