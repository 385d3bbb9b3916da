"""The command line: what each command prints and writes, and what a mistake gets: one sentence, the nearest names."""

import csv
import re
import subprocess
import sys

import pytest

pytest.importorskip("typer", reason="the command line needs typer")

from minires import cli
from minires.checking import suite
from minires.checking.mutation import Score
from minires.training import DivergenceError, Trainer, load_checkpoint


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("summary", "resnet8")`` -> (exit status, standard output, standard error)."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["minires", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return run


SMALL = ("--widths", "2,3,4", "--epochs", "1")


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


def test_train_writes_a_log_and_checkpoints_that_evaluate_reads(run, tmp_path):
    folder = tmp_path / "run"
    status, out, err = run(
        "train", "resnet8", "--folder", folder, "--widths", "4,6,8", "--epochs", 2, "--shortcut", "B"
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith("resnet8  epoch   1  lr 0.1")
    assert {path.name for path in folder.iterdir()} == {"log.csv", "best.safetensors", "last.safetensors"}
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["lr"] for row in rows] == ["0.1", "0.010000000000000002"]
    last = load_checkpoint(folder / "last.safetensors")
    assert last.model == "resnet8"
    assert last.options == {"in_channels": 1, "num_classes": 10, "shortcut": "B", "widths": [4, 6, 8]}
    assert last.notes["epoch"] == 2
    status, out, _ = run("evaluate", folder / "last.safetensors")
    assert status == 0
    for number in (f"loss {float(rows[1]['test_loss']):.4f}", f"top-1 error {float(rows[1]['test_error']):.2f} %",
                   f"top-5 error {float(rows[1]['test_top5_error']):.2f} %"):  # fmt: skip
        assert number in out


def test_the_same_seed_trains_the_same_net(run, tmp_path):
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", "plain8", "--folder", tmp_path / name, *SMALL, "--seed", seed, "--augment")
        states.append((tmp_path / name / "last.safetensors").read_bytes())
    assert states[0] == states[1] != states[2]


def test_options_reach_the_optimizer_and_its_schedule(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, "fit", lambda self, loader, epochs, test: seen.append((self, loader)))
    run("train", "plain8", "--folder", tmp_path, "--widths", "2,3,4", "--epochs", 9, "--lr", 0.5, "--momentum", 0.8,
        "--weight-decay", 0.01, "--nesterov", "--milestone", 3, "--milestone", 5, "--warmup-steps", 2,
        "--batch-size", 500)  # fmt: skip
    trainer, loader = seen[0]
    decayed, others = trainer.optimizer.groups
    assert [decayed[name] for name in ("momentum", "weight_decay", "nesterov")] == [0.8, 0.01, True]
    assert others["weight_decay"] == 0
    assert len(loader) == 3
    rates = []
    for _ in range(16):
        rates.append(decayed["lr"])
        trainer.schedule.step()
    assert rates == pytest.approx([0.05] * 2 + [0.5] * 7 + [0.05] * 6 + [0.005])


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
    (("train", "resnet20", "--lr", "-1"), "must not be negative"),
    (("train", "resnet20", "--shortcut", "D"), "option must be 'A', 'B' or 'C', got 'D'"),
    (("train", "plain20", "--shortcut", "A"), "plain20 has no option shortcut"),
    (("train", "resnet20", "--widths", "8,sixteen,32"), "widths: expected integers separated by commas, got 'sixteen'"),
    (("train", "resnet20", "--widths", "8,16"), "one positive width per stage"),
    (("tran", "resnet20"), "train"),
    (("evaluate", "nothing.safetensors"), "there is no file nothing.safetensors"),
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


def test_a_divergence_ends_in_a_sentence_and_keeps_the_checkpoints(run, tmp_path, monkeypatch):
    epoch, epochs = Trainer._epoch, []

    def diverging(self, *arguments):
        epochs.append(self)
        if len(epochs) == 2:
            raise DivergenceError("the loss is nan")
        return epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "_epoch", diverging)
    status, _, err = run("train", "plain8", "--folder", tmp_path, "--widths", "2,3,4", "--epochs", 3)
    assert (status, err) == (2, "minires: the loss is nan\n")
    assert load_checkpoint(tmp_path / "last.safetensors").notes["epoch"] == 1


def test_an_interrupted_training_keeps_its_epochs(run, tmp_path, monkeypatch):
    epoch, epochs = Trainer._epoch, []

    def interrupted(self, *arguments):
        epochs.append(self)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    status, out, err = run("train", "plain8", "--folder", tmp_path, "--widths", "2,3,4", "--epochs", 3)
    assert status == 0
    assert err == "stopped after 1 of 3 epochs\n"
    assert "written to" in out
    assert load_checkpoint(tmp_path / "last.safetensors").build() is not None


def test_a_training_interrupted_in_its_first_epoch_has_nothing_to_show(run, tmp_path, monkeypatch):
    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    status, out, err = run("train", "plain8", "--folder", tmp_path, *SMALL)
    assert (status, out, err) == (1, "", "stopped after 0 of 1 epochs\n")
