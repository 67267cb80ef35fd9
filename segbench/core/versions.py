"""What produced a result: versions, commit, hardware and command."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from segbench import __version__

PACKAGES = ("torch", "transformers", "ray", "optuna", "mlflow", "pyarrow", "pandas", "numpy")


def versions() -> dict[str, str]:
    """Return name -> version of segbench, Python and the packages that results depend on."""
    found = {"segbench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """Return the commit of the checkout that segbench is run from, with ``+`` for local changes; None elsewhere.

    On a cluster there is only a copy of the checkout: $SEGBENCH_COMMIT says which.
    """
    if told := os.environ.get("SEGBENCH_COMMIT"):
        return told
    here = str(Path(__file__).parent)
    try:
        revision = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        status = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+" if status else "")


def describe_start() -> dict[str, object]:
    """Return what should be remembered of this start."""
    return {
        "command": sys.argv,
        "commit": commit(),
        "versions": versions(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
