"""WHAT IS TRAINED ON: labels, files in the Cityscapes layout, generated streets, packed arrays, augmentation.

May import core, storage and models. Importing it imports no torch; only :mod:`segbench.data.augment` does.
"""

from segbench.data.dataset import (
    DataFacts,
    SegmentationData,
    Shared,
    Split,
    absolute,
    cache_folder,
    check_data,
    count_images,
    describe_data,
    is_shared,
    open_data,
    share_data,
)
from segbench.data.record import as_recorded, keep_record, read_record, recorded_key

__all__ = [
    "DataFacts",
    "SegmentationData",
    "Shared",
    "Split",
    "absolute",
    "as_recorded",
    "cache_folder",
    "check_data",
    "count_images",
    "describe_data",
    "is_shared",
    "keep_record",
    "open_data",
    "read_record",
    "recorded_key",
    "share_data",
]
