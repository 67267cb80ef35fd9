"""How much disk a sweep's folder can take at most, known before it starts: everything that is written there, counted.

Of one sweep from its first start to its end, without its packed data set. Trials that are enqueued and a budget that is
raised come on top, and models that MLflow was given by an interrupted start if other seeds are the best since.
"""

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

import segbench
from segbench.core.config import TrialConfig
from segbench.final.evaluate import MAX_EXAMPLES
from segbench.models import build_model
from segbench.search.forecast import workers_of
from segbench.spec.plan import SweepPlan, plan_sweep
from segbench.spec.schema import SweepSpec
from segbench.spec.space import Space

BYTES = 4
"""Weights, their averages and the optimiser's moments are float32."""
SLOTS = 2
"""A running trial keeps its last two checkpoints..."""
WRITING = 1
"""...while it writes another one beside them."""
OVERHEAD = 1.05
"""Headers and buffers beside the weights."""
FIXED_B = 16e6
"""Of every sweep: an empty MLflow database, a report with its libraries, each while it is replaced, and Ray's files."""
TRIAL_B = 60e3
"""Of every trial: its run in MLflow with tags and settings, its first event, its model's card, Ray's folder for it."""
METRIC_B = 1200
"""Of every number that an epoch reports: row and indices in MLflow's database and, while they change, in its journal;
ledger, study, parquet tables, report."""
CELL_B = 60
"""Of every cell of a confusion matrix, as text: the ledger, the tables beside a test, their copies in MLflow."""
PANELS = 3
"""Of an example picture: image, truth, prediction."""
LOGGED_MODEL_B = 1e6
"""What MLflow writes beside the weights and the package's code: an input example, requirements, a card."""
NUM_TEST_IMAGES = 1525
"""Where the data are not here to be counted: those of the largest official test split."""


@dataclass(frozen=True)
class DiskPlan:
    """Bytes at most, packed data set not included."""

    largest_model: int
    """Weights of the largest model in the space."""
    running: int
    """Checkpoints of running trials, and best weights while they are replaced."""
    kept: int
    """Best weights, copies of those on the leaderboard in MLflow and, without hard links, in ``models/``."""
    tests: int
    """Label maps and pictures of the tests, and their copies in MLflow."""
    records: int
    """Ledgers, tables, MLflow's database, the report."""

    @property
    def peak(self) -> int:
        """All at once."""
        return self.running + self.kept + self.tests + self.records


def plan_disk(
    spec: SweepSpec,
    space: Space,
    configs: Iterable[TrialConfig],
    num_classes: int,
    num_test_images: int | None = None,
    has_links: bool = True,
) -> DiskPlan:
    """Return the peak of a sweep's folder.

    Args:
        spec: the sweep.
        space: its search space.
        configs: one configuration for each model that a trial can have.
        num_classes: K.
        num_test_images: images of the test split; None: not known.
        has_links: a file there can have two names.
    """
    sizes = [(count_weights(config, num_classes) * BYTES * OVERHEAD, config) for config in configs]
    largest = max(size for size, _ in sizes)
    # weights, two moments (one for sgd counts as two), and the average where one is kept
    with_average = any(c.ema_decay is not None for _, c in sizes) or "ema_decay" in space
    checkpoint = largest * (4 if with_average else 3)
    concurrent = workers_of(spec)
    plan = plan_sweep(spec, space)
    best = plan.retrain_trainings or plan.trials + plan.baselines
    rows = plan.finalists or plan.trials + plan.baselines
    kept = best * largest
    if spec.mlflow.enabled:
        kept += (rows + 1) * (largest + package_size() + LOGGED_MODEL_B)  # one is put together before it is logged
    if not has_links:
        kept += (rows + 1) * largest
    return DiskPlan(
        largest_model=int(largest),
        running=int(concurrent * (checkpoint * (SLOTS + WRITING) + largest)),
        kept=int(kept),
        tests=_tests_size(spec, plan, num_classes, num_test_images),
        records=_records_size(plan, num_classes),
    )


def _tests_size(spec: SweepSpec, plan: SweepPlan, num_classes: int, num_images: int | None) -> int:
    """Return what label maps and pictures take if nothing in them can be compressed."""
    pixels = math.prod(spec.data.size)
    bits = math.ceil(math.log2(num_classes)) + 1  # of a class, and of the differences that PNG stores
    count = min(NUM_TEST_IMAGES, spec.data.limit or NUM_TEST_IMAGES) if num_images is None else num_images
    label_maps = count * (pixels * bits / 8 * OVERHEAD + 8 * num_classes**2 + 1000)
    pictures = MAX_EXAMPLES * (PANELS * pixels * 3 * OVERHEAD + 1000)
    copies = 2 if spec.mlflow.enabled else 1
    return int(plan.retrain_trainings * (label_maps + copies * pictures))


def _records_size(plan: SweepPlan, num_classes: int) -> int:
    epochs = plan.epochs_worst + plan.retrain_trainings  # a test is an epoch
    runs = plan.trials + plan.baselines + plan.retrain_trainings
    metrics = 24 + 2 * num_classes  # losses, ratios, times, the system's; IoU of each class
    return int(FIXED_B + epochs * (metrics * METRIC_B + num_classes**2 * CELL_B) + runs * TRIAL_B)


def count_weights(config: TrialConfig, num_classes: int) -> int:
    """Return the number of values in a model's state, without allocating them."""
    with torch.device("meta"):
        model = build_model(config, num_classes)
    return sum(value.numel() for value in model.state_dict().values())


def package_size() -> int:
    """Return the size of segbench's own files, which MLflow keeps with each model."""
    files = Path(segbench.__file__).parent.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file() and path.parent.name != "__pycache__")


def has_hard_links(folder: Path) -> bool:
    """Whether a file in ``folder``, or where it would be made, can have two names."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".segbench-", dir=there) as temporary:
            file = Path(temporary) / "file"
            file.touch()
            (Path(temporary) / "link").hardlink_to(file)
    except OSError:
        return False
    return True
