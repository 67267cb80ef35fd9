from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segbench.core.config import TrialConfig
from segbench.core.seeding import derive_seed
from segbench.data.augment import augment
from segbench.data.augment.draws import BLUR_MAX_PX, BLUR_MIN_PX, draw

ALL = TrialConfig(flip=0.5, scale_min=0.5, scale_max=2.0, color=0.8, blur=0.5)
LEVEL = 1 / 255
each_and_batched = pytest.mark.parametrize("augment", [partial(augment, batched=flag) for flag in (False, True)])


def batch(count: int = 6, size: tuple[int, int] = (24, 40)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8)
    return pixels, torch.randint(0, 8, (count, *size), generator=generator, dtype=torch.uint8)


def smooth(count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples whose neighbouring pixels resemble each other, and label maps of regions."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(count, 4, 5, 7, generator=generator)
    fine = functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (fine[:, :3].permute(0, 2, 3, 1) * 255).round().byte(), (fine[:, 3] * 8).byte()


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2) / 255


@each_and_batched
def test_without_augmentation_pixels_become_numbers_and_nothing_else(augment):
    pixels, labels = batch()
    images, new_labels = augment(pixels, labels, range(6), TrialConfig(), 0, 0)
    assert torch.equal(images, as_images(pixels))
    assert torch.equal(new_labels, labels)


@each_and_batched
@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(flip=1.0),
        TrialConfig(color=1.0),
        TrialConfig(blur=1.0),
        TrialConfig(scale_min=1.0, scale_max=2.0),
        TrialConfig(scale_min=0.4, scale_max=0.9),
        ALL,
    ],
)
def test_shapes_types_and_ranges_stay_and_the_inputs_too(augment, config):
    pixels, labels = batch()
    kept = pixels.clone(), labels.clone()
    images, new_labels = augment(pixels, labels, range(6), config, 0, 0)
    assert (images.shape, images.dtype) == ((6, 3, 24, 40), torch.float32)
    assert (new_labels.shape, new_labels.dtype) == (labels.shape, torch.uint8)
    assert 0 <= images.min() <= images.max() <= 1
    assert images.is_contiguous()
    assert set(new_labels.unique().tolist()) <= {*range(8), 255}
    assert not torch.equal(images, as_images(pixels))
    assert torch.equal(pixels, kept[0])
    assert torch.equal(labels, kept[1])


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(6)),
    part=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 99),
    batched=st.booleans(),
)
def test_a_sample_looks_the_same_in_any_batch(order, part, seed, epoch, batched):
    pixels, labels = batch()
    whole = augment(pixels, labels, range(100, 106), ALL, seed, epoch, batched=batched)
    chosen = order[:part]
    indices = [100 + place for place in chosen]
    some = augment([pixels[i] for i in chosen], [labels[i] for i in chosen], indices, ALL, seed, epoch, batched=batched)
    if batched:  # vector code may round the odd pixel at the end of a batch otherwise
        torch.testing.assert_close(some[0], whole[0][chosen], rtol=0, atol=1e-5)
    else:
        assert torch.equal(some[0], whole[0][chosen])
    assert torch.equal(some[1], whole[1][chosen])


@pytest.mark.parametrize("size", [(24, 40), (64, 128), (72, 96)])
@pytest.mark.parametrize(
    ("config", "levels"),
    [
        (TrialConfig(flip=0.5), 0),
        (TrialConfig(flip=0.5, scale_min=0.4, scale_max=0.95), 1),
        (TrialConfig(flip=0.5, scale_min=1.05, scale_max=3.0), 1),
        (TrialConfig(flip=0.5, color=1.0, blur=0.5), 0.01),
        (ALL, 3),
    ],
    ids=["flip", "zoom out", "zoom in", "colour", "all"],
)
def test_both_ways_show_the_same(size, config, levels):
    """Labels are equal, colours to one of 256 levels (the 8-bit kernel rounds) times the gain of brightness and co."""
    pixels, labels = smooth(16, size)
    images, new_labels = augment(pixels, labels, range(16), config, 1, 2, batched=False)
    others, other_labels = augment(pixels, labels, range(16), config, 1, 2, batched=True)
    assert torch.equal(new_labels, other_labels)
    assert (images - others).abs().max() <= levels * LEVEL + 1e-6 * (levels > 0)
    assert (images - others).abs().mean() <= 0.2 * LEVEL


@each_and_batched
def test_seed_epoch_and_index_each_change_the_draws(augment):
    pixels, labels = batch(1)
    results = [
        augment(pixels, labels, [index], ALL, seed, epoch)[0]
        for seed, epoch, index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    for place, result in enumerate(results):
        assert not any(torch.equal(result, other) for other in results[:place])


@each_and_batched
def test_a_certain_flip_mirrors_image_and_labels(augment):
    pixels, labels = batch()
    images, new_labels = augment(pixels, labels, range(6), TrialConfig(flip=1.0), 0, 0)
    assert torch.equal(images, as_images(pixels).flip(-1))
    assert torch.equal(new_labels, labels.flip(-1))


def test_about_half_are_flipped_at_a_probability_of_a_half():
    count = 400
    pixels = torch.zeros(1, 1, 2, 3, dtype=torch.uint8).expand(count, -1, -1, -1)
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8).expand(count, -1, -1)
    _, new_labels = augment(pixels, labels, range(count), TrialConfig(flip=0.5), 0, 0)
    assert 160 < new_labels[:, 0, 0].sum() < 240


