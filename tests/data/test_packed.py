import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segbench.core.errors import DataError
from segbench.data import packed
from segbench.data.packed import Recipe, open_packed

SIZE = (16, 24)


def picture(place: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(place)
    return rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.integers(0, 35, SIZE, np.uint8)


class CountingReader:
    """A reader that counts the scenes it read."""

    def __init__(self) -> None:
        self.places: list[int] = []

    def __call__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        self.places.append(place)
        return picture(place)


@pytest.fixture
def reader() -> CountingReader:
    return CountingReader()


@pytest.fixture
def recipe(reader: CountingReader) -> Recipe:
    names = {"train": tuple(f"t{i}" for i in range(150)), "val": ("v0", "v1"), "test": ("x0",)}
    return Recipe(["made up", 1], SIZE, names, reader)


def test_what_was_read_comes_back_in_order(recipe, reader, tmp_path):
    data = open_packed(recipe, tmp_path)
    assert data.images.shape == (153, *SIZE, 3)
    assert sorted(reader.places) == list(range(153))
    for place in (0, 63, 64, 152):
        image, labels = picture(place)
        assert np.array_equal(data.images[place], image)
        assert np.array_equal(data.labels[place], labels)


def test_the_second_time_nothing_is_read(recipe, reader, tmp_path):
    first = open_packed(recipe, tmp_path)
    reader.places.clear()
    second = open_packed(recipe, tmp_path)
    assert not reader.places
    assert np.array_equal(first.images, second.images)


def test_arrays_are_read_only_views_of_the_mapped_file(recipe, tmp_path):
    before = pa.total_allocated_bytes()
    data = open_packed(recipe, tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    assert pa.total_allocated_bytes() - before < data.images.nbytes / 10
    for array in (data.images, data.labels):
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    maps = Path("/proc/self/maps")
    if maps.exists():
        ranges = [line.split()[0].split("-") for line in maps.read_text().splitlines() if str(path) in line]
        address = data.images.ctypes.data
        assert any(int(low, 16) <= address < int(high, 16) for low, high in ranges)


def test_any_reader_of_arrow_files_can_open_it(recipe, tmp_path):
    open_packed(recipe, tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    table = pa.ipc.open_file(str(path)).read_all()
    assert table.column_names == ["name", "split", "label_counts", "label", "image"]
    assert table["label_counts"][5].as_py() == np.bincount(picture(5)[1].reshape(-1), minlength=35).tolist()
    assert table["split"].to_pylist()[-4:] == ["train", "val", "val", "test"]
    assert table["name"].to_pylist()[-1] == "x0"
    assert table["image"][5].as_py() == picture(5)[0].tobytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(os.urandom(5000)),
        lambda path: path.write_bytes(b"ARROW1\0\0" + bytes(5000) + b"ARROW1"),
    ],
)
def test_a_damaged_file_is_made_again(recipe, reader, tmp_path, damage):
    open_packed(recipe, tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    damage(path)
    reader.places.clear()
    data = open_packed(recipe, tmp_path)
    assert len(reader.places) == 153
    assert np.array_equal(data.labels[152], picture(152)[1])


def test_a_file_of_another_recipe_under_this_name_is_made_again(recipe, reader, tmp_path):
    other = replace(recipe, source=["another"])
    open_packed(other, tmp_path)
    (tmp_path / f"{other.key}.arrow").rename(tmp_path / f"{recipe.key}.arrow")
    reader.places.clear()
    open_packed(recipe, tmp_path)
    assert reader.places


def test_the_name_depends_on_source_size_and_split(recipe):
    moved = {**recipe.names, "train": recipe.names["train"][:-1], "val": ("t149", "v0", "v1")}
    others = [replace(recipe, source=["made up", 2]), replace(recipe, size=(8, 8)), replace(recipe, names=moved)]
    assert len({recipe.key, *(other.key for other in others)}) == 4


def test_an_error_while_packing_leaves_no_file(recipe, tmp_path):
    def read(place: int) -> tuple[np.ndarray, np.ndarray]:
        if place == 70:
            raise DataError("seventy.png: not a readable PNG")
        return picture(place)

    with pytest.raises(DataError, match="seventy"):
        open_packed(replace(recipe, read=read), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_leftovers_of_a_killed_process_are_removed(recipe, tmp_path):
    stale = tmp_path / f".{recipe.key}.arrow.x1y2.tmp"
    stale.write_bytes(b"part")
    open_packed(recipe, tmp_path)
    assert not stale.exists()


def test_a_cache_folder_that_cannot_be_used_is_an_error_with_a_way_out(recipe, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cache folder .*data\.cache_dir or \$SEGBENCH_CACHE"):
        open_packed(recipe, tmp_path / "file" / "cache")


def test_a_full_disk_is_noticed_before_packing(recipe, reader, tmp_path, monkeypatch):
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda folder: Disk())
    with pytest.raises(DataError, match=r"packing needs 0\.0 GB and 0\.0 GB are free"):
        open_packed(recipe, tmp_path)
    assert not reader.places


class Disk:
    """A full one."""

    free = 1000


CONCURRENT = """
import sys, time
from pathlib import Path
import numpy as np
from segbench.data.packed import Recipe, open_packed
folder = Path(sys.argv[1])
def read(place):
    with (folder / "reads").open("a") as log:
        log.write("x")
    time.sleep(0.002)
    return np.full((16, 16, 3), place, np.uint8), np.full((16, 16), 7, np.uint8)
names = {"train": tuple(map(str, range(100))), "val": ("v",), "test": ("t",)}
data = open_packed(Recipe("same", (16, 16), names, read), folder)
assert data.images[57, 3, 3, 0] == 57
"""


def test_of_several_processes_one_packs(tmp_path):
    command = [sys.executable, "-c", CONCURRENT, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len((tmp_path / "reads").read_text()) == 102
