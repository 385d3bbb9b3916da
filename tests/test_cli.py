"""The command line: what each command prints and writes, and what a mistake gets: one sentence, the nearest names."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("typer", reason="the command line needs typer")

import minires
from minires.checking import suite
from minires.checking.mutation import Score
from tests.command_line import SMALL, runner


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("summary", "resnet8")`` -> (exit status, standard output, standard error)."""
    return runner(monkeypatch, capsys)


def test_python_m_minires_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "minires", "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "train", "evaluate", "summary", "doctor"):
        assert command in done.stdout


def test_help_loads_nothing_that_takes_long():
    code = "import runpy, sys\nsys.argv = ['minires', '--help']\n"
    code += "try:\n    runpy.run_module('minires')\nexcept SystemExit:\n"
    code += "    print(sorted({'numba', 'matplotlib', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_demo_trains_and_says_what_it_wrote(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the demonstration draws a plot")
    from minires.training import demo

    monkeypatch.setattr(demo.run_demo, "__kwdefaults__", {**demo.run_demo.__kwdefaults__, "nets": ("resnet8",)})
    status, out, _ = run("demo", "--folder", tmp_path / "demo", "--epochs", 2)
    assert status == 0
    assert "residual (2015) block          right" in out
    assert f"written to {tmp_path / 'demo'}" in out
    assert (tmp_path / "demo" / "table.txt").read_text() in out


def test_demo_fails_when_the_expected_figures_dont_come_out(run, tmp_path, monkeypatch):
    from minires.training import demo

    results = [demo.Result("plain56", 56, "plain", 1, 12.0, 1.0, 1.0, 1.0, 1.0)]
    monkeypatch.setattr(demo, "run_demo", lambda folder, epochs: results)
    status, _, err = run("demo", "--folder", tmp_path)
    assert status == 1
    assert "not as expected: plain56's training error is 12.00 %" in err
    assert run("demo", "--folder", tmp_path, "--epochs", 2)[0] == 0  # nobody expects it of a shorter training


def test_summary_prints_the_layers_and_the_totals(run):
    status, out, _ = run("summary", "resnet8", "--image", "1,8,8")
    assert status == 0
    assert "layer2.0.downsample" in out
    assert "75,002 parameters" in out


@pytest.mark.parametrize(("model", "size"), [("plain18", "1×3×224×224"), ("preact_resnet20", "1×3×32×32")])
def test_summary_knows_the_image_size_of_each_family(run, model, size, monkeypatch):
    from minires import inspection

    shapes = []

    def note(net, shape):
        shapes.append(shape)
        return inspection.Summary([], 0, None, "")

    monkeypatch.setattr(inspection, "summary", note)
    assert run("summary", model)[0] == 0
    assert "×".join(map(str, (1, *shapes[0]))) == size


def test_summary_of_a_net_that_fails_prints_the_rows_and_exits_with_1(run, monkeypatch):
    from minires import models

    net = models.create("resnet8")
    net.fc.weight.data = net.fc.weight.data[:, :-1]
    monkeypatch.setattr(models, "create", lambda name, in_channels: net)
    status, out, _ = run("summary", "resnet8")
    assert status == 1
    assert "avgpool" in out
    assert "fc failed: linear:" in out


@pytest.mark.parametrize(
    ("arguments", "shape", "batch"),
    [
        ((), [3, 32, 32], 128),
        (("resnet18",), [3, 224, 224], 8),
        (("plain8", "--image", "1,28,20"), [1, 28, 20], 128),
        (("resnet50", "--image", "3,64,64", "--batch", "2"), [3, 64, 64], 2),
    ],
)
def test_warmup_knows_the_image_size_and_a_batch_that_fits(run, monkeypatch, arguments, shape, batch):
    from minires import training

    asked = []

    def warm_up(net, shape, batch, *, progress):
        asked.append((net.conv1.weight.shape[1], shape, batch))
        progress.epoch("compiled a kernel")
        return "so many seconds"

    monkeypatch.setattr(training, "warm_up", warm_up)
    status, out, _ = run("warmup", *arguments)
    assert (status, asked) == (0, [(shape[0], shape, batch)])
    assert out == f"{arguments[0] if arguments else 'resnet20'}  compiled a kernel\nso many seconds\n"


