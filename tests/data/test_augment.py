import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.config import TrialConfig
from segbench.data.augment import augment

ALL = TrialConfig(flip=0.5, scale_min=0.5, scale_max=2.0, color=0.8)


def batch(count: int = 6, size: tuple[int, int] = (24, 40)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, *size, generator=generator)
    return images, torch.randint(0, 8, (count, *size), generator=generator)


def coded(size: tuple[int, int] = (32, 48)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one sample whose image says of each pixel what its class is."""
    blocks = torch.arange(12).reshape(3, 4)
    mask = blocks.repeat_interleave(size[0] // 3 + 1, 0).repeat_interleave(size[1] // 4, 1)[: size[0]]
    return (mask[None, None] / 12).expand(1, 3, *size).contiguous(), mask[None]


def test_without_augmentation_the_arguments_come_back():
    images, masks = batch()
    result = augment(images, masks, range(6), TrialConfig(), 0, 0)
    assert result[0] is images
    assert result[1] is masks


@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(flip=1.0),
        TrialConfig(color=1.0),
        TrialConfig(scale_min=1.0, scale_max=2.0),
        TrialConfig(scale_min=0.4, scale_max=0.9),
        ALL,
    ],
)
def test_shapes_types_and_ranges_stay_and_the_inputs_too(config):
    images, masks = batch()
    kept = images.clone(), masks.clone()
    new_images, new_masks = augment(images, masks, range(6), config, 0, 0)
    assert (new_images.shape, new_images.dtype) == (images.shape, torch.float32)
    assert (new_masks.shape, new_masks.dtype) == (masks.shape, torch.int64)
    assert 0 <= new_images.min() <= new_images.max() <= 1
    assert new_images.is_contiguous()
    assert set(new_masks.unique().tolist()) <= {*range(8), 255}
    assert not torch.equal(new_images, images)
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(6)), part=st.integers(1, 6), seed=st.integers(0, 2**31), epoch=st.integers(0, 99))
def test_a_sample_looks_the_same_in_any_batch(order, part, seed, epoch):
    images, masks = batch()
    whole = augment(images, masks, range(100, 106), ALL, seed, epoch)
    chosen = order[:part]
    some = augment(images[chosen], masks[chosen], [100 + place for place in chosen], ALL, seed, epoch)
    assert torch.equal(some[0], whole[0][chosen])
    assert torch.equal(some[1], whole[1][chosen])


def test_seed_epoch_and_index_each_change_the_draws():
    images, masks = batch(1)
    results = [
        augment(images, masks, [index], ALL, seed, epoch)[0]
        for seed, epoch, index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    for place, result in enumerate(results):
        assert not any(torch.equal(result, other) for other in results[:place])


def test_a_certain_flip_mirrors_image_and_mask():
    images, masks = batch()
    new_images, new_masks = augment(images, masks, range(6), TrialConfig(flip=1.0), 0, 0)
    assert torch.equal(new_images, images.flip(-1))
    assert torch.equal(new_masks, masks.flip(-1))


def test_about_half_are_flipped_at_a_probability_of_a_half():
    images, _ = batch(1, (1, 2))
    count = 400
    _, new_masks = augment(
        images.expand(count, -1, -1, -1),
        torch.tensor([[[0, 1]]]).expand(count, -1, -1),
        range(count),
        TrialConfig(flip=0.5),
        0,
        0,
    )
    assert 160 < new_masks[:, 0, 0].sum() < 240


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.3, 2.0])
def test_image_and_mask_stay_aligned_to_a_pixel(zoom):
    """Each pixel of image and mask says where it comes from."""
    height, width = 32, 48
    config = TrialConfig(scale_min=zoom, scale_max=zoom, flip=0.5)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack([rows / height, columns / width, rows / height])[None]
    for index in range(20):
        for channel, length, mask in ((0, height, rows), (1, width, columns)):
            new_images, new_masks = augment(images, mask[None], [index], config, 3, 0)
            is_real = new_masks != 255
            distance = (new_images[:, channel] * length - new_masks)[is_real].abs()
            assert distance.max() <= 1


@pytest.mark.parametrize("zoom", [0.5, 0.75])
def test_shrinking_pads_with_the_mean_colour_and_255(zoom):
    images, masks = batch(1)
    new_images, new_masks = augment(images, masks, [4], TrialConfig(scale_min=zoom, scale_max=zoom), 0, 0)
    padded = new_masks[0] == 255
    assert (~padded).sum() == round(24 * zoom) * round(40 * zoom)
    expected = images[0].mean((1, 2))[:, None].expand(-1, int(padded.sum()))
    assert torch.allclose(new_images[0][:, padded], expected)


def test_enlarging_shows_a_part_and_every_part_can_be_shown():
    images, masks = coded()
    config = TrialConfig(scale_min=2.0, scale_max=2.0)
    seen = [augment(images, masks, [index], config, 0, 0)[1].unique() for index in range(60)]
    assert all(len(part) < 12 for part in seen)
    assert not any((part == 255).any() for part in seen)
    assert set(torch.cat(seen).tolist()) == set(range(12))


def test_ignored_pixels_stay_ignored():
    images, masks = batch()
    masks[:] = 255
    _, new_masks = augment(images, masks, range(6), ALL, 0, 0)
    assert (new_masks == 255).all()


def test_colours_change_more_with_strength_and_masks_not_at_all():
    images, masks = batch()
    changes = []
    for color in (0.1, 0.5, 1.0):
        new_images, new_masks = augment(images, masks, range(6), TrialConfig(color=color), 0, 0)
        changes.append((new_images - images).abs().mean().item())
        assert torch.equal(new_masks, masks)
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_shows_the_same():
    images, masks = batch()
    on_cpu = augment(images, masks, range(6), ALL, 0, 0)
    on_gpu = augment(images.cuda(), masks.cuda(), range(6), ALL, 0, 0)
    assert torch.allclose(on_gpu[0].cpu(), on_cpu[0], atol=1e-4)
    assert torch.equal(on_gpu[1].cpu(), on_cpu[1])
