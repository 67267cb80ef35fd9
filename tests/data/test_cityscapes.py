import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from cityscapes_files import write_pair
from PIL import Image

from segbench.core.errors import DataError
from segbench.data.cityscapes import check_files, index_folder, read_pair
from segbench.data.splits import Scene


def labels_of(root: Path, folder: str) -> list[Path]:
    return sorted((root / "gtFine" / folder).rglob("*.png"))


def images_of(root: Path, folder: str) -> list[Path]:
    return sorted((root / "leftImg8bit" / folder).rglob("*.png"))


def damage_middle(path: Path) -> None:
    """Keep header and end, spoil the pixels: only decoding can tell."""
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    data[start + 4 : start + 4 + length] = bytes(length)
    data[start + 4 + length : start + 8 + length] = struct.pack(">I", zlib.crc32(data[start : start + 4 + length]))
    path.write_bytes(data)


def test_the_index_is_sorted_and_knows_folder_city_and_name(small_root):
    pairs = index_folder(small_root)
    assert len(pairs) == 16
    assert pairs[0].scene == Scene("train", "aachen", "aachen_000000_000000")
    assert [pair.scene for pair in pairs] == sorted(pair.scene for pair in pairs)
    assert all(pair.image.is_file() and pair.label.is_file() for pair in pairs)
    check_files(pairs)


def test_other_folders_and_files_are_not_read(small_root):
    write_pair(small_root, "train_extra", "augsburg", 0)
    (small_root / "leftImg8bit" / "train" / "aachen" / "notes.txt").write_text("-")
    assert len(index_folder(small_root)) == 16


def test_a_missing_label_map_is_named(small_root):
    missing = labels_of(small_root, "train")[3]
    missing.unlink()
    with pytest.raises(DataError, match=f"aachen_000000_000003_leftImg8bit.png: no label map.*{missing.name}"):
        index_folder(small_root)


def test_many_missing_label_maps_are_counted(small_root):
    shutil.rmtree(small_root / "gtFine" / "val")
    with pytest.raises(DataError, match="4 of 4 images of this folder have none"):
        index_folder(small_root)


@pytest.mark.parametrize("kind", ["absent", "dummies"])
def test_a_test_folder_without_real_labels_is_left_out(small_root, kind):
    for frame in range(11):
        dummy = np.full((24, 32), 3, np.uint8)
        dummy[20:] = 1
        write_pair(small_root, "test", "berlin", frame, dummy)
    if kind == "absent":
        shutil.rmtree(small_root / "gtFine" / "test")
    assert {pair.scene.folder for pair in index_folder(small_root)} == {"train", "val"}


def test_a_labelled_test_folder_is_used_and_must_be_complete(small_root):
    for frame in range(3):
        write_pair(small_root, "test", "berlin", frame)
    assert len(index_folder(small_root)) == 19
    labels_of(small_root, "test")[1].unlink()
    with pytest.raises(DataError, match=r"berlin_000000_000001_leftImg8bit\.png: no label map"):
        index_folder(small_root)


def test_a_root_without_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="has no folder leftImg8bit"):
        index_folder(tmp_path)
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="give its parent folder"):
        index_folder(tmp_path / "leftImg8bit")
    with pytest.raises(DataError, match="no labelled image"):
        index_folder(tmp_path)


def test_a_label_map_of_another_size_is_named(small_root):
    path = labels_of(small_root, "val")[2]
    Image.fromarray(np.zeros((12, 32), np.uint8)).save(path)
    with pytest.raises(DataError, match=f"{path.name}: 32x12 pixels, but its image has 32x24"):
        check_files(index_folder(small_root))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"not a PNG"), "not a readable PNG"),
        (lambda path: path.write_bytes(b""), "not a readable PNG"),
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "cut off"),
        (lambda path: Image.fromarray(np.zeros((24, 32), np.uint16)).save(path), "pixel format I;16"),
    ],
)
@pytest.mark.parametrize("files", [images_of, labels_of])
def test_a_spoilt_file_is_named_without_decoding(small_root, files, spoil, message):
    path = files(small_root, "train")[5]
    spoil(path)
    with pytest.raises(DataError, match=f"{path.name}: .*{message}"):
        check_files(index_folder(small_root))


def test_a_colour_image_as_label_map_is_an_error(small_root):
    path = labels_of(small_root, "train")[0]
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="pixel format RGB, but a map of 8-bit label ids"):
        check_files(index_folder(small_root))


@pytest.mark.parametrize("files", [images_of, labels_of])
def test_pixels_that_cannot_be_decoded_are_named(small_root, files):
    path = files(small_root, "train")[0]
    damage_middle(path)
    pair = index_folder(small_root)[0]
    check_files([pair])
    with pytest.raises(DataError, match=f"{path.name}: not a readable PNG"):
        read_pair(pair, (24, 32))


def test_numbers_that_are_no_label_ids_are_named(small_root):
    labels = np.full((24, 32), 7, np.uint8)
    labels[3, 3] = 77
    _, path = write_pair(small_root, "train", "aachen", 0, labels)
    with pytest.raises(DataError, match=f"{path.name}: 77 is no Cityscapes label id"):
        read_pair(index_folder(small_root)[0], (12, 16))


def test_the_licence_plate_is_stored_as_34(small_root):
    labels = np.full((24, 32), 26, np.uint8)
    labels[:4] = 255
    write_pair(small_root, "train", "aachen", 0, labels)
    _, ids = read_pair(index_folder(small_root)[0], (24, 32))
    assert np.array_equal(np.unique(ids), [26, 34])


def test_images_are_resized_smoothly_and_label_maps_by_nearest(tmp_path):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 33
    image_path, _ = write_pair(tmp_path, "train", "aachen", 0, labels)
    image, ids = read_pair(index_folder(tmp_path)[0], (10, 20))
    assert (image.shape, image.dtype) == ((10, 20, 3), np.uint8)
    assert (ids.shape, ids.dtype) == ((10, 20), np.uint8)
    assert set(np.unique(ids)) == {0, 33}
    assert (ids[:, :10] == 0).all()
    original = np.asarray(Image.open(image_path), float)
    assert image.std() < 0.6 * original.std()
    assert abs(image.mean() - original.mean()) < 4


def test_at_their_own_size_files_come_back_unchanged(small_root):
    pair = index_folder(small_root)[0]
    image, ids = read_pair(pair, (24, 32))
    assert np.array_equal(image, np.asarray(Image.open(pair.image)))
    assert np.array_equal(ids, np.asarray(Image.open(pair.label)))


def test_real_scenes_are_indexed_and_read(camvid):
    pairs = index_folder(camvid)
    check_files(pairs)
    assert len(pairs) == 468
    assert len({pair.scene.city for pair in pairs}) == 3
    image, ids = read_pair(pairs[0], (90, 120))
    assert image.std() > 20
    assert set(np.unique(ids)) <= {0, 7, 8, 11, 13, 17, 20, 21, 23, 24, 25, 26}
