"""A checkpoint brings back the same net, replaces the old one only when complete, and runs no code."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from minires import Tensor
from minires.training import load_checkpoint, save_checkpoint
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


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save(path, net(seed=1))
    content = path.read_bytes()

    def torn(state, file, metadata):
        file.write_bytes(content[:100])
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.numpy.save_file", torn)
    with pytest.raises(OSError, match="no space left"):
        save(path, net(seed=2))
    assert path.read_bytes() == content


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


@pytest.mark.parametrize("metadata", [
    None, {"minires": "not JSON"}, {"other": "{}"}, {"minires": "{}"}, {"minires": json.dumps({"format": "minires/1"})},
    {"minires": json.dumps({"format": "minires/9", "model": "resnet8", "options": {}, "notes": {}})},
    {"minires": "[1]"},
])  # fmt: skip
def test_a_file_of_someone_else_is_refused(tmp_path, metadata):
    path = tmp_path / "net.safetensors"
    save_file({"x": np.zeros(3, np.float32)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="isn't a MiniRes checkpoint, or is damaged"):
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
