"""What MLflow loads of a logged model: ``mlflow.pyfunc.load_model(uri).predict(images)``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.final.model import LoadedModel, load_model


class SegmentationPredictor:
    """A trained model behind MLflow's interface."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class of every pixel.

        Args:
            images: RGB, uint8 (N, H, W, 3), of the size that the model was trained at.

        Returns:
            uint8 (N, H, W): indices into the groups of the model's ``config.json``.
        """
        return self._model.predict(images)


def _load_pyfunc(data_path: str) -> SegmentationPredictor:
    """Return the model in ``data_path``; the name is MLflow's."""
    return SegmentationPredictor(load_model(Path(data_path)))
