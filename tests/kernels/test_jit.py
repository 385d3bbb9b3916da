"""The door to Numba: what it keeps on disk, what it does with a folder or a file that is no good, and who goes through.

A function of two lines stands for a kernel.
"""

import ast
import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

import minires_kernels
from minires_kernels import environment, jit, private

numba = pytest.importorskip("numba", reason="about compiling")

PACKAGE = Path(minires_kernels.__file__).parent
SCRIPT = """
from minires_kernels import jit

@jit.njit(error_model="numpy")
def double(x):
    return x + x

ready = []
with jit.watch(lambda name, compiled: ready.append(compiled)):
    results = [double(3), double(1.5), double(4)]
if __name__ == "__main__":
    print(results, ready)
"""
RIGHT = [6, 3.0, 8]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(folder)``: the results of ``SCRIPT``, whether each function was compiled (or loaded), and the warnings.

    It runs here, as if in a process that has compiled nothing yet and warned of nothing.
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)

    def run(folder=tmp_path / "cache"):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
        monkeypatch.setattr(environment, "_causes", set())
        for remembered in (jit.cache_folder, jit._fingerprint, jit._imports):
            remembered.cache_clear()
        spec = importlib.util.spec_from_file_location("script", script)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "script", module)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            exec(compile(script.read_text(), str(script), "exec"), vars(module))
        return module.results, module.ready, [f"{each.category.__name__}: {each.message}" for each in seen]

    run.script, run.files = script, lambda: sorted((tmp_path / "cache").rglob("*.kernel"))
    yield run
    jit.cache_folder.cache_clear()


COMPILED, LOADED = [True, True], [False, False]


def test_what_has_been_compiled_once_is_loaded(run):
    assert run() == (RIGHT, COMPILED, [])
    assert run() == (RIGHT, LOADED, [])
    assert len(run.files()) == 2


def test_another_process_loads_it_too_unless_it_compiles_for_another_processor(run, tmp_path):
    def another(**settings):
        environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **settings}
        return subprocess.run([sys.executable, run.script], env=environ, capture_output=True, text=True, check=True)

    assert another().stdout == f"{RIGHT} {COMPILED}\n"
    assert another().stdout == f"{RIGHT} {LOADED}\n"
    assert another(NUMBA_CPU_NAME="generic").stdout == f"{RIGHT} {COMPILED}\n"
    assert another().stdout == f"{RIGHT} {LOADED}\n"


@pytest.mark.parametrize("change", [
    ("return x + x", "return x * 2.0"),  # another body
    ("def double", "\n\ndef double"),  # another place: two functions of one name
    ('error_model="numpy"', 'error_model="python"'),
], ids=["body", "place", "options"])  # fmt: skip
def test_an_edited_source_is_compiled_again_and_replaces_the_old_one(run, change):
    run()
    old = run.files()
    run.script.write_text(SCRIPT.replace(*change))
    assert run() == (RIGHT, COMPILED, [])
    assert len(run.files()) == 2
    assert not set(old) & set(run.files())


@pytest.mark.parametrize(("setting", "value"), [("OPT", 1), ("BOUNDSCHECK", 1)])
def test_machine_code_for_other_settings_lies_beside_it(run, monkeypatch, setting, value):
    run()
    with monkeypatch.context() as other:
        other.setattr(numba.config, setting, value)
        assert run() == (RIGHT, COMPILED, [])
    assert run() == (RIGHT, LOADED, [])
    assert len(run.files()) == 4


def test_functions_of_one_name_and_one_function_with_two_sets_of_options_do_not_meet(run):
    run.script.write_text("""
from minires_kernels import jit
ready = []
with jit.watch(lambda name, compiled: ready.append(compiled)):
    @jit.njit
    def f(x):
        return x + 1
    results = [f(1), jit.njit(fastmath=True)(f.py_func)(1)]
    @jit.njit
    def f(x):
        return x + 2
    results.append(f(1))
""")
    assert run() == ([2, 2, 3], [True] * 3, [])
    assert run() == ([2, 2, 3], [False] * 3, [])


def truncate(files):
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])


def empty(files):
    for file in files:
        file.write_bytes(b"")


