"""The summary of a net: published counts, its own state untouched, and the rows before a layer that fails."""

import numpy as np
import pytest

from minires import Tensor, functional, models, nn
from minires.inspection import record, summary


@pytest.mark.parametrize(("name", "image", "parameters", "multiply_adds"), [
    # He et al. 2015: counts of the nets as the paper describes them, computed from their layer sizes by hand
    ("plain20", (3, 32, 32), 269_722, 40_551_040),
    ("resnet56", (3, 32, 32), 853_018, 125_485_696),
    ("resnet18", (3, 224, 224), 11_689_512, 1_814_073_344),
])  # fmt: skip
def test_the_totals_are_the_papers(name, image, parameters, multiply_adds):
    if name == "resnet18":
        image = (3, 32, 32)  # the convolutions' work is proportional to their outputs, which 224 / 32 = 7 divides
    result = summary(models.create(name), image)
    assert result.error is None
    assert result.parameters == sum(layer.parameters for layer in result.layers) == parameters
    total = sum(layer.multiply_adds for layer in result.layers)
    if name == "resnet18":
        last = result.layers[-1].multiply_adds
        total = 49 * (total - last) + last
    assert total == multiply_adds


def test_a_row_has_name_kind_shapes_parameters_and_work():
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, (3, 5), stride=2, groups=2, rng=rng), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(36, 7, rng=rng),
    )  # fmt: skip
    rows = [(r.name, r.kind, r.input_shape, r.output_shape, r.parameters, r.multiply_adds)
            for r in summary(net, (4, 9, 17)).layers]  # fmt: skip
    assert rows == [
        ("0", "Conv2d", (1, 4, 9, 17), (1, 6, 4, 7), 6 * 2 * 15 + 6, 6 * 2 * 15 * 28),
        ("1", "BatchNorm2d", (1, 6, 4, 7), (1, 6, 4, 7), 12, 0),
        ("2", "ReLU", (1, 6, 4, 7), (1, 6, 4, 7), 0, 0),
        ("3", "MaxPool2d", (1, 6, 4, 7), (1, 6, 2, 3), 0, 0),
        ("4", "Flatten", (1, 6, 2, 3), (1, 36), 0, 0),
        ("5", "Linear", (1, 36), (1, 7), 7 * 36 + 7, 7 * 36),
    ]


def test_the_text_has_each_row_and_the_totals():
    text = str(summary(models.create("resnet8"), (3, 8, 8)))
    assert "layer2.0.downsample  SubsampleAndPad" in text
    assert "1×16×8×8" in text
    assert text.endswith("75,290 parameters, 765,568 multiply-adds per image")


class Failing(nn.Module):
    """A block whose second layer doesn't take what the first gives."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = nn.Conv2d(3, 4, 1, rng=rng)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(5, 6, 1, rng=rng))
        self.never = nn.Flatten()

    def forward(self, x):
        return self.never(self.block(self.first(x)))


def test_when_a_layer_fails_the_rows_before_it_come_first_and_then_the_error():
    result = summary(Failing(), (3, 2, 2))
    assert [layer.name for layer in result.layers] == ["first", "block.0"]
    assert isinstance(result.error, ValueError)
    *rows, empty, error = str(result).splitlines()
    assert len(rows) == 3
    assert empty == ""
    assert error.startswith("block.1 failed: conv2d: weight has 5 input channels")


def test_a_failure_outside_of_any_layer_is_the_nets():
    class Crooked(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

        def forward(self, x):
            return self.layer(x).reshape(7)

    result = summary(Crooked(), (1, 2, 2))
    assert [layer.name for layer in result.layers] == ["layer"]
    assert "the net failed: reshape" in str(result)


def test_a_summary_made_while_handling_an_error_blames_nobody():
    try:
        raise ValueError("unrelated")
    except ValueError:
        result = summary(models.create("resnet8", widths=(2, 3, 4)), (3, 8, 8))
    assert result.error is None
    assert len(result.layers) == 19


@pytest.mark.parametrize("net", [models.create("resnet8", widths=(2, 3, 4)), Failing()], ids=["right", "failing"])
@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_as_it_was(net, training):
    net.train(training)
    next(module for _, module in net.named_children()).train(not training)
    before, modes = net.state_dict(), [module.training for module in net.modules()]
    summary(net, (3, 8, 8))
    assert [module.training for module in net.modules()] == modes
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


def test_a_module_that_runs_twice_has_two_rows_and_is_counted_once():
    class Twice(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 3, rng=np.random.default_rng(0))

        def forward(self, x):
            return self.layer(self.layer(x.flatten(1)))

    result = summary(Twice(), (1, 1, 3))
    assert [layer.name for layer in result.layers] == ["layer", "layer"]
    assert result.parameters == 12


def test_a_tape_that_records_hears_nothing_of_a_summary():
    net = models.create("resnet8", widths=(2, 3, 4))
    with record() as tape:
        functional.relu(Tensor(np.zeros(2, np.float32)))
        summary(net, (3, 8, 8))
    assert len(tape.nodes) == 2
