"""What is trained on: labels, files in the Cityscapes layout, generated streets, packed arrays, augmentation.

Importing this package imports no torch; only :mod:`segbench.data.augment` does.
"""

from segbench.data.dataset import (
    DataFacts,
    SegmentationData,
    Split,
    absolute,
    cache_folder,
    check_data,
    describe_data,
    open_data,
)

__all__ = [
    "DataFacts",
    "SegmentationData",
    "Split",
    "absolute",
    "cache_folder",
    "check_data",
    "describe_data",
    "open_data",
]
