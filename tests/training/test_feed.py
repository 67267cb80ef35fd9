import threading
import time
from itertools import islice

import numpy as np
import pytest
import torch

from segbench.core.config import DataConfig
from segbench.data import SegmentationData, open_data
from segbench.training import feed as module
from segbench.training.feed import feed, fits, map_ahead

CPU = torch.device("cpu")
ORDER = [np.array(batch) for batch in ([12, 0, 15, 11], [3], [1, 2, 14])]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    cache = tmp_path_factory.mktemp("cache")
    return open_data(DataConfig(size=(16, 32), num_images=(12, 4, 3), cache_dir=str(cache)))


def feeders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.mark.parametrize("ahead", [None, True])
def test_the_samples_of_several_splits_follow_each_other_in_the_order_asked_for(
    data: SegmentationData, ahead: bool | None
) -> None:
    all_images = np.concatenate([data.train.images, data.val.images])
    all_labels = np.concatenate([data.train.labels, data.val.labels])
    batches = list(feed((data.train, data.val), ORDER, CPU, ahead=ahead))
    assert len(batches) == len(ORDER)
    for indices, (pixels, labels) in zip(ORDER, batches, strict=True):
        assert np.array_equal(np.stack([sample.numpy() for sample in pixels]), all_images[indices])
        assert np.array_equal(np.stack([sample.numpy() for sample in labels]), all_labels[indices])
    assert not feeders()


def test_on_a_cpu_samples_are_views_of_the_mapped_file(data: SegmentationData) -> None:
    ((pixels, labels),) = feed((data.train,), [np.array([5, 1])], CPU)
    for views, array in ((pixels, data.train.images), (labels, data.train.labels)):
        assert [view.data_ptr() for view in views] == [array[place].ctypes.data for place in (5, 1)]


def test_a_feed_that_is_left_early_ends_its_thread(data: SegmentationData) -> None:
    batches = feed((data.train,), [np.array([0])] * 100, CPU, ahead=True)
    next(batches)
    assert len(feeders()) == 1
    batches.close()
    assert not feeders()


def test_two_results_are_made_ahead_and_no_more() -> None:
    started: list[int] = []
    results = map_ahead(lambda item: started.append(item) or item, range(10), depth=2)
    assert next(results) == 0
    while len(started) < 3:
        time.sleep(0.001)
    assert list(islice(results, 3)) == [1, 2, 3]
    results.close()
    assert max(started) <= 5
    assert started == sorted(started)


def test_what_the_thread_raises_is_raised_where_its_result_was_due() -> None:
    def double(item: int) -> int:
        if item == 3:
            raise OSError("the disk went away")
        return 2 * item

    seen = []
    with pytest.raises(OSError, match="the disk went away"):
        seen.extend(map_ahead(double, range(10), depth=2))
    results = map_ahead(double, range(10), depth=2)
    assert list(islice(results, 3)) == [0, 2, 4]
    with pytest.raises(OSError, match="the disk went away"):
        next(results)
    assert not feeders()


@pytest.mark.parametrize(
    ("free", "size", "reserved", "expected"),
    [(100, 40, 60, True), (100, 41, 60, False), (50, 10, 60, False), (10, 0, 10, True)],
)
def test_a_set_fits_if_it_leaves_what_is_reserved(free: int, size: int, reserved: int, expected: bool) -> None:
    assert fits(free, size, reserved) is expected


@pytest.mark.parametrize(("free", "is_resident"), [(76, True), (75, False)])
def test_a_split_goes_to_a_gpu_once_if_three_quarters_of_its_memory_stay_free(
    data: SegmentationData, monkeypatch: pytest.MonkeyPatch, free: int, is_resident: bool
) -> None:
    moves: list[torch.device] = []

    class Moved:
        def to(self, device: torch.device) -> "Moved":
            moves.append(device)
            return self

    size, gpu = data.val.images.nbytes + data.val.labels.nbytes, torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * size, 100 * size))
    monkeypatch.setattr(module, "as_tensor", lambda array: Moved())
    module.resident.cache_clear()
    assert [module.resident(data.val, gpu) is not None for _ in range(3)] == [is_resident] * 3
    module.resident.cache_clear()
    assert moves == [gpu, gpu] * is_resident


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ahead", [None, True])
def test_a_gpu_gets_the_same_samples(data: SegmentationData, ahead: bool | None) -> None:
    device = torch.device("cuda")
    order = [np.random.default_rng(number).permutation(12)[:5] for number in range(50)]
    for indices, (pixels, labels) in zip(order, feed((data.train,), order, device, ahead=ahead), strict=True):
        assert all(sample.is_cuda for sample in pixels)
        assert np.array_equal(torch.stack(list(pixels)).cpu().numpy(), data.train.images[indices])
        assert np.array_equal(torch.stack(list(labels)).cpu().numpy(), data.train.labels[indices])
