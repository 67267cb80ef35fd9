"""pyproject.toml and requirements.lock agree with the code, and with each other."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from segbench.cluster.rules import canonical, locked_versions

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = {"ipython": "of the notebook that asks for it"}
"""Imported only where it is there already."""
BY = {"psycopg2": "psycopg2-binary", "vl_convert": "vl-convert-python", "onnxruntime": "onnxruntime"}
"""Module -> package of an extra, which may not be installed here."""


def names(texts: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=~!; ]", text)[0]) for text in texts}


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "segbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {module.split(".")[0] for module in modules}
    return found - sys.stdlib_module_names - {"segbench"}


@pytest.mark.parametrize("module", sorted(imported()))
def test_what_is_imported_is_declared(module: str) -> None:
    declared = names(PROJECT["dependencies"]).union(
        *(names(texts) for extra, texts in PROJECT["optional-dependencies"].items() if extra != "dev")
    )
    dists = {canonical(name) for name in packages_distributions().get(module, [BY.get(module, module)])}
    assert dists & (declared | OPTIONAL.keys()), f"{module} is of {dists}, which pyproject.toml does not name"


def test_every_pin_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    for number, line in enumerate(lines[start : lines.index("]", start)], start):
        if "==" in line or re.search(r"<\d+\.\d", line):
            assert lines[number - 1].strip().startswith("#"), line


def test_the_lock_has_hashes_and_all_that_is_declared() -> None:
    text = (ROOT / "requirements.lock").read_text()
    versions = locked_versions(ROOT / "requirements.lock")
    wanted = names(PROJECT["dependencies"]).union(
        *(names(texts) for texts in PROJECT["optional-dependencies"].values())
    )
    assert wanted - {"segbench"} <= versions.keys()
    blocks = re.split(r"\n(?=[\w])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert all("--hash=sha256:" in block for block in blocks)
    assert len(blocks) == len(versions) - 1  # torch, which is installed apart
