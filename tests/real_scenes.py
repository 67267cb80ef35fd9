"""Where real street scenes lie, which the licence keeps out of the repository."""

import os
from pathlib import Path


def find_camvid() -> Path | None:
    """Return the folder (leftImg8bit, gtFine), or None where there is none."""
    default = Path(__file__).parents[1].parent / "shared" / "data" / "camvid"
    root = Path(os.environ.get("SEGBENCH_CAMVID", default))
    return root if root.is_dir() else None
