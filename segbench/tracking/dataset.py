"""Which data a sweep trained on, as MLflow shows it: name, digest, source and profile."""

from dataclasses import asdict
from pathlib import Path

from segbench.core.errors import DataError
from segbench.core.paths import SweepPaths
from segbench.data import keep_record, read_record
from segbench.spec.schema import SweepSpec
from segbench.tracking.runs import DatasetView


def dataset_view(paths: SweepPaths, spec: SweepSpec) -> DatasetView | None:
    """Return the data set of a sweep; None for a training function of one's own, or before the data are packed.

    It is kept in ``state/data.json``, so that a delivery from a machine without the data has it too.
    """
    if not spec.is_segmentation:
        return None
    facts = read_record(paths.data)
    if not facts:
        try:
            found = keep_record(paths.data, spec.data)
        except DataError:
            return None
        if found is None:
            return None
        facts = asdict(found)
    root = None if spec.data.root is None else Path(spec.data.root).expanduser().absolute()
    return DatasetView(
        name=spec.data.dataset if root is None else root.name,
        digest=str(facts["digest"]),
        root=None if root is None else str(root),
        profile={
            "images": facts["num_images"],
            "size": list(spec.data.size),
            "groups": facts["groups"],
        },
    )
