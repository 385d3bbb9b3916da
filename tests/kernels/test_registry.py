"""The registry: what a file in a folder becomes, who is chosen, and what is said when nothing fits.

Files are added to a copy of the package, in a process of its own: the registry looks at the disk once.
"""

import compileall
import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

import minires_kernels
from minires_kernels import Window, available, families, forced, implementations, kernels, load, patches, select, using

REPOSITORY = Path(__file__).parents[2]


# ---- what is there


def test_every_family_has_its_folder_and_its_reference_comes_first():
    assert {"activation", "convolution", "normalization", "patches", "pooling", "update"} <= set(families())
    for family in families():
        assert implementations(family)[0] == "reference"
        assert "reference" in available(family, "cpu")


def test_kernels_are_functions_of_the_contract():
    assert kernels("patches") == ("im2col", "col2im")
    assert all(callable(getattr(patches, kernel)) for kernel in kernels("patches"))


def test_available_ones_are_ordered_by_preference():
    for family in families():
        preferences = [getattr(load(family, name), "PREFERENCE", 0) for name in available(family, "cpu")]
        assert preferences == sorted(preferences, reverse=True)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: implementations("convolutoin"), "no kernel family 'convolutoin'; did you mean 'convolution'"),
        (lambda: load("patches", "referense"), "patches: there is no implementation 'referense'; did you mean 'ref"),
        (lambda: load("patches", "zzz"), "there are: reference, numba_cpu"),
        (lambda: using("numba_cup").__enter__(), "using: no kernel family .* 'numba_cup'; did you mean 'numba_cpu'"),
    ],
)  # fmt: skip
def test_unknown_names_are_answered_with_the_nearest(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


# ---- who is chosen


def chosen(family="patches", kernel="im2col", x=None, **options):
    return select(family, kernel, np.zeros((1, 1, 3, 3)) if x is None else x, Window.of(2), **options).__module__


def test_the_preferred_one_is_chosen_and_first_goes_before_it():
    best = available("patches", "cpu")[0]
    assert chosen() == f"minires_kernels.patches.{best}"
    assert chosen(first="reference") == "minires_kernels.patches.reference"


def test_using_goes_before_everything_nests_and_is_undone():
    assert forced() is None
    with using("reference"):
        assert chosen(first="numba_cpu") == "minires_kernels.patches.reference"
        with using("im2col"):
            assert forced() == "im2col"
            assert chosen("convolution", "forward") == "minires_kernels.convolution.im2col"
            assert chosen() == f"minires_kernels.patches.{available('patches', 'cpu')[0]}", "patches has no im2col"
        assert forced() == "reference"
    assert forced() is None


def test_using_is_undone_by_an_exception():
    with pytest.raises(KeyError), using("reference"):
        raise KeyError
    assert forced() is None


def test_a_generator_function_that_using_decorates_runs_under_it_and_its_caller_does_not():
    @using("reference")
    def generator():
        yield forced()
        yield forced()

    running = generator()
    assert [next(running), forced(), next(running), forced()] == ["reference", None, "reference", None]


def test_using_does_not_reach_other_threads():
    seen = []
    with using("reference"):
        thread = threading.Thread(target=lambda: seen.append(forced()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_what_is_no_array_has_no_device():
    with pytest.raises(TypeError, match=r"expected a NumPy or CuPy array, got list; wrap it in numpy\.asarray"):
        chosen(x=[[1.0]])


# ---- what a file becomes


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture
def package(copy):
    """A copy of the package on which ``python(code)`` runs, after ``add(path, source)`` has put files there.

    What it has compiled stays for the next test: cold caches are not the subject here.
    """
    yield copy
    copy.take_away()


class Copy:
    def __init__(self, folder):
        self.folder = folder
        source = Path(minires_kernels.__file__).parent
        shutil.copytree(source, folder / "minires_kernels", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        compileall.compile_dir(folder, quiet=1)
        self.found = set(folder.rglob("*.py"))

    def add(self, path, source):
        file = self.folder / "minires_kernels" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(source))

    def take_away(self):
        """What has been added."""
        for file in set(self.folder.rglob("*.py")) - self.found:
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()

    def python(self, code):
        """What ``code`` prints, line by line."""
        code = "from minires_kernels import *\nimport numpy as np\n" + textwrap.dedent(code)
        return self.run("-c", code).splitlines()

    def contract_tests(self, *options, code=0):
        """What the contract tests print on this copy."""
        paths = f"pythonpath={REPOSITORY} {self.folder}"
        tests = "tests/kernels/test_contract.py"
        return self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", paths, tests, *options, code=code)

    def run(self, *arguments, code=0):
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        finished = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert finished.returncode == code, finished.stdout + finished.stderr
        return finished.stdout


HALVED = """
    from minires_kernels.activation.reference import add, add_relu, relu_backward

    PREFERENCE = 10**6

    def relu(x):
        return x / 2
"""
CHOSEN = """
    from minires_kernels import activation
    print(activation.relu(np.array([4.0]))[0])
"""


def test_a_new_file_is_an_implementation_and_taken_when_preferred(package):
    package.add("activation/halved.py", HALVED)
    package.add("activation/_helper.py", "raise AssertionError('nobody imports a helper to see what it is')")
    printed = package.python(
        CHOSEN + "    print(available('activation', 'cpu')[0], '_helper' in implementations('activation'))"
    )
    assert printed == ["2.0", "halved False"]


def test_a_call_that_is_not_covered_goes_to_the_next_even_under_using(package):
    package.add("activation/halved.py", HALVED + "    def covers(kernel, x):\n        return x.ndim == 4")
    code = """
        from minires_kernels import activation
        with using("halved"):
            print(activation.relu(np.array([4.0]))[0], activation.relu(np.full((1, 1, 1, 1), 4.0)).item())
    """
    assert package.python(code) == ["4.0 2.0"]


def test_a_file_for_the_gpu_is_not_taken_for_arrays_on_the_cpu(package):
    package.add("activation/halved.py", HALVED + "    DEVICE = 'cuda'")
    assert package.python(CHOSEN + "    print('halved' in available('activation', 'cuda'))") == ["4.0", "True"]


@pytest.mark.parametrize(
    ("module", "command"),
    [("no_such_library", "pip install no_such_library"), ("cupy.cuda", r"pip install -e '.[cuda12x]' (CUDA 12)")],
)
def test_a_missing_dependency_makes_it_unavailable_and_asking_for_it_says_what_to_install(package, module, command):
    package.add("activation/halved.py", f"raise ModuleNotFoundError('No module named {module}', name='{module}')")
    printed = package.python(
        CHOSEN
        + """
    for ask in (lambda: load("activation", "halved"), using("halved").__enter__):
        try:
            ask()
        except ImportError as error:
            print(error)
    """
    )
    assert printed[0] == "4.0"
    assert len(printed) == 3
    for line in printed[1:]:
        assert line.startswith(f"activation: implementation 'halved' is not available (No module named {module}); ")
        assert command in line


EAGER = """
from numba import njit

@njit("float64(float64)")
def relu(x):
    return x.no_such_attribute
"""


@pytest.mark.parametrize(
    ("source", "phrases"),
    [
        ("raise ModuleNotFoundError('No module named astral', name='astral')", ["named astral", "pip install astral"]),
        ("raise OSError('cannot open shared object file')", ["OSError: cannot open", "activation/halved"]),
        ("PREFERENCE = 10**6\nrelu = undefined", ["NameError: name 'undefined'", "activation/halved"]),
        (EAGER, ["TypingError", "no_such_attribute", "activation/halved"]),
        ("raise ModuleNotFoundError('No module named cupy', name='cupy')", None),
    ],
    ids=["missing", "shared library", "mistake", "typing", "cupy"],
)
def test_what_cannot_be_imported_gives_way_to_the_next_with_one_warning(package, source, phrases):
    package.add("activation/halved.py", source)
    package.add("patches/halved.py", source)
    code = """
        import warnings
        from minires_kernels import activation
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            print(activation.relu(np.array([4.0]))[0], "halved" in available("patches", "cpu"))
        print(*(" ".join(f"{each.category.__name__}: {each.message}".split()) for each in seen), sep="\\n")
    """
    result, *warnings = [line for line in package.python(code) if line]
    assert result == "4.0 False"
    if phrases is None:
        assert warnings == [], "that arrays on the CPU need no GPU is no news"
    else:
        warning, *others = warnings
        assert len(others) == (source is EAGER), "one for each cause: Numba names the file in its message"
        for phrase in ("RuntimeWarning: ", "slower kernels compute instead", *phrases):
            assert phrase in warning
        assert "numba" not in warning.rpartition(";")[2], "a mistake of one's own isn't mended by another Numba"


UNTYPED = """
    from minires_kernels.activation.reference import add, add_relu, relu_backward
    from minires_kernels.jit import njit

    PREFERENCE = 10**6

    @njit
    def relu(x):
        return x.no_such_attribute
"""


FAILING = {
    "a mistake of typing": (UNTYPED, "np.array([4.0])", "TypingError"),
    "one argument too many": (UNTYPED.replace("(x)", "(x, y)").replace("x.no_such_attribute", "x"), "np.ones(1)",
                              "TypeError"),
    "a name that is missing": (HALVED.replace("x / 2", "x / missing"), "np.array([4.0])", "NameError"),
    "a debugger that was quit": (HALVED.replace("return x / 2", "import bdb; raise bdb.BdbQuit"), "np.array([4.0])",
                                 "BdbQuit"),
    "a compiler that is broken": (HALVED.replace("return x / 2", "import numba.core.typing as t; t.no()"),
                                  "np.array([4.0])", "AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILING)
def test_what_a_kernel_raises_is_raised_names_it_and_switches_nothing_off(package, name):
    pytest.importorskip("numba", reason="about compiling")
    source, argument, error = FAILING[name]
    package.add("activation/mine.py", source)
    code = f"""
        import warnings
        from minires_kernels import activation
        warnings.simplefilter("error")
        for _ in range(2):
            try:
                with using("mine"):
                    activation.relu({argument})
            except Exception as error:
                print(type(error).__name__, *error.__notes__, "mine" in available("activation", "cpu"))
    """
    printed = package.python(code)
    assert len(printed) == 2
    assert printed[0] == printed[1], "the second call is no other than the first"
    assert re.match(rf"\w*{error} in relu of activation/mine.*using\('reference'\).* True$", printed[0])


LACKING = """
    PREFERENCE = 10**6
    relu_backward = None

    def relu(x):
        return x / 2
"""


def test_kernels_that_a_file_lacks_are_the_next_ones_with_one_warning(package):
    package.add("activation/halved.py", LACKING)
    code = """
        import warnings
        from minires_kernels import activation
        x = np.array([4.0])
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(2):
                print(activation.relu(x)[0], activation.relu_backward(x, x)[0], activation.add(x, x)[0])
            with using("halved"):
                print(activation.relu(x)[0], activation.relu_backward(x, x)[0], activation.add(x, x)[0])
        print(*(f"{each.category.__name__}: {each.message}" for each in seen), sep="\\n")
    """
    *results, warning = package.python(code)
    assert results == ["2.0 4.0 8.0"] * 3
    assert warning == (
        "RuntimeWarning: activation/halved.py has no relu_backward, add, add_relu: the next implementation in the "
        "order of preference computes them; write them, or import them from minires_kernels.activation.reference"
    )


def test_every_implementation_here_can_be_loaded_where_its_library_is_installed():
    for family in families():
        for name in implementations(family):
            with contextlib.suppress(ImportError):
                load(family, name)
                continue
            with pytest.raises(ImportError, match="pip install") as caught:
                load(family, name)
            assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_when_nothing_covers_a_call_the_error_lists_what_is_known(package):
    package.add("mirror/__init__.py", "KERNELS = {'flip': ('y',)}")
    package.add(
        "mirror/reference.py", "def flip(x):\n    return x[::-1]\n\ndef covers(kernel, x):\n    return x.ndim > 0"
    )
    code = """
        print("mirror" in families(), select("mirror", "flip", np.arange(3))(np.arange(3)))
        try:
            select("mirror", "flip", np.array(1))
        except ImportError as error:
            print(error)
    """
    printed = package.python(code)
    assert printed == [
        "True [2 1 0]",
        "mirror: no available implementation computes flip on device 'cpu'; known: reference",
    ]


def test_importing_the_package_imports_no_implementation_and_nothing_but_numpy(package):
    code = """
        import sys
        known = {"numba", "llvmlite", "cupy", "torch", "scipy", "minires"}
        print(sorted(known & set(sys.modules)), [name for name in sys.modules if name.endswith((".reference", "_cpu"))])
    """
    assert package.python(code) == ["[] []"]


# ---- what the README promises


def readme_blocks():
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "kernels" / "README.md").read_text(), re.DOTALL)


def test_the_readmes_first_example_runs():
    exec(readme_blocks()[0], {})


def test_the_readmes_implementation_is_found_and_passes_the_contract_tests(package):
    package.add("patches/one_view.py", readme_blocks()[1])
    printed = package.contract_tests("-k", "one_view or refused")
    assert int(re.search(r"(\d+) passed", printed)[1]) > 200


def test_the_contract_tests_skip_what_cannot_run_here_and_say_why(package):
    """A kernel for a GPU, or one whose library is missing, is neither tried nor left out without a word."""
    package.add("activation/on_gpu.py", HALVED + "    DEVICE = 'cuda'")
    package.add("activation/foreign.py", "import no_such_library")
    printed = package.contract_tests("-k", "activation and (on_gpu or foreign)", "-rs")
    assert re.search(r"SKIPPED \[\d{2,}\] .*activation/on_gpu needs a GPU: ", printed), printed
    assert re.search(r"SKIPPED \[\d{2,}\] .*'foreign' is not available .*pip install no_such_library", printed), printed
    assert re.search(r"\b2 passed", printed), "that nothing but what is missing keeps them from being imported"


def test_a_file_with_one_kernel_alone_passes_the_contract_tests_of_that_kernel(package):
    package.add("activation/alone.py", '"""relu alone."""\n\nfrom minires_kernels.activation.reference import relu')
    package.add(
        "convolution/alone.py", '"""forward alone."""\n\nfrom minires_kernels.convolution.im2col import forward'
    )
    printed = package.contract_tests("-k", "alone and not strides and not oracle and not repeated")
    assert int(re.search(r"(\d+) passed", printed)[1]) > 50


def test_a_file_with_a_mistake_fails_its_own_contract_tests_and_no_others(package):
    package.add("activation/mistaken.py", "relu = undefined")
    printed = package.contract_tests("-k", "activation and (mistaken or numba_cpu) and (constants or nothing)", code=1)
    assert re.search(r"ImportError: activation: .*'mistaken' is not available \(name 'undefined' is not", printed), (
        printed
    )
    assert re.search(r"FAILED .*\[activation-mistaken\]", printed), printed
    assert re.search(r"[1-9]\d* passed", printed)
    assert not re.search(r"FAILED .*numba_cpu", printed)


@pytest.mark.parametrize(
    ("constant", "complaint"),
    [
        ("PREFERENCE = 'high'", "PREFERENCE must be a number, got 'high'"),
        ("DEVICE = 'gpu'", "DEVICE must be 'cpu', 'cuda' or"),
    ],
)
def test_a_constant_that_says_nothing_makes_the_file_unusable_and_no_other(package, constant, complaint):
    package.add("activation/halved.py", HALVED + f"    {constant}")
    code = """
        import warnings
        from minires_kernels import activation
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            print(activation.relu(np.array([4.0]))[0])
        print(seen[0].message)
        try:
            using("halved").__enter__()
        except ImportError as error:
            print(error)
    """
    result, warning, error = package.python(code)
    assert result == "4.0"
    for text in (warning, error):
        assert complaint in text
        assert "halved" in text


def test_an_implementation_for_another_device_is_not_replaced_without_a_word(package):
    package.add("activation/on_gpu.py", HALVED + "    DEVICE = 'cuda'")
    code = """
        import warnings
        from minires_kernels import activation
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with using("on_gpu"):
                print(activation.relu(np.array([4.0]))[0], activation.relu(np.array([6.0]))[0])
        print(*(each.message for each in seen), sep="\\n")
    """
    result, warning = package.python(code)
    assert result == "4.0 6.0"
    assert warning == (
        "using('on_gpu'): activation/on_gpu is for arrays on 'cuda', and these are on 'cpu': "
        "the next implementation computes"
    )


def test_a_wrong_kernel_is_shown_by_its_axes(package):
    wrong = """
        from minires_kernels.convolution.reference import grad_input, grad_weight, forward as right

        def forward(x, weight, window, groups=1):
            y = right(x, weight, window, groups)
            y[:, :, -1] += 1
            return y
    """
    package.add("convolution/wrong.py", wrong)
    printed = package.contract_tests("-k", "wrong and agrees and float64 and 3x3-", code=1)
    assert re.search(
        r"y: \d+ of \d+ elements are wrong, all at oh = \d \(the last\); \(n, o, oh, ow\) = \(", printed
    ), printed


def test_the_readmes_table_lists_every_kernel():
    text = (REPOSITORY / "kernels" / "README.md").read_text()
    for family in families():
        for name in (family, *kernels(family)):
            assert f"`{name}`" in text
