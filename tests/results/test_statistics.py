"""The numbers that say how far other numbers can be trusted. Measured at full length: benchmarks/coverage.py."""

import numpy as np
import pytest
from simulated_segmentations import draw_images, true_miou

from segbench.results.statistics import (
    Resamples,
    adjust_p_values,
    bootstrap_miou,
    compare,
    interval,
    rank_correlation,
)
from segbench.training.metrics import class_iou, mean_of_present


def test_intervals_contain_the_truth_and_equal_models_are_seldom_called_different() -> None:
    """200 repetitions: three standard errors around 95 % and 5 %."""
    truth, rng = true_miou(60_000), np.random.default_rng(0)
    covered = different = 0
    for repetition in range(200):
        first, second = draw_images(rng, 30, num_models=2)
        draws = Resamples.draw(30, repetition, num_resamples=500)
        a, b = bootstrap_miou([first], draws), bootstrap_miou([second], draws)
        bounds, difference = interval(a, draws), compare(a, b, draws)
        assert bounds is not None
        assert difference is not None
        covered += bounds.low <= truth <= bounds.high
        different += difference.p_value < 0.05
    assert 0.90 <= covered / 200 <= 0.99
    assert different / 200 <= 0.10


def test_values_on_resamples_are_the_miou_of_the_drawn_images() -> None:
    seeds = draw_images(np.random.default_rng(1), 12, num_models=3)
    seeds[0][:, 6] = seeds[1][:, 6] = 0  # no pixel of the class, and none predicted
    seeds[0][:, :, 6] = 0
    draws = Resamples.draw(12, 0, num_resamples=5)
    result = bootstrap_miou(seeds, draws)
    for weights, value in zip([np.ones(12), *draws.weights], [result.value, *result.values], strict=True):
        summed = [np.einsum("n,nij->ij", weights, counts).astype(int) for counts in seeds]
        assert value == pytest.approx(np.mean([mean_of_present(class_iou(total)) for total in summed]), abs=1e-12)


def test_the_influence_of_an_image_is_the_derivative_by_its_weight() -> None:
    (counts,) = draw_images(np.random.default_rng(2), 10)
    draws = Resamples(np.array([[1.0] * 10, [1.001] + [1.0] * 9], np.float32))
    result = bootstrap_miou([counts], draws)
    slope = (result.values[1] - result.values[0]) / (float(draws.weights[1, 0]) - 1)
    assert slope == pytest.approx(result.influence[0], rel=0.01)
    assert result.influence.sum() == pytest.approx(0, abs=1e-9)


def test_a_better_model_is_found_better_and_a_copy_is_not() -> None:
    (counts,) = draw_images(np.random.default_rng(3), 60)
    worse = counts // 2  # half of the right pixels become wrong ones
    worse[:, :, 0] += counts.sum(axis=2) - worse.sum(axis=2)
    draws = Resamples.draw(60, 0)
    model, other = (bootstrap_miou([c], draws) for c in (counts, worse))
    difference, same = compare(model, other, draws), compare(model, model, draws)
    assert difference is not None
    assert same is not None
    assert difference.interval.low > 0
    assert difference.p_value == pytest.approx(1 / 4001)
    assert (same.value, same.p_value) == (0, 1)


def test_few_images_have_no_interval() -> None:
    (counts,) = draw_images(np.random.default_rng(4), 7)
    draws = Resamples.draw(7, 0)
    result = bootstrap_miou([counts], draws)
    assert interval(result, draws) is None
    assert compare(result, result, draws) is None


def test_holm_multiplies_the_smallest_most_and_keeps_the_order() -> None:
    assert adjust_p_values([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert adjust_p_values([]) == []
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486833)  # scipy.stats.spearmanr
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
