"""What the documents promise is there."""

import re
import shlex
from pathlib import Path

import click
import pytest
from docs_site import build_site

from segbench.cli import cli
from segbench.spec.load import load_spec

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
    for named in re.findall(r"`((?:tests|sweeps|benchmarks|segbench|docs)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), f"{page.name}: {named}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    build_site(tmp_path / "site")
    page = (tmp_path / "site" / "clusters.html").read_text()
    assert 'href="source/cluster/local.yaml.html"' in page
    tour, api = ((tmp_path / "site" / f"{name}.html").read_text() for name in ("notebook", "api"))
    assert 'src="images/notebook-0.png"' in tour
    assert (tmp_path / "site" / "images" / "notebook-1.png").read_bytes().startswith(b"\x89PNG")
    assert 'href="notebook.html"' in api
    assert 'id="segbench.SweepResult.leaderboard"' in api
    assert ":meth:" not in api
    page += tour + api
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!squidfunk|www\.cityscapes)[^"]*\.(?:js|css|woff2?)', page)


def test_the_sweep_file_in_the_readme_is_right(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(name: streets.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert text is not None
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "sweep.yaml"
    path.write_text(text[1])
    spec = load_spec(path, [f"data.root={tmp_path}"]).spec
    assert spec.retrain is not None


@pytest.mark.parametrize("page", ["cityscapes", "adding-data"])
def test_the_sweep_files_in_the_guides_are_right(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("data/cityscapes", "mydata"):
        for folder in ("leftImg8bit", "gtFine"):
            (tmp_path / root / folder).mkdir(parents=True)
    (tmp_path / "myproject").mkdir()
    (tmp_path / "myproject" / "objective.py").write_text("def train(config, context): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
    assert texts
    for text in texts:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        load_spec(path)


def test_the_commands_in_the_readme_exist() -> None:
    lines = re.findall(r"^    (segbench .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        arguments = shlex.split(line.split("#")[0])[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        command.make_context(line, arguments)


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_real_scenes_command_of_the_readme_is_a_valid_sweep(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```\n(python -m segbench\.sweep sweeps/compare\.yaml.*?)```", text, re.DOTALL)
    assert block is not None
    words = shlex.split(block[1].replace("\\\n", " "))
    overrides = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder).mkdir()
    spec = load_spec(ROOT / words[3], [*overrides, f"data.root={tmp_path}"]).spec
    assert spec.budget.trials == 28
