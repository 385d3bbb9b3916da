# %% [markdown]
# # 7 · From loops to registers
#
# **Question.** A core does dozens of multiplications in a nanosecond, three compiled loops one or two. Where do the
# others go, and how do we get them back? (`benchmarks` is a folder of the repository: `pip install -e .` finds it.)
#
# **The smallest version.** A 1 x 1 convolution, as it begins and ends the bottleneck blocks of ResNet-50: at each pixel
# p, y[p, o] = Σ x[p, c] w[c, o]. In NumPy `x @ w`. (A 3 x 3 convolution is nine of these, with x shifted: tutorial 6.)

# %%
import numba
import numpy as np
from numba import njit

from benchmarks import roofline
from benchmarks.timing import alternate
from minires_kernels import Window, convolution, simd

rng = np.random.default_rng(7)
P, C, O = 1512, 64, 64  # pixels, channels in and out
x, w = rng.standard_normal((P, C), np.float32), rng.standard_normal((C, O), np.float32)
y, product = np.empty((P, O), np.float32), x.astype(np.float64) @ w
contract = njit(error_model="numpy", fastmath={"contract"})  # x y + z may be rounded once, nothing else may change

# %% [markdown]
# ## Three times three loops
# 1. **The equation, literally.** Each multiply-add waits four cycles for the one before; eight could have started. And
#    it fills one of sixteen lanes: the order of a sum decides its rounding, so no compiler puts terms side by side.
# 2. **o innermost.** These are *different* sums: the compiler fills the lanes. But it keeps the sums in memory: to each
#    multiply-add belong two loads and a store, and the core does two loads a cycle, and two multiply-adds.
# 3. **Blocks** of four pixels: what is loaded of w serves four times. Good for a cache, but here the cache isn't the
#    problem: the sums still travel to memory and back.


# %%
@contract
def equation(x, w, y):
    for p in range(P):
        for o in range(O):
            total = np.float32(0)
            for c in range(C):
                total += x[p, c] * w[c, o]
            y[p, o] = total


def blocks(height):  # 1: no blocks, just the loop over o innermost
    @contract
    def loops(x, w, y):
        for p in range(0, P, height):
            y[p : p + height] = 0
            for c in range(C):
                for o in range(O):
                    for q in range(p, p + height):
                        y[q, o] += x[q, c] * w[c, o]

    return loops


# %% [markdown]
# ## Saying what a register holds
# `simd` gives Numba two more types: a **vector** is one register, a **tile** a few rows of vectors. Both stay in
# registers while a loop runs. `tile_outer` adds to a tile a column of x times a row of w. (Arrays are flat; lanes and
# rows are compiled in.) What should we expect, roughly, of r rows of c vectors?
# - r c sums hide the waiting if they are eight: r c / 8 of the peak (more, if the core looks ahead into the next tile).
# - r c multiply-adds need r + c loads, and a cycle has room for two of either: no more than r c / (r + c).


# %%
@contract
def sums(tile, x, w, p, o):
    total = simd.tile_zero(tile)
    for c in range(C):
        total = simd.tile_outer(total, x, p * C + c, C, w, c * O + o)  # += x[p : p + rows, c] ⊗ w[c, o : o + width]
    return total


@contract
def tiles(tile, x, w, y):
    for o in range(0, O, tile.width):
        for p in range(0, P, tile.rows):
            simd.tile_store(sums(tile, x, w, p, o), y, p * O + o, O)


# %% [markdown]
# ## Fusion
# A residual block goes on with relu(y · scale + bias + shortcut): for NumPy, four walks through all of y. But a tile
# that was just stored is still in the nearest cache: finish it there, vector by vector.


# %%
@contract
def fused(tile, x, w, y, scale, bias, shortcut):
    kind = tile.vector
    for o in range(0, O, tile.width):
        for p in range(0, P, tile.rows):
            simd.tile_store(sums(tile, x, w, p, o), y, p * O + o, O)
            for q in range(p, p + tile.rows):
                for j in range(o, o + tile.width, kind.lanes):
                    i = q * O + j
                    normal = simd.fma(simd.load(kind, y, i), simd.load(kind, scale, j), simd.load(kind, bias, j))
                    simd.store(simd.maximum(normal + simd.load(kind, shortcut, i), simd.zero(kind)), y, i)


# %% [markdown]
# ## Do they agree? And only then: how fast?
# Each result goes into memory full of NaN. Then all take turns, on one core. (But NumPy's BLAS uses all there are.)

# %%
kinds = [simd.Tile(simd.vector(np.float32), *shape) for shape in ((1, 1), (1, 4), (simd.registers() // 2 - 2, 2))]
scale, bias, shortcut = *rng.standard_normal((2, O), np.float32), rng.standard_normal((P, O), np.float32)
finished, flat = np.maximum(product * scale + bias + shortcut, 0), (x.ravel(), w.ravel(), y.ravel())
images, filters = x.T.reshape(1, C, P, 1), w.T.reshape(O, C, 1, 1)
loops = {"1 equation": equation, "2 o innermost": blocks(1), "3 blocks": blocks(4)}
steps = {name: lambda kernel=kernel: kernel(x, w, y) for name, kernel in loops.items()}
steps |= {f"tile {kind.rows} x {kind.columns}": lambda kind=kind: tiles(kind, *flat) for kind in kinds}
steps["NumPy"] = lambda: np.matmul(x, w, out=y)
steps["MiniRes"] = lambda: convolution.forward(images, filters, Window.of(1))[0, :, :, 0].T
steps["tile, then NumPy"] = lambda: tiles(kinds[2], *flat) or np.maximum(y * scale + bias + shortcut, 0, out=y)
steps["tile, fused"] = lambda: fused(kinds[2], *flat, scale, bias, shortcut.ravel())
for name, step in steps.items():
    y.fill(np.nan)
    found, expected = step(), finished if name.startswith("tile,") else product
    assert np.allclose(y if found is None else found, expected, rtol=1e-4, atol=1e-4), name
print(f"All {len(steps)} agree with NumPy's float64. On one core:")
threads, peaks = numba.get_num_threads(), roofline.measure(1, seconds=1.0)  # which sets the number of threads to 1
measured = alternate(steps, rounds=50, seconds=2.0, warm_up=0.05)
numba.set_num_threads(threads)
for name, times in measured.times.items():
    speed = 2 * P * C * O / times.median
    print(f"{name:16}{times.median * 1e6:7.0f} µs ±{times.spread:4.0%}{speed / 1e9:8.1f} GFLOP/s", end="")
    print(f"{speed / peaks.operations:6.0%} of the peak", "(disturbed)" * measured.disturbed)

# %% [markdown]
# ## Exercise: the last tile
# 20 pixels are no multiple of a tile. MiniRes lets the last tile overlap the one before: *stored* twice, numbers do no
# harm. But gradients of weights are *added* to what is there. What is `tile_add`'s last argument for?


# %%
@contract
def add_product(tile, pixels, x, w, y):
    for p in range(0, pixels, tile.rows):
        first = min(p, pixels - tile.rows)
        simd.tile_add(sums(tile, x, w, first, 0), y, first * O, O, 0)


y.fill(0)
add_product(kinds[2], 20, *flat)
wrong = np.flatnonzero(abs(y - product)[:20, : kinds[2].width].max(1) > 1e-4)
print("Exercise:", f"wrong at pixels {wrong}" if wrong.size else "mended, well done!")
