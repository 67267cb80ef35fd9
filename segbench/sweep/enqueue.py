"""Put a trial next in a sweep, from Python or the command line."""

from collections.abc import Mapping
from pathlib import Path

from segbench.core.address import is_bucket
from segbench.core.config import TrialConfig
from segbench.core.enqueued import enqueue_params
from segbench.core.errors import SpecError, StateError, UserError
from segbench.core.records import Scalar
from segbench.spec.chosen import complete
from segbench.spec.load import LoadedSpec
from segbench.spec.space import build_config
from segbench.sweep.folder import has_begun, open_sweep


def enqueue(folder: str | Path, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Put a trial next in a sweep that runs, or has ended; the same as ``segbench enqueue``.

    A sweep that runs takes it with its next proposal. In one that has ended, or that retrains already, the next call of
    :func:`segbench.run` or ``segbench sweep`` runs it. It comes on top of ``budget.trials``; rungs may stop it.

    Args:
        folder: of the sweep, such as ``runs/quickstart``.
        params: values by name, each in the search space. What is not named is as in a baseline: the value of
            ``training:``. A training function of your own has no such values: name all parameters.

    Returns:
        All values that the trial will have, by dotted name.

    Raises:
        UserError: a name or value is not in the space, the values do not go together, or the folder holds no sweep that
            has begun.

    Examples:
        >>> import segbench
        >>> segbench.enqueue("runs/quickstart", {"lr": 5.0})
        Traceback (most recent call last):
            ...
        segbench.core.errors.UserError: runs/quickstart: lr=5.0 is outside the space; lr is ...
    """
    place = str(folder)
    if is_bucket(place):
        raise UserError(
            f"{place}: two processes cannot append to one object of a bucket, so trials are enqueued only in folders; "
            "give the values as a baseline of a sweep with another name"
        )
    paths, loaded = open_sweep(place)
    if not has_begun(paths):
        raise StateError(
            f"{place}: no trial has begun there; start the sweep first, or name the values under baselines:"
        )
    try:
        values = complete(loaded.spec, loaded.space, params)
        _check_model(loaded, build_config(loaded.spec, values))
    except (SpecError, ValueError) as error:
        raise UserError(f"{place}: {error}") from error
    enqueue_params(paths.enqueued, values)
    return values


def _check_model(loaded: LoadedSpec, config: Mapping[str, Scalar]) -> None:
    if loaded.spec.is_segmentation:
        from segbench.models import check_config

        check_config(TrialConfig(**config))  # type: ignore[arg-type]
