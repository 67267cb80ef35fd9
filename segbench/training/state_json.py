"""Nested state as strict JSON, with its tensors put aside; torch is imported only where there are tensors."""

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def encode(value: Any, tensors: "dict[str, Tensor]", path: str = "") -> Any:
    """Return ``value`` as strict JSON; what JSON lacks becomes a mapping with the one key ``$kind``.

    Args:
        value: what :func:`segbench.training.checkpoint.save` accepts.
        tensors: tensors and arrays are put here, under the name that stands in the JSON.
        path: place of ``value`` in the whole, for names and messages.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        items = [(key, encode(item, tensors, f"{path}/{key}")) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$map": [[_encode_key(key, path), item] for key, item in items]}
    if isinstance(value, list | tuple):
        encoded = [encode(item, tensors, f"{path}/{index}") for index, item in enumerate(value)]
        return encoded if isinstance(value, list) else {"$tuple": encoded}
    if not isinstance(value, np.ndarray) and not _is_tensor(value):
        raise TypeError(f"state at {path or '/'} is a {type(value).__name__}; see segbench.training.checkpoint.save")
    import torch

    name = path if path not in tensors else f"{path}#{len(tensors)}"  # "a/b" may also be one key
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value))
        return {"$array": name}
    tensors[name] = value
    return {"$tensor": name}


def _is_tensor(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _encode_key(key: Any, path: str) -> Any:
    if not (key is None or isinstance(key, bool | str | int | float | np.generic)):
        raise TypeError(f"state at {path or '/'} has a key of type {type(key).__name__}; use strings or numbers")
    return encode(key, {}, path)


def decode(value: Any, tensors: "Mapping[str, Tensor]") -> Any:
    """Return what :func:`encode` was given."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    content: Any
    kind, content = next(iter(value.items()), ("", None))
    match kind:
        case "$float":
            return float(content)
        case "$tuple":
            return tuple(decode(item, tensors) for item in content)
        case "$map":
            return {decode(key, tensors): decode(item, tensors) for key, item in content}
        case "$tensor":
            return tensors[content]
        case "$array":
            return tensors[content].numpy()
    return {key: decode(item, tensors) for key, item in value.items()}
