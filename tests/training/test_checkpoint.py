"""A checkpoint brings back the same net, replaces the old one only when complete, and runs no code."""

import json
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minires import Tensor, models
from minires.data import Dataset
from minires.training import load_checkpoint, save_checkpoint
from tests.damage import refusals
from tests.training.small import OPTIONS, bars, equal_states, net


def save(path, module, **changes):
    save_checkpoint(path, module, **{"model": "resnet8", "options": OPTIONS, "notes": {"epoch": 3}, **changes})


def test_a_net_comes_back_bit_by_bit_in_evaluation_mode(tmp_path):
    original = net(seed=5)
    original(Tensor(bars().images))  # so that the running statistics aren't what every new net has
    save(tmp_path / "deep" / "net.safetensors", original)
    checkpoint = load_checkpoint(tmp_path / "deep" / "net.safetensors")
    assert (checkpoint.model, checkpoint.options, checkpoint.notes) == ("resnet8", OPTIONS, {"epoch": 3})
    copy = checkpoint.build()
    assert equal_states(copy.state_dict(), original.state_dict())
    assert not copy.training
    x = Tensor(bars(4, seed=1).images)
    np.testing.assert_array_equal(copy(x).data, original.eval()(x).data)


def dataset():
    """Three classes of 1x6x6 images, with a mean that no float of few digits is."""
    mean = np.random.default_rng(0).random((1, 6, 6)).astype(np.float32)
    return Dataset("bars", bars(), bars(6, seed=1), ("left", "middle", "right"), mean, 1 / 3)


def test_a_checkpoint_knows_its_data_to_the_last_bit(tmp_path):
    data = dataset()
    save(tmp_path / "net.safetensors", net(), data=data)
    card = load_checkpoint(tmp_path / "net.safetensors").data
    assert (card.name, card.classes, card.image_shape, card.std) == ("bars", data.classes, (1, 6, 6), 1 / 3)
    assert card.mean.dtype == np.float32
    np.testing.assert_array_equal(card.mean, data.mean)
    save(tmp_path / "net.safetensors", net())
    assert load_checkpoint(tmp_path / "net.safetensors").data is None


def test_the_arrays_of_a_checkpoint_are_the_state_and_nothing_else(tmp_path):
    module = net()
    save(tmp_path / "net.safetensors", module, data=dataset())
    assert equal_states(load_file(tmp_path / "net.safetensors"), module.state_dict())


def test_checkpoints_of_the_first_format_are_still_read(tmp_path):
    module, notes = net(seed=3), {"data": "digits", "epoch": 7}
    description = {"format": "minires/1", "model": "resnet8", "options": OPTIONS, "notes": notes}
    save_file(module.state_dict(), tmp_path / "old.safetensors", metadata={"minires": json.dumps(description)})
    old = load_checkpoint(tmp_path / "old.safetensors")
    assert (old.model, old.options, old.notes, old.data) == ("resnet8", OPTIONS, notes, None)
    assert equal_states(old.build().state_dict(), module.state_dict())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_save_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "net.safetensors"
    save(path, net(seed=1))
    content = path.read_bytes()

    def fsync(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(type(error)):
        save(path, net(seed=2))
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_hold_is_refused_and_the_old_checkpoint_stays(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path, net())
    content = path.read_bytes()
    with pytest.raises(TypeError, match=r"options and notes must be what JSON can hold: .*float32"):
        save(path, net(seed=2), notes={"error": np.float32(1)})
    assert path.read_bytes() == content


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; name a file in it, such as .*/best.safetensors"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="is a folder; name a file to write"):
        save(tmp_path, net())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*best.safetensors"):
        load_checkpoint(tmp_path / "best.safetensors")


def test_a_pickle_is_refused_without_running_it(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="isn't a MiniRes checkpoint, or is damaged"):
        load_checkpoint(path)
    assert not (tmp_path / "proof").exists()


def card(**changes):
    return {"name": "x", "classes": ["a"], "image_shape": [1, 2, 2], "mean": [1, 2, 3, 4], "std": 1.0, **changes}


def described(**changes):
    return json.dumps({"format": "minires/2", "model": "resnet8", "options": {}, "notes": {}, "data": None, **changes})


def test_the_description_that_the_damaged_ones_are_made_of_is_read(tmp_path):
    save_file({}, tmp_path / "net.safetensors", metadata={"minires": described(data=card())})
    assert load_checkpoint(tmp_path / "net.safetensors").data.classes == ("a",)


@pytest.mark.parametrize("metadata", [
    None, {"minires": "not JSON"}, {"other": "{}"}, {"minires": "{}"}, {"minires": json.dumps({"format": "minires/1"})},
    {"minires": json.dumps({"format": "minires/9", "model": "resnet8", "options": {}, "notes": {}})},
    {"minires": "[1]"}, {"minires": "[" * 20_000}, {"minires": '{"a":' * 20_000},
    {"minires": described(notes=[])}, {"minires": described(options=None)}, {"minires": described(model=8)},
    {"minires": described(data=[])}, {"minires": described(data={"name": "x", "classes": ["a"], "std": 1})},
    {"minires": described(data=card(mean=[10**400] * 4))}, {"minires": described(data=card(mean=[1e300] * 4))},
    {"minires": described(data=card(std=0))},
    {"minires": described(data=card(image_shape=[2, 2]))}, {"minires": described(data=card(classes="ab"))},
    {"minires": described(data=card(mean=[1, 2, 3]))}, {"minires": described(data=card(mean=[1, 2, 3, float("nan")]))},
    {"minires": described(data=card(name="x\x1b]0;"))}, {"minires": described(data=card(classes=["a\n"]))},
    {"minires": described()[:-1] + ', "model": "resnet14"}'},
])  # fmt: skip
def test_a_file_of_someone_else_is_refused(tmp_path, metadata):
    path = tmp_path / "net.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"safetensors isn't a MiniRes checkpoint, or is damaged \(.+\); name a file"):
        load_checkpoint(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path, net())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="isn't a MiniRes checkpoint, or is damaged"):
        load_checkpoint(path)


