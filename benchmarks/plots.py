"""The roofline plot: what each kernel reaches, over how many operations it does for each byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FAMILIES = {"convolution": "o", "normalization": "^"}


def roofline(environment: dict[str, Any], rows: list[dict[str, Any]], target: Path) -> None:
    """GFLOP/s over operations per byte of each implementation of convolution and normalization, as a PNG.

    Log-log, under the two measured peaks. Operations are the direct sum's, so Winograd may be above the horizontal
    line: it does a quarter of them. Data that a cache holds may be above the slanted one.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    peaks = [row["peaks"] for row in rows]
    operations, bandwidth = max(peak[0] for peak in peaks), max(peak[1] for peak in peaks)
    figure, axes = pyplot.subplots(figsize=(8, 5))
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    for number, candidate in enumerate(candidates):
        for family, marker in FAMILIES.items():
            points = [
                (row["gflops"] / row["gbytes"], row["gflops"])
                for row in rows
                if row["candidate"] == candidate and row["case"].startswith(f"{family}.") and row["gflops"] > 0
            ]
            if points:
                axes.scatter(*zip(*points, strict=True), s=16, marker=marker, color=f"C{number}", alpha=0.8,
                             label=f"{candidate}, {family}")  # fmt: skip
    xs = (2**-4, operations / bandwidth, 2**10)  # a bend where both bounds meet
    axes.plot(xs, [min(operations, x * bandwidth) for x in xs], color="black", linewidth=1,
              label=f"measured: {operations:.0f} GFLOP/s, {bandwidth:.1f} GB/s")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte that must move",
             ylabel="GFLOP/s (of the direct sum)")  # fmt: skip
    computer = environment["machine"]
    axes.set_title(f"{computer['cpu']}, {computer['threads']} threads; commit {environment['commit']}", fontsize=9)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
