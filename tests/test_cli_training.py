"""The commands that train and evaluate: nothing is lost however they end, and no net is judged by data of others."""

import csv
import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs typer")

from safetensors.numpy import save_file

import minires
from minires.training import DivergenceError, Trainer, load_checkpoint
from tests.command_line import SMALL, runner


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("summary", "resnet8")`` -> (exit status, standard output, standard error)."""
    return runner(monkeypatch, capsys)


def test_train_writes_a_log_and_checkpoints_that_evaluate_reads(run, tmp_path):
    folder = tmp_path / "run"
    status, out, err = run(
        "train", "resnet8", "--folder", folder, "--widths", "4,6,8", "--epochs", 2, "--shortcut", "B"
    )
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if "compiling" not in line]
    assert [line[:18] for line in lines] == [
        "resnet8  epoch   1",
        "resnet8  epoch   2",
        "written to " + str(folder)[:7],
    ]
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


def stopping(monkeypatch, error, *, after):
    """``error`` is raised in the epoch behind the ``after``-th."""
    epoch, epochs = Trainer._epoch, []

    def stopped(self, *arguments):
        if len(epochs) == after:
            raise error
        epochs.append(self)
        return epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "_epoch", stopped)


@pytest.mark.parametrize(("error", "status", "message"), [
    (KeyboardInterrupt(), 130, ""), (SystemExit(143), 143, ""),
    (DivergenceError("the loss is nan"), 2, "minires: the loss is nan\n"),
    (OSError(28, "No space left on device", "x/log.csv"), 2, "minires: x/log.csv: No space left on device\n"),
    (MemoryError("Unable to allocate 9 PiB"), 2, "minires: there is too little memory. Unable to allocate 9 PiB\n"),
])  # fmt: skip
def test_a_training_that_is_stopped_says_what_is_saved(run, tmp_path, monkeypatch, error, status, message):
    stopping(monkeypatch, error, after=2)
    folder = tmp_path / "run"
    stopped, _, err = run("train", "plain8", "--folder", folder, "--widths", "2,3,4", "--epochs", 3)
    best = load_checkpoint(folder / "best.safetensors").notes["epoch"]
    files = f"log.csv, last.safetensors (epoch 2), best.safetensors (epoch {best})"
    assert (stopped, err) == (status, f"stopped before epoch 3 was complete; written to {folder}: {files}\n{message}")
    assert load_checkpoint(folder / "last.safetensors").notes["epoch"] == 2
    assert len((folder / "log.csv").read_text().splitlines()) == 3


def test_a_training_interrupted_in_its_first_epoch_has_nothing_to_show_and_leaves_nothing(run, tmp_path, monkeypatch):
    stopping(monkeypatch, KeyboardInterrupt(), after=0)
    for folder in (("--folder", tmp_path / "run"), ()):
        monkeypatch.chdir(tmp_path)
        status, out, err = run("train", "plain8", *folder, *SMALL)
        assert (status, out, err) == (130, "", "stopped before epoch 1 was complete; no epoch was saved\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_in_the_shells_status_and_no_traceback(tmp_path, name):
    command = [sys.executable, "-m", "minires", "train", "plain8", "--widths", "2,3,4", "--epochs", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while "epoch   2" not in process.stdout.readline():
            pass
        process.send_signal(getattr(signal, name))
        _, err = process.communicate()
    assert process.returncode == 128 + getattr(signal, name)
    assert re.fullmatch(r"stopped before epoch 100000 was complete; written to runs/train/plain8-digits-1: .*\n", err)
    for path in (tmp_path / "runs/train/plain8-digits-1").glob("*.safetensors"):
        load_checkpoint(path).build()


@pytest.mark.slow
def test_of_a_training_that_is_killed_at_any_moment_every_file_can_be_read(tmp_path):
    rng = np.random.default_rng(0)
    command = [sys.executable, "-m", "minires", "train", "plain8", "--widths", "2,3,4", "--epochs", "100000"]
    for _ in range(20):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
            while "epoch   1" not in process.stdout.readline():
                pass
            time.sleep(rng.random())
            process.kill()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    whole = [path for path in files if not path.name.endswith(".unfinished")]
    assert len(files) - len(whole) <= 20
    assert sorted(path.name for path in whole) == sorted(["best.safetensors", "last.safetensors", "log.csv"] * 20)
    for path in whole:
        if path.name == "log.csv":
            with path.open(newline="") as file:
                numbers = [int(row["epoch"]) for row in csv.DictReader(file)]
            assert numbers == list(range(1, len(numbers) + 1)) != []
        else:
            load_checkpoint(path).build()


def test_each_training_gets_a_folder_of_its_own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = []
    for seed in (1, 2):
        status, out, _ = run("train", "plain8", *SMALL, "--seed", seed)
        assert status == 0
        assert out.splitlines()[-1].startswith(f"written to runs/train/plain8-digits-{seed}: log.csv, last")
        contents.append((tmp_path / "runs/train/plain8-digits-1/last.safetensors").read_bytes())
    assert contents[0] == contents[1]
    assert (tmp_path / "runs/train/plain8-digits-2/last.safetensors").read_bytes() != contents[0]


@pytest.mark.parametrize("command", [("train", "plain8", *SMALL), ("demo", "--epochs", "2")])
def test_a_folder_of_another_run_is_refused_and_stays_as_it_is(run, tmp_path, command):
    (tmp_path / "log.csv").write_text("of an earlier run")
    status, out, err = run(*command, "--folder", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"minires: {tmp_path} already holds log.csv, and a run overwrites no other's results; name ")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("log.csv", "of an earlier run")]
    status, out, err = run(*command, "--folder", tmp_path / "log.csv")
    assert (status, out) == (2, "")
    assert err == f"minires: the results need a folder, and {tmp_path / 'log.csv'} is a file; name another one\n"
    status, out, err = run(*command, "--folder", tmp_path / "log.csv" / "deeper")
    assert (status, out, err) == (2, "", f"minires: {tmp_path / 'log.csv' / 'deeper'}: Not a directory\n")


def test_a_full_disk_ends_in_a_sentence(run, tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    status, _, err = run("train", "plain8", *SMALL, "--folder", tmp_path / "run")
    assert status == 2
    assert err.endswith(f"minires: {tmp_path / 'run' / 'log.csv'}: No space left on device\n")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_mnist(root, seed, brightness):
    """MNIST's four files below ``root``, with random images of 8x8 pixels."""
    rng = np.random.default_rng(seed)
    (root / "mnist").mkdir(parents=True)
    for prefix, N in (("train", 200), ("t10k", 40)):
        labels = (np.arange(N) % 10).astype(np.uint8)
        images = rng.integers(brightness, size=(N, 8, 8)) + 10 * labels[:, None, None]
        (root / "mnist" / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images.astype(np.uint8)))
        (root / "mnist" / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def test_evaluate_takes_the_data_and_their_normalization_from_the_checkpoint(run, tmp_path):
    small_mnist(tmp_path / "dark", 0, 50)
    small_mnist(tmp_path / "bright", 1, 150)
    folder = tmp_path / "run"
    data = ("--data", "mnist", "--root")
    assert run("train", "plain8", *SMALL, *data, tmp_path / "dark", "--folder", folder)[0] == 0
    checkpoint = load_checkpoint(folder / "last.safetensors")
    dark = minires.training.evaluate(checkpoint.build(), minires.data.load("mnist", tmp_path / "dark").test)
    status, out, err = run("evaluate", folder / "last.safetensors", "--root", tmp_path / "dark")
    assert (status, err) == (0, "")
    assert out == (f"mnist, 40 test images: loss {dark[0]:.4f}   top-1 error {dark[1]:.2f} %   "
                   f"top-5 error {dark[2]:.2f} %\n")  # fmt: skip
    other = minires.data.load("mnist", tmp_path / "bright")
    raw = other.test.images.astype(np.float64) * other.std + other.mean
    images = ((raw - checkpoint.data.mean) / checkpoint.data.std).astype(np.float32)
    bright = minires.training.evaluate(checkpoint.build(), minires.data.Split(images, other.test.labels))
    out = run("evaluate", folder / "last.safetensors", *data, tmp_path / "bright")[1]
    assert f"loss {bright[0]:.4f} " in out
    assert abs(bright[0] - minires.training.evaluate(checkpoint.build(), other.test)[0]) > 1e-3


def test_evaluate_refuses_other_data_than_the_net_was_trained_on(run, tmp_path):
    small_mnist(tmp_path, 0, 50)
    assert run("train", "plain8", *SMALL, "--folder", tmp_path / "run", "--data", "mnist", "--root", tmp_path)[0] == 0
    status, out, err = run("evaluate", tmp_path / "run" / "best.safetensors", "--data", "digits")
    assert status == 0  # the same classes and sizes: they fit
    assert err == "trained on mnist; digits is other data, normalized alike\n"
    small = tmp_path / "small"
    small_mnist(small, 0, 50)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        content = (small / "mnist" / name).read_bytes()
        images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 8, 8)[:, :7]
        (small / "mnist" / name).write_bytes(idx(np.ascontiguousarray(images)))
    status, out, err = run("evaluate", tmp_path / "run" / "best.safetensors", "--root", small)
    assert (status, out) == (2, "")
    assert err.startswith(
        "minires: the net was trained on mnist, and mnist has images of shape (1, 7, 8), not (1, 8, 8)"
    )


