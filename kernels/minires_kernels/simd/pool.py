"""Threads that wait for work, and hold nobody up who shares the cores with them: where ``for_each`` hands out pieces.

Threads of OpenMP, which Numba's are on most systems, enter a loop together and leave it together. Where each has a
core of its own that is quickest. But if another process computes on one of the cores, all wait for the thread that
isn't running there, for some milliseconds at each loop, and waiting they keep their own cores from whoever could use
them: two trainings at once took up to ten times their share of the time, and a child process made by fork, in which
only one of the threads is left, waited for ever. Here instead

- **nobody waits for a thread that hasn't come.** A job has an open door. A helper that finds it open takes a seat and
  works; when the one who brought the job has nothing left to do, it closes the door, and waits for those alone that
  have come in. If none did, it has done all pieces itself;
- **a thread that waits sleeps after a while**, and soon where others want its core. It looks for an open door ``LOOKS``
  times, for a millisecond or two, which the kernels of a training step are never apart. Awake, it is there at once;
  asleep, it takes some fifty microseconds to wake, and meanwhile the others have begun. But one that is awake and yet
  doesn't come to a job isn't running: another program has its core. When that happens again and again
  (``SUSPICION``), threads look for a job ``FEW_LOOKS`` times only, until it hasn't happened for some hundred jobs. (To
  give the core away between looks, by ``sched_yield``, was tried, and is slower among many neighbours: who sleeps gets
  a core back sooner);
- **after a fork** the child gets helpers of its own.

One job is done at a time. Who brings another meanwhile (a second thread of Python; a piece that shares out pieces)
does it alone.

The words that the threads share lie in a piece of memory that is never freed, which compiled code finds by its name.
Every access is atomic and in one order for all threads (sequentially consistent). To sleep, a thread acquires a lock
that is taken; to wake it, another releases the lock. Those are Python's (``PyThread_acquire_lock``), which exist on
every system and need no interpreter.
"""

from __future__ import annotations

import _thread
import ctypes
import os
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic

from minires_kernels.environment import patience
from minires_kernels.jit import njit

INTP = ir.IntType(types.intp.bitwidth)
ITEM = types.intp.bitwidth // 8
LINE = 64 // ITEM
"""Words of a cache line: what different threads write lies in different lines, or they would wait for each other."""

LOOKS, FEW_LOOKS = 40_000, 300
"""How often a helper looks for a job before it sleeps, and a caller for a helper: each takes some 50 ns. The second
where others use the cores. See ``benchmarks.neighbours``, which measures others."""

ABSENCE, SUSPICION, MOST = 100, 250, 1000
"""A helper that is awake and absent adds ``ABSENCE`` to what is counted, up to ``MOST``; a job without one takes 1
away. Above ``SUSPICION`` others are taken to use the cores."""

SHARE_OUT, HELPERS, PATIENCE, MUCH, LITTLE = range(5)  # an address, a number; how often to look: now, at most, at least
OWNER, ABSENCES = range(LINE, LINE + 2)  # whether somebody's job is being done; what is counted of absences
DOOR, RUN, RECORD = range(2 * LINE, 2 * LINE + 3)  # number of the job * SEATS + free seats; what to call, with what
LEFT, CALLER, CALLER_LOCK = range(3 * LINE, 3 * LINE + 3)  # helpers that are done; whether the caller sleeps
FIRST_HELPER = 4 * LINE  # of each, in a line of its own: how it is, and the lock on which it sleeps
AWAKE, ASLEEP, WOKEN = range(3)  # how a helper is: woken, it isn't there yet
SEATS = 1 << 16

NAME, ARCHITECTURE = "minires_pool", llvm.get_process_triple().partition("-")[0]
PAUSES = {"x86_64": ("llvm.x86.sse2.pause",), "aarch64": ("llvm.aarch64.hint", 1), "arm64": ("llvm.aarch64.hint", 1)}
KIND = types.intp, types.intp, types.intp  # of the arguments of ``share_out``


# --- Words that threads share -----------------------------------------------------------------------------------------


def _word(builder: Any, place: Any) -> Any:
    """The address of the word ``place`` in the pool."""
    pool = builder.module.globals.get(NAME) or ir.GlobalVariable(builder.module, INTP, NAME)
    return cgutils.gep(builder, pool, place)


@intrinsic
def read(typing: Any, place: Any) -> Any:
    """The word there."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        place = context.cast(builder, values[0], call_signature.args[0], types.intp)
        return builder.load_atomic(_word(builder, place), "seq_cst", ITEM)

    return signature(types.intp, place), emit


@intrinsic
def write(typing: Any, place: Any, value: Any) -> Any:
    """Word = value."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        place, value = (
            context.cast(builder, *pair, types.intp) for pair in zip(values, call_signature.args, strict=True)
        )
        builder.store_atomic(value, _word(builder, place), "seq_cst", ITEM)
        return context.get_dummy_value()

    return signature(types.void, place, value), emit


@intrinsic
def add(typing: Any, place: Any, value: Any) -> Any:
    """Word += value."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        place, value = (
            context.cast(builder, *pair, types.intp) for pair in zip(values, call_signature.args, strict=True)
        )
        builder.atomic_rmw("add", _word(builder, place), value, "seq_cst")
        return context.get_dummy_value()

    return signature(types.void, place, value), emit


@intrinsic
def change(typing: Any, place: Any, old: Any, new: Any) -> Any:
    """Word = new if it is ``old``; whether it was."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        place, old, new = (
            context.cast(builder, *pair, types.intp) for pair in zip(values, call_signature.args, strict=True)
        )
        changed = builder.cmpxchg(_word(builder, place), old, new, "seq_cst", "seq_cst")
        return builder.extract_value(changed, 1)

    return signature(types.boolean, place, old, new), emit


