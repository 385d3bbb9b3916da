# %% [markdown]
# # 8 · Benchmark your own kernel
#
# **Question.** You have written a kernel, and it is five times as fast as the library's. Is it? And is it right?
# (`benchmarks` is a folder of the repository: it is found after `pip install -e .`, and not in a wheel.)

# %%
import itertools
import time

import numba
import numpy as np

from benchmarks import roofline
from benchmarks.timing import alternate
from minires_kernels import activation

# %% [markdown]
# ## The smallest version, and yours
# The end of a residual block, max(x + y, 0). NumPy walks through memory twice: to add, and to cut off. Yours goes once.
# The contract is that of `minires_kernels.activation`: the result is a new array; float32 or float64, and what goes in
# comes out; NaN stays NaN; x and y may have any strides, or be empty; and they are never written. (There is more.)


# %%
def two_passes(x, y):
    return np.maximum(x + y, 0)


@numba.njit
def one_pass(x, y, result):
    for i in range(x.size):
        total = x[i] + y[i]
        result[i] = 0 if total < 0 else total


def mine(x, y):
    result = np.empty(x.shape, x.dtype)
    one_pass(x.ravel(), y.ravel(), result.ravel())
    return result


def nothing(x, y):
    return np.empty(x.shape, x.dtype)


rng = np.random.default_rng(8)
x, y = rng.standard_normal((2, 2, 3, 4, 5), np.float32)
for call in ("first", "second"):
    start = time.perf_counter()
    mine(x, y)
    print(f"Trap 1: the {call} call of mine took {(time.perf_counter() - start) * 1e3:.3f} ms.")

# %% [markdown]
# The first call compiles: the most frequent mistake, and a harmless one, for it is easily seen. Not so this:

# %%
expected = two_passes(x.astype(np.float64), y)
for kernel in (two_passes, mine, nothing):
    verdict = "accepts" if np.allclose(kernel(x, y), expected) else "refuses"
    print(f"Trap 2: a careless test {verdict} {kernel.__name__}.")

# %% [markdown]
# A kernel that computes nothing! `np.empty` hands out memory as its last user left it, and that was a kernel with the
# right numbers. (It has happened to well-known benchmarks; who does nothing is always the fastest.) So: **correctness
# first, in memory full of NaN**, and on awkward arrays, not on those that the kernel was made for.


# %%
def awkward():
    for shape, dtype in itertools.product(((2, 3, 4, 5), (1, 1, 1, 1), (0, 3, 2, 2)), (np.float32, np.float64)):
        x, y = rng.standard_normal((2, *shape)).astype(dtype)
        x[..., 1:2], y[..., 2:3] = np.nan, -np.inf
        yield x, y
        yield x[:, ::-1, :, ::2], np.asfortranarray(y)[:, ::-1, :, ::2]


def judge(kernel):
    for x, y in awkward():
        expected = np.maximum(x.astype(np.float64) + y, 0)
        np.full_like(x, np.nan)  # freed at once: the next array of this size gets its memory
        found = kernel(x, y)
        is_right = np.allclose(found, expected, rtol=1e-6, atol=1e-7, equal_nan=True)
        if not (is_right and found.dtype == x.dtype):
            return f"refused for {x.dtype} {x.shape}"
    return "accepted"


kernels = {"two passes": two_passes, "mine": mine, "MiniRes": activation.add_relu, "nothing": nothing}
for name, kernel in kernels.items():
    print(f"{name:12}{judge(kernel)}")

# %% [markdown]
# ## Time
# - **Trap 3: caches.** A small array, 100 times over, lies in the first cache; a net's arrays don't. Take a pool of
#   large ones in turn, and compare with what the memory can do, measured: the *roofline* of tutorial 6. More than 102 %
#   of it is no record but a mistake, and `Roofline.share` refuses it.
# - **Trap 4: memory.** New pages from the system can cost more than a simple kernel. Give the same to both sides.
# - **Trap 5: first A, then B.** Meanwhile a backup began. `alternate` lets all take turns, shuffled each round, takes
#   ratios within a round, and drops windows in which others used the processor. ± is the middle half's width.

# %%
pool = [tuple(rng.standard_normal((2, 128, 16, 32, 32), np.float32)) for _ in range(3)]  # a stage of ResNet-20
kept, turns = np.empty_like(pool[0][0]), itertools.cycle(pool)
small = [array[0].ravel() for array in (*pool[0], kept)]
accepted = {name: kernel for name, kernel in kernels.items() if judge(kernel) == "accepted"}
assert list(accepted) == ["two passes", "mine", "MiniRes"]
accepted["mine, into kept memory"] = lambda x, y: one_pass(x.ravel(), y.ravel(), kept.ravel())
candidates = {name: lambda kernel=kernel: kernel(*next(turns)) for name, kernel in accepted.items()}
candidates["mine, small, 100 times"] = lambda: [one_pass(*small) for _ in range(100)]
peaks = roofline.measure(numba.get_num_threads(), seconds=1.0)
measured = alternate(candidates, rounds=25, seconds=2.0, warm_up=0.1)
for name, times in measured.times.items():
    moved = activation.cost("add_relu", (100 * small[0].size,) if "small" in name else kept.shape)[1]
    try:
        verdict = f"{peaks.share(0, moved, times.median, name):.0%} of the roofline"
    except RuntimeError as refusal:
        verdict = f"refused: {refusal}"
    print(f"{name:23}{times.median * 1e3:8.3f} ms ±{times.spread:4.0%}{moved / times.median / 1e9:6.1f} GB/s", verdict)
faster, threads = measured.times["mine"].ratio(measured.times["MiniRes"]), numba.get_num_threads()
print(f"Mine (1 thread) takes 1 ms where MiniRes ({threads}) takes {faster:.2f} ms", "(disturbed)" * measured.disturbed)

# %% [markdown]
# (If all are refused, your last cache holds the whole pool: take larger arrays.)
#
# To make it one of the library's, put it into a file, `kernels/minires_kernels/activation/mine.py`, with the family's
# other kernels (import those from `reference`). Nothing has to be registered: `python -m benchmarks.kernels activation`
# times it, and `pytest tests/kernels/test_contract.py -k mine` judges it by the whole contract: the result should lie
# in memory as x does. Does it?
#
# ## Do they agree?

# %%
assert all(np.array_equal(kernel(*pool[0]), two_passes(*pool[0])) for kernel in (mine, activation.add_relu))
assert len({len(times.seconds) for times in measured.times.values()}) == 1  # all took part in every round
print("Yours, the smallest version and the library's agree, to the last bit.")

# %% [markdown]
# ## Exercise: nobody is faster
# `in_place` needs no new memory, and the judge accepts it. Which sentence of the contract did it forget? Mend it.


# %%
def in_place(x, y):
    x += y
    return np.maximum(x, 0, out=x)


names = [kernel.__name__ for kernel in (mine, in_place) if judge(kernel) == "accepted"]
print("Exercise:", "mended, well done!" if names == ["mine"] else f"the judge accepts {' and '.join(names)}")