def first_format(path, notes):
    """A checkpoint as the first version of this format was, which knew nothing of the data."""
    options = {"in_channels": 1, "num_classes": 10, "widths": [2, 3, 4]}
    description = {"format": "minires/1", "model": "plain8", "options": options, "notes": notes}
    net = minires.models.create("plain8", **options)
    save_file(net.state_dict(), path, metadata={"minires": json.dumps(description)})


def test_evaluate_says_what_it_assumes_of_an_old_checkpoint(run, tmp_path):
    path = tmp_path / "old.safetensors"
    first_format(path, {"data": "digits"})
    status, out, err = run("evaluate", path)
    assert status == 0
    assert out.startswith("digits, 297 test images: loss 2.")
    assert err.startswith(f"{path} doesn't say how its images were normalized; assumed: ")
    status, out, err = run("evaluate", path, "--data", "mnist", "--root", "/nowhere")
    assert (status, out) == (2, "")
    small_mnist(tmp_path, 0, 50)
    status, out, err = run("evaluate", path, "--data", "mnist", "--root", tmp_path)
    assert (status, out, err) == (2, "", f"minires: {path} was trained on digits, not on mnist\n")
    first_format(path, {})
    assert run("evaluate", path)[2] == f"minires: {path} doesn't say what it was trained on; name it with --data\n"
    assert run("evaluate", path, "--data", "digits")[0] == 0
