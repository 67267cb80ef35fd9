"""The sweep files and cluster files that come with segbench: in the wheel, or beside the package in a checkout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segbench.core.errors import UserError
from segbench.core.paths import atomic_path

Kind = Literal["sweeps", "cluster"]

_PACKAGE = Path(__file__).parent.parent
_LOCK = "requirements.lock"


def ready_folder(kind: Kind) -> Path:
    """Return the folder of the ready files of one kind."""
    in_wheel = _PACKAGE / "ready" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def ready_sweeps() -> dict[str, str]:
    """Return name -> first sentence of its file's heading, of each sweep that comes with segbench."""
    found = {}
    for path in sorted(ready_folder("sweeps").glob("*.yaml")):
        heading = path.read_text(encoding="utf-8").splitlines()[0]
        found[path.stem] = heading.removeprefix("#").strip().rstrip(":,")
    return found


def find_sweep(file: str | Path) -> Path:
    """Return the path of a sweep file: ``file`` itself, or the ready sweep of that name where there is no such file."""
    path = Path(file)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    ready = ready_folder("sweeps") / f"{path.name}.yaml"
    if ready.is_file():
        return ready
    raise UserError(
        f"{file}: there is no such file, and no sweep of that name comes with segbench; "
        f"there are {', '.join(ready_sweeps())} (segbench sweeps)"
    )


def copy_ready(kind: Kind, name: str, folder: Path) -> Path:
    """Copy one ready file into ``folder`` and return its path there.

    Raises:
        UserError: there is none of that name, or a file of that name is there already.
    """
    source = ready_folder(kind) / name
    if not source.is_file():
        names = ", ".join(sorted(path.name for path in ready_folder(kind).iterdir() if path.is_file()))
        raise UserError(f"{name}: no such file comes with segbench; there are {names}")
    return _copy({source: folder / name})[0]


def copy_cluster(folder: Path) -> list[Path]:
    """Copy the cluster files to ``cluster`` in ``folder``, and beside it the lock that they bring to every node.

    Raises:
        UserError: one of them is there already; nothing is written then.
    """
    sources = [path for path in sorted(ready_folder("cluster").iterdir()) if path.is_file()]
    return _copy({path: folder / "cluster" / path.name for path in sources} | {_lock(): folder / _LOCK})


def _lock() -> Path:
    in_wheel = _PACKAGE / "ready" / _LOCK
    return in_wheel if in_wheel.is_file() else _PACKAGE.parent / _LOCK


def _copy(files: Mapping[Path, Path]) -> list[Path]:
    for target in files.values():
        if target.exists():
            raise UserError(f"{target}: is there already; remove it, or copy to another folder")
    for source, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = source.stat().st_mode & 0o777
        with atomic_path(target) as temporary:
            temporary.write_bytes(source.read_bytes())
        target.chmod(mode)
    return list(files.values())
