"""The benchmarks run, check what they time, and compare honestly. No test here asserts a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import compare, kernels, neighbours, results, roofline, startup, timing, training_step
from benchmarks.cases import CASES, LAYERS, Case
from minires import models, nn
from minires.inspection import summary
from minires_kernels.simd import kinds, registers

PEAKS = roofline.Roofline(operations=1e15, bytes=1e15)


@pytest.mark.parametrize("family", CASES)
def test_every_kernel_of_a_family_has_a_case_that_can_be_costed(family):
    cases = list(CASES[family]())
    contract = __import__(f"minires_kernels.{family}", fromlist=["KERNELS"])
    untimed = {"normalize_backward", "avg_pool", "avg_pool_backward"}  # off the training path of the papers' nets
    assert {case.kernel for case in cases} >= set(contract.KERNELS) - untimed
    assert all(operations >= 0 and moved > 0 for operations, moved in (case.cost for case in cases))


@pytest.mark.parametrize(("net", "batch_and_side"), training_step.WORK.items())
def test_every_3x3_convolution_of_the_nets_that_are_timed_has_a_case(net, batch_and_side):
    batch, side = batch_and_side
    module = models.create(net)
    layers = {layer.name: layer for layer in summary(module, (3, side, side)).layers}
    timed = {(each.N, each.C, each.O, each.side, each.stride) for each in LAYERS if each.size == 3}
    convolutions = [(name, conv) for name, conv in named_modules(module) if isinstance(conv, nn.Conv2d)]
    assert len(convolutions) > 18
    for name, conv in convolutions:
        if conv.kernel_size == (3, 3):
            shape = layers[name].input_shape
            assert (batch, conv.in_channels, conv.out_channels, shape[-1], conv.stride[0]) in timed, name


def named_modules(module, prefix=""):
    for name, child in module.named_children():
        yield prefix + name, child
        yield from named_modules(child, f"{prefix}{name}.")


def small_case(kernel="relu"):
    return Case("activation", kernel, "small", lambda rng: (rng.standard_normal((2, 3, 4, 5), np.float32),), (120, 960))


def test_measuring_a_case_reports_every_implementation_with_its_error():
    rows = list(kernels.measure(small_case(), None, PEAKS, rounds=3, seconds=2.0))
    assert {"reference"} <= {row["candidate"] for row in rows}
    assert all(row["error"] < 1e-6 and row["n"] >= 1 for row in rows)
    assert [row["candidate"] for row in rows if row["default"]] == ["numba_cpu"]


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    from minires_kernels import activation, available, load

    module = load("activation", available("activation", "cpu")[0])
    if module.__name__.endswith("reference"):
        pytest.fail("a fast implementation should come first")
    monkeypatch.setattr(module, "relu", lambda x: x)
    with pytest.raises(RuntimeError, match=r"activation\.relu small: .* is wrong by .*; nothing timed"):
        list(kernels.measure(small_case(), None, PEAKS, rounds=3, seconds=1.0))
    assert activation.KERNELS


def test_an_output_that_is_never_written_is_found():
    case = small_case()
    with pytest.raises(RuntimeError, match="wrong by nan"):
        kernels._checked(case, "lazy", lambda: np.full((2, 3), np.nan), [np.ones((2, 3))])


def test_an_output_that_is_never_written_is_found_in_recycled_memory():
    """An engine that keeps its buffers may hand out one that still holds the right result of an earlier call."""
    kept = np.ones((2, 3))
    with pytest.raises(RuntimeError, match="wrong by nan"):
        kernels._checked(small_case(), "lazy", lambda: kept, [np.ones((2, 3))])


def test_poisoning_spares_a_result_that_is_the_input():
    grad = np.ones((2, 3))
    assert kernels._checked(small_case(), "handed on", lambda: grad, [np.ones((2, 3))], (grad,)) == 0


def test_the_default_of_a_family_that_chooses_by_shape_is_what_its_contract_calls():
    cases = {(case.kernel, case.name): case for case in CASES["convolution"]()}
    rng = np.random.default_rng(0)
    for name, expected in (("3x3 32->32 @16", "winograd4_cpu"), ("3x3/2 16->32 @32", "numba_cpu")):
        case = cases["forward", f"cifar {name} N=128"]
        assert kernels.default(case, case.inputs(rng)) == expected


@pytest.mark.parametrize("register_bytes", [64, 32, 16])
def test_the_tiles_that_measure_the_peak_fit_the_registers(monkeypatch, register_bytes):
    monkeypatch.setattr(kinds, "REGISTER_BYTES", register_bytes)
    tiles = roofline.tiles()
    assert all(tile.rows * tile.columns + tile.columns + 1 <= registers() for tile in tiles)
    assert all(tile.vector.lanes == register_bytes // 4 for tile in tiles)
    assert max(tile.rows * tile.columns for tile in tiles) >= 8, "fewer don't hide the latency of a multiply-add"


def test_the_passes_that_measure_the_bandwidth_compute_what_they_move():
    rng = np.random.default_rng(0)
    grad, velocity, parameter = (rng.standard_normal((2, 3 * roofline.UNIT), np.float32) for _ in range(3))
    before = [each.copy() for each in (grad, velocity, parameter)]
    passes = roofline.passes(grad, velocity, parameter)
    np.testing.assert_allclose(passes["read"][1]().sum(axis=1), grad.sum(axis=1), rtol=1e-4, atol=1e-4)
    for name in ("negate", "add", "momentum"):
        passes[name][1]()
    before[0] = -before[0]
    before[1] = (before[1] + before[0]) / 2 + before[0]
    np.testing.assert_allclose(grad, before[0])
    np.testing.assert_allclose(velocity, before[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(parameter, before[2] - before[1], rtol=1e-5, atol=1e-6)
    assert [moved / grad.nbytes for moved, _ in passes.values()] == [1, 2, 3, 5]


def test_of_two_measurements_of_the_peaks_the_higher_counts():
    one, other = roofline.Roofline(operations=3.0, bytes=1.0), roofline.Roofline(operations=2.0, bytes=4.0)
    assert one.joined(other) == roofline.Roofline(operations=3.0, bytes=4.0)


def test_a_case_above_the_roofline_is_measured_again_with_new_peaks(monkeypatch, capsys):
    peaks = iter([roofline.Roofline(1e6, 1e6), roofline.Roofline(1e15, 1e15)])
    seen = []

    def measure(case, torch, peaks, **limits):
        seen.append(peaks)
        peaks.share(2e9, 0, 1.0, "fast")
        return []

    monkeypatch.setattr(kernels.roofline, "measure", lambda threads: next(peaks))
    monkeypatch.setattr(kernels, "measure", measure)
    monkeypatch.setattr(kernels.pytorch, "find", lambda threads: None)
    monkeypatch.setattr(kernels, "retain_pages", lambda: None)
    monkeypatch.setattr(kernels, "write", lambda *rows, **options: "nowhere")
    monkeypatch.setattr("sys.argv", ["kernels", "update", "--match", "resnet20"])
    with pytest.raises(SystemExit) as ended:
        kernels.main()
    assert not ended.value.code
    assert [each.operations for each in seen] == [1e6, 1e15]
    assert "FAILED" not in capsys.readouterr().out


def test_more_than_the_roofline_is_an_error():
    with pytest.raises(RuntimeError, match="above 102%"):
        roofline.Roofline(operations=1e9, bytes=1e9).share(operations=2e9, moved=0, seconds=1.0, case="too fast")


def test_paired_ratios_are_taken_round_by_round():
    ours, theirs = timing.Times([1.0, 2.0, 4.0]), timing.Times([2.0, 4.0, 8.0])
    assert ours.ratio(theirs) == 2.0
    assert theirs.ratio(ours) == 0.5


def test_alternate_calls_every_candidate_equally_often():
    calls = {"a": 0, "b": 0}

    def count(name):
        calls[name] += 1

    measured = timing.alternate(
        {name: lambda name=name: count(name) for name in calls}, rounds=5, seconds=2, warm_up=0, window=0.01, quiet=2.0
    )
    assert calls["a"] == calls["b"] >= 5
    assert len(measured.times["a"].seconds) == len(measured.times["b"].seconds)
    assert measured.dropped == 0


def test_the_load_of_others_is_a_share_and_ours_is_not_in_it(monkeypatch):
    busy, own = iter([10.0, 13.0]), iter([1.0, 2.0])
    monkeypatch.setattr(timing, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(timing, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timing.ForeignLoad().share() == 2 / (4 * 2)


def test_windows_with_foreign_load_are_dropped(monkeypatch):
    loads = iter([0.5, 0.0, 0.5, 0.0, 0.5])
    monkeypatch.setattr(timing.ForeignLoad, "share", lambda self: next(loads))
    measured = timing.alternate({"a": lambda: None}, rounds=1, seconds=5, warm_up=0, window=0.01)
    assert (measured.kept, measured.dropped, measured.disturbed) == (1, 1, False)


def test_without_a_quiet_window_the_least_disturbed_one_serves_and_is_said_to(monkeypatch):
    monkeypatch.setattr(timing.ForeignLoad, "share", lambda self: 0.5)
    measured = timing.alternate({"a": lambda: None}, rounds=1, seconds=0.05, warm_up=0, window=0.01)
    assert measured.disturbed
    assert measured.times["a"].seconds


def test_a_start_is_timed_in_a_process_of_its_own_and_a_failing_one_gives_its_reason(tmp_path):
    good, bad = startup.Runs("numpy-import", 1.0), startup.Runs("no such work", None)
    for runs in (good, bad):
        runs.add(tmp_path, 1)
    assert startup.row("import", "numpy", good)["n"] == 1
    assert "invalid choice: 'no such work'" in startup.row("import", "nothing", bad)["missing"]


PROGRAMS = [path.stem for path in Path(kernels.__file__).parent.glob("*.py") if "__main__" in path.read_text()]


def program(name, *arguments, folder):
    """A benchmark as a program, in ``folder``, where PyTorch can't be imported."""
    (folder / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    search = os.pathsep.join([str(folder), *sys.path])
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": search}, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_needs_no_peer_measures_nothing_and_writes_nothing(name, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in results.FOLDER.iterdir()}
    done = program(name, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert {path: path.stat().st_mtime_ns for path in results.FOLDER.iterdir()} == before


@pytest.mark.parametrize("name", ["convergence", "gradients"])
def test_what_can_do_nothing_without_its_peer_says_how_to_install_it(name, tmp_path):
    done = program(name, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"{name}: compares with PyTorch, which is not installed here; pip install torch==2.13.0"
    )


def test_what_is_tried_leaves_the_recorded_results_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "TRIED", tmp_path / "runs")
    assert results.write("a", [{"x": 1}], 1, record=True) == tmp_path / "results" / "a.jsonl"
    assert results.write("a", [{"x": 2}], 1, record=False) == tmp_path / "runs" / "a.jsonl"
    assert [results.read(tmp_path / name / "a.jsonl")[1][0]["x"] for name in ("results", "runs")] == [1, 2]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("kernels", ["--match", "relu"]), ("kernels", ["activation"]), ("gradients", ["resnet20"]), ("convergence", [])],
)
def test_a_part_of_the_results_is_not_recorded_for_all_of_them(name, arguments, tmp_path):
    done = program(name, *arguments, "--record", folder=tmp_path)
    assert done.returncode == 2
    assert "--record replaces the results of " in done.stderr


