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


def scope(function: Callable[Parameters, Iterator[Yielded]]) -> Callable[Parameters, Scope[Yielded]]:
    """``contextlib.contextmanager``, but what the result decorates runs inside whatever kind of function it is."""
    manager = contextmanager(function)

    @wraps(function)
    def make(*arguments: Parameters.args, **options: Parameters.kwargs) -> Scope[Yielded]:
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

        Raises TypeError for an asynchronous generator.
        """
        if inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__name__} is an asynchronous generator, which others run between its parts: write the "
                "`with` block inside, around what doesn't yield"
            )
        wrapper: Any
        if inspect.isgeneratorfunction(function):

            def wrapper(*arguments: Any, **options: Any) -> Any:
                return (yield from _resumed(self._make, function(*arguments, **options)))

        elif inspect.iscoroutinefunction(function):

            async def wrapper(*arguments: Any, **options: Any) -> Any:
                with self._make():
                    return await function(*arguments, **options)

        else:

            def wrapper(*arguments: Any, **options: Any) -> Any:
                with self._make():
                    return function(*arguments, **options)

        return wraps(function)(wrapper)  # type: ignore[return-value]


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
