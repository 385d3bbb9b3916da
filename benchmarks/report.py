"""``python -m benchmarks.report``: the result files as tables and a roofline plot, and from there into the README.

Nothing in the README's performance section is typed: it is what stands between its two markers, and this writes it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, read

README = FOLDER.parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin (python -m benchmarks.report) -->", "<!-- benchmarks: end -->"


def step_table() -> list[str]:
    """Whole training steps: a row for each net, a column for each candidate's time and our ratio to it."""
    files = [read(path) for path in sorted(FOLDER.glob("training_step_*.jsonl"))]
    if not files:
        return []
    nets = [[row for row in rows if "ours_is_faster_by" in row] for _, rows in files]
    names = list(dict.fromkeys(row["candidate"] for rows in sorted(nets, key=len, reverse=True) for row in rows))
    lines = [_machine(files[0][0]), "", f"| training step | {' | '.join(names)} |", "|" + " --- |" * (1 + len(names))]
    for rows in nets:
        cells = dict.fromkeys(names, "not run")
        for row in rows:
            faster = "" if row["candidate"] == "minires" else f" (**{row['ours_is_faster_by']:.2f}x**)"
            cells[row["candidate"]] = f"{row['median_s'] * 1e3:.1f} ms{faster}"
        lines.append(f"| {rows[0]['case']} | {' | '.join(cells.values())} |")
    return [*lines, "", "In parentheses: how many times as fast MiniRes is, the median of paired ratios."]


def convolution_table() -> list[str]:
    """Each convolution of the nets: GFLOP/s of PyTorch channels-last, and of the best of ours with the ratio."""
    path = FOLDER / "kernels.jsonl"
    if not path.exists():
        return []
    best: dict[str, dict[str, Any]] = {}
    for row in read(path)[1]:
        if row["case"].startswith("convolution.") and row["versus_peer"]:
            if row["candidate"].startswith("torch"):
                continue
            if row["case"] not in best or row["versus_peer"] > best[row["case"]]["versus_peer"]:
                best[row["case"]] = row
    lines = ["| convolution | operation | fastest of ours | GFLOP/s | against PyTorch channels-last | error |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for case, row in best.items():
        kernel, _, layer = case.removeprefix("convolution.").partition(" ")
        lines.append(f"| {layer} | {kernel} | {row['candidate']} | {row['gflops']:.0f} | "
                     f"{row['versus_peer']:.2f}x | {row['error']:.0e} |")  # fmt: skip
    return lines if best else []


def peers_table() -> list[str]:
    """One convolution, forward and backward, in each engine."""
    path = FOLDER / "peers.jsonl"
    if not path.exists():
        return []
    rows = read(path)[1]
    lines = [f"| {rows[0]['case']}, forward and backward | time | MiniRes is |", "| --- | --- | --- |"]
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['candidate']} | not measured | {row['missing']} |")
        else:
            lines.append(f"| {row['candidate']} | {row['median_s'] * 1e3:.2f} ms | {row['ours_is_faster_by']:.1f}x |")
    return lines


def _machine(environment: dict[str, Any]) -> str:
    machine, versions = environment["machine"], environment["versions"]
    malloc = "page-retaining malloc on both sides" if environment["page_retaining_malloc"] else "default malloc"
    dirty = " with changes" if environment["dirty"] else ""
    return (
        f"{machine['cpu']}, {machine['threads']} threads; NumPy {versions['numpy']}, Numba {versions['numba']}, "
        f"PyTorch {versions['torch']}; {malloc}; commit {environment['commit']}{dirty}."
    )


def roofline_plot(target: Path) -> None:
    """Speed over operational intensity of every measured kernel, under the measured peaks, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    environment, rows = read(FOLDER / "kernels.jsonl")
    peaks = environment_peaks(rows)
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for candidate in sorted({row["candidate"] for row in rows}):
        mine = [row for row in rows if row["candidate"] == candidate and row["gflops"] > 0]
        intensity = [row["gflops"] / row["gbytes"] for row in mine]
        axes.scatter(intensity, [row["gflops"] for row in mine], s=14, label=candidate)
    if peaks:
        xs = [2**exponent for exponent in range(-4, 10)]
        axes.plot(xs, [min(peaks[0], x * peaks[1]) for x in xs], color="black", linewidth=1, label="measured roofline")
    axes.set(xscale="log", yscale="log", xlabel="operations per byte moved", ylabel="GFLOP/s (of the direct sum)")
    axes.set_title(_machine(environment), fontsize=7)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def environment_peaks(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    """(GFLOP/s, GB/s) as measured in that run, if it noted them."""
    for row in rows:
        if "peaks" in row:
            return row["peaks"][0], row["peaks"][1]
    return None


def main() -> None:
    """Print the tables, write ``results/report.md`` and the plot, put the tables into the README."""
    tables = [table for table in (step_table(), convolution_table(), peers_table()) if table]
    if not tables:
        sys.exit("report: there are no results yet; run python -m benchmarks.training_step first")
    text = "\n\n".join("\n".join(table) for table in tables) + "\n"
    (FOLDER / "report.md").write_text(text)
    if (FOLDER / "kernels.jsonl").exists():
        roofline_plot(FOLDER / "roofline.png")
    readme = README.read_text()
    if BEGIN not in readme or END not in readme:
        sys.exit(
            f"report: {README.name} has lost its markers {BEGIN!r} and {END!r}; the tables are in results/report.md"
        )
    before, after = readme.split(BEGIN)[0], readme.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