def flip_a_bit(files):
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def exchange(files):
    first, second = files
    first.rename(first.with_suffix(".moved"))
    second.rename(first)
    first.with_suffix(".moved").rename(second)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit, exchange])
def test_damaged_files_are_compiled_again_with_one_warning_and_replaced(run, damage):
    run()
    damage(run.files())
    results, ready, (warning,) = run()
    assert (results, ready) == (RIGHT, COMPILED)
    assert warning.startswith("RuntimeWarning: compiled kernels in ")
    assert "its checksum is wrong; they are compiled again" in warning
    assert "delete " in warning
    assert run() == (RIGHT, LOADED, [])


def test_files_that_cannot_be_replaced_cost_one_warning(run):
    run()
    for file in run.files():
        file.unlink()
        file.mkdir()
    results, ready, (warning,) = run()
    assert (results, ready) == (RIGHT, COMPILED)
    assert "IsADirectoryError" in warning
    assert not list(run.files()[0].parent.glob("tmp*")), "nothing unfinished stays"


def test_a_folder_that_cannot_be_written_is_replaced_by_another(run, tmp_path):
    (tmp_path / "file").write_text("")
    results, _, (warning,) = run(tmp_path / "file" / "folder")
    assert results == RIGHT
    assert f"NUMBA_CACHE_DIR='{tmp_path}/file/folder' can't be used" in warning
    assert f"kept in {PACKAGE / '__pycache__'} instead; set it to" in warning
    kept = list((PACKAGE / "__pycache__").glob("script.double-*.kernel"))
    assert len(kept) == 2
    for file in kept:
        file.unlink()


def test_a_folder_that_does_not_exist_is_made_also_a_relative_one(run, tmp_path):
    assert run("new/and/deep") == (RIGHT, COMPILED, [])
    assert len(list((tmp_path / "new" / "and" / "deep").rglob("*.kernel"))) == 2
    assert jit.cache_folder().is_absolute(), "the process may change its working directory"


def test_without_any_folder_each_process_compiles_with_one_warning(monkeypatch, tmp_path, recwarn):
    (tmp_path / "__pycache__").write_text("")
    monkeypatch.setattr(jit, "PACKAGE", tmp_path)
    monkeypatch.setattr(jit, "_user_folder", lambda: tmp_path / "__pycache__")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "__pycache__"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(jit, "cache_folder", jit.cache_folder.__wrapped__)
    monkeypatch.setattr(environment, "_causes", set())
    compiled = []
    with jit.watch(lambda name, is_new: compiled.append(is_new)):
        functions = [jit.njit(lambda x: x + 1) for _ in range(2)]
        assert [function(1) for function in functions] == [2, 2]
    assert compiled == [True, True]
    (warning,) = recwarn
    assert warning.category is RuntimeWarning
    assert "can't be kept" in str(warning.message)
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in str(warning.message)


@pytest.mark.parametrize("exposed", ["the wanted folder", "a folder above it"])
def test_a_folder_that_others_may_write_gives_way_to_another_with_one_warning(run, tmp_path, monkeypatch, exposed):
    """What somebody else has put there isn't run."""
    monkeypatch.setattr(jit, "PACKAGE", tmp_path / "package")
    run()
    folder = jit.cache_folder() if exposed == "the wanted folder" else tmp_path / "cache"
    folder.chmod(0o777)
    results, ready, (warning,) = run()
    assert (results, ready) == (RIGHT, COMPILED)
    assert f"NUMBA_CACHE_DIR='{tmp_path}/cache' can't be used ({tmp_path}/cache" in warning
    assert f"others may write in {folder}; chmod go-w {folder}" in warning
    assert f"kept in {tmp_path}/package/__pycache__ instead; set it to a folder that can be written, by you" in warning


def test_kernels_of_another_user_are_not_run(run, monkeypatch):
    """His folder, in a place for all, under the name that we are about to use; the checksums are his, and right."""
    run()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(private, "read_bytes", lambda path: pytest.fail(f"{path} is read"))
    results, ready, (warning,) = run()
    assert (results, ready) == (RIGHT, COMPILED)
    assert "belongs to another user" in warning


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_files_of_another_user_in_our_folder_are_not_run(run):
    run()
    for file in run.files():
        os.chown(file, 4321, 4321)
    results, ready, (warning,) = run()
    assert (results, ready) == (RIGHT, COMPILED)
    assert "belongs to another user; they are compiled again" in warning
    assert run() == (RIGHT, LOADED, [])


