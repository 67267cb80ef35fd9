"""Everything that can be known of a cluster, and of a sweep on it, before money is spent."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segbench.cluster.archive import list_code
from segbench.cluster.aws import check_aws
from segbench.cluster.file import ClusterFile, read_cluster
from segbench.cluster.fit import check_fit, is_local, storage_of
from segbench.cluster.kubernetes import check_crd, check_rayjob
from segbench.cluster.rules import LOCK, check_launch, check_secrets, locked_versions
from segbench.cluster.tracking import check_metadata, describe_tracking
from segbench.core.errors import SpecError, StorageError
from segbench.spec.load import LoadedSpec, load_spec, packed_place
from segbench.spec.source import Problem

_EXAMPLES = ("sg-0123456789abcdef0", "segbench-example", "192.168.1.1")
"""What stands in the shipped files for what only their user knows."""


@dataclass(frozen=True)
class Checked:
    """A cluster file without mistakes, and a sweep that can run on it."""

    file: ClusterFile
    loaded: LoadedSpec | None

    @property
    def storage(self) -> str:
        """Where the sweep's folder is made."""
        assert self.loaded is not None
        return storage_of(self.loaded.spec, self.file)

    @property
    def packed(self) -> str | None:
        """From where the nodes fetch the packed data set; None: each packs its own."""
        assert self.loaded is not None
        spec = self.loaded.spec
        return packed_place(spec, self.storage) if spec.is_segmentation else None

    @property
    def pack_command(self) -> str:
        """What puts the packed data set there, on a machine that has the pictures."""
        assert self.loaded is not None
        overrides = self.loaded.source.overrides.items()
        words = [word for key, text in overrides if key[0] == "data" for word in ("--set", text)]
        return shlex.join(["segbench", "data", "pack", str(self.loaded.path), *words, "--to", str(self.packed)])

    @property
    def places(self) -> int | None:
        """Trials at a time, at most; None if only the machines know."""
        assert self.loaded is not None
        resources = self.loaded.spec.resources
        return self.file.places(resources.cpu, resources.num_gpus)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what the cluster can be, in words."""
        for kind in self.file.workers:
            size = (
                "as found on the machine"
                if kind.cpu is None or kind.gpu is None
                else f"{kind.cpu:g} cpu, {kind.gpu:g} gpu"
            )
            number = f"{kind.min_nodes} to {kind.max_nodes}" if kind.min_nodes < kind.max_nodes else kind.max_nodes
            yield kind.name, f"{number} nodes, {size}"
        yield "workers at most", str(self.file.max_nodes)
        yield "MLflow", describe_tracking(self.file.mlflow)
        if self.loaded is None:
            yield "storage", str(self.file.storage)
            return
        places = self.places
        yield "trials at a time", "as the machines allow" if places is None else f"at most {places}"
        yield "results", f"{self.storage.rstrip('/')}/{self.loaded.spec.name}"

    def notes(self) -> Iterator[str]:
        """Yield what is no mistake, but should be known."""
        text = self.file.path.read_text(encoding="utf-8")
        for example in _EXAMPLES:
            for number, line in enumerate(text.splitlines(), 1):
                if example in line.partition("#")[0]:
                    yield f"{self.file.path}:{number}: {example}... is the example's value; write your own"
        if "resolve:ssm:" in text:
            yield f"{self.file.path}: resolve:ssm names the newest image of its kind; an ami-... freezes it"
        if "RAY_health_check" not in text and self.file.kind != "kubernetes":
            yield f"{self.file.path}: without RAY_health_check_* on the head a silent worker is noticed after 65 s"
        if self.file.kind == "aws" and "spot" in text and "drain_on_notice" not in text:
            yield f"{self.file.path}: without drain_on_notice.py the end of a spot instance costs an epoch"
        if self.loaded and self.packed and self.loaded.spec.data.dataset == "cityscapes":
            yield (
                f"{self.loaded.path}: nodes without the folder data.root fetch the packed set from {self.packed}; to "
                f"put it there, once and where the pictures are: {self.pack_command}"
            )
        if self.loaded and self.loaded.spec.resources.gpu == 0 and any(kind.gpu for kind in self.file.workers):
            yield f"{self.loaded.path}: resources.gpu is 0, so trials would train on the cores of GPU machines"


def check_cluster(
    path: Path, sweep: Path | None = None, overrides: Sequence[str] = (), crd: Path | None = None
) -> Checked:
    """Check a cluster file, and a sweep on it; called in the checkout, asks nothing of anybody.

    Args:
        path: the cluster file.
        sweep: a sweep file.
        overrides: ``--set`` arguments of the sweep.
        crd: for a RayJob, the CRD that its cluster has.

    Raises:
        SpecError: a line for each mistake, ``file:line key: what was given, what is allowed``.
    """
    file = read_cluster(path)
    texts = []
    problems = [*file.refused, *check_secrets(file.source.tree), *_own_ray(file)]
    if file.kind == "kubernetes":
        problems += check_rayjob(file)
        problems += check_crd(file.source.tree, crd) if crd else ()
    elif not file.refused:
        problems += [*check_launch(file), *check_metadata(file)]
        problems += check_aws(file) if file.kind == "aws" else ()
    if problems:
        texts.append(file.source.describe(problems))
    loaded = None
    if sweep is not None:
        try:
            loaded = load_spec(sweep, overrides, is_remote=True)
            found = [*check_fit(loaded.spec, file, list_code(Path.cwd()))] if not file.refused else []
            found += check_secrets(loaded.source.tree)
            if found:
                texts.append(loaded.source.describe(found))
        except SpecError as error:
            texts.append(str(error))
    if texts:
        raise SpecError("\n".join(texts))
    return Checked(file, loaded)


def check_packed(checked: Checked) -> Iterator[str]:
    """Look for the packed data set where the nodes will, if they cannot have the pictures.

    Yields:
        Why it is not known whether it is there.

    Raises:
        UserError: it is not there.
    """
    assert checked.loaded is not None
    data, place = checked.loaded.spec.data, checked.packed
    if place is None or data.dataset != "cityscapes" or (data.root and not is_local(data.root)):
        return
    from segbench.data import is_shared

    try:
        is_there = is_shared(replace(data, packed=place))
    except StorageError as error:
        yield f"whether the packed data set is there is not known from here: {error}"
        return
    if not is_there:
        raise checked.loaded.error(
            "data.root",
            f"'{data.root}' is a folder of this machine, and {place} has no packed set of it; run: "
            f"{checked.pack_command}",
        )


def locate(path: Path, sweep: Path, overrides: Sequence[str] = ()) -> Checked:
    """Return a cluster file and a sweep that were checked when they were submitted."""
    return Checked(read_cluster(path), load_spec(sweep, overrides, is_remote=True))


def _own_ray(file: ClusterFile) -> Iterator[Problem]:
    """Yield whether this machine's Ray is the one that the cluster will have."""
    lock = Path(LOCK)
    try:
        locked = locked_versions(lock).get("ray") if lock.is_file() else None
        if locked and file.kind != "kubernetes" and version("ray") != locked:
            yield Problem(
                (), f"Ray {version('ray')} is installed here, but {LOCK} has {locked}; pip install ray=={locked}"
            )
    except PackageNotFoundError:
        return
