"""The report says what the result files say, of which machine, and nothing else."""

import json

import pytest

from benchmarks import report, results
from minires_kernels.convolution import EXACT


def environment(cpu="quick", commit="abc1234", dirty=False):
    return {
        "schema": results.SCHEMA,
        "kind": "environment",
        "machine": {"cpu": cpu, "cores": 2, "system": "Linux", "threads": 2},
        "register_bytes": 32,
        "versions": {"numpy": "2.0", "numba": "0.6", "torch": None},
        "commit": commit,
        "dirty": dirty,
        "page_retaining_malloc": True,
    }


def step(net, candidate="minires", ratio=1.0, seconds=0.1):
    return {"case": f"{net} batch 8", "candidate": candidate, "median_s": seconds, "ours_is_faster_by": ratio}


def kernel(candidate, ratio, default=False, kernel="forward", layer="cifar 3x3 16->16 @32 N=128"):
    return {
        "case": f"convolution.{kernel} {layer}",
        "candidate": candidate,
        "default": default,
        "median_s": 1e-3,
        "iqr": 0.02,
        "gflops": 100.0,
        "gbytes": 5.0,
        "share": 0.5,
        "error": 1e-6,
        "versus_peer": ratio,
        "peaks": [170.0, 20.0],
    }


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "README", readme)
    return tmp_path


def save(folder, name, rows, **details):
    lines = [environment(**details), *rows]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_report_needs_results(folder):
    with pytest.raises(SystemExit, match="no results yet"):
        report.main([])


def test_the_readme_gets_the_tables_between_its_markers(folder):
    save(folder, "training_step_a", [step("a"), step("a", "torch", 1.5, 0.15)])
    report.main([])
    text = (folder / "README.md").read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| a batch 8 | 100.0 ms | 150.0 ms (**1.50x**) | not run |" in text
    assert (
        "quick, 256-bit vectors, 2 threads; NumPy 2.0, Numba 0.6; page-retaining malloc on both sides; commit abc1234."
    ) in text
    report.main([])
    assert (folder / "README.md").read_text() == text, "a second run changes nothing"


def test_a_readme_without_markers_is_left_alone(folder):
    save(folder, "training_step_a", [step("a")])
    (folder / "README.md").write_text("no markers")
    with pytest.raises(SystemExit, match=r"has lost its markers .*results/report\.md"):
        report.main([])
    assert (folder / "README.md").read_text() == "no markers"


def test_two_machines_never_share_a_table(folder):
    save(folder, "training_step_a", [step("a")])
    save(folder, "training_step_b", [step("b")], commit="def5678", dirty=True)
    save(folder, "training_step_c", [step("c")], cpu="slow")
    parts = list(report.section("Steps", "training_step_*.jsonl", report.step_table))
    assert [("quick" in part[0], "slow" in part[0]) for part in parts] == [(True, False), (False, True)]
    assert parts[0][0].endswith("commit abc1234, def5678 with changes.")
    assert ["| a batch 8" in "\n".join(part) for part in parts] == [True, False]
    assert ["| c batch 8" in "\n".join(part) for part in parts] == [False, True]


def test_the_overhead_stands_beside_its_net():
    inside = {"case": "a batch 8 inside kernels", "candidate": "minires", "median_s": 0.09, "overhead": 0.071}
    assert "| a batch 8 | 100.0 ms | 7.1% |" in report.step_table([step("a"), inside])


def test_a_convolution_shows_what_users_get_and_what_would_be_faster():
    rows = [
        kernel("numba_cpu", 1.2),
        kernel("winograd4_cpu", 1.0, default=True),
        kernel(report.PEER, 1.0),
        kernel("numba_cpu", 0.97, default=True, kernel="grad_weight"),
        kernel("winograd4_cpu", 1.01, kernel="grad_weight"),
        kernel("numba_cpu", 0.5, default=True, layer="imagenet 1x1/2 64->128 @56 N=8"),
    ]
    lines = report.convolution_table(rows)
    assert lines[2] == "| cifar 3x3 16->16 @32 N=128 | 1.00x (numba_cpu 1.20x) | not needed | 0.97x |"
    assert lines[4].endswith("The least: 0.97x (grad_weight cifar 3x3 16->16 @32 N=128).")
    assert lines[5:] == [
        f"\nWhy winograd4_cpu is taken for forward cifar 3x3 16->16 @32 N=128, though numba_cpu is faster: {EXACT.why}."
    ]


def test_the_kernels_get_a_table_and_a_plot(folder):
    save(folder, "kernels", [kernel("numba_cpu", 1.2, default=True), kernel("im2col", None)])
    report.main([])
    table = (folder / "kernels.md").read_text()
    assert "| convolution.forward cifar 3x3 16->16 @32 N=128 | **numba_cpu** | 1.000 ms | 2% | 100.0 |" in table
    assert (folder / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_neighbours_stand_side_by_side():
    cases = {"alone": (0.5, 1.0), "two at once": (1.2, 1.2)}
    rows = [{"candidate": "default", "case": case, "median_s": seconds, "times_the_fair_time": fair}
            for case, (seconds, fair) in cases.items()]  # fmt: skip
    lines = report.neighbours_table(rows)
    assert lines[0] == "| threads wait | alone | two at once |"
    assert lines[2] == "| default | 500 ms (1.00) | 1200 ms (1.20) |"


def test_memory_is_compared_with_the_peer():
    rows = [
        {"case": "minires-convolution", "candidate": "minires", "peak": 110 << 20, "needed": 100 << 20},
        {"case": "torch-convolution", "candidate": "torch", "peak": 100 << 20, "needed": 100 << 20},
    ]
    assert "| convolution | minires | 110.0 MiB | +10.0% | 1.10x |" in report.memory_table(rows)


def test_what_could_not_be_measured_says_why():
    missing = {"case": "conv", "candidate": "tinygrad", "missing": "RuntimeError: no clang"}
    assert "| tinygrad | not measured: RuntimeError: no clang |  |" in report.peers_table([missing])
    assert "| conv | tinygrad | not measured: RuntimeError: no clang |  |" in report.startup_table([missing])


def test_planted_mistakes_show_who_notices_how_many_and_what_is_missed(folder):
    scores = [
        {"candidate": "ours", "killed": 5, "total": 5, "survived": []},
        {"candidate": "theirs", "killed": 1, "total": 5, "survived": ["one", "two", "three", "four"]},
        {"candidate": "nobody's", "missing": "nobody is not installed here"},
    ]
    save(folder, "checking_peers", scores)
    report.main([])
    text = (folder / "report.md").read_text()
    assert "| ours | 5 of 5 |  |\n| theirs | 1 of 5 | one, two, three, ... |" in text
    assert "| nobody's | not measured: nobody is not installed here |  |" in text


def test_convergence_shows_losses_and_how_far_they_are_from_the_peers():
    row = {"case": "digits", "candidate": "minires", "first_steps_differ": 2e-7, "training_loss": 0.5, "test_loss": 0.1,
           "training_loss_differs": 0.004, "test_loss_differs": 0.02}  # fmt: skip
    assert "| digits | minires | 2e-07 | 0.5000 (0.40%) | 0.1000 (2.00%) |" in report.convergence_table([row])
