import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from segbench.core.config import DataConfig
from segbench.core.errors import DataError
from segbench.core.seeding import derive_seed
from segbench.data import check_data, open_data
from segbench.data.streets import make_street


def files(root, **settings) -> DataConfig:
    return DataConfig(dataset="cityscapes", root=str(root), **{"size": (24, 32), **settings})


def streets(**settings) -> DataConfig:
    return DataConfig(dataset="streets", **{"size": (32, 64), "num_images": (6, 3, 2), **settings})


def names_of(data) -> tuple[tuple[str, ...], ...]:
    return data.train.names, data.val.names, data.test.names


def test_a_folder_becomes_three_splits_of_its_files(small_root):
    data = open_data(files(small_root, split="official"))
    assert [len(split.names) for split in (data.train, data.val, data.test)] == [11, 1, 4]
    for split in (data.train, data.val, data.test):
        assert split.images.shape == (len(split.names), 24, 32, 3)
        assert split.labels.shape == (len(split.names), 24, 32)
    for name, image, labels in zip(data.test.names, data.test.images, data.test.labels, strict=True):
        path = small_root / "leftImg8bit" / "val" / "lindau" / f"{name}_leftImg8bit.png"
        assert np.array_equal(image, np.asarray(Image.open(path)))
        assert set(np.unique(labels)) == {7, 23}


def test_groups_come_without_packing_again(small_root, tmp_path):
    data = open_data(files(small_root))
    assert (data.groups[1], data.colors[1], data.lut[7]) == ("flat", (128, 64, 128), 1)
    other = open_data(files(small_root, groups={"sky": (23,), "road": (7,), "rest": (11,)}, ignore=("rest",)))
    assert other.groups == ("sky", "road")
    assert (other.lut[23], other.lut[7], other.lut[11]) == (0, 1, 255)
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


def test_a_changed_file_is_packed_again(small_root, tmp_path):
    before = open_data(files(small_root, split="official"))
    path = small_root / "leftImg8bit" / "val" / "lindau" / "lindau_000000_000002_leftImg8bit.png"
    Image.fromarray(np.full((24, 32, 3), 9, np.uint8)).save(path)
    open_data.__globals__["_open"].cache_clear()
    after = open_data(files(small_root, split="official"))
    assert (after.test.images[2] == 9).all()
    assert not (before.test.images[2] == 9).all()


def test_data_is_opened_once_per_process_whatever_the_spelling(small_root):
    config = files(small_root, groups={"sky": (23,), "road": (7,)})
    again = DataConfig(**json.loads(json.dumps(asdict(config))))
    assert open_data(config) is open_data(again)
    assert open_data(config) is not open_data(files(small_root, groups={"road": (7,), "sky": (23,)}))


def test_the_cache_folder_can_be_named(small_root, tmp_path):
    open_data(files(small_root, cache_dir=str(tmp_path / "elsewhere")))
    assert list((tmp_path / "elsewhere").glob("*.arrow"))
    assert not (tmp_path / "cache").exists()


def test_a_limit_takes_from_all_splits(small_root):
    data = open_data(files(small_root, split="by-city", limit=7))
    assert sum(map(len, names_of(data))) == 7
    assert all(names_of(data))


def test_streets_are_those_of_the_generator(tmp_path):
    data = open_data(streets(seed=5))
    assert [len(names) for names in names_of(data)] == [6, 3, 2]
    image, labels = make_street(derive_seed(5, "val"), 1, (32, 64))
    assert np.array_equal(data.val.images[1], image)
    assert np.array_equal(data.val.labels[1], labels)


def test_more_training_streets_leave_val_and_test_what_they_were():
    few, many = open_data(streets()), open_data(streets(num_images=(9, 3, 2)))
    assert np.array_equal(few.val.images, many.val.images)
    assert np.array_equal(few.test.labels, many.test.labels)
    assert np.array_equal(few.train.images, many.train.images[:6])


def test_streets_of_different_splits_and_seeds_differ():
    data, other = open_data(streets()), open_data(streets(seed=1))
    assert not np.array_equal(data.train.labels[:2], data.test.labels)
    assert not np.array_equal(data.val.labels, other.val.labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "cityscapes"}, r"data\.root: dataset cityscapes needs the folder"),
        ({"dataset": "cityscapes", "root": "no/such/place"}, r"data\.root: no/such/place is no folder"),
        ({"size": (8, 64)}, r"data\.size: 8x64 is too small"),
        ({"num_images": (4, 0, 2)}, r"data\.num_images: \[4, 0, 2\]"),
        ({"ignore": ("cars",)}, "no group 'cars'"),
        ({"groups": {"a": (7,), "b": (7,)}}, "is in 'a' and in 'b'"),
    ],
)
@pytest.mark.parametrize("use", [check_data, open_data])
def test_wrong_settings_are_named(settings, message, use):
    with pytest.raises(DataError, match=message):
        use(DataConfig(**settings))


def test_checking_finds_wrong_files_and_packs_nothing(small_root, tmp_path):
    check_data(files(small_root))
    path = small_root / "gtFine" / "train" / "bochum" / "bochum_000000_000001_gtFine_labelIds.png"
    Image.fromarray(np.zeros((7, 7), np.uint8)).save(path)
    for use in (check_data, open_data):
        with pytest.raises(DataError, match=f"{path.name}: 7x7 pixels"):
            use(files(small_root))
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_a_broken_link_is_named(small_root):
    path = small_root / "leftImg8bit" / "train" / "bochum" / "bochum_000000_000001_leftImg8bit.png"
    path.unlink()
    path.symlink_to("nowhere.png")
    with pytest.raises(DataError, match=f"{path.name}: no such file"):
        check_data(files(small_root))


def test_one_city_cannot_be_split_by_city(make_root):
    root = make_root({("train", "aachen"): 5, ("val", "aachen"): 5})
    with pytest.raises(DataError, match="at least 3 cities"):
        check_data(files(root, split="by-city"))


def test_opening_data_needs_no_torch():
    code = (
        "import sys; from segbench.core.config import DataConfig; from segbench.data import open_data;"
        "open_data(DataConfig(size=(16, 32), num_images=(1, 1, 1)));"
        "sys.exit(bool({'torch', 'ray', 'pydantic', 'optuna', 'mlflow', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("split", "counts"), [("official", (330, 37, 101)), ("pooled", (398, 35, 35)), ("by-city", (305, 101, 62))]
)
def test_real_scenes_are_split_as_documented(camvid, split, counts):
    data = open_data(files(camvid, split=split, size=(24, 32), limit=None))
    assert tuple(len(names) for names in names_of(data)) == counts
    assert len({name for names in names_of(data) for name in names}) == 468
    cities = [{name.split("_")[0] for name in names} for names in names_of(data)]
    if split == "by-city":
        assert [len(city) for city in cities] == [1, 1, 1]
        assert len(set.union(*cities)) == 3
    assert set(np.unique(data.lut[data.train.labels])) == set(range(8))
