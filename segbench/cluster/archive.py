"""The code that a sweep runs with: the files of the current folder that git does not ignore, in one archive."""

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from segbench.core.errors import UserError

MAX_MB = 100
"""Ray refuses more in a job's working directory."""
_IGNORED = {
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "runs",
    "node_modules",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
}


def list_code(root: Path) -> list[Path]:
    """Return the files below ``root`` that belong to the code, relative to it, sorted."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=True,
        ).stdout.decode()
        names = [Path(name) for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = list(_walk(root))
    return sorted(name for name in names if (root / name).is_file())


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _IGNORED]
        yield from ((Path(folder) / name).relative_to(root) for name in names)


def pack_code(root: Path, target: Path) -> None:
    """Write the code below ``root`` to the zip file ``target``; the installed segbench too, where it is not in it.

    Raises:
        UserError: it is too large for Ray.
    """
    files = {name.as_posix(): root / name for name in list_code(root)}
    if "segbench/sweep/stages.py" not in files:
        files |= _installed()
    sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
    if sum(sizes.values()) > MAX_MB:
        largest = sorted(files, key=lambda name: -sizes[name])[:3]
        told = ", ".join(f"{name} {sizes[name]:.0f} MB" for name in largest)
        raise UserError(
            f"the code in {root} has {sum(sizes.values()):.0f} MB, and Ray takes {MAX_MB} MB ({told}); data belongs in "
            "a folder that all nodes see: move it, or add it to .gitignore"
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.write(path, name)


def _installed() -> dict[str, Path]:
    """Return name in the archive -> file of the segbench that runs: the nodes have the packages of the lock, not it."""
    package = Path(__file__).parent.parent
    return {f"segbench/{name.as_posix()}": package / name for name in _walk(package)}
