"""The plot of training errors is a PNG, the same bytes each time, and doesn't touch the user's matplotlib."""

import builtins
import os

import pytest

from minires.training import Epoch
from minires.training.plots import plot_training_errors


def curve(*errors):
    return [Epoch(i, 0.1, 1.0, error, 1.0, error, 0.0, 1.0) for i, error in enumerate(errors, start=1)]


CURVES = {"plain56": curve(90, 80, 70), "resnet56": curve(50, 10, 1)}


def test_the_picture_is_a_png_and_reproducible(tmp_path):
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    for name in ("a.png", "b.png"):
        plot_training_errors(CURVES, tmp_path / name, title="two nets")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()


def test_each_net_has_its_curve(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure", reason="plots are drawn by matplotlib")
    drawn = []
    original = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), original(self, *a, **k)))
    plot_training_errors(CURVES, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    assert lines == {"plain56": ([1, 2, 3], [90, 80, 70]), "resnet56": ([1, 2, 3], [50, 10, 1])}


def test_an_interruption_leaves_the_old_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    path = tmp_path / "a.png"
    plot_training_errors(CURVES, path)
    content = path.read_bytes()

    def fsync(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        plot_training_errors({"plain20": curve(3, 2, 1)}, path)
    assert path.read_bytes() == content


def test_without_matplotlib_it_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="plots need matplotlib: pip install matplotlib"):
        plot_training_errors(CURVES, tmp_path / "a.png")
