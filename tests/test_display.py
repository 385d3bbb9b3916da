"""What a prompt and a notebook show of anything that MiniRes hands out: short, in the page's own colours, escaped."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from minires import Function, Parameter, Tensor, functional, gradcheck, models, nn, optim, record
from minires.checking import blame, check_float32, diff
from minires.data import Dataset, Loader, Split
from minires.display import MOST_LINES, MOST_ROWS, few_lines, html_table
from minires.inspection import ledger, summary
from minires.optim import MultiStepLR, ReduceLROnPlateau
from minires.tensor import apply
from minires.training import Checkpoint, Epoch, Trainer, WarmUp
from minires_kernels import Window


@pytest.fixture(scope="module")
def recorded():
    net = models.create("resnet20", widths=(2, 3, 4), rng=np.random.default_rng(0))
    images = Tensor(np.random.default_rng(1).standard_normal((2, 3, 8, 8), np.float32))
    with record() as tape:
        functional.cross_entropy(net(images), np.array([0, 1])).backward()
    return net, tape


class Wrong(Function):
    """A sum whose backward is wrong, in each of many inputs."""

    def forward(self, *arrays):
        return sum(array * 2 for array in arrays)

    def backward(self, grad_output):
        return tuple(grad_output * 3 for _ in self.inputs)


def a_wrong_report():
    arrays = [np.random.default_rng(i).standard_normal((3, 5)) for i in range(30)]
    return gradcheck(lambda *tensors: apply(Wrong(), *tensors), *arrays)


def a_split(count=300):
    images = np.random.default_rng(2).standard_normal((count, 3, 8, 8), np.float32)
    return Split(images, np.zeros(count, np.int64))


def everything(net, tape):
    """By name, what a cell's last line may be."""
    parameters = list(net.parameters())
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
    split = a_split()
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    long = Tensor(np.zeros((1000, 1000)), requires_grad=True)
    books, report = ledger(tape), a_wrong_report()
    mean = np.zeros((3, 8, 8), np.float32)
    return {
        "tensor": x,
        "a number": Tensor(1.5),
        "many axes": Tensor(np.zeros((8, 1, 1, 1, 1))),
        "infinities": Tensor(np.full(9, np.inf)),
        "made by an index": long[np.arange(1000), list(range(1000))],
        "made by where": functional.where(np.zeros((1000, 1000), bool), long, long),
        "parameter": parameters[0],
        "function": long[(slice(None), np.arange(1000))].creator,
        "tape": tape,
        "node": tape.nodes[5],
        "contribution": tape.contributions(tape.loss)[0],
        "gradient": tape.gradient(tape.loss),
        "non-finite": tape.first_nonfinite(),
        "ledger": books,
        "row": books.rows[0],
        "part": books.rows[0].shortcut,
        "summary": summary(net, (3, 8, 8)),
        "layer": summary(net, (3, 8, 8)).layers[0],
        "optimizer": optimizer,
        "groups": optim.SGD([{"parameters": [each]} for each in parameters], lr=0.1),
        "schedule": MultiStepLR(optimizer, [10, 20]),
        "plateau": ReduceLROnPlateau(optimizer),
        "split": split,
        "data set": Dataset("mine", split, split, tuple(map(str, range(1000))), mean, 1.0),
        "loader": Loader(split, 16, rng=np.random.default_rng(0)),
        "trainer": Trainer(net, optimizer),
        "epoch": Epoch(1, 0.1, 1.0, 50.0, 1.0, 50.0, 10.0, 3.0),
        "checkpoint": Checkpoint("resnet20", {}, net.state_dict(), {"epoch": 3}),
        "warm-up": WarmUp(1.0, 0.1, tuple(f"kernel_{i}" for i in range(300)), ()),
        "report": report,
        "comparison": report.comparisons[0],
        "point": report.comparisons[0].points[0],
        "right report": gradcheck(lambda t: t * t, x.data),
        "blame": blame(apply(Wrong(), *[x * 1 for _ in range(30)])),
        "precision": check_float32(lambda t: t * t, x.data.astype(np.float32)),
        "difference": diff(tape, tape),
        "window": Window.of(3, padding=1),
        "layer module": nn.Linear(3, 4, rng=np.random.default_rng(0)),
    }


def parts(value, depth=2):
    """``value`` and what its fields hold, and the first of what those hold."""
    yield value
    if not depth:
        return
    if is_dataclass(value):
        for field in fields(value):
            yield from parts(getattr(value, field.name), depth - 1)
    elif isinstance(value, (tuple, list)) and value:
        yield from parts(value[0], depth - 1)