def test_a_state_that_doesnt_fit_the_named_net_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save(path, net(), model="resnet14")
    with pytest.raises(ValueError, match=r"missing: layer1.1.conv1.weight"):
        load_checkpoint(path).build()


@pytest.mark.parametrize(("model", "options"), [
    ("resnet6000002", {}), ("resnet" + "9" * 5000, {}), ("resnet8", {"widths": [10**6, 1, 1]}), ("resnet", {}),
    ("resnet8", {"in_channels": 10**9}), ("resnet8", {"num_classes": 10**9}), ("resnet8", {"widths": [2, 3, 10**30]}),
])  # fmt: skip
def test_a_net_that_is_larger_than_its_file_is_refused_before_it_is_made(tmp_path, model, options, monkeypatch):
    path = tmp_path / "net.safetensors"
    save(path, net(), model=model, options={**OPTIONS, **options})
    checkpoint = load_checkpoint(path)
    monkeypatch.setattr("minires.models.create", lambda *arguments, **options: pytest.fail("it was made"))
    with pytest.raises(ValueError, match=r"Checkpoint.build: .*it would be larger than the \d+ numbers in \d+ arrays"):
        checkpoint.build()


@pytest.mark.parametrize(("model", "options"), [
    ("plain8", {"widths": [32, 1, 1]}), ("resnet14", {"widths": [1, 1, 32], "num_classes": 5000}),
    ("preact_resnet20", {"widths": [1, 1, 1], "in_channels": 1000}), ("resnet164", {"widths": [1, 1, 1]}),
    ("plain18", {"widths": [1, 1, 1, 32]}), ("preact_resnet200", {"widths": [2, 2, 2, 2], "num_classes": 2}),
])  # fmt: skip
def test_a_net_of_any_kind_comes_back(tmp_path, model, options):
    original = models.create(model, **options)
    save(tmp_path / "net.safetensors", original, model=model, options=options)
    assert equal_states(load_checkpoint(tmp_path / "net.safetensors").build().state_dict(), original.state_dict())


@pytest.mark.parametrize("options", [
    {"rng": 1}, {"zzz": 1}, {"widths": "abc"}, {"widths": [2, 3]}, {"widths": [2, 3, 4.5]}, {"widths": {"a": 1}},
    {"shortcut": 3}, {"num_classes": "many"}, {"in_channels": None}, {"fan": []},
])  # fmt: skip
def test_options_of_no_net_are_a_value_error(tmp_path, options):
    path = tmp_path / "net.safetensors"
    save(path, net(), options={**OPTIONS, **options})
    with pytest.raises(ValueError, match=r"Checkpoint.build: this is no state of models.create\('resnet8'"):
        load_checkpoint(path).build()


def test_of_many_damaged_files_each_is_read_or_refused_by_name(tmp_path):
    path, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    save(path, net(), data=dataset())
    messages = refusals(lambda path: load_checkpoint(path).build(), path.read_bytes(), other)
    assert 300 < len(messages) < 400
    for message in messages:
        start = (
            "Checkpoint.build: this is" if "models.create" in message else f"load_checkpoint: {other} isn't a MiniRes"
        )
        assert message.startswith(start)


@pytest.mark.parametrize("field", ["options", "notes"])
def test_what_is_nested_too_deeply_for_json_is_refused_and_the_old_checkpoint_stays(tmp_path, field):
    path = tmp_path / "net.safetensors"
    save(path, net())
    content, deep = path.read_bytes(), []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(ValueError, match="save_checkpoint: options and notes are nested too deeply for JSON"):
        save(path, net(seed=2), **{field: {"deep": deep}})
    assert path.read_bytes() == content


@pytest.mark.parametrize("path", [None, 5, ["a"]], ids=repr)
def test_a_path_that_is_none_is_refused(tmp_path, path):
    with pytest.raises(TypeError, match=r"load_checkpoint: path must be a text or a pathlib.Path, got ") as caught:
        load_checkpoint(path)
    assert repr(path) in str(caught.value)
    with pytest.raises(TypeError, match=r"save_checkpoint: path must be a text or a pathlib.Path, got "):
        save(path, net())
