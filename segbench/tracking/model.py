"""A model folder as an MLflow model that ``mlflow.pyfunc.load_model`` loads.

``mlflow.pyfunc.log_model`` would need MLflow's global state (active run, tracking address); these are the calls that
it makes, on an explicit client.
"""

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

import segbench

LOADER = "segbench.tracking.pyfunc"
MODEL_TAG = "segbench.model_id"
"""Of runs and of registered versions; a search for versions does not tell their models."""

_EXAMPLE_PX = 32
"""Largest side of the input example, of which MLflow writes some 80 bytes a pixel."""
_REQUIREMENTS = ("filelock", "mlflow", "numpy", "pillow", "pyarrow", "safetensors", "torch", "transformers")


def log_model(client: MlflowClient, experiment_id: str, run_id: str, folder: Path, step: int) -> str:
    """Log the model folder as ``model`` of a run and return the model's id.

    One that an earlier process began and did not finish is deleted first.

    Args:
        client: where to.
        experiment_id: of the run.
        run_id: the run that trained it.
        folder: ``model.safetensors`` and ``config.json``.
        step: epoch of the weights.
    """
    of_run = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    for begun in of_run:
        if str(begun.status) == "READY":
            return str(begun.model_id)
        client.delete_logged_model(begun.model_id)
    model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id, model_type="segmentation")
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "model"
        _save(local, folder, Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id))
        client.log_model_artifacts(model.model_id, str(local))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=step)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def register_model(client: MlflowClient, name: str, model_id: str, alias: str, tags: Mapping[str, str]) -> None:
    """Make a logged model a version of the registered model ``name``, unless it is one, and point ``alias`` at it."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = client.get_logged_model(model_id)
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{model.source_run_id}'")
    version = next((found for found in versions if found.tags.get(MODEL_TAG) == model_id), None)
    if version is None:
        version = client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=model.source_run_id,
            model_id=model_id,
            tags={**tags, MODEL_TAG: model_id},
        )
    if str(client.get_registered_model(name).aliases.get(alias)) != str(version.version):
        client.set_registered_model_alias(name, alias, version.version)


def _save(local: Path, folder: Path, model: Model) -> None:
    height, width = json.loads((folder / "config.json").read_text())["size"]
    example = min(height, _EXAMPLE_PX), min(width, _EXAMPLE_PX)  # pictures of any size are taken, and this is text
    image = np.dtype(np.uint8)
    mlflow.pyfunc.save_model(
        str(local),
        mlflow_model=model,
        loader_module=LOADER,
        data_path=str(folder),
        code_paths=[str(Path(segbench.__file__).parent)],
        signature=ModelSignature(
            inputs=Schema([TensorSpec(image, (-1, -1, -1, 3))]),
            outputs=Schema([TensorSpec(image, (-1, -1, -1))]),
        ),
        input_example=np.full((1, *example, 3), 127, np.uint8),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in _REQUIREMENTS],
    )
