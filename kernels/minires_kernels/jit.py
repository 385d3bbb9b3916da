"""The one door to Numba: ``njit``, which compiles a function and keeps its machine code on disk.

It is Numba's, with two differences.

**Where Numba can't work, it says so in one ImportError** when the implementation is imported, and the registry takes
the next one. A threading layer that can't be had is replaced; the smallest one, which can't be entered by two threads
of Python at once, gets a lock.

**It has a cache of its own.** Numba keeps an index and numbered files, and two processes that compile at the same time
can both write file 3: a third process then runs one function's machine code under the name of another, and computes
nonsense. A damaged file ends it in an exception, and an edited module that a kernel imports isn't noticed. Here a file
is named after everything that its machine code depends on, written elsewhere and moved into place, and begins with its
own checksum. It is used only if nobody else can have put it there (``private``), for what it holds is run. Whatever is
wrong with a file or a folder costs the time to compile again, and one warning.

Imported, this module needs NumPy alone, so that anybody may ask :func:`cache_folder` or :func:`watch`.
"""

from __future__ import annotations

import ast
import hashlib
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any

from minires_kernels import private
from minires_kernels.environment import waiting_briefly, warn_once

PACKAGE = Path(__file__).parent
SUFFIX = ".kernel"

Watcher = Callable[[str, bool], None]
_watchers: list[Watcher] = []


def njit(function: Any = None, /, *, cache: bool = True, **options: Any) -> Any:
    """``numba.njit(**options)``, kept on disk (unless ``cache`` is False). With or without parentheses.

    Raises ImportError when Numba can't compile here; the cure is in its message.
    """
    if function is None:
        return partial(njit, cache=cache, **options)
    numba = _numba()
    dispatcher = numba.njit(**options)(function)
    if cache and function.__closure__ is None:  # a file is named after the source, which doesn't tell what is enclosed
        dispatcher._cache = KernelCache(function, options)
    return _guarded(dispatcher) if options.get("parallel", False) else dispatcher


@cache
def _numba() -> Any:
    """Numba, with its threads launched."""
    import numba

    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set, and fast kernels exist in compiled code only; unset it")
    try:
        with waiting_briefly():
            numba.get_num_threads()
    except ValueError as refused:
        wanted = numba.config.THREADING_LAYER
        numba.config.THREADING_LAYER = "default"
        numba.config.THREADING_LAYER_PRIORITY = ["tbb", "omp", "workqueue"]
        numba.get_num_threads()
        warn_once(
            f"NUMBA_THREADING_LAYER={wanted!r} can't be had",
            f"{' '.join(str(refused).split())} {numba.threading_layer()!r} serves instead; "
            "unset NUMBA_THREADING_LAYER and NUMBA_THREADING_LAYER_PRIORITY",
        )
    return numba


_turn = threading.RLock()
_forked = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turn._at_fork_reinit)  # type: ignore[attr-defined]
    os.register_at_fork(after_in_child=_forked.set)


def _guarded(dispatcher: Any) -> Any:
    """``dispatcher``, whose prange Numba shares out, kept from the two ways in which that ends a process.

    Two threads enter Numba's layer "workqueue" at once; a process made by fork enters that of GNU's OpenMP.
    """
    numba = _numba()
    layer, vendor = numba.threading_layer(), getattr(sys.modules.get("numba.np.ufunc.omppool"), "openmp_vendor", None)
    turn = _turn if layer == "workqueue" else nullcontext()
    refused = layer == "omp" and vendor == "GNU"

    @wraps(dispatcher)
    def call(*arguments: Any) -> Any:
        if refused and _forked.is_set():
            raise RuntimeError(
                f"{dispatcher.py_func.__qualname__}: its prange needs threads of OpenMP, which a process made by fork "
                'can\'t enter; start it by multiprocessing.get_context("spawn"), or share the work out by simd.for_each'
            )
        with turn:
            return dispatcher(*arguments)

    return call


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Within the block, ``watcher(name, compiled)`` is told of each function that is ready: compiled, or loaded."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def _tell(name: str, compiled: bool) -> None:
    for watcher in _watchers:
        watcher(name, compiled)


# --- the cache --------------------------------------------------------------------------------------------------------


