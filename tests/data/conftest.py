from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cityscapes_files import write_pair
from real_scenes import find_camvid

from segbench.data import dataset

torch.set_num_threads(1)

MakeRoot = Callable[..., Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Return a function that makes a data set: counts per folder and city."""

    def make(counts: dict[tuple[str, str], int], name: str = "data set") -> Path:
        root = tmp_path / name
        for (folder, city), count in counts.items():
            for frame in range(count):
                write_pair(root, folder, city, frame)
        return root

    return make


@pytest.fixture
def small_root(make_root: MakeRoot) -> Path:
    return make_root({("train", "aachen"): 7, ("train", "bochum"): 5, ("val", "lindau"): 4})


@pytest.fixture
def camvid() -> Path:
    root = find_camvid()
    if root is None:
        pytest.skip("no real scenes; set SEGBENCH_CAMVID")
    return root


@pytest.fixture(autouse=True)
def _cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache folder of its own, and nothing opened before."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    dataset._open.cache_clear()
