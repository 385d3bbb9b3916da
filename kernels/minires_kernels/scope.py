"""Context managers that decorate every kind of function: ``@no_grad()``, ``@using("reference")``.

``contextlib.contextmanager`` makes decorators too, but what they decorate runs inside only while it is *called*: a
generator function or a coroutine function merely makes its generator then, and would run outside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any, Generic, ParamSpec, TypeVar

Yielded = TypeVar("Yielded")
Parameters = ParamSpec("Parameters")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

BOUND_LATER = (classmethod, staticmethod, property)
"""What a class makes functions of when it is asked for them: not functions yet."""


def scope(function: Callable[Parameters, Iterator[Yielded]]) -> Callable[Parameters, Scope[Yielded]]:
    """``contextlib.contextmanager``, but what the result decorates runs inside whatever kind of function it is.

    Its own first argument is never a function: that is a decorator whose parentheses were forgotten, a TypeError.
    """
    manager = contextmanager(function)

    @wraps(function)
    def make(*arguments: Parameters.args, **options: Parameters.kwargs) -> Scope[Yielded]:
        if arguments and (callable(arguments[0]) or isinstance(arguments[0], BOUND_LATER)):
            form = "..." if inspect.signature(function).parameters else ""
            raise TypeError(
                f"{function.__name__}: a decorator with parentheses, got {_name(arguments[0])}; "
                f"write @{function.__name__}({form})"
            )
        return Scope(partial(manager, *arguments, **options))

    return make


class Scope(Generic[Yielded]):
    """A block ``with scope:`` or a decorator ``@scope``; both as often as one likes, one within the other too."""

    def __init__(self, make: Callable[[], AbstractContextManager[Yielded]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[Yielded]] = []

    def __enter__(self) -> Yielded:
        manager = self._make()
        value = manager.__enter__()
        self._entered.append(manager)
        return value

    def __exit__(self, *error: Any) -> bool | None:
        return self._entered.pop().__exit__(*error)

    def __call__(self, function: Decorated) -> Decorated:
        """``function`` that runs inside: a generator each time it goes on, a coroutine until its end.

        Raises TypeError for an asynchronous generator, for a class, and for what isn't a function.
        """
        _require_function(function)
        called = _called(function)
        if inspect.isasyncgenfunction(called):
            raise TypeError(
                f"{_name(called)} is an asynchronous generator, which others run between its parts: write the "
                "`with` block inside, around what doesn't yield"
            )
        wrapper: Any
        if inspect.isgeneratorfunction(called):

            def wrapper(*arguments: Any, **options: Any) -> Any:
                return (yield from _resumed(self._make, function(*arguments, **options)))

        elif inspect.iscoroutinefunction(called):

            async def wrapper(*arguments: Any, **options: Any) -> Any:
                with self._make():
                    return await function(*arguments, **options)

        else:

            def wrapper(*arguments: Any, **options: Any) -> Any:
                with self._make():
                    return function(*arguments, **options)

        return wraps(function)(wrapper)  # type: ignore[return-value]


def _require_function(function: Any) -> None:
    """Raise TypeError, with the cure, for what can't be called, or for what decoration would change into less."""
    kind = type(function).__name__
    if isinstance(function, BOUND_LATER):
        raise TypeError(f"a {kind} can't be decorated; decorate the function in it: put this beneath @{kind}")
    if isinstance(function, type):
        raise TypeError(
            f"{_name(function)} is a class, which would become a function; decorate its methods, or write a `with` "
            "block where it is called"
        )
    if not callable(function):
        raise TypeError(f"expected a function to decorate, got {kind}")


def _called(function: Any) -> Any:
    """The function that runs when ``function`` is called: behind partials and behind an object's ``__call__``."""
    while not inspect.isroutine(function):
        function = function.func if isinstance(function, partial) else type(function).__call__
    return function


def _name(function: Any) -> str:
    """What ``function`` is called in a message: by its name, ``Net.__call__``, or else by its type."""
    return getattr(function, "__qualname__", type(function).__name__)


def _resumed(
    make: Callable[[], AbstractContextManager[Any]], generator: Generator[Any, Any, Any]
) -> Generator[Any, Any, Any]:
    """``generator``, which runs inside a fresh scope whenever it is resumed, and leaves it whenever it yields."""
    resume: Callable[[], Any] = partial(next, generator)
    while True:
        try:
            with make():
                value = resume()
        except StopIteration as end:
            return end.value
        try:
            sent = yield value
            resume = partial(generator.send, sent)
        except GeneratorExit:
            with make():
                generator.close()
            raise
        except BaseException as error:
            resume = partial(generator.throw, error)
