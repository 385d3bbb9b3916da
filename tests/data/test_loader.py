"""The loader gives every item once per epoch, in an order that the passed generator alone decides."""

import json

import numpy as np
import pytest

from minires.data import Loader, Split


def numbered(N):
    """A split whose i-th image is full of i and has the label i."""
    images = np.broadcast_to(np.arange(N, dtype=np.float32)[:, None, None, None], (N, 1, 2, 3)).copy()
    return Split(images, np.arange(N))


def labels_of(loader):
    return [labels.tolist() for _, labels in loader]


@pytest.mark.parametrize(("N", "batch_size", "drop_last", "sizes"), [
    (10, 4, False, [4, 4, 2]), (10, 4, True, [4, 4]), (8, 4, False, [4, 4]), (8, 4, True, [4, 4]),
    (3, 5, False, [3]), (0, 5, False, []), (0, 5, True, []), (3, 1, False, [1, 1, 1]),
])  # fmt: skip
def test_batches_have_the_promised_sizes(N, batch_size, drop_last, sizes):
    loader = Loader(numbered(N), batch_size, rng=np.random.default_rng(0), drop_last=drop_last)
    assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)


def test_every_item_comes_once_with_its_own_label():
    loader = Loader(numbered(11), 4, rng=np.random.default_rng(0))
    seen = []
    for images, labels in loader:
        assert images.dtype == np.float32
        assert labels.dtype == np.int64
        assert images.shape == (len(labels), 1, 2, 3)
        np.testing.assert_array_equal(images, labels[:, None, None, None] * np.ones((1, 1, 2, 3)))
        seen += labels.tolist()
    assert sorted(seen) == list(range(11))
    assert seen != sorted(seen)


def test_without_shuffling_the_order_is_the_splits_and_no_rng_is_needed():
    assert labels_of(Loader(numbered(5), 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_each_epoch_has_another_order_and_the_same_seed_the_same_orders():
    loader, twin = (Loader(numbered(9), 3, rng=np.random.default_rng(7)) for _ in range(2))
    first, second = labels_of(loader), labels_of(loader)
    assert first != second
    assert [labels_of(twin), labels_of(twin)] == [first, second]


KINDS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_survives_json_and_brings_back_the_next_epochs(kind):
    loader = Loader(numbered(9), 3, rng=np.random.Generator(kind(7)))
    labels_of(loader)
    loader.rng.integers(5, dtype=np.int32)  # leaves half of a drawn number behind, which belongs to the state
    state = json.loads(json.dumps(loader.state_dict()))
    expected = [labels_of(loader), labels_of(loader)]
    other = Loader(numbered(9), 3, rng=np.random.Generator(kind(99)))
    other.load_state_dict(state)
    assert [labels_of(other), labels_of(other)] == expected
    other.load_state_dict({"rng": np.random.Generator(kind(7)).bit_generator.state})  # with arrays, as NumPy gives it
    assert labels_of(other) == labels_of(Loader(numbered(9), 3, rng=np.random.Generator(kind(7))))


def damaged(state, change):
    """``state`` with one entry changed, the innermost of the first that has any."""
    if not isinstance(state, dict):
        return change(state)
    name = "state" if "state" in state else next(iter(state))
    return {**state, name: damaged(state[name], change)}


@pytest.mark.parametrize("change", [lambda _: "text", lambda _: [1, 2], lambda _: [[-1]], lambda _: None])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_state_is_refused_and_the_generator_stays(kind, change):
    loader = Loader(numbered(9), 3, rng=np.random.Generator(kind(7)))
    before = json.dumps(loader.state_dict())
    with pytest.raises(ValueError, match=f"Loader: the state of {kind.__name__} is damaged"):
        loader.load_state_dict(damaged(loader.state_dict(), change))
    assert json.dumps(loader.state_dict()) == before


@pytest.mark.parametrize("state", [None, {}, [1], {"rng": 3}, {"rng": {}}])
def test_what_is_no_state_is_refused(state):
    loader = Loader(numbered(9), 3, rng=np.random.default_rng(7))
    with pytest.raises(ValueError, match=r"Loader: (a state has an entry rng|the state is of generator)"):
        loader.load_state_dict(state)


def test_a_state_of_another_generator_is_refused():
    loader = Loader(numbered(9), 3, rng=np.random.default_rng(7))
    other = Loader(numbered(9), 3, rng=np.random.Generator(np.random.MT19937(7)))
    with pytest.raises(ValueError, match="of generator PCG64, this loader's is MT19937"):
        other.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="of generator None, this loader's is PCG64"):
        loader.load_state_dict(Loader(numbered(9), 3, shuffle=False).state_dict())


def test_a_transform_gets_the_images_and_the_loaders_rng():
    def add_noise(images, rng):
        return images + rng.standard_normal(images.shape).astype(np.float32)

    def batches():
        return [images for images, _ in Loader(numbered(6), 4, rng=np.random.default_rng(1), transform=add_noise)]

    for once, again in zip(batches(), batches(), strict=True):
        np.testing.assert_array_equal(once, again)
        assert (once != np.rint(once)).all()


def test_batches_are_copies():
    split = numbered(4)
    for images, labels in Loader(split, 2, shuffle=False):
        images += 100
        labels += 100
    np.testing.assert_array_equal(split.labels, range(4))
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], range(4))


def test_bad_settings_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Loader(numbered(3), 0, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"pass rng=numpy.random.default_rng\(seed\)"):
        Loader(numbered(3), 2)
    with pytest.raises(ValueError, match="draw random numbers"):
        Loader(numbered(3), 2, shuffle=False, transform=lambda images, rng: images)
    with pytest.raises(ValueError, match="drop_last leaves nothing of 3 items with batch_size 4"):
        Loader(numbered(3), 4, rng=np.random.default_rng(0), drop_last=True)


@pytest.mark.parametrize(("batch_size", "options", "message"), [
    (2.0, {}, "Loader: batch_size must be an integer, got 2.0"), ("2", {}, "batch_size must be an integer, got '2'"),
    (True, {}, "batch_size must be an integer, got True"), (None, {}, "batch_size must be an integer, got None"),
    (2, {"rng": 5}, "Loader: rng must be a numpy.random.Generator, got int; .*default_rng"),
    (2, {"rng": np.random, "shuffle": False}, "rng must be a numpy.random.Generator, got module"),
    (2, {"shuffle": "no"}, "Loader: shuffle must be True or False, got 'no'"),
    (2, {"drop_last": 2}, "Loader: drop_last must be True or False, got 2"),
    (2, {"transform": "flip"}, "Loader: transform must be a function of images and rng, got str"),
])  # fmt: skip
def test_settings_of_another_type_are_refused_at_once(batch_size, options, message):
    with pytest.raises(TypeError, match=message):
        Loader(numbered(3), batch_size, **{"rng": np.random.default_rng(0), **options})