def test_a_package_whose_folder_others_may_write_does_not_keep_kernels_there(run, monkeypatch, tmp_path):
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    (tmp_path / "package" / "__pycache__").chmod(0o777)
    monkeypatch.setattr(jit, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(jit, "_user_folder", lambda: tmp_path / "user")
    results, ready, (warning,) = run("")
    assert (results, ready) == (RIGHT, COMPILED)
    assert "can't be kept where others could exchange them" in warning
    assert f"chmod go-w {tmp_path}/package/__pycache__" in warning
    assert jit.cache_folder().parent == tmp_path / "user"


def test_without_a_home_kernels_are_kept_among_the_temporary_files_of_this_user(run, monkeypatch, tmp_path):
    (tmp_path / "package").write_text("")
    monkeypatch.setattr(jit, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(jit, "_user_folder", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert run("") == (RIGHT, COMPILED, [])
    assert jit.cache_folder().parent == tmp_path / "temporary"
    assert jit.cache_folder().stat().st_mode & 0o777 == 0o700
    assert run("") == (RIGHT, LOADED, [])


def test_what_a_function_encloses_is_no_part_of_its_source_so_it_is_not_kept():
    def adder(step):
        return jit.njit(lambda x: x + step)

    names = []
    with jit.watch(lambda name, compiled: names.append(name)):
        assert [adder(step)(1) for step in (1, 2)] == [2, 3]
    assert names == []


def test_a_folder_for_the_user_is_an_absolute_one(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert jit._user_folder() == Path("/home/somebody/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert jit._user_folder() == Path("/somewhere")


def test_who_has_no_home_has_no_folder_rather_than_a_relative_one(monkeypatch):
    """Whoever owns the working directory would decide what lies in a relative one."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for home in ("relative", "~"):
        monkeypatch.setenv("HOME", home)
        assert jit._user_folder() is None


def test_the_fingerprint_of_a_file_covers_what_it_imports_from_the_package(monkeypatch, tmp_path):
    package = tmp_path / "minires_kernels"
    sources = {
        "family/_loops.py": "import numpy\nfrom minires_kernels import simd\nfrom minires_kernels.flat import (\n  a)",
        "family/__init__.py": "",
        "simd/__init__.py": "from minires_kernels.simd.tiles import tile",
        "simd/tiles.py": "tile = 1",
        "flat.py": "import minires_kernels.arena",
        "arena.py": "",
        "other.py": "",
    }
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(jit, "PACKAGE", package)

    def fingerprint():
        jit._fingerprint.cache_clear()
        jit._imports.cache_clear()
        return jit._fingerprint(package / "family" / "_loops.py")

    for name in sources:
        before = fingerprint()
        (package / name).write_text(sources[name] + "\n# edited")
        assert (fingerprint() != before) == (name not in ("other.py", "family/__init__.py")), name
    assert jit._fingerprint(package / "nowhere.py") is None


# ---- who goes through the door

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "jit.py")


def is_compiled(node):
    return isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(each) for each in node.decorator_list)


def test_every_compiled_kernel_comes_through_this_door():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and "njit" in [alias.name for alias in node.names]:
                assert node.module == "minires_kernels.jit", path
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "numba.njit"), path


def test_no_kernel_of_ours_uses_threads_that_hold_others_up():
    """Nor any that a child made by fork can't enter: Numba's, which a prange does."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not is_compiled(node) or "parallel" not in ast.unparse(node.decorator_list[0]), node.name


def test_no_compiled_kernel_calls_blas_whose_threads_would_nest_in_ours():
    compiled = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if is_compiled(node)]
    assert len(compiled) > 30
    for function in compiled:
        for node in ast.walk(function):
            assert not isinstance(node, ast.MatMult), function.name
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("dot", "matmul", "vdot", "linalg", "einsum", "tensordot"), function.name
