"""``python -m benchmarks.report``: the result files as tables and a roofline plot, and from there into the README.

Nothing in the README's performance section is typed: it is what stands between its two markers, and this writes it.
Each table is headed by the machine that its numbers come from. Results of two machines, or of two versions of what was
measured, never stand in one table: each gets its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.cases import LAYERS
from benchmarks.results import FOLDER, read

README = FOLDER.parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin (python -m benchmarks.report) -->", "<!-- benchmarks: end -->"

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, write ``results/report.md``, ``kernels.md`` and the plot, put the tables into the README."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    text = "\n\n".join("\n".join(part) for title, files, table in SECTIONS for part in section(title, files, table))
    if not text:
        sys.exit("report: there are no results yet; run python -m benchmarks.training_step first")
    (FOLDER / "report.md").write_text(text + "\n")
    kernels = "\n\n".join("\n".join(part) for part in section("Every kernel", "kernels.jsonl", kernel_table))
    if kernels:
        from benchmarks.plots import roofline

        (FOLDER / "kernels.md").write_text(kernels + "\n")
        roofline(*read(FOLDER / "kernels.jsonl"), FOLDER / "roofline.png")
    readme = README.read_text()
    if BEGIN not in readme or END not in readme:
        sys.exit(
            f"report: {README.name} has lost its markers {BEGIN!r} and {END!r}; the tables are in results/report.md"
        )
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    print(text)


def section(title: str, files: str, table: Callable[[list[Row]], list[str]]) -> Iterator[list[str]]:
    """The lines of ``table`` of the rows in ``files`` (a pattern), one part for each machine, under a heading."""
    groups: dict[str, tuple[list[str], list[Row]]] = {}
    for path in sorted(FOLDER.glob(files)):
        environment, rows = read(path)
        commits, together = groups.setdefault(machine(environment), ([], []))
        commits.append(environment["commit"] + " with changes" * environment["dirty"])
        together += rows
    for name, (commits, rows) in groups.items():
        if lines := table(rows):
            yield [f"**{title}.** {name}; commit {', '.join(dict.fromkeys(commits))}.", "", *lines]


def machine(environment: Row) -> str:
    """In words: what has to be equal for numbers to stand in one table."""
    computer, versions = environment["machine"], environment["versions"]
    malloc = "page-retaining malloc on both sides" if environment["page_retaining_malloc"] else "default malloc"
    names = (("NumPy", "numpy"), ("Numba", "numba"), ("PyTorch", "torch"))
    installed = ", ".join(f"{name} {versions[package]}" for name, package in names if versions[package])
    return (
        f"{computer['cpu']}, {8 * environment['register_bytes']}-bit vectors, {computer['threads']} threads; "
        f"{installed}; {malloc}"
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] if rows else []


def step_table(rows: list[Row]) -> list[str]:
    """Whole training steps: a row for each net, a column for each candidate's time and our ratio to it."""
    nets: dict[str, dict[str, str]] = {}
    for row in rows:
        if "ours_is_faster_by" in row:
            faster = "" if row["candidate"] == "minires" else f" (**{row['ours_is_faster_by']:.2f}x**)"
            nets.setdefault(row["case"], {})[row["candidate"]] = f"{row['median_s'] * 1e3:.1f} ms{faster}"
    names = list(dict.fromkeys(name for cells in sorted(nets.values(), key=len, reverse=True) for name in cells))
    overheads = {row["case"].removesuffix(" inside kernels"): f"{row['overhead']:.1%}" for row in rows
                 if "overhead" in row}  # fmt: skip
    table = _table(
        ["training step", *names, "outside kernels"],
        [
            [net, *(cells.get(name, "not run") for name in names), overheads.get(net, "not run")]
            for net, cells in nets.items()
        ],
    )
    legend = (
        "In parentheses: how many times as fast MiniRes is, the median of paired ratios. Outside kernels: the share of "
        "our step that isn't spent in kernels (graph, modules, checks, and what is plain NumPy)."
    )
    return [*table, "", legend] if table else []


CONVOLUTIONS = ("forward", "grad_input", "grad_weight")
PEER = "torch channels-last"


