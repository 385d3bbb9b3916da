"""Crops and flips are exactly the papers': 81 shifts and a mirror, each equally likely, drawn from the passed rng."""

import numpy as np
import pytest

from minires.data.augmentation import crop_and_flip, random_crop, random_flip


def images_of(N, C=2, H=5, W=7, seed=0):
    return np.random.default_rng(seed).standard_normal((N, C, H, W)).astype(np.float32)


def shifted(image, down, right):
    """``image`` (C, H, W) moved, zeros moving in: pixel by pixel."""
    C, H, W = image.shape
    moved = np.zeros_like(image)
    for c in range(C):
        for h in range(H):
            for w in range(W):
                if 0 <= h - down < H and 0 <= w - right < W:
                    moved[c, h, w] = image[c, h - down, w - right]
    return moved


def test_a_crop_is_one_of_the_shifts_by_up_to_the_padding_and_every_shift_occurs():
    image, padding = images_of(1)[0], 1
    crops = random_crop(np.stack([image] * 200), padding=padding, rng=np.random.default_rng(0))
    shifts = {(down, right): shifted(image, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    seen = [place for crop in crops for place, moved in shifts.items() if np.array_equal(crop, moved)]
    assert len(seen) == 200
    counts = [seen.count(place) for place in shifts]
    assert min(counts) > 8  # 200 / 9 = 22.2 expected, standard deviation 4.4
    assert crops.dtype == np.float32


def test_padding_4_has_81_shifts_and_the_whole_image_among_them():
    image = np.arange(1.0, 1025, dtype=np.float32).reshape(1, 32, 32)
    crops = random_crop(np.stack([image] * 2000), rng=np.random.default_rng(0))
    assert len({crop.tobytes() for crop in crops}) == 81
    assert any(np.array_equal(crop, image) for crop in crops)


def test_padding_0_returns_the_images():
    images = images_of(3)
    np.testing.assert_array_equal(random_crop(images, padding=0, rng=np.random.default_rng(0)), images)


def test_each_image_gets_its_own_shift_and_all_its_channels_the_same():
    images = images_of(40)
    images[:, 1] = 2 * images[:, 0]
    crops = random_crop(images, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(crops[:, 1], 2 * crops[:, 0])


def test_a_flip_mirrors_whole_images_left_to_right_about_half_of_them():
    images = images_of(400)
    flipped = random_flip(images, rng=np.random.default_rng(0))
    mirrored = np.array([np.array_equal(new, old[:, :, ::-1]) for new, old in zip(flipped, images, strict=True)])
    same = np.array([np.array_equal(new, old) for new, old in zip(flipped, images, strict=True)])
    assert (mirrored ^ same).all()
    assert 160 < mirrored.sum() < 240  # 200 expected, standard deviation 10
    assert flipped.dtype == np.float32


def test_the_papers_augmentation_is_a_crop_and_then_a_flip():
    images = images_of(8, H=32, W=32)
    rng = np.random.default_rng(5)
    expected = random_flip(random_crop(images, padding=4, rng=rng), rng=rng)
    np.testing.assert_array_equal(crop_and_flip(images, np.random.default_rng(5)), expected)


@pytest.mark.parametrize("augment", [lambda x: random_crop(x, rng=np.random.default_rng(0)),
                                     lambda x: random_flip(x, rng=np.random.default_rng(0))])  # fmt: skip
def test_augmentation_leaves_its_input_alone_and_takes_an_empty_batch(augment):
    images = images_of(6)
    copy = images.copy()
    augment(images)[...] = 0
    np.testing.assert_array_equal(images, copy)
    assert augment(images[:0]).shape == (0, 2, 5, 7)


def test_bad_arguments_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"random_crop: images must be \(N, C, H, W\), got shape \(5, 7\)"):
        random_crop(np.zeros((5, 7)), rng=rng)
    with pytest.raises(ValueError, match="random_flip: images must be"):
        random_flip(np.zeros((5, 7)), rng=rng)
    with pytest.raises(ValueError, match="padding must not be negative, got -1"):
        random_crop(images_of(2), padding=-1, rng=rng)
