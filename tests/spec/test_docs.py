"""The page on the sweep file is true: its tables are the schema's, its examples load."""

import re
from pathlib import Path

import pytest

from segbench.spec import docs
from segbench.spec.domains import DISTRIBUTIONS
from segbench.spec.load import load_spec
from segbench.spec.schema import section_keys, sections

PAGE = Path(__file__).parents[2] / "docs" / "spec.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_tables_are_made_from_the_schema_of_today() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert docs.update(text) == text, "run: python -m segbench.spec.docs docs/spec.md"


def test_every_key_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", docs.key_tables(), re.MULTILINE)
    assert [name for name, text in rows if not text] == []
    inner = [key for name, kind in sections().items() if name for key in section_keys(kind)]
    assert set(inner) <= {name for name, _ in rows}


def test_every_unit_belongs_to_a_key_that_exists() -> None:
    known = {f"{name}.{key}" for name, kind in sections().items() for key in section_keys(kind)}
    assert set(docs.UNITS) <= known


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_each_example_loads(example: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(example)
    load_spec(file)


def test_each_distribution_has_an_example() -> None:
    assert set(re.findall(r"distribution: (\w+)", "".join(EXAMPLES))) == set(DISTRIBUTIONS)