@pytest.mark.filterwarnings("error")
def test_a_prompt_shows_a_few_lines_of_anything(recorded):
    for name, value in everything(*recorded).items():
        for part in parts(value):
            if type(part).__module__.startswith("minires"):
                text = repr(part)
                assert len(text.splitlines()) <= 20, (name, type(part), text)
                assert len(text) <= 2500, (name, type(part), len(text))
                assert " object at 0x" not in text, (name, type(part))


NOTEBOOK = ("tensor", "made by an index", "infinities", "parameter", "tape", "ledger", "summary", "report", "blame")


@pytest.mark.parametrize("name", NOTEBOOK)
def test_a_notebook_shows_small_html_that_brings_no_colours_and_no_script(recorded, name):
    text = everything(*recorded)[name]._repr_html_()
    assert len(text) < 20_000
    assert not re.search(r"<script|<style|javascript:|http|on\w+=|background", text)
    assert not re.search(r"(?<!-)color:(?!inherit)", text)  # of text: what is black can't be read in the dark
    assert text.count("<table") == text.count("</table>")
    assert text.count("<tr") == text.count("</tr>")


def test_print_still_shows_all_of_a_tape_and_of_a_ledger(recorded):
    tape = recorded[1]
    assert len(str(tape).splitlines()) == len(tape.nodes) + 1
    assert len(str(ledger(tape)).splitlines()) == len(ledger(tape)) + 1


def test_the_short_forms_say_what_matters(recorded):
    net, tape = recorded
    shown = {name: repr(value) for name, value in everything(net, tape).items()}
    assert shown["tensor"] == "Tensor([[0., 1., 2.], [3., 4., 5.]], (2, 3) float64, requires_grad)"
    assert shown["made by an index"].endswith("Index(index=(array (1000,) int64, array (1000,) int64)))")
    assert re.match(rf"Tape\({len(tape.nodes)} nodes, backward from {tape.loss.name}; .*print\(tape\)", shown["tape"])
    assert re.match(r"Ledger\(9 junctions, .*print\(ledger\)", shown["ledger"])
    assert re.match(r"Row\(block=layer3\.2, fork=Node\(.*, sum=array \(2, 4, 2, 2\) float32, ", shown["row"])
    count = sum(parameter.size for parameter in net.parameters())
    assert re.match(
        rf"Summary\(\d+ layers, {count:,} parameters, [\d,]+ multiply-adds.*print\(summary\)", shown["summary"]
    )
    assert shown["optimizer"] == (
        f"SGD({len(list(net.parameters()))} parameters of {count:,} numbers, "
        "lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=False, form='torch')"
    )
    assert shown["schedule"] == "MultiStepLR(lr 0.1, steps 0, milestones [10, 20], factor 0.1)"
    assert shown["split"] == "Split(images=array (300, 3, 8, 8) float32, labels=array (300,) int64)"
    assert shown["loader"] == "Loader(300 items in 19 batches of 16, shuffled)"


def test_the_repr_of_an_empty_tape_and_of_a_plain_net_s_ledger():
    with record() as tape:
        pass
    assert repr(tape).startswith("Tape(0 nodes, no backward pass")
    with record() as tape:
        Parameter([1.0]).sum().backward()
    assert repr(ledger(tape)) == "Ledger(no skip connections)"
    assert ledger(tape)._repr_html_()


# ---- the two helpers -----------------------------------------------------------------------------


def test_text_is_escaped_and_long_tables_lose_their_middle():
    rows = [(f"<b>{i}</b> & \"'", str(i)) for i in range(1000)]
    text = html_table(("a<b", "n"), rows, title="<i>", whole="print(x)")
    assert "<b>" not in text
    assert "<i>" not in text
    assert "a&lt;b" in text
    assert "&lt;b&gt;0&lt;/b&gt; &amp; &quot;&#x27;" in text
    assert f"{1000 - MOST_ROWS} more rows: print(x)" in text
    assert text.count("<tr>") == MOST_ROWS + 2
    assert ">999<" in text
    assert ">500<" not in text


def test_of_a_long_text_the_middle_is_left_out():
    assert few_lines("a\nb", "print(x)") == "a\nb"
    shown = few_lines("\n".join(map(str, range(100))), "print(x)").splitlines()
    assert len(shown) == MOST_LINES
    assert shown[0] == "0"
    assert shown[-1] == "99"
    assert f"... {100 - MOST_LINES + 1} more lines: print(x)" in shown
