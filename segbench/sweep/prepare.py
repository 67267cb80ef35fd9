"""What a sweep on pictures needs before its first trial: data packed and shared, a GPU divided, imports begun."""

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from segbench.core.errors import DataError, SegbenchError
from segbench.core.paths import SweepPaths
from segbench.data import absolute, count_images, open_data, recorded_key, share_data
from segbench.data.labels import build_lut
from segbench.spec.load import LoadedSpec
from segbench.spec.schema import SweepSpec
from segbench.sweep.preflight import demanding_configs

if TYPE_CHECKING:
    from segbench.sweep.disk import DiskPlan
    from segbench.training.sharing import Sharing


def disk_of(loaded: LoadedSpec, paths: SweepPaths) -> "DiskPlan":
    """Return how much disk the sweep in the folder ``paths`` can occupy at most."""
    from segbench.sweep.disk import has_hard_links, plan_disk

    spec, space = loaded.spec, loaded.space
    groups, _, _ = build_lut(spec.data.groups, spec.data.ignore)
    images = count_images(spec.data)
    num_test_images = None if images is None else images["test"]
    links = has_hard_links(paths.root)
    return plan_disk(spec, space, demanding_configs(loaded), len(groups), num_test_images, links)


def share_gpu(loaded: LoadedSpec) -> "Callable[[], Sharing]":
    """Return what decides, on a machine with a GPU, which part of it a trial gets: to be called there."""
    from segbench.training.sharing import decide_here

    spec = loaded.spec
    return partial(decide_here, demanding_configs(loaded), absolute(spec.data), spec.scheduler.max_epochs)


def share_packed(
    loaded: LoadedSpec, paths: SweepPaths, tell: Callable[[str], None], warn: Callable[[str], None]
) -> LoadedSpec:
    """Put the packed set where all nodes find it, if the sweep says where; return the sweep with its address.

    Raises:
        UserError: there are neither pictures nor a packed set, or the bucket cannot be used.
    """
    spec = loaded.spec
    if not spec.is_segmentation or spec.data.packed is None:
        return loaded
    try:
        shared = share_data(spec.data, recorded_key(paths.data))
    except DataError as error:
        raise loaded.error("data", str(error)) from error
    if shared.changed:
        warn(f"{shared.changed} since this sweep began; it goes on with the data as they were")
    tell(f"packed data {'uploaded to' if shared.is_uploaded else 'at'} {shared.config.packed}")
    return replace(loaded, spec=spec.model_copy(update={"data": shared.config}))


def get_ready(spec: SweepSpec) -> None:
    """Begin, in a thread, what takes seconds and need not wait for Ray: packing the data, and imports.

    What goes wrong is told by the sweep, which does the same again.
    """

    def prepare() -> None:
        with suppress(SegbenchError):
            if spec.is_segmentation:
                open_data(spec.data)
        for module in ("segbench.sweep.stages", "segbench.tracking.tracker", "segbench.terminal.progress"):
            importlib.import_module(module)

    threading.Thread(target=prepare, name="segbench-ready", daemon=True).start()
