import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.core.errors import DataError
from segbench.data.splits import SPLIT_NAMES, Scene, limit_partition, split_scenes

METHODS = ("official", "pooled", "by-city")


@st.composite
def scene_lists(draw: st.DrawFn) -> list[Scene]:
    """Data sets of at least three cities, two training images and one in val."""
    train = draw(st.lists(st.integers(1, 12), min_size=2, max_size=6))
    val = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    test = draw(st.lists(st.integers(1, 8), max_size=2))
    return [
        Scene(folder, f"{folder}-{city}", f"{folder}-{city}-{frame}")
        for folder, sizes in (("train", train), ("val", val), ("test", test))
        for city, size in enumerate(sizes)
        for frame in range(size)
    ]


def cities(scenes) -> set[str]:
    return {scene.city for scene in scenes}


@given(scenes=scene_lists(), method=st.sampled_from(METHODS), seed=st.integers(0, 5), shuffle=st.randoms())
def test_splits_are_disjoint_complete_and_independent_of_the_order(scenes, method, seed, shuffle):
    partition = split_scenes(scenes, method, seed)
    assert Counter(scene for name in SPLIT_NAMES for scene in partition[name]) == Counter(scenes)
    assert all(partition[name] for name in SPLIT_NAMES)
    shuffle.shuffle(scenes)
    assert split_scenes(scenes, method, seed) == partition


@given(scenes=scene_lists(), seed=st.integers(0, 5))
def test_by_city_has_no_city_on_two_sides(scenes, seed):
    partition = split_scenes(scenes, "by-city", seed)
    assert not cities(partition["train"]) & cities(partition["val"])
    assert not cities(partition["train"]) & cities(partition["test"])
    assert not cities(partition["val"]) & cities(partition["test"])


@given(scenes=scene_lists(), method=st.sampled_from(METHODS), limit=st.one_of(st.none(), st.integers(3, 120)))
def test_a_limit_keeps_each_scene_in_its_split_and_each_split_a_scene(scenes, method, limit):
    whole = split_scenes(scenes, method, 0)
    part = limit_partition(whole, limit)
    for name in SPLIT_NAMES:
        assert part[name]
        assert len(set(part[name])) == len(part[name])
        assert set(part[name]) <= set(whole[name])
    assert sum(map(len, part.values())) == min(limit or len(scenes), len(scenes))


def made_up(folder: str, city: str, count: int) -> list[Scene]:
    return [Scene(folder, city, f"{city}-{frame:05d}") for frame in range(count)]


def sizes(partition) -> tuple[int, ...]:
    return tuple(len(partition[name]) for name in SPLIT_NAMES)


def test_pooled_has_the_published_sizes_on_all_of_cityscapes():
    scenes = made_up("train", "aachen", 2975) + made_up("val", "lindau", 500)
    assert sizes(split_scenes(scenes, "pooled", 0)) == (2953, 261, 261)
    assert sizes(split_scenes(scenes, "official", 0)) == (2677, 298, 500)


def test_pooled_mixes_the_folders_and_depends_on_the_seed():
    scenes = made_up("train", "aachen", 300) + made_up("val", "lindau", 300)
    first, second = (split_scenes(scenes, "pooled", seed) for seed in (0, 1))
    assert cities(first["test"]) == {"aachen", "lindau"}
    assert first != second
    assert sizes(first) == sizes(second)


def test_official_uses_a_labelled_test_folder_as_it_is():
    scenes = made_up("train", "aachen", 5) + made_up("val", "lindau", 3) + made_up("test", "berlin", 2)
    partition = split_scenes(scenes, "official", 0)
    assert [cities(partition[name]) for name in SPLIT_NAMES] == [{"aachen"}, {"lindau"}, {"berlin"}]


def test_by_city_comes_near_the_pooled_proportions():
    chooser = random.Random(0)
    scenes = [scene for city in range(21) for scene in made_up("train", f"city{city}", chooser.randint(60, 370))]
    train, val, test = sizes(split_scenes(scenes, "by-city", 0))
    assert 0.82 < train / len(scenes) < 0.88
    assert 0.05 < val / len(scenes) < 0.1
    assert 0.05 < test / len(scenes) < 0.1


@pytest.mark.parametrize(
    ("scenes", "method", "message"),
    [
        (made_up("train", "aachen", 9), "by-city", r"at least 3 cities, and there are 1 \(aachen\)"),
        (made_up("train", "aachen", 9), "official", "leaves test empty: labelled images are 9 in train/; official"),
        (made_up("val", "lindau", 9), "official", "leaves train empty"),
        (made_up("train", "aachen", 1) + made_up("val", "lindau", 9), "official", "leaves train empty"),
        (made_up("train", "aachen", 2), "pooled", "leaves train empty.*at least 3 are needed"),
    ],
)
def test_an_empty_split_is_an_error_that_says_why(scenes, method, message):
    with pytest.raises(DataError, match=message):
        split_scenes(scenes, method, 0)
