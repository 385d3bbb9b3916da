"""Sharing the pieces of a kernel's work out among Numba's threads: ``for_each``, and ``in_parallel`` for programs.

``prange`` does that as well, and is what to write first. But Numba makes a function of its own of a prange's body and
takes it through the whole compiler, together with all that it calls: up to a fifth of the time that a first step took.
The pieces of our kernels are functions already, so all that is left to do is to call them: what a prange becomes in the
end, a call of Numba's ``numba_parallel_for``, is written here by hand.

- A thread gets a run of neighbouring pieces, as from a prange: thread t of T those from t count / T on. It takes them a
  few at a time; when none is left it takes of the others' runs. Cores are seldom equally fast: another program, or the
  other thread of the same core, has its part of one of them for some milliseconds, and laptops have slow cores by
  design. So which thread meets a piece is chance, and no result may depend on it.
- The arguments lie in one record on the stack, from which each thread loads them once.
- Arrays go without their count of references. Threads that count wait for each other: measured, a kernel whose pieces
  call functions took six times as long. They can't vanish meanwhile, for the caller holds them.
- What a piece raises is kept in the record, and raised where the loop was, when all threads are done.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import errcode_t, excinfo_ptr_t
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.extending import intrinsic

from minires_kernels.jit import njit
from minires_kernels.simd.calls import call
from minires_kernels.simd.pool import INTP, LINE, hand_over


CLAIMS = 16
"""Times that a thread goes and takes of its run, if none is taken from it: each time costs some ten nanoseconds, and at
the end a thread waits for others at most as long as these need for what they took last."""

FEW = 1 << 13
"""Numbers with which a convolution is done in some microseconds, as long as it takes to wake another thread."""


@intrinsic
def for_each(typing: Any, function: Any, count: Any, arguments: Any) -> Any:
    """``for_each(function, count, (argument, ...))``: function(argument, ..., i) for each i below count, in threads.

    The function must be compiled, and return nothing. What it raises is raised here, when all threads are done. Whoever
    calls this must be compiled with ``njit(threaded=True)``.
    """
    return _share_out(typing, function, count, arguments, (types.intp,))


@intrinsic
def for_each_worker(typing: Any, function: Any, count: Any, arguments: Any) -> Any:
    """``for_each`` of function(argument, ..., worker, i): no two threads have the same ``worker`` at the same time.

    Workers are below ``numba.get_num_threads()``.
    """
    return _share_out(typing, function, count, arguments, (types.intp, types.intp))


def _share_out(typing: Any, function: Any, count: Any, arguments: Any, numbers: tuple[Any, ...]) -> Any:
    """The signature and the code of ``for_each``; ``numbers``: the types of what follows the arguments."""
    if not isinstance(function, types.Dispatcher) or not isinstance(arguments, types.BaseTuple):
        raise TypingError(f"simd.for_each: expected a compiled function, a count and a tuple, got {function}, {count}, "
                          f"{arguments}")  # fmt: skip
    inner = function.get_call_type(typing, (*arguments, *numbers), {})
    if inner.return_type != types.none:
        raise TypingError(f"simd.for_each: the function must return nothing, but returns {inner.return_type}")

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        compiled = function.dispatcher.get_compile_result(inner)
        context.active_code_library.add_linking_library(compiled.library)
        total = context.cast(builder, values[1], call_signature.args[1], types.intp)
        threads = builder.call(_external(builder, INTP, [], "get_num_threads"), [])
        parts = _least(builder, total, threads)
        parts = builder.select(builder.icmp_signed("<", parts, INTP(1)), INTP(1), parts)
        claim = builder.add(builder.sdiv(total, builder.mul(parts, INTP(CLAIMS))), INTP(1))
        # Where each thread's run goes on: a counter for each.
        size = builder.mul(parts, INTP(LINE * types.intp.bitwidth // 8))
        counters = builder.bitcast(context.nrt.allocate(builder, size), INTP.as_pointer())
        with cgutils.for_range(builder, parts) as loop:
            builder.store(_start(builder, loop.index, total, parts), _counter(builder, counters, loop.index))
        # What the threads share: (parts, total, claim, counters, how one has failed, its exception, the arguments).
        fine = errcode_t(0), ir.Constant(excinfo_ptr_t, None)
        items = cgutils.unpack_tuple(builder, values[2])
        borrowed = (_borrowed(context, builder, *pair) for pair in zip(arguments, items, strict=True))
        shared = [parts, total, claim, counters, *fine, *borrowed]
        record = cgutils.alloca_once(builder, ir.LiteralStructType([value.type for value in shared]))
        for k, value in enumerate(shared):
            builder.store(value, cgutils.gep_inbounds(builder, record, 0, k))
        run = _runner(context, builder.module, compiled, inner, record.type, len(numbers))
        with builder.if_else(builder.icmp_signed(">", parts, INTP(1))) as (several, alone):
            with several:
                python = context.get_python_api(builder)
                lock = python.gil_ensure()
                state = python.save_thread()  # other threads of Python may go on meanwhile
                hand_over(context, builder, run, record, parts)
                python.restore_thread(state)
                python.gil_release(lock)
            with alone:
                builder.call(run, [INTP(0), builder.ptrtoint(record, INTP)])
        context.nrt.free(builder, builder.bitcast(counters, cgutils.voidptr_t))
        # Numba offers no public way to hand on a status that has lain in memory.
        failure = (builder.load(cgutils.gep_inbounds(builder, record, 0, k)) for k in (FAILED, FAILED + 1))
        status = context.call_conv._get_return_status(builder, *failure)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return signature(types.void, function, count, arguments), emit


FAILED = 4
"""Where in the record it stands how a thread has failed."""


def _least(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _start(builder: Any, part: Any, total: Any, parts: Any) -> Any:
    return builder.sdiv(builder.mul(part, total), parts)


def _counter(builder: Any, counters: Any, part: Any) -> Any:
    return cgutils.gep(builder, counters, builder.mul(part, INTP(LINE)))


def _external(builder: Any, result: Any, arguments: Any, name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """An array without its count of references; anything else as it is."""
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo, array.parent = (ir.Constant(member.type, None) for member in (array.meminfo, array.parent))
    return array._getvalue()


def _runner(context: Any, module: Any, compiled: Any, inner: Any, record_type: Any, numbers: int) -> Any:
    """A function (worker, record) for the pool: the run of the worker's own, then what is left of the others'."""
    kind = ir.FunctionType(ir.VoidType(), [INTP, INTP])
    run = ir.Function(module, kind, name=module.get_unique_name("for_each.run"))
    run.linkage = "internal"
    builder = ir.IRBuilder(run.append_basic_block("entry"))
    worker = run.args[0]
    record = builder.inttoptr(run.args[1], record_type)
    parts, total, claim, counters, _, _, *arguments = (
        builder.load(cgutils.gep_inbounds(builder, record, 0, k)) for k in range(len(record_type.pointee.elements))
    )
    function = context.declare_function(module, compiled.fndesc)
    with cgutils.for_range(builder, parts) as turn:
        part = builder.srem(builder.add(worker, turn.index), parts)
        end = _start(builder, builder.add(part, INTP(1)), total, parts)
        counter = _counter(builder, counters, part)
        again, some, done = (builder.append_basic_block(name) for name in ("claim", "some", "done"))
        builder.branch(again)
        builder.position_at_end(again)
        start = builder.atomic_rmw("add", counter, claim, "monotonic")
        builder.cbranch(builder.icmp_signed("<", start, end), some, done)
        builder.position_at_end(some)
        stop = _least(builder, builder.add(start, claim), end)
        with cgutils.for_range_slice(builder, start, stop, INTP(1), INTP) as (number, _):
            last = (worker, number)[-numbers:]
            status, _ = context.call_conv.call_function(
                builder, function, inner.return_type, inner.args, [*arguments, *last]
            )
            with cgutils.if_unlikely(builder, status.is_error):
                builder.store(status.excinfoptr, cgutils.gep_inbounds(builder, record, 0, FAILED + 1))
                builder.store(status.code, cgutils.gep_inbounds(builder, record, 0, FAILED))
        builder.branch(again)
        builder.position_at_end(done)
    builder.ret_void()
    return run


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def run_part(
    program: int, parts: int, scan: Any, phases: Any, first: Any, second: Any, third: Any, fourth: Any,
    worker: int, part: int,
) -> None:  # fmt: skip
    """Part ``part`` of ``in_parallel``."""
    call(program, (part, parts, worker, scan, phases, first, second, third, fourth))


@njit(error_model="numpy", no_cfunc_wrapper=True)
def in_parallel(
    program: int, parts: int, scan: Any, phases: Any, first: Any, second: Any, third: Any, fourth: Any
) -> None:
    """Runs ``program(kind, part, parts, worker, scan, phases, four arrays)`` for each part; see ``for_each_worker``.

    Where the arrays hold ``FEW`` numbers all together, in this thread alone.
    """
    if first.size + second.size + third.size + fourth.size <= FEW:
        for part in range(parts):
            run_part(program, parts, scan, phases, first, second, third, fourth, 0, part)
    else:
        for_each_worker(run_part, parts, (program, parts, scan, phases, first, second, third, fourth))
