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

        Pictures of another size than that of the training are resized to it, and the classes resized back, as
        ``segbench predict`` does.

        Args:
            images: RGB, uint8 (N, H, W, 3).

        Returns:
            uint8 (N, H, W): indices into the groups of the model's ``config.json``.
        """
        if images.shape[1:3] == self._model.size or len(images) == 0:
            return self._model.predict(images)
        return np.stack([self._model.predict_image(image) for image in images])


def _load_pyfunc(data_path: str) -> SegmentationPredictor:
    """Return the model in ``data_path``; the name is MLflow's."""
    return SegmentationPredictor(load_model(Path(data_path), precision="fp32"))