def test_a_second_warmup_compiles_nothing():
    pytest.importorskip("numba", reason="about compiling")
    command = [sys.executable, "-m", "minires", "warmup", "plain8", "--image", "1,5,4", "--batch", "2"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    compiled, loaded = re.search(r"s: (\d+) kernels compiled, (\d+) loaded from the cache", line).groups()
    assert int(compiled) == 0 < int(loaded)


def test_mutate_passes_the_options_of_pytest_on(run, monkeypatch):
    given = []

    def score_suite(arguments, names):
        given.append((list(arguments), list(names)))
        return Score("pytest", {"relu_leaks": "test_relu"}, ("relu_in_place",))

    monkeypatch.setattr(suite, "score_suite", score_suite)
    arguments = ["tests", "-m", "not slow", "-n", "2", "--deselect=a.py"]
    status, out, _ = run("mutate", *arguments, "--only", "relu_leaks", "--only", "relu_in_place")
    assert given == [(arguments, ["relu_leaks", "relu_in_place"])]
    assert (status, out) == (1, "pytest: 1 of 2 killed\n")


@pytest.mark.parametrize("tests", [[], ["tests"]])
def test_mutate_refuses_a_mistake_that_does_not_exist(run, tests):
    status, _, err = run("mutate", *tests, "--only", "relu")
    assert status == 2
    assert err.startswith("minires: mutate: there is no mutant 'relu'; there are: add_forgets_second, ")


def test_doctor_prints_each_finding_and_the_cure_below(run):
    status, out, _ = run("doctor")
    assert status == 0
    for subject in ("Python", "NumPy", "Numba", "CuPy", "NVIDIA driver"):
        assert any(line.startswith(subject) for line in out.splitlines())


@pytest.mark.parametrize(("arguments", "message"), [
    (("train", "resnt20"), "there is no model 'resnt20'; the nearest: resnet20"),
    (("summary", "plain21"), "there is no model 'plain21'; the nearest: plain"),
    (("train", "resnet20", "--data", "cifar"), "there is no data set 'cifar'; the nearest: cifar10, cifar100"),
    (("train", "resnet20", "--data", "digits", "--root", "x"), "digits is part of the package and takes no root"),
    (("train", "resnet20", "--data", "mnist", "--root", "nowhere"), "nowhere/mnist/train-images-idx3-ubyte"),
    (("train", "resnet20", "--epoch", "3"), "--epochs"),
    (("train", "resnet20", "--epochs", "0"), "--epochs"),
    (("train", "resnet20", "--epochs", "many"), "--epochs"),
    (("train", "resnet20", "--lr", "-1"), "lr must be a finite number of at least 0, got -1"),
    (("train", "resnet20", "--seed", "-1"), "--seed"),
    (("train", "resnet20", "--widths", ""), "widths: expected integers separated by commas, got ''"),
    (("train", "resnet20", "--epochs", "3", "--milestone", "50"), "milestone: 50 is never passed in 3 epochs; choose"),
    (("train", "resnet20", "--epochs", "3", "--milestone", "3"), "3 is never passed in 3 epochs; choose at most 2"),
    (("train", "resnet20", "--milestone", "0"), "--milestone"),
    (("train", "resnet20", "--milestone", "3", "--milestone", "3"), "later than the one before it, got 3, 3"),
    (("train", "resnet20", "--milestone", "9", "--milestone", "3"), "later than the one before it, got 9, 3"),
    (("train", "resnet20", "--warmup-steps", "180"), "180 steps leave none at the full lr; an epoch has 15"),
    (("train", "resnet20", "--shortcut", "D"), "option must be 'A', 'B' or 'C', got 'D'"),
    (("train", "plain20", "--shortcut", "A"), "plain20 has no option shortcut"),
    (("train", "resnet20", "--widths", "8,sixteen,32"), "widths: expected integers separated by commas, got 'sixteen'"),
    (("train", "resnet20", "--widths", "8,16"), "one positive width per stage"),
    (("tran", "resnet20"), "train"),
    (("evaluate", "nothing.safetensors"), "there is no file nothing.safetensors"),
    (("evaluate", "."), ". is a folder; name a file in it, such as ./best.safetensors"),
    (("evaluate", "x" * 300), "File name too long"),
    (("summary", "resnet20", "--image", "3,x,8"), "image: expected integers separated by commas, got 'x'"),
    (("summary", "resnet20", "--image", "3,8"), "image must be channels,height,width, each at least 1, got '3,8'"),
    (("summary", "resnet20", "--image", "3,0,8"), "each at least 1"),
    (("warmup", "resnt20"), "there is no model 'resnt20'; the nearest: resnet20"),
    (("warmup", "resnet20", "--image", "3,8"), "image must be channels,height,width, each at least 1, got '3,8'"),
    (("warmup", "resnet20", "--batch", "0"), "--batch"),
])  # fmt: skip
def test_a_mistake_gets_one_sentence_with_the_nearest_names(run, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("summary", "resnet110"), ("doctor",), ("train", "plain8", *SMALL), ("--help",)])
def test_a_reader_that_goes_away_gets_no_traceback(tmp_path, arguments):
    command = [sys.executable, "-u", "-m", "minires", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_a_terminal_that_knows_few_characters_gets_the_others_replaced():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "minires", "summary", "resnet8"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1?16?32?32" in done.stdout


# ---------------------------------------------------------------- version, completion


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"minires {minires.__version__}\n", "")


@pytest.mark.parametrize(("words", "completed"), [
    ("train preact_resnet1", ["preact_resnet101", "preact_resnet110", "preact_resnet1001", "preact_resnet18"]),
    ("summary plain1", ["plain18", "plain110"]), ("train x --data ci", ["cifar10", "cifar100"]),
    ("evaluate x --data m", ["mnist"]),
])  # fmt: skip
def test_the_shell_completes_models_and_data_sets(words, completed):
    environment = {**os.environ, "_MINIRES_COMPLETE": "complete_bash", "COMP_WORDS": f"minires {words}",
                   "COMP_CWORD": str(len(words.split()))}  # fmt: skip
    code = "import sys; sys.argv = ['minires']; from minires.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert set(completed) <= set(done.stdout.split())
    assert all(word.startswith(words.split()[-1]) for word in done.stdout.split())