@each_and_batched
@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.3, 2.0])
def test_image_and_labels_stay_aligned_to_a_pixel(augment, zoom):
    """Each pixel of image and label map says where it comes from."""
    height, width = 32, 48
    config = TrialConfig(scale_min=zoom, scale_max=zoom, flip=0.5)
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.uint8), torch.arange(width, dtype=torch.uint8), indexing="ij"
    )
    pixels = torch.stack([rows, columns, rows], dim=-1)[None]
    for index in range(20):
        for channel, labels in ((0, rows), (1, columns)):
            images, new_labels = augment(pixels, labels[None], [index], config, 3, 0)
            is_real = new_labels != 255
            distance = (images[:, channel] * 255 - new_labels)[is_real].abs()
            assert distance.max() <= 1.001


@each_and_batched
@pytest.mark.parametrize("zoom", [0.5, 0.75])
def test_shrinking_pads_with_the_mean_colour_and_255(augment, zoom):
    pixels, labels = batch(1)
    images, new_labels = augment(pixels, labels, [4], TrialConfig(scale_min=zoom, scale_max=zoom), 0, 0)
    padded = new_labels[0] == 255
    assert (~padded).sum() == round(24 * zoom) * round(40 * zoom)
    expected = as_images(pixels)[0].mean((1, 2))[:, None].expand(-1, int(padded.sum()))
    assert torch.allclose(images[0][:, padded], expected)


@each_and_batched
def test_enlarging_shows_a_part_and_every_part_can_be_shown(augment):
    pixels, _ = batch(1, (32, 48))
    blocks = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    labels = blocks.repeat_interleave(11, 0).repeat_interleave(12, 1)[None, :32]
    config = TrialConfig(scale_min=2.0, scale_max=2.0)
    seen = [augment(pixels, labels, [index], config, 0, 0)[1].unique() for index in range(60)]
    assert all(len(part) < 12 for part in seen)
    assert not any((part == 255).any() for part in seen)
    assert set(torch.cat(seen).tolist()) == set(range(12))


@each_and_batched
def test_ignored_pixels_stay_ignored(augment):
    pixels, labels = batch()
    labels[:] = 255
    _, new_labels = augment(pixels, labels, range(6), ALL, 0, 0)
    assert (new_labels == 255).all()


@each_and_batched
def test_colours_change_more_with_strength_and_labels_not_at_all(augment):
    pixels, labels = batch()
    changes = []
    for color in (0.1, 0.5, 1.0):
        images, new_labels = augment(pixels, labels, range(6), TrialConfig(color=color), 0, 0)
        changes.append((images - as_images(pixels)).abs().mean().item())
        assert torch.equal(new_labels, labels)
    assert 0 < changes[0] < changes[1] < changes[2]


@each_and_batched
def test_colours_are_brightness_then_contrast_around_the_mean_then_saturation(augment):
    pixels, labels = smooth(8, (24, 40))
    config = TrialConfig(color=0.6)
    images, _ = augment(pixels, labels, range(8), config, 7, 1)
    for index, image in enumerate(as_images(pixels)):
        draws = draw(derive_seed(7, "augment", 1), index, config)
        expected = image * draws.brightness
        expected = torch.lerp(expected.mean(), expected, draws.contrast)
        expected = torch.lerp(expected.mean(0, keepdim=True).expand(3, -1, -1), expected, draws.saturation).clamp(0, 1)
        torch.testing.assert_close(images[index], expected, rtol=0, atol=1e-5)


@each_and_batched
def test_a_blur_is_gaussian_and_leaves_labels_alone(augment):
    pixels = torch.zeros(5, 33, 41, 3, dtype=torch.uint8)
    pixels[:, 16, 20] = 255
    labels = batch(5, (33, 41))[1]
    config = TrialConfig(blur=1.0)
    images, new_labels = augment(pixels, labels, range(5), config, 0, 0)
    assert torch.equal(new_labels, labels)
    for index, image in enumerate(images):
        deviation = draw(derive_seed(0, "augment", 0), index, config).blur_px
        places = torch.arange(33) - 16
        profile = torch.exp(-0.5 * (places / deviation) ** 2)
        expected = torch.outer(profile, profile) / profile.sum() ** 2
        torch.testing.assert_close(image[1][:, 4:37], expected, rtol=0, atol=3e-3)
        assert image[0].sum().item() == pytest.approx(1, abs=1e-5)


def test_the_share_and_the_range_of_blurs_follow_the_setting_and_other_draws_do_not_change():
    config = TrialConfig(flip=0.5, scale_min=0.5, scale_max=2.0, color=0.8)
    blurred = [draw(3, index, TrialConfig(**{**vars(config), "blur": 0.3})) for index in range(2000)]
    plain = [draw(3, index, config) for index in range(2000)]
    deviations = [draws.blur_px for draws in blurred if draws.blur_px > 0]
    assert 500 < len(deviations) < 700
    assert BLUR_MIN_PX <= min(deviations) < 0.15
    assert 1.95 < max(deviations) <= BLUR_MAX_PX
    assert [{**vars(draws), "blur_px": 0.0} for draws in blurred] == [vars(draws) for draws in plain]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_shows_the_same():
    pixels, labels = smooth(16, (64, 128))
    on_cpu = augment(pixels, labels, range(16), ALL, 0, 0)
    on_gpu = augment(pixels.cuda(), labels.cuda(), range(16), ALL, 0, 0)
    assert (on_gpu[0].cpu() - on_cpu[0]).abs().max() <= 3 * LEVEL
    assert torch.equal(on_gpu[1].cpu(), on_cpu[1])