def convolution_table(rows: list[Row]) -> list[str]:
    """Each 3x3 convolution: PyTorch's time over that of what ``convolution`` takes by itself, and of a faster one."""
    layers: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        family, _, layer = row["case"].partition(" ")
        if family.startswith("convolution.") and " 3x3" in layer and row["versus_peer"] and row["candidate"] != PEER:
            layers.setdefault(layer, {}).setdefault(family.removeprefix("convolution."), []).append(row)
    cells = [[layer, *(_ratio(found.get(kernel, [])) for kernel in CONVOLUTIONS)] for layer, found in layers.items()]
    taken = [row for found in layers.values() for each in found.values() for row in each if row["default"]]
    if not taken:
        return []
    least = min(taken, key=lambda row: row["versus_peer"])
    return [
        *_table(["3x3 convolution", *CONVOLUTIONS], cells),
        "",
        f"PyTorch's time (channels-last) over ours, medians of paired ratios, of the implementation that is taken by "
        f"itself; in parentheses another one where it is over 5 % faster. The least: {least['versus_peer']:.2f}x "
        f"({least['case'].removeprefix('convolution.')}).",
        *(
            f"\nWhy {row['candidate']} is taken for {row['case'].removeprefix('convolution.')}, though "
            f"{better['candidate']} is faster: {_why(row)}."
            for found in layers.values()
            for rows in found.values()
            for row, better in _outrun(rows)
        ),
    ]


