"""Finding the training function that a sweep file names; imports nothing but it."""

import importlib
from typing import cast

from segbench.core.errors import UserError
from segbench.core.records import TrainFunction


def load_function(name: str) -> TrainFunction:
    """Import ``package.module:function``.

    Raises:
        UserError: it cannot be imported.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"train: {name}: cannot import {module_name!r} ({error}); name an importable module, "
            "for example one in the current folder or an installed package"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(
            f"train: {name}: {module_name!r} has no function {function_name!r}; it has: {', '.join(public)}"
        )
    return cast(TrainFunction, function)
