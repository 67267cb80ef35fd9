"""Pretrained weights from a folder or from the Hugging Face hub, with errors that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segbench.core.errors import CheckpointError


def find_folder(source: str) -> Path | None:
    """Return the folder that ``source`` names, or None if it must be the name of a hub repository.

    Anything that exists, or that starts like a path (``/``, ``.``, ``~``), is a folder.

    Raises:
        CheckpointError: The folder is missing or is none that ``save_pretrained`` wrote.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and not source.startswith(("/", ".", "~")):
        return None
    if not (folder / "config.json").is_file():
        reason = "has no config.json" if folder.is_dir() else "is no folder"
        raise CheckpointError(
            f"pretrained={source!r} {reason}; give a hub name such as nvidia/mit-b0, or a folder written by "
            "transformers' save_pretrained"
        )
    return folder


def load_network(network: Any, network_config: Any, source: str, *, head: str, variant: str) -> Any:
    """Build a transformers network of a given configuration with pretrained weights, in float32.

    Args:
        network: Class of the network.
        network_config: Its configuration; weights of other sizes are an error outside the head.
        source: Hub name or local folder.
        head: Beginning of the names of the head's parameters. All of them may be missing in the weights, and any may
            be of another size (another number of classes): those are initialised anew from torch's current seed.
        variant: For the message.

    Raises:
        CheckpointError: The weights are missing, damaged, or of another architecture.
    """
    from safetensors import SafetensorError
    from torch import float32

    folder = find_folder(source) or _download(source)
    try:
        with quiet():
            loaded, report = network.from_pretrained(
                folder,
                config=network_config,
                local_files_only=True,
                dtype=float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"pretrained={source!r} cannot be read: {_first_line(error)}; it must hold model.safetensors or "
            "pytorch_model.bin as transformers' save_pretrained writes them"
        ) from error
    missing = {name for name in report["missing_keys"] if not name.endswith("num_batches_tracked")}
    resized = {name for name, *_ in report["mismatched_keys"]}
    in_head = {name for name in missing | resized if name.startswith(head)}
    wanting = (missing | resized) - in_head
    if wanting:
        raise CheckpointError(
            f"pretrained={source!r} does not fit variant={variant}: {len(wanting)} tensors of the encoder are "
            f"missing or of another size, such as {min(wanting)}; set `variant` to that of the weights"
        )
    _check_head_is_whole_or_absent(loaded, in_head & missing, head, source)
    return loaded


def _check_head_is_whole_or_absent(network: Any, missing: set[str], head: str, source: str) -> None:
    """Refuse weights that hold a part of the head: names that the library did not recognise, most likely."""
    names = {name for name, _ in network.named_parameters() if name.startswith(head)}
    if missing & names and not names <= missing:
        raise CheckpointError(
            f"pretrained={source!r} holds only a part of the decode head: {len(missing)} tensors such as "
            f"{min(missing)} are missing; save the model again with transformers' save_pretrained"
        )


def _download(repository: str) -> Path:
    """Return the folder of a hub repository, from the local cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(repository, allow_patterns=["config.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(repository, allow_patterns=["config.json", "pytorch_model*"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"pretrained={repository!r} is no folder here, and the Hugging Face hub did not give it: "
            f"{_first_line(error)}; check the name and the network, or give a local folder"
        ) from error
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and its table of loaded names."""
    from transformers.utils import logging

    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
