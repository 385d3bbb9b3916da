"""Pictures of training, written to files. matplotlib is imported here, when a picture is asked for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from minires.training.trainer import Epoch
from minires.training.writing import write_file


def plot_training_errors(curves: Mapping[str, Sequence[Epoch]], path: str | Path, *, title: str = "") -> None:
    """Training error in per cent over epochs, one curve for each net, as a PNG: figures 1 and 4 of He et al. 2015.

    Raises ImportError with the install command where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as missing:
        raise ImportError("plots need matplotlib: pip install matplotlib") from missing
    figure = Figure(figsize=(7, 4.5), layout="constrained")  # not pyplot, whose backend belongs to the caller
    axes = figure.subplots()
    for name, epochs in curves.items():
        style = "--" if name.startswith("plain") else "-"
        axes.plot([epoch.epoch for epoch in epochs], [epoch.train_error for epoch in epochs], style, label=name)
    axes.set(xlabel="epoch", ylabel="training error (%)", ylim=(-2, 100), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    write_file(path, picture.getvalue())
