"""What a tested model did on each image: counts for intervals and comparisons, label maps for pictures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from segbench.core.paths import atomic_path

IMAGES_FILE = "images.parquet"


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results of one model on a split, image by image."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    """(N, K, K) pixels, row: true class, column: predicted class; their sum is the confusion matrix of the split."""
    label_maps: tuple[bytes, ...]
    """A PNG per image: predicted class index of each pixel."""

    def label_map(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the predicted classes of one image, uint8 (H, W)."""
        with Image.open(io.BytesIO(self.label_maps[index])) as image:
            return np.asarray(image)


def encode_label_map(classes: npt.NDArray[np.uint8]) -> bytes:
    """Return class indices (H, W) as a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(classes).save(file, format="PNG")
    return file.getvalue()


def write_image_results(results: ImageResults, folder: Path) -> None:
    """Write ``images.parquet``: a row per image with ``image``, ``confusion`` (K*K, row by row), ``label_map``."""
    num_images, num_groups, _ = results.counts.shape
    counts = pa.FixedSizeListArray.from_arrays(pa.array(results.counts.ravel()), num_groups**2)
    table = pa.table({"image": pa.array(results.names), "confusion": counts, "label_map": pa.array(results.label_maps)})
    assert table.num_rows == num_images
    table = table.replace_schema_metadata({"groups": "\n".join(results.groups)})
    with atomic_path(folder / IMAGES_FILE) as temporary:
        pq.write_table(table, temporary)


def read_image_results(folder: Path, label_maps: Sequence[int] | None = None) -> ImageResults | None:
    """Return what a test left in its folder; None where there is no ``images.parquet``.

    Args:
        folder: ``trials/test/<name>``.
        label_maps: rows whose label maps are read, the others are left empty; None: all.
    """
    path = folder / IMAGES_FILE
    if not path.is_file():
        return None
    columns = ["image", "confusion"] if label_maps is not None and not label_maps else None
    table = pq.read_table(path, columns=columns)
    groups = tuple(table.schema.metadata[b"groups"].decode().split("\n"))
    flat = table["confusion"].combine_chunks().flatten().to_numpy()
    maps = [b""] * table.num_rows
    if columns is None:
        stored = table["label_map"]
        for index in range(table.num_rows) if label_maps is None else label_maps:
            maps[index] = stored[index].as_py()
    counts = flat.reshape(table.num_rows, len(groups), len(groups))
    return ImageResults(tuple(table["image"].to_pylist()), groups, counts, tuple(maps))