def _outrun(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """(what is taken by itself, the fastest), if that one is over 5 % faster."""
    for taken in (row for row in rows if row["default"]):
        best = max(rows, key=lambda row: row["versus_peer"])
        if best["versus_peer"] > 1.05 * taken["versus_peer"]:
            yield taken, best


def _why(row: Row) -> str:
    """The reason that the contract gives for what it takes."""
    kernel, _, name = row["case"].removeprefix("convolution.").partition(" ")
    layer = next((each for each in LAYERS if str(each) == name), None)
    return layer.choice(kernel).why if layer is not None else "the layer isn't measured any more"


def _ratio(rows: list[Row]) -> str:
    taken = next((row for row in rows if row["default"]), None)
    if taken is None:
        return "not needed" if not rows else "not measured"
    faster = [f" ({best['candidate']} {best['versus_peer']:.2f}x)" for _, best in _outrun(rows)]
    return f"{taken['versus_peer']:.2f}x" + "".join(faster)


def kernel_table(rows: list[Row]) -> list[str]:
    """Every implementation of every kernel that was measured."""
    head = ["kernel", "implementation", "time", "IQR", "GFLOP/s", "GB/s", "of the roofline", "against PyTorch", "error"]
    cells = [
        [
            row["case"],
            f"**{row['candidate']}**" if row["default"] else row["candidate"],
            f"{row['median_s'] * 1e3:.3f} ms",
            f"{row['iqr']:.0%}",
            f"{row['gflops']:.1f}",
            f"{row['gbytes']:.1f}",
            f"{row['share']:.0%}",
            f"{row['versus_peer']:.2f}x" if row["versus_peer"] else "",
            f"{row['error']:.0e}",
        ]
        for row in rows
    ]
    legend = (
        "Bold: what is taken by itself. Speeds count the operations of the direct sum; the share of the roofline "
        "counts those that the algorithm performs, and bandwidth only for what exceeds the last-level cache. Error: "
        "against float64, relative to the largest number."
    )
    return [*_table(head, cells), "", legend]


def memory_table(rows: list[Row]) -> list[str]:
    """Peaks of resident memory, over what is needed and over PyTorch's."""
    peaks = {row["case"]: row["peak"] for row in rows}
    cells = []
    for row in rows:
        what = row["case"].partition("-")[2]
        theirs = peaks.get(f"torch-{what}") if row["candidate"] == "minires" else None
        cells.append(
            [
                what.replace("_", " "),
                row["candidate"],
                f"{row['peak'] / 2**20:.1f} MiB",
                f"{row['peak'] / row['needed'] - 1:+.1%}" if row["needed"] else "",
                f"{row['peak'] / theirs:.2f}x" if theirs else "",
            ]
        )
    return _table(["memory", "engine", "peak", "over what must be kept", "of PyTorch's"], cells)


def startup_table(rows: list[Row]) -> list[str]:
    """Seconds from nothing to the end of an import, or of a first step."""
    cells = []
    for row in rows:
        time = f"not measured: {row['missing']}" if "missing" in row else f"{row['median_s']:.2f} s"
        goal = row.get("goal_s")
        cells.append([row["case"], row["candidate"], time, f"{goal:g} s" if goal else ""])
    return _table(["start", "engine", "time", "goal"], cells)


def neighbours_table(rows: list[Row]) -> list[str]:
    """A training alone, two at once and beside a busy program, by how its threads wait."""
    ways: dict[str, dict[str, str]] = {}
    for row in rows:
        cell = f"{row['median_s'] * 1e3:.0f} ms ({row['times_the_fair_time']:.2f})"
        ways.setdefault(row["candidate"], {})[row["case"]] = cell
    cases = list(dict.fromkeys(row["case"] for row in rows))
    table = _table(["threads wait", *cases], [[way, *map(cells.get, cases)] for way, cells in ways.items()])  # type: ignore[list-item]
    legend = (
        "20 training steps of ResNet-20 on 8 x 8 images. In parentheses: times the fair time, which is twice the "
        "quickest alone for two at once, and C / (C - 1/2) times beside a loop on one of C cores. By default threads "
        "look long for work while the cores are theirs, and briefly while others use them."
    )
    return [*table, "", legend] if table else []


def convergence_table(rows: list[Row]) -> list[str]:
    """Losses of the same training, and how far each is from PyTorch's."""
    cells = [
        [
            row["case"],
            row["candidate"],
            f"{row['first_steps_differ']:.0e}",
            f"{row['training_loss']:.4f} ({row['training_loss_differs']:.2%})",
            f"{row['test_loss']:.4f} ({row['test_loss_differs']:.2%})",
        ]
        for row in rows
    ]
    table = _table(["training", "engine", "first steps differ by", "mean training loss", "test loss at the end"], cells)
    legend = (
        "The same weights, batches and SGD. In parentheses: away from PyTorch in NCHW; PyTorch's own second layout "
        "shows how far rounding alone leads."
    )
    return [*table, "", legend] if table else []


def gradients_table(rows: list[Row]) -> list[str]:
    """Errors of whole nets' gradients, of each engine."""
    cells = [
        [row["case"], row["candidate"], f"{row['median']:.1e}", f"{row['mean']:.1e}", str(len(row["errors"]))]
        for row in rows
    ]
    return _table(["net", "engine", "median error", "mean", "of nets"], cells) if cells else []


def checking_table(rows: list[Row]) -> list[str]:
    """Who notices how many of the planted mistakes, and the first ones that each misses."""
    cells = []
    for row in rows:
        noticed = f"not measured: {row['missing']}" if "missing" in row else f"{row['killed']} of {row['total']}"
        missed = row.get("survived", [])
        cells.append([row["candidate"], noticed, ", ".join(missed[:3]) + ", ..." * (len(missed) > 3)])
    table = _table(["in the hands of", "noticed", "not noticed"], cells)
    legend = (
        "Settings: the steps, tolerances and upstream gradients of that project, in a loop of ours; the others are the "
        "libraries' own functions, with their defaults. MiniRes's own tests: all but those of the checker, which are "
        "made of these very mistakes."
    )
    return [*table, "", legend] if table else []


def peers_table(rows: list[Row]) -> list[str]:
    """One convolution, forward and backward, in each engine."""
    cells = [
        [row["candidate"], f"not measured: {row['missing']}", ""]
        if "missing" in row
        else [row["candidate"], f"{row['median_s'] * 1e3:.2f} ms", f"{row['ours_is_faster_by']:.1f}x"]
        for row in rows
    ]
    return _table([f"{rows[0]['case']}, forward and backward", "time", "MiniRes is"], cells) if rows else []


SECTIONS: tuple[tuple[str, str, Callable[[list[Row]], list[str]]], ...] = (
    ("Training steps", "training_step_*.jsonl", step_table),
    ("Convolutions", "kernels.jsonl", convolution_table),
    ("Gradients of whole nets, relative error against float64", "gradients.jsonl", gradients_table),
    ("Wrong backward passes, planted one by one", "checking_*.jsonl", checking_table),
    ("Memory", "memory.jsonl", memory_table),
    ("Start", "startup.jsonl", startup_table),
    ("Neighbours", "neighbours.jsonl", neighbours_table),
    ("Convergence", "convergence.jsonl", convergence_table),
    ("Other engines", "peers.jsonl", peers_table),
)
"""(title, files, table), in the order in which the README shows them."""


if __name__ == "__main__":
    main()
