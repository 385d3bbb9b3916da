"""Scopes: what is decorated runs inside, whatever kind of function it is, and nothing else does."""

import asyncio
import functools
import threading

import pytest

from minires_kernels.scope import scope

inside = []


@scope
def marked(mark):
    inside.append(mark)
    try:
        yield mark
    finally:
        inside.remove(mark)


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    assert inside == []


def test_a_block_gets_what_is_yielded_and_ends_with_its_block():
    with marked("a") as value:
        assert (value, inside) == ("a", ["a"])
    with pytest.raises(KeyError), marked("a"):
        raise KeyError
    assert inside == []


def test_one_scope_serves_several_blocks_one_within_the_other():
    one = marked("a")
    with one, one:
        assert inside == ["a", "a"]
    with one:
        assert inside == ["a"]


def test_a_function_runs_inside_and_keeps_its_name():
    @marked("a")
    def function(x, *, y=2):
        """What it does."""
        return x, y, list(inside)

    assert function(1, y=3) == (1, 3, ["a"])
    assert (function.__name__, function.__doc__) == ("function", "What it does.")


def test_a_generator_runs_inside_and_what_happens_between_its_parts_outside():
    @marked("a")
    def generator(count):
        for i in range(count):
            assert inside == ["a"]
            yield i
        return "end"

    seen = []
    for i in generator(3):
        assert inside == []
        seen.append(i)
    assert seen == [0, 1, 2]

    def delegating():
        return (yield from generator(1))

    through = delegating()
    next(through)
    with pytest.raises(StopIteration) as end:
        next(through)
    assert end.value.value == "end"


def test_what_is_sent_and_thrown_into_a_generator_arrives_inside():
    heard = []

    @marked("a")
    def generator():
        while True:
            try:
                heard.append((yield len(heard)))
            except KeyError as error:
                heard.append(error.args[0])
            assert inside == ["a"]

    running = generator()
    assert next(running) == 0
    assert running.send("sent") == 1
    assert running.throw(KeyError("thrown")) == 2
    assert heard == ["sent", "thrown"]
    with pytest.raises(ValueError, match="unknown"):
        running.throw(ValueError("unknown"))
    with pytest.raises(StopIteration):
        next(running)


def test_a_generator_that_is_closed_cleans_up_inside():
    seen = []

    @marked("a")
    def generator():
        try:
            yield
        finally:
            seen.append(list(inside))

    running = generator()
    next(running)
    running.close()
    assert seen == [["a"]]


def test_a_generator_that_fails_leaves_the_scope():
    @marked("a")
    def generator():
        yield 1
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        list(generator())


def test_two_generators_in_turn():
    @marked("a")
    def generator():
        yield list(inside)
        yield list(inside)

    first, second = generator(), generator()
    assert [next(first), next(second), next(first), next(second)] == [["a"]] * 4


def test_a_coroutine_runs_inside():
    @marked("a")
    async def coroutine():
        before = list(inside)
        await asyncio.sleep(0)
        return before, list(inside)

    assert asyncio.run(coroutine()) == (["a"], ["a"])


def test_an_asynchronous_generator_is_refused():
    async def generator():
        yield 1

    with pytest.raises(TypeError, match=r"generator is an asynchronous generator, .* write the `with` block inside"):
        marked("a")(generator)


def test_a_decorated_function_may_run_in_several_threads_at_once():
    together = threading.Barrier(2)

    @marked("a")
    def function():
        together.wait(10)
        return list(inside)

    results = []
    threads = [threading.Thread(target=lambda: results.append(function())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0][:1] == ["a"]
    assert len(results) == 2


class Generates:
    def __call__(self, count):
        for _ in range(count):
            yield list(inside)


class Coroutine:
    async def __call__(self):
        await asyncio.sleep(0)
        return list(inside)


def generates(count):
    for _ in range(count):
        yield list(inside)


@pytest.mark.parametrize("function", [
    Generates(), Generates().__call__, functools.partial(generates), functools.partial(Generates(), count=2),
    functools.partial(functools.partial(Generates())),
], ids=["object", "its __call__", "partial", "partial of object", "partial twice"])  # fmt: skip
def test_whatever_calls_a_generator_function_runs_inside(function):
    assert list(marked("a")(function)(count=2)) == [["a"]] * 2


@pytest.mark.parametrize("function", [Coroutine(), functools.partial(Coroutine())], ids=["object", "partial"])
def test_whatever_calls_a_coroutine_function_runs_inside(function):
    assert asyncio.run(marked("a")(function)()) == ["a"]


def test_an_object_that_calls_an_asynchronous_generator_is_refused_by_name():
    class Asynchronous:
        async def __call__(self):
            yield 1

    with pytest.raises(TypeError, match=r"Asynchronous\.__call__ is an asynchronous generator"):
        marked("a")(functools.partial(Asynchronous()))


def test_a_decorator_without_its_parentheses_is_refused():
    @scope
    def quiet():
        yield

    with pytest.raises(TypeError, match=r"quiet: .* got generates; write @quiet\(\)"):
        quiet(generates)
    with pytest.raises(TypeError, match=r"marked: .* got Generates; write @marked\(\.\.\.\)"):
        marked(Generates)


@pytest.mark.parametrize(("what", "message"), [
    (Generates, "Generates is a class, which would become a function; decorate its methods"),
    (classmethod(generates), r"a classmethod can't be decorated; .* beneath @classmethod"),
    (staticmethod(generates), r"a staticmethod can't be decorated; .* beneath @staticmethod"),
    (property(generates), r"a property can't be decorated; .* beneath @property"),
    (5, "expected a function to decorate, got int"),
], ids=lambda value: value if isinstance(value, str) else type(value).__name__)  # fmt: skip
def test_what_is_no_function_is_refused(what, message):
    with pytest.raises(TypeError, match=message):
        marked("a")(what)
