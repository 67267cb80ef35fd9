"""Save and load what a training needs to continue, and the folder that a finished model is.

No pickle: tensors go into a safetensors file, everything else into JSON. A crash at any instant leaves the
old content or the new one, never a mixture:

- a *state folder* holds ``state.json`` and one of ``tensors-0.safetensors``, ``tensors-1.safetensors``.
  The tensors are written to the file that is not in use, then ``state.json``, which names it, is replaced in
  one step;
- a *model folder* holds ``model.safetensors``, whose header carries the model's card (settings, groups,
  size, ...), and ``config.json``, the same card for readers. Where a crash made them differ, the header counts.

Tensors come back on the CPU; torch is imported only where there are tensors.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.errors import CheckpointError
from segbench.core.paths import atomic_path, atomic_write
from segbench.training.state_json import decode, encode

if TYPE_CHECKING:
    from torch import Tensor

STATE_FILE = "state.json"
TENSOR_FILES = ("tensors-0.safetensors", "tensors-1.safetensors")
MODEL_FILE = "model.safetensors"
CARD_FILE = "config.json"
FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """A state at one moment: nothing in it changes when the training goes on."""

    content: Any
    """Strict JSON; tensors stand in it by name."""
    tensors: "Mapping[str, Tensor]"
    """Copies, on the CPU."""

    @property
    def num_bytes(self) -> int:
        """What :func:`write` needs on disk, but for a few kilobytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def snapshot(state: Mapping[Any, Any]) -> Snapshot:
    """Copy ``state``, so that it can be written while the training goes on.

    Args:
        state: mappings (keys: strings, numbers, None), lists, tuples, tensors, numpy arrays and scalars,
            Python scalars (also NaN and infinite), strings and None, nested in any way.

    Raises:
        TypeError: something else is in ``state``; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    content = encode(state, tensors)
    return Snapshot(content, {name: _own(tensor) for name, tensor in tensors.items()})


def write(snapshot: Snapshot, folder: Path) -> None:
    """Write a snapshot to ``folder`` in place of what was there; it is on disk when this returns.

    Args:
        snapshot: of the state.
        folder: made when absent; files in it that are not ours are left alone. One writer at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unused = [name for name in TENSOR_FILES if name != _tensor_file_in_use(folder)]
    entry = None
    if snapshot.tensors:
        entry = {"file": unused[0], "crc32": _write_tensors(snapshot.tensors, folder / unused[0])}
    text = json.dumps({"format": FORMAT, "tensors": entry, "state": snapshot.content}, allow_nan=False)
    atomic_write(folder / STATE_FILE, text)
    _sync(folder)
    for name in TENSOR_FILES:
        if entry is None or name != entry["file"]:
            (folder / name).unlink(missing_ok=True)


def save(state: Mapping[Any, Any], folder: Path) -> None:
    """Write ``state`` to ``folder`` at once: :func:`write` of its :func:`snapshot`."""
    write(snapshot(state), folder)


def load(folder: Path) -> dict[Any, Any]:
    """Return what :func:`save` was given; tensors on the CPU, numpy scalars as Python scalars.

    Raises:
        CheckpointError: there is no checkpoint, or a file of it is damaged; the message names the file.
    """
    path = folder / STATE_FILE
    document = _read_json(path)
    if document.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {document.get('format')!r}, but this version reads format {FORMAT}; "
            "delete the folder to start this trial again"
        )
    entry = document["tensors"]
    tensors: dict[str, Tensor] = {}
    if entry is not None:
        tensors, _ = _read_tensors(folder / entry["file"], entry["crc32"])
    state = decode(document["state"], tensors)
    assert isinstance(state, dict)
    return state


def exists(folder: Path) -> bool:
    """Whether :func:`save` has finished once in ``folder``."""
    return (folder / STATE_FILE).is_file()


def remove(folder: Path) -> None:
    """Delete what :func:`save` wrote, and the folder if nothing else is in it."""
    for name in (STATE_FILE, *TENSOR_FILES):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def save_model(folder: Path, weights: "Mapping[str, Tensor]", card: Mapping[str, Any]) -> None:
    """Write a model folder in place of what was there.

    Args:
        folder: made when absent.
        weights: a module's ``state_dict()``.
        card: JSON-able description: all that is needed to build the module and to use it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card, indent=2)
    own = {name: _own(tensor) for name, tensor in weights.items()}
    _write_tensors(own, folder / MODEL_FILE, {"card": text})
    atomic_write(folder / CARD_FILE, text + "\n")
    _sync(folder)


def load_model_files(folder: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Return the weights (on the CPU) and the card of a model folder.

    Raises:
        CheckpointError: it is not a model folder, or a file is damaged; the message names the file.
    """
    path = folder / MODEL_FILE
    weights, metadata = _read_tensors(path)
    if "card" not in metadata:
        raise CheckpointError(f"{path}: not written by segbench (no card in its header); give a best/ folder")
    return weights, json.loads(metadata["card"])


def _own(tensor: "Tensor") -> "Tensor":
    """Return a copy on the CPU, contiguous and without shared memory, as safetensors wants them."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _write_tensors(tensors: "Mapping[str, Tensor]", path: Path, metadata: dict[str, str] | None = None) -> int:
    """Write a safetensors file in one step and return its CRC-32; each tensor is contiguous in memory of its own."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata)
        return _crc32(temporary)


def _read_tensors(path: Path, crc32: int | None = None) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Return the tensors and the metadata of a safetensors file; with ``crc32`` its content is checked."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a folder that segbench wrote")
    if crc32 is not None and _crc32(path) != crc32:
        raise CheckpointError(f"{path}: damaged (checksum differs); delete the folder to start this trial again")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); make it again or restore a copy") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give a folder that segbench wrote") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete the folder to start this trial again") from error
    if not isinstance(document, dict) or not {"state", "tensors"} <= document.keys():
        raise CheckpointError(f"{path}: not a checkpoint's {STATE_FILE}; give a folder that segbench wrote")
    return document


def _tensor_file_in_use(folder: Path) -> str | None:
    if not exists(folder):
        return None
    try:
        entry = _read_json(folder / STATE_FILE)["tensors"]
    except CheckpointError:  # it is about to be replaced
        return None
    return None if entry is None else str(entry["file"])


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def _sync(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