class KernelCache:
    """The machine code of one function on disk, a file for each combination of types: what a dispatcher asks.

    The methods are those that Numba's dispatcher calls; none of them raises. See the module for the promises.
    """

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}".removeprefix(f"{PACKAGE.name}.")
        self.version = _fingerprint(Path(function.__code__.co_filename))
        self.key = function.__code__.co_firstlineno, sorted(options.items())
        self.cleared = False

    @property
    def cache_path(self) -> str | None:
        """The folder, or None."""
        folder = cache_folder()
        return None if folder is None else str(folder)

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled function for these types, or None."""
        path = self._path(signature, target.codegen())
        if path is None:
            return None
        target.refresh()
        try:
            stored = private.read_bytes(path)
            digest, data = stored[:32], stored[32:]
            if _checksum(path, data) != digest:
                raise ValueError("its checksum is wrong")
            from numba.core.compiler import CompileResult

            kernel = CompileResult._rebuild(target, *pickle.loads(data))
        except FileNotFoundError:
            return None
        except Exception as broken:
            _warn_of_folder(path.parent, broken)
            return None
        _tell(self.name, False)
        return kernel

    def save_overload(self, signature: Any, kernel: Any) -> None:
        """Keep what has been compiled for these types."""
        _tell(self.name, True)
        path = self._path(signature, kernel.target_context.codegen())
        if path is None or kernel.library.has_dynamic_globals:
            return
        try:
            from numba.core.serialize import dumps

            data = dumps(kernel._reduce())
            self._clear_old(path)
            _write(path, _checksum(path, data) + data)
        except Exception as refused:
            _warn_of_folder(path.parent, refused)

    def flush(self) -> None:
        """Forget everything that is kept of this function."""
        folder = cache_folder()
        for path in folder.glob(f"{self.name}-*{SUFFIX}") if folder else ():
            with suppress(OSError):
                path.unlink()

    def _path(self, signature: Any, codegen: Any) -> Path | None:
        folder = cache_folder()
        if folder is None or self.version is None:
            return None
        import numba

        kinds = getattr(signature, "args", signature)
        settings = numba.config.OPT, numba.config.BOUNDSCHECK
        key = self.key, [str(kind) for kind in kinds], codegen.magic_tuple(), settings, numba.__version__, sys.version
        digest = hashlib.sha256(repr(key).encode()).hexdigest()
        return folder / f"{self.name}-{self.version}-{digest[:24]}{SUFFIX}"

    def _clear_old(self, path: Path) -> None:
        """Once, delete what belongs to another version of the source."""
        if not self.cleared:
            self.cleared = True
            for old in path.parent.glob(f"{self.name}-*{SUFFIX}"):
                if not old.name.startswith(f"{self.name}-{self.version}-"):
                    old.unlink(missing_ok=True)


def _checksum(path: Path, data: bytes) -> bytes:
    """Of ``data`` under that name: a file that has been renamed to another's name doesn't pass for it."""
    return hashlib.sha256(path.name.encode() + data).digest()


def _warn_of_folder(folder: Path, failure: Exception) -> None:
    warn_once(
        f"compiled kernels in {folder} can't all be used",
        f"{type(failure).__name__}: {failure}; they are compiled again, which takes up to half a minute, and replaced; "
        f"if this comes back, delete {folder / ('*' + SUFFIX)}, or set NUMBA_CACHE_DIR to another folder",
    )


def _write(path: Path, data: bytes) -> None:
    """Put ``data`` there at once: nobody ever sees a part of it."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


@cache
def cache_folder() -> Path | None:
    """Where compiled kernels are kept: the first of these that can be written, and by this user alone; None if none is.

    ``NUMBA_CACHE_DIR``; ``__pycache__`` beside this file; the user's own folder for caches; one of his own among the
    temporary files.
    """
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    checkout = hashlib.sha256(str(PACKAGE).encode()).hexdigest()[:12]  # two of them don't clear each other's files
    shared = f"minires_kernels-{checkout}"
    caches, user = _user_folder(), os.geteuid() if hasattr(os, "geteuid") else ""
    folders = [PACKAGE / "__pycache__", *([caches / shared] if caches else [])]
    folders.append(Path(tempfile.gettempdir()).absolute() / f"{shared}-{user}")
    if wanted:
        folders.insert(0, Path(wanted).absolute() / shared)
    refused = []
    for folder in folders:
        try:
            folder = private.make(folder)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            refused.append(f"{folder}: {error.strerror}")
            continue
        _warn_of_refused(refused, folder, wanted)
        return folder
    warn_once(
        f"compiled kernels can't be kept ({'; '.join(refused)})",
        "each process compiles them anew, which takes it half a minute; "
        "set NUMBA_CACHE_DIR to a folder that can be written, by you alone",
    )
    return None


def _warn_of_refused(refused: list[str], folder: Path, wanted: str | None) -> None:
    """Say so if kernels are kept elsewhere than the user wanted, or because others could write there.

    A package that is installed for all users has a ``__pycache__`` that isn't ours: nothing to worry about.
    """
    if wanted and refused:
        warn_once(
            f"NUMBA_CACHE_DIR={wanted!r} can't be used ({refused[0]})",
            f"compiled kernels are kept in {folder} instead; set it to a folder that can be written, by you alone, or "
            "unset it",
        )
        return
    exposed = [reason for reason in refused if private.OTHERS in reason]
    if exposed:
        warn_once(
            f"compiled kernels can't be kept where others could exchange them ({'; '.join(exposed)})",
            f"they are kept in {folder} instead",
        )


def _user_folder() -> Path | None:
    """The user's own folder for caches; None where he has none, as without a home."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or tempfile.gettempdir())
    wanted = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if sys.platform == "darwin" or not wanted.is_absolute():
        wanted = Path(os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache"))
    return wanted if wanted.is_absolute() else None


@cache
def _fingerprint(file: Path) -> str | None:
    """A digest of ``file`` and of all files of this package that it imports, and they; None if one can't be read."""
    waiting, sources = [file], dict[Path, bytes]()
    try:
        while waiting:
            path = waiting.pop()
            if path not in sources:
                sources[path] = path.read_bytes()
                waiting += _imports(path)
    except OSError:
        return None
    contents = b"".join(hashlib.sha256(sources[path]).digest() for path in sorted(sources))
    return hashlib.sha256(contents).hexdigest()[:12]


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """The files of this package that ``path`` imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".")[1:] for name in names if name.split(".")[0] == PACKAGE.name]
    candidates = (path for each in parts if each for path in (
        PACKAGE.joinpath(*each).with_suffix(".py"), PACKAGE.joinpath(*each, "__init__.py")))  # fmt: skip
    return tuple(path for path in candidates if path.is_file())
