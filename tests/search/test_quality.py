"""The search does not get worse: a short form of benchmarks/search.py on the segmentation curves recorded there."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import search

pytestmark = pytest.mark.slow

SEEDS, WORKERS, TRAININGS = 8, 4, 20
RECORDED = {"seg-camvid": (0.2125, 0.0181), "seg-streets": (0.1765, 0.0427)}
"""Mean regret after ``TRAININGS`` full trainings' worth of epochs, and its standard error."""


@pytest.mark.parametrize("task", RECORDED)
def test_the_search_finds_what_it_found_when_it_was_last_improved(task: str) -> None:
    search.load(None)
    ends = [search.regrets("segbench", task, WORKERS, seed, TRAININGS)[-1] for seed in range(SEEDS)]
    mean, error = np.mean(ends), np.std(ends, ddof=1) / np.sqrt(SEEDS)
    recorded, recorded_error = RECORDED[task]
    assert mean <= recorded + 3 * np.hypot(error, recorded_error), f"{mean:.4f} ± {error:.4f}"