@intrinsic
def run(typing: Any, function: Any, worker: Any, record: Any) -> Any:
    """Calls the machine code at the address ``function`` with a worker's number and the address of a record."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INTP, INTP])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return signature(types.void, types.intp, types.intp, types.intp), emit


@intrinsic
def pause(typing: Any) -> Any:
    """What a processor wants to be told in a loop that waits: some 50 ns, in which it spares what it shares."""

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        name, *codes = PAUSES.get(ARCHITECTURE, ("llvm.donothing",))
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(codes))
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [ir.IntType(32)(code) for code in codes]
        )
        return context.get_dummy_value()

    return signature(types.void), emit


acquire = types.ExternalFunction("PyThread_acquire_lock", types.int32(types.intp, types.int32))
release = types.ExternalFunction("PyThread_release_lock", types.void(types.intp))


# --- Helpers and callers ----------------------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)
def help_out(mine: int) -> None:
    """What a helper does, for ever; ``mine`` is the place of its words."""
    looks = 0
    while True:
        door = read(DOOR)
        seat = door & (SEATS - 1)
        if seat > 0:
            if change(DOOR, door, door - 1):
                run(read(RUN), seat, read(RECORD))
                add(LEFT, 1)
                if change(CALLER, 1, 0):
                    release(read(CALLER_LOCK))
            looks = 0
        elif looks < read(PATIENCE):
            looks += 1
            pause()
        else:
            write(mine, ASLEEP)
            # Who opens a door after this looks finds that we sleep, and wakes us.
            if (read(DOOR) & (SEATS - 1)) == 0 or not change(mine, ASLEEP, AWAKE):
                acquire(read(mine + 1), 1)
                write(mine, AWAKE)
            looks = 0


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def share_out(function: int, record: int, parts: int) -> None:
    """Calls ``function(worker, record)`` in this thread, as worker 0, and in up to ``parts`` - 1 helpers at once.

    It is done when all that have been called are; they take each other's pieces, so that one is enough.
    """
    helpers = min(parts - 1, read(HELPERS))
    if helpers < 1 or not change(OWNER, 0, 1):
        run(function, 0, record)
        return
    write(RUN, function)
    write(RECORD, record)
    write(LEFT, 0)
    write(DOOR, (((read(DOOR) >> 16) + 1) << 16) + helpers)
    awake = 0
    for k in range(helpers):
        mine = FIRST_HELPER + k * LINE
        if read(mine) == AWAKE:
            awake += 1
        elif change(mine, ASLEEP, WOKEN):
            release(read(mine + 1))
    run(function, 0, record)
    door = read(DOOR)
    while not change(DOOR, door, door & -SEATS):
        door = read(DOOR)
    came, looks = helpers - (door & (SEATS - 1)), 0
    while read(LEFT) < came:
        if looks < read(PATIENCE):
            looks += 1
            pause()
        else:
            write(CALLER, 1)
            if read(LEFT) < came or not change(CALLER, 1, 0):
                acquire(read(CALLER_LOCK), 1)
    take_note(awake - came)
    write(OWNER, 0)


@njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_note(absent: int) -> None:
    """Counts helpers that were awake and didn't come to a job, and says by that how long all wait from now on."""
    absences = read(ABSENCES)
    if absent > 0:
        absences = min(absences + ABSENCE * absent, MOST)
    elif absences > 0:
        absences -= 1
    else:
        return
    write(ABSENCES, absences)
    patience = read(LITTLE) if absences > SUSPICION else read(MUCH)
    if read(PATIENCE) != patience:
        write(PATIENCE, patience)


def hand_over(context: Any, builder: Any, function: Any, record: Any, parts: Any) -> None:
    """Writes, into compiled code that holds no lock of Python's, ``share_out(function, record, parts)``."""
    kind = context.call_conv.get_function_type(types.void, KIND)
    address = builder.load(_word(builder, INTP(SHARE_OUT)))
    arguments = [builder.ptrtoint(function, INTP), builder.ptrtoint(record, INTP), parts]
    context.call_conv.call_function(builder, builder.inttoptr(address, kind.as_pointer()), types.void, KIND, arguments)


# --- Start ------------------------------------------------------------------------------------------------------------


def _prepare() -> np.ndarray[Any, Any]:
    """The pool's memory, for as many helpers as Numba may have threads, known to compiled code by its name."""
    count = numba.config.NUMBA_NUM_THREADS - 1
    memory = np.zeros(FIRST_HELPER + (count + 1) * LINE, np.intp)
    words = memory[-memory.ctypes.data % (LINE * ITEM) // ITEM :][: FIRST_HELPER + count * LINE]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # helpers outlive the modules when Python ends
    llvm.add_symbol(NAME, words.ctypes.data)
    return words


def _start() -> None:
    """Starts the helpers: once, and anew in each child that is made by fork, where none of the threads is left."""
    new_lock, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    new_lock.restype, acquire.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int)
    places = [CALLER, *range(FIRST_HELPER, WORDS.size, LINE)]
    WORDS[OWNER:] = 0
    WORDS[PATIENCE] = WORDS[MUCH] = patience(LOOKS)
    WORDS[LITTLE] = min(patience(FEW_LOOKS), WORDS[MUCH])
    for place in places:
        lock = new_lock()
        acquire(lock, 1)
        WORDS[place + 1] = lock
    for place in places[1:]:
        _thread.start_new_thread(help_out, (place,))
    WORDS[HELPERS] = len(places) - 1


def _launch() -> None:
    share_out.compile(KIND)
    compiled = share_out.overloads[KIND]
    WORDS[SHARE_OUT] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    help_out.compile((types.intp,))
    for function in (share_out, help_out):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(function))
    _start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start)


WORDS = _prepare()
_launch()
