"""The demonstration in small: what it writes and prints, that it repeats itself bit by bit, and degradation itself."""

import csv

import numpy as np
import pytest

from minires import models
from minires.data import load_digits
from minires.training import demo

FILES = {"log.csv", "skip-gradients.txt", "table.txt", "training-error.png"}


@pytest.fixture(scope="module")
def run(all_threads):
    """``run(folder)``: the results of a short demonstration with nets of 8 layers."""
    pytest.importorskip("matplotlib", reason="the demonstration draws a plot")

    def run(folder):
        with all_threads():
            return demo.run_demo(folder, epochs=2, nets=("plain8", "resnet8", "preact_resnet8"))

    return run


@pytest.fixture(scope="module")
def one_run(run, tmp_path_factory):
    """(folder, results) of a run that is only looked at."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    return folder, run(folder)


def test_two_runs_give_the_same_figures_bit_for_bit(run, one_run, tmp_path):
    (one, first), other = one_run, tmp_path / "other"
    second = run(other)
    for name in FILES - {"table.txt"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for a, b in zip(first, second, strict=True):
        assert {**vars(a), "seconds": 0} == {**vars(b), "seconds": 0}


def test_every_file_is_written(one_run):
    folder, _ = one_run
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "training-error.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_holds_each_epoch_of_each_net(one_run):
    folder, results = one_run
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["net"], row["epoch"]) for row in rows] == [(r.net, str(epoch)) for r in results for epoch in (1, 2)]
    assert [float(row["train_error"]) for row in rows[1::2]] == [r.train_error for r in results]


def test_the_table_has_a_row_for_each_net(one_run):
    folder, results = one_run
    header, *rows = (folder / "table.txt").read_text().splitlines()
    for column in ("depth", "kind", "parameters", "train error", "test error", "first block", "last block", "seconds"):
        assert column in header
    assert len(rows) == 3
    for row, result in zip(rows, results, strict=True):
        for cell in ("8", result.kind, f"{result.parameters:,}", f"{result.train_error:.2f} %"):
            assert cell in row


def test_the_skip_table_has_a_line_for_each_residual_block(one_run):
    text = (one_run[0] / "skip-gradients.txt").read_text()
    for net in ("resnet8", "preact_resnet8"):
        assert f"{net} after training" in text
    for block in ("layer1.0", "layer2.0", "layer3.0"):
        assert text.count(block) >= 2


def test_one_block_of_each_kind_is_gradient_checked_and_a_wrong_one_stops_everything(monkeypatch, tmp_path):
    assert [line.split()[-1] for line in demo.check_blocks()] == ["right"] * 3

    def wrong(fn, *inputs):
        return 0

    monkeypatch.setattr(demo, "gradcheck", wrong)
    with pytest.raises(RuntimeError, match="the plain block's gradient is wrong"):
        demo.run_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_gradient_norms_are_those_of_the_blocks_parameters_and_leave_the_net_alone():
    data, net = load_digits(), models.create("plain8", in_channels=1, widths=(2, 3, 4))
    before = net.state_dict()
    norms = demo.block_gradients(net, data)
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    demo._loss(net, data).backward()
    for norm, block in zip(norms, ("layer1.0.", "layer3.0."), strict=True):
        parts = [p.grad.ravel() for name, p in net.named_parameters() if name.startswith(block)]
        assert norm == pytest.approx(np.linalg.norm(np.concatenate(parts).astype(np.float64)), rel=1e-5)


def result(net, train_error):
    return demo.Result(net, 56, "a kind", 1, train_error, 1.0, 1.0, 1.0, 1.0)


def test_figures_that_dont_come_out_are_named():
    good = [result("plain20", 0.1), result("plain56", 62), result("resnet56", 0.1), result("preact_resnet56", 1.9)]
    assert demo.shortfalls(good) == []
    bad = [result("plain56", 29.9), result("resnet56", 2.1), result("preact_resnet56", float("nan"))]
    assert demo.shortfalls(bad) == [
        "plain56's training error is 29.90 %, not 30 to 100 %",
        "resnet56's training error is 2.10 %, not 0 to 2 %",
        "preact_resnet56's training error is nan %, not 0 to 2 %",
    ]


def test_the_conclusion_tells_the_numbers_of_all_four_nets_or_nothing():
    all_four = [result("plain20", 0.1), result("plain56", 62), result("resnet56", 0.2), result("preact_resnet56", 0)]
    text = demo.conclusion(all_four)
    for number in ("62.0 %", "0.1 %", "0.2 %", "0.0 %"):
        assert number in text
    assert demo.conclusion(all_four[1:]) == ""


@pytest.mark.slow
def test_after_four_epochs_a_plain_net_of_56_layers_is_lost_where_residual_ones_have_learned():
    data = load_digits()
    errors = {net: demo.train_one(net, data, 4)[1].train_error for net in ("plain56", "resnet56", "preact_resnet56")}
    assert errors["plain56"] > 60  # of ten classes: chance is 90
    assert errors["resnet56"] < 15
    assert errors["preact_resnet56"] < 15