def test_the_table_of_neighbours_says_how_many_times_the_fair_time_each_case_takes(capsys):
    seconds = {"alone": [1.0, 1.0, 2.0], "two at once": [2.0, 3.0, 3.0], "beside a loop": [9.0, 8.0, 9.0]}
    rows = neighbours.report({("default", case): timing.Times(each) for case, each in seconds.items()})
    assert [row["times_the_fair_time"] for row in rows][:2] == [1.0, 1.5]
    assert [row["median_s"] for row in rows] == [1.0, 3.0, 9.0]
    assert "two at once" in capsys.readouterr().out


def write_results(path, machine, seconds):
    lines = [
        {"schema": results.SCHEMA, "kind": "environment", "machine": machine},
        {"kind": "measurement", "benchmark": "b", "case": "c", "candidate": "d", "seconds": seconds},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize(("factor", "word"), [(0.5, "FASTER"), (2.0, "SLOWER"), (1.0, "SAME"), (1.05, "UNCLEAR")])
def test_comparison_gives_its_verdict_from_the_interval(tmp_path, factor, word):
    rng = np.random.default_rng(0)
    seconds = list(1 + 0.02 * rng.standard_normal(60))
    old = write_results(tmp_path / "old.jsonl", {"cpu": "x"}, seconds)
    new = write_results(tmp_path / "new.jsonl", {"cpu": "x"}, [factor * value for value in seconds])
    assert [verdict.word for verdict in compare.compare(old, new)] == [word]


def test_comparison_refuses_another_machine(tmp_path):
    old = write_results(tmp_path / "old.jsonl", {"cpu": "x"}, [1.0])
    new = write_results(tmp_path / "new.jsonl", {"cpu": "y"}, [1.0])
    with pytest.raises(ValueError, match="different machines"):
        compare.compare(old, new)


def test_a_file_that_holds_no_results_is_refused(tmp_path):
    (tmp_path / "noise.jsonl").write_text("hello")
    with pytest.raises(ValueError, match="not a result file"):
        results.read(tmp_path / "noise.jsonl")


def test_a_training_step_learns_and_its_gradients_are_checked(monkeypatch):
    rng = np.random.default_rng(0)
    net = models.create("resnet8", widths=(4, 8, 8), rng=rng)
    images, labels = rng.standard_normal((6, 3, 8, 8), np.float32), rng.integers(0, 10, 6)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    lines = training_step.check_gradients(net, images, labels)
    assert "against float64" in lines[0]
    after = net.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    step = training_step.our_step(net, images, labels)
    losses = [step() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_a_wrong_kernel_is_told_by_its_axes():
    case = Case("shortcut", "subsample_and_pad", "small", lambda rng: (), (1, 1))
    expected = np.ones((2, 3, 4, 5))
    wrong = expected.copy()
    wrong[1, :, 3] = 5
    with pytest.raises(RuntimeError, match=r"y: 15 of 120 elements are wrong, all at n = 1 \(the last\), oh = 3 \(the"):
        kernels._checked(case, "mine", wrong.copy, [expected])


def test_what_is_not_measured_is_said(monkeypatch):
    def load(family, name):
        if name == "foreign":
            raise ImportError("activation: implementation 'foreign' is not available (why); pip install it")
        return SimpleNamespace(DEVICE="cuda") if name == "mine" else SimpleNamespace()

    monkeypatch.setattr(kernels, "implementations", lambda family: ("reference", "mine", "foreign"))
    monkeypatch.setattr(kernels, "load", load)
    assert list(kernels.left_out("activation")) == [
        "not measured: activation/mine is for 'cuda'; times are taken on the CPU\n",
        "not measured: activation: implementation 'foreign' is not available (why); pip install it\n",
    ]


def test_a_kernel_that_raises_fails_its_case_and_names_itself():
    def call():
        raise TypeError("maxx")

    with pytest.raises(RuntimeError, match=r"activation\.relu small: mine raises TypeError: maxx"):
        kernels._checked(small_case(), "mine", call, [np.ones(2)])


def test_a_result_of_another_shape_is_wrong():
    with pytest.raises(RuntimeError, match=r"mine is wrong by inf; .*the shape is \(3,\), but \(2,\) is expected"):
        kernels._checked(small_case(), "mine", lambda: np.ones(3), [np.ones(2)])


def test_an_implementation_that_lacks_the_kernel_is_no_default(monkeypatch):
    """The reference computes; whoever has another kernel alone is passed over."""
    real = kernels.load
    alone = SimpleNamespace(add=lambda x, y: x + y)
    monkeypatch.setattr(kernels, "load", lambda family, name: alone if name == "mine" else real(family, name))
    monkeypatch.setattr(kernels, "available", lambda family, device: ("mine", "numba_cpu", "reference"))
    monkeypatch.setattr(kernels, "lacking", lambda family, name: ("relu",) if name == "mine" else ())
    rows = list(kernels.measure(small_case(), None, PEAKS, rounds=2, seconds=1.0))
    assert [row["candidate"] for row in rows if row["default"]] == ["numba_cpu"]
    assert "mine" not in {row["candidate"] for row in rows}
