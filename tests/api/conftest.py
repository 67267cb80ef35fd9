"""One small sweep on generated streets, which all tests of the public API read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segbench

STREETS = {
    "name": "quickstart",
    "data": {"size": [32, 64], "num_images": [4, 2, 2]},
    "training": {"model": "unet", "depth": 2, "batch_size": 2},
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-2},
        "width": {"values": [4, 8]},
    },
    "scheduler": {"max_epochs": 2, "grace_epochs": 1},
    "budget": {"trials": 2, "max_concurrent": 1},
    "resources": {"cpu": 1, "gpu": 0},
    "retrain": {"top_k": 1, "seeds": 1},
    "mlflow": {"enabled": False},
}


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/quickstart`` and a picture, as the examples of the documents expect it."""
    home = tmp_path_factory.mktemp("home")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "street.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        segbench.run(STREETS, {"data.cache_dir": str(home / "cache")}, executor="local")
    return home


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("SEGBENCH_CACHE", str(home / "cache"))
    return home
