"""Which data a sweep trained on, as MLflow shows it: name, digest, source and profile."""

import json
from dataclasses import asdict
from pathlib import Path

from segbench.data import describe_data
from segbench.errors import DataError
from segbench.paths import SweepPaths, atomic_write
from segbench.report.runs import DatasetView
from segbench.spec.schema import SweepSpec


def dataset_view(paths: SweepPaths, spec: SweepSpec) -> DatasetView | None:
    """Return the data set of a sweep; None for a training function of one's own, or before the data are packed.

    The digest is computed once and kept in ``state/data.json``, so that a delivery from a machine without the data has
    it too.
    """
    if not spec.is_segmentation:
        return None
    if not paths.data.exists():
        try:
            facts = describe_data(spec.data)
        except DataError:
            return None
        if facts is None:
            return None
        atomic_write(paths.data, json.dumps(asdict(facts), indent=1) + "\n")
    facts_read = json.loads(paths.data.read_text())
    root = None if spec.data.root is None else Path(spec.data.root).expanduser().absolute()
    return DatasetView(
        name=spec.data.dataset if root is None else root.name,
        digest=facts_read["digest"],
        root=None if root is None else str(root),
        profile={
            "images": facts_read["num_images"],
            "size": list(spec.data.size),
            "groups": facts_read["groups"],
        },
    )
