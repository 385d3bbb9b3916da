"""The folder tree is the registry: a family is a folder, an implementation is a file, a kernel is a function.

``convolution/`` is a family; its ``__init__.py`` is the contract and dispatches; ``convolution/reference.py``
implements it; so does each other module there. Nothing is decorated, nothing registers itself: adding an
implementation is adding a file, and it is found by name.

A file says where it runs in two optional module constants:

- ``DEVICE``: ``"cpu"`` (default), ``"cuda"`` or ``"any"``.
- ``PREFERENCE``: the larger, the sooner it is taken; ``reference`` has 0.

and may have a function ``covers(kernel, *arguments)`` that says whether it can compute that call (default: any).
A kernel of the family that a file lacks is computed by the next one in order; a warning says so.
Selection takes the preferred implementation that is available for the arrays' device and covers the call; a family
whose best algorithm depends on the shape (convolution) names its ``first`` choice per call.
``using(name)`` moves one implementation to the front of everything, wherever it exists.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from minires_kernels import environment
from minires_kernels.arrays import device_of
from minires_kernels.notes import add_note_once
from minires_kernels.scope import scope

_PACKAGE = __package__ or "minires_kernels"
_forced: ContextVar[str | None] = ContextVar("minires_kernels.using", default=None)


@cache
def families() -> tuple[str, ...]:
    """The kernel families: each folder beside this file that has a ``reference.py``."""
    root = Path(__file__).parent
    return tuple(sorted(path.parent.name for path in root.glob("*/reference.py")))


@cache
def implementations(family: str) -> tuple[str, ...]:
    """Every implementation of ``family``, installed or not, without importing any; ``reference`` first."""
    if family not in families():
        raise ValueError(f"registry: there is no kernel family {family!r}; {_nearest(family, families())}")
    folder = Path(__file__).parent / family
    names = (module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_"))
    return tuple(sorted(names, key=lambda name: (name != "reference", name)))


@cache
def kernels(family: str) -> tuple[str, ...]:
    """The kernels of ``family``: the names in its contract's ``KERNELS``, each a function there."""
    return tuple(importlib.import_module(f"{_PACKAGE}.{family}").KERNELS)


@cache
def load(family: str, implementation: str) -> ModuleType:
    """The module ``minires_kernels.<family>.<implementation>``.

    Raises ValueError with the nearest names for one that doesn't exist, ImportError in one sentence, with the cure,
    for one that can't be imported, whatever the reason.
    """
    if implementation not in implementations(family):
        known = implementations(family)
        raise ValueError(f"{family}: there is no implementation {implementation!r}; {_nearest(implementation, known)}")
    environment.prepare()
    try:
        return _checked(importlib.import_module(f"{_PACKAGE}.{family}.{implementation}"))
    except Exception as failure:
        cure = environment.cure(failure)
        raise ImportError(
            f"{family}: implementation {implementation!r} is not available ({failure})" + (f"; {cure}" if cure else "")
        ) from failure


def _checked(module: ModuleType) -> ModuleType:
    """``module``, if its constants say something; ValueError otherwise."""
    device, preference = getattr(module, "DEVICE", "cpu"), getattr(module, "PREFERENCE", 0)
    if device not in ("cpu", "cuda", "any"):
        raise ValueError(f"DEVICE must be 'cpu', 'cuda' or 'any', got {device!r}")
    if isinstance(preference, bool) or not isinstance(preference, (int, float)):
        raise ValueError(f"PREFERENCE must be a number, got {preference!r}")
    return module


@cache
def available(family: str, device: str) -> tuple[str, ...]:
    """The implementations of ``family`` that can be loaded here and run on ``device``, preferred ones first.

    Probed once: importing a module is the probe. One that can't be imported costs speed, and is worth a warning,
    unless it only lacks a GPU's library and the arrays are on the CPU.
    """
    found = []
    for name in implementations(family):
        try:
            module = load(family, name)
        except ImportError as error:
            environment.warn_unusable(f"{family}/{name}", error.__cause__ or error, device)
            continue
        if getattr(module, "DEVICE", "cpu") in (device, "any"):
            found.append((-getattr(module, "PREFERENCE", 0), name))
    return tuple(name for _, name in sorted(found))


@scope
def using(implementation: str) -> Iterator[None]:
    """Within the block, ``implementation`` is taken wherever a family has it and it covers the call.

    ``using("reference")`` runs everything on the specification. Raises ValueError with the nearest names when no
    family has that implementation, ImportError when one that has it can't load it.
    """
    owners = [family for family in families() if implementation in implementations(family)]
    if not owners:
        every = {name for family in families() for name in implementations(family)}
        raise ValueError(f"using: no kernel family has an implementation {implementation!r}; "
                         f"{_nearest(implementation, sorted(every))}")  # fmt: skip
    for family in owners:
        load(family, implementation)
    token = _forced.set(implementation)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> str | None:
    """The implementation named by the innermost ``using(...)``, or None."""
    return _forced.get()


def select(family: str, kernel: str, *arguments: Any, first: str | None = None) -> Callable[..., Any]:
    """The function that computes ``kernel(*arguments)``; ``arguments[0]`` is an array and decides the device.

    The order: the innermost ``using``, then ``first``, then the preference of those available for the device.
    """
    for function, covers in _candidates(family, kernel, device_of(arguments[0]), _forced.get(), first):
        if covers is None or covers(kernel, *arguments):
            return function
    raise ImportError(
        f"{family}: no available implementation computes {kernel} on device {device_of(arguments[0])!r}; "
        f"known: {', '.join(implementations(family))}"
    )


@cache
def _candidates(
    family: str, kernel: str, device: str, *moved_to_front: str | None
) -> tuple[tuple[Callable[..., Any], Callable[..., bool] | None], ...]:
    names = available(family, device)
    asked = moved_to_front[0]  # by using(...), which has loaded it
    if asked in implementations(family) and asked not in names:
        meant = getattr(load(family, asked), "DEVICE", "cpu")
        environment.warn_once(
            f"using({asked!r}): {family}/{asked} is for arrays on {meant!r}, and these are on {device!r}",
            "the next implementation computes",
        )
    order = dict.fromkeys(name for name in (*moved_to_front, *names) if name in names)
    modules = {name: load(family, name) for name in order if kernel not in lacking(family, name)}
    return tuple(
        (_by_its_name(family, name, kernel, getattr(module, kernel)), getattr(module, "covers", None))
        for name, module in modules.items()
    )


@cache
def lacking(family: str, implementation: str) -> tuple[str, ...]:
    """The kernels of ``family`` that ``implementation`` doesn't have: the next in order computes them. Said once."""
    module = load(family, implementation)
    missing = tuple(kernel for kernel in kernels(family) if not callable(getattr(module, kernel, None)))
    if missing:
        environment.warn_once(
            f"{family}/{implementation}.py has no {', '.join(missing)}",
            f"the next implementation in the order of preference computes them; write them, or import them from "
            f"{_PACKAGE}.{family}.reference",
        )
    return missing


def _by_its_name(family: str, name: str, kernel: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``; what it raises, be it the kernel's own mistake or its compiler's, says which kernel it was.

    Nothing else computes in its place: a kernel that gave way in silence would be measured, and believed, for another.
    """
    if name == "reference":
        return function

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as failure:
            add_note_once(failure, f"in {kernel} of {family}/{name}; using('reference') computes without it")
            raise

    return call


def _nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are: {', '.join(known)}"
