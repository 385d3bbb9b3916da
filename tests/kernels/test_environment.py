"""Nonsense settings and libraries that don't load: right results, and one warning that says why and what to do.

Each in a process of its own, which loads every implementation and computes one kernel twice.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from minires_kernels import environment

pytest.importorskip("numba", reason="about what happens to Numba")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder in which the one kernel that these tests run is kept."""
    return tmp_path_factory.mktemp("compiled")


WORK = """
import json, warnings
import numpy as np
seen = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, category, *rest: seen.append(f"{category.__name__}: {message}")
from minires_kernels import Window, available, families, patches, using
x = np.arange(120, dtype=np.float32).reshape(2, 3, 5, 4)
with using("reference"):
    expected = patches.im2col(x, Window.of(2))
right = all(np.array_equal(patches.im2col(x, Window.of(2)), expected) for _ in range(2))
chosen = {family: available(family, "cpu")[0] for family in families()}
"""
REPORT = "\nprint(json.dumps([right, seen, chosen['patches']]))"


def work(settings, cache, before="", after=""):
    """(whether the results are right, the warnings, the implementation) of ``WORK`` under ``settings``."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("NUMBA_")}
    code = textwrap.dedent(before) + WORK + textwrap.dedent(after) + REPORT
    done = subprocess.run([sys.executable, "-c", code], env={**environ, "NUMBA_CACHE_DIR": str(cache), **settings},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_nonsense_there_is_no_warning(compiled):
    assert work({}, compiled) == [True, [], "numba_cpu"]


SETTINGS = [
    ({"NUMBA_NUM_THREADS": "0"}, "numba_cpu", ["NUMBA_NUM_THREADS='0'", "is ignored", "unset it"]),
    ({"NUMBA_NUM_THREADS": "abc"}, "numba_cpu", ["'abc' is not a whole number", "unset it"]),
    ({"NUMBA_CPU_FEATURES": "avx512f,+warp"}, "numba_cpu", ["'avx512f', '+warp'", "is ignored", "unset it"]),
    ({"NUMBA_THREADING_LAYER": "nonsense"}, "numba_cpu", ["'nonsense' can't be had", "serves instead; unset"]),
    ({"NUMBA_THREADING_LAYER_PRIORITY": "omp"}, "numba_cpu", ["permutation", "serves instead; unset"]),
    ({"NUMBA_DISABLE_JIT": "1"}, "reference", ["NUMBA_DISABLE_JIT is set", "unset it", "slower"]),
]


@pytest.mark.parametrize(("settings", "chosen", "phrases"), SETTINGS, ids=str)
def test_nonsense_settings_give_right_results_and_one_warning(settings, chosen, phrases, compiled):
    right, (warning,), taken = work(settings, compiled)
    assert right
    assert taken == chosen
    assert warning.startswith("RuntimeWarning: ")
    for phrase in phrases:
        assert phrase in warning


def loader(package, raised):
    """Code after which ``import package`` raises."""
    return f"""
        import sys
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == {package!r}:
                    raise {raised}
        sys.meta_path.insert(0, Broken())
    """


LIBRARIES = [
    ("numba", "ModuleNotFoundError(\"No module named 'numba'\", name='numba')", "; pip install numba"),
    ("llvmlite.binding", "OSError('libllvmlite.so: cannot open shared object file')", "force-reinstall numba"),
    ("numba.core.types", "ImportError('Numba needs NumPy 1.2 or less')", "force-reinstall numba"),
    ("numba.core.types", "SystemError('initialization of _internal failed')", "force-reinstall numba"),
]


@pytest.mark.parametrize(("package", "raised", "cure"), LIBRARIES)
def test_a_library_that_does_not_load_gives_way_to_slower_kernels(package, raised, cure, compiled):
    right, (warning,), taken = work({}, compiled, before=loader(package, raised))
    assert (right, taken) == (True, "reference")
    assert raised.partition("(")[0] in warning
    assert warning.endswith(cure)


def test_a_processor_without_avx_has_shorter_vectors_and_hears_of_it(compiled):
    after = "from minires_kernels.simd import kinds\nright = right and kinds.REGISTER_BYTES == 16"
    right, (warning,), taken = work({"NUMBA_CPU_NAME": "generic"}, compiled, after=after)
    assert (right, taken) == (True, "numba_cpu")
    assert "vectors of 128 bits" in warning
    assert "unset NUMBA_CPU_NAME and NUMBA_CPU_FEATURES" in warning


def test_the_smallest_threading_layer_survives_two_threads_at_once(compiled):
    after = """
        import numba, threading
        from minires_kernels.jit import njit
        @njit(parallel=True, cache=False)
        def double(x):
            for i in numba.prange(x.size):
                x[i] *= 2
        double(np.ones(100))
        def repeat():
            for _ in range(100):
                double(np.ones(100))
        threads = [threading.Thread(target=repeat) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        right = right and numba.threading_layer() == "workqueue"
    """
    assert work({"NUMBA_THREADING_LAYER": "workqueue"}, compiled, after=after) == [True, [], "numba_cpu"]


# ---- one by one


@pytest.fixture
def prepare(monkeypatch):
    """``prepare(setting, value)``: what is left of it, with what this process knows of Numba set aside."""
    monkeypatch.setattr(environment, "_causes", set())
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.setattr(environment, "cores", lambda: 3)

    def prepare(setting, value):
        monkeypatch.setenv(setting, value)
        environment.prepare.__wrapped__()
        return os.environ.get(setting)

    return prepare


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("-1", "not between 1 and 48"),
        ("49", "not between 1 and 48"),
        ("1.5", "not a whole number"),
        ("", "not a whole"),
    ],
)
def test_a_number_of_threads_that_makes_no_sense_is_taken_away(prepare, value, problem):
    with pytest.warns(RuntimeWarning, match=f"{problem}.* 3 threads, one for each core; set it to .* from 1 to 3"):
        assert prepare("NUMBA_NUM_THREADS", value) is None


@pytest.mark.parametrize("value", ["1", "48", " 2 "])
@pytest.mark.filterwarnings("error")
def test_a_number_of_threads_that_makes_sense_is_left_alone(prepare, value):
    assert prepare("NUMBA_NUM_THREADS", value) == value


def test_of_the_processors_features_those_that_it_has_are_kept(prepare, monkeypatch):
    monkeypatch.setattr(environment, "_host_features", lambda: {"sse2": True, "avx": True, "avx512f": False})
    with pytest.warns(RuntimeWarning, match="doesn't have.*'\\+avx512f', '\\+3dnow', 'avx':"):
        assert prepare("NUMBA_CPU_FEATURES", "+sse2, +avx512f,-avx,+3dnow,avx") == "+sse2,-avx"


def test_a_cause_is_told_once(monkeypatch, recwarn):
    monkeypatch.setattr(environment, "_causes", set())
    for consequence in ("this happens", "that happens"):
        environment.warn_once("a cause", consequence)
    environment.warn_once("another", "and so on")
    assert [str(each.message) for each in recwarn] == ["a cause: this happens", "another: and so on"]


def test_a_cupy_that_cannot_be_loaded_is_cured_at_its_driver():
    failure = ImportError("libcuda.so.1: cannot open shared object file", name="cupy")
    assert "`nvidia-smi`" in environment.cure(failure)
    assert "pip install" not in environment.cure(failure)
    assert environment.cure(ModuleNotFoundError("No module named 'cupy'", name="cupy")).startswith("pip install -e")
