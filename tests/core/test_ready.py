"""The files that come with segbench: listed, found by name, copied."""

from pathlib import Path

import pytest

from segbench.cli import main
from segbench.cluster.check import check_cluster
from segbench.core.errors import UserError
from segbench.core.ready import copy_cluster, copy_ready, find_sweep, ready_folder, ready_sweeps


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_ready_sweep_is_found_by_name_and_described() -> None:
    found = ready_sweeps()
    assert {"quickstart", "compare", "unet", "segformer"} <= found.keys()
    for name, description in found.items():
        assert find_sweep(name).is_file()
        assert len(description) > 20


def test_a_file_of_that_name_comes_first() -> None:
    Path("quickstart").touch()
    assert find_sweep("quickstart") == Path("quickstart")


def test_a_name_that_is_neither_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"quikstart: there is no such file.*compare, quickstart, "):
        find_sweep("quikstart")


def test_cluster_init_writes_all_that_the_files_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["cluster", "init", "mine"])
    shipped = {f"cluster/{path.name}" for path in ready_folder("cluster").iterdir() if path.is_file()}
    written = {path.relative_to("mine").as_posix() for path in Path("mine").rglob("*") if path.is_file()}
    assert written == shipped | {"requirements.lock"}
    assert "written: mine/cluster/local.yaml" in capsys.readouterr().out
    for path in ready_folder("cluster").glob("*.sh"):
        assert Path("mine/cluster", path.name).stat().st_mode == path.stat().st_mode


def test_what_cluster_init_writes_can_be_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home/.ssh/id_ed25519", "home/.ray/auth_token"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    copy_cluster(Path())
    copy_ready("sweeps", "quickstart.yaml", Path())
    assert check_cluster(Path("cluster/local.yaml"), Path("quickstart.yaml")).file.max_nodes == 3


def test_nothing_is_written_over(tmp_path: Path) -> None:
    Path("cluster").mkdir()
    Path("cluster/local.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"cluster/local\.yaml: is there already; remove it"):
        copy_cluster(Path())
    assert [path.name for path in Path("cluster").iterdir()] == ["local.yaml"]
    assert not Path("requirements.lock").exists()


def test_an_unknown_ready_file_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"x\.yaml: no such file comes with segbench; there are compare\.yaml, "):
        copy_ready("sweeps", "x.yaml", Path())
