# %% [markdown]
# # 6 · Three ways to convolve
#
# **Question.** Tutorial 3 made a convolution one matrix product: all the multiplications of the seven loops, and nine
# times the memory. Can it be done without the memory? With fewer multiplications? And is fewer faster?
# (`benchmarks` is a folder of the repository: it is found after `pip install -e .`, and not in a wheel.)

# %%
import functools

import numba
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks import roofline
from benchmarks.timing import alternate
from minires_kernels import Window, convolution, load

rng = np.random.default_rng(6)

# %% [markdown]
# ## The smallest versions, 1 and 2
# 3 x 3, stride 1, padding 1: what residual nets are made of. **im2col** lays out all windows, then multiplies once.
# **Direct** never lays them out: for each of the nine taps, the weights of that tap times the image, shifted.


# %%
def windows(x, size, step):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sliding_window_view(padded, (size, size), (2, 3))[:, :, ::step, ::step]  # N C OH OW size size


def im2col(x, weight):
    (N, C, H, W), O = x.shape, len(weight)
    columns = windows(x, 3, 1).transpose(0, 1, 4, 5, 2, 3).reshape(N, C * 9, H * W)  # a copy: 9 times x
    return (weight.reshape(O, C * 9) @ columns).reshape(N, O, H, W)


def direct(x, weight):
    shifted = windows(x, 3, 1)  # no copy: nine views of one image
    return sum(np.einsum("oc,nchw->nohw", weight[:, :, i, j], shifted[..., i, j]) for i, j in np.ndindex(3, 3))


# %% [markdown]
# ## The smallest version, 3: Winograd
# To multiply two polynomials you need not multiply each coefficient by each. **Evaluate** both at a few points,
# multiply the *values*, **interpolate**. With m and 3 coefficients the product has n = m + 2, so n points and n
# multiplications do, instead of 3m. With V(k) the matrix that evaluates k coefficients at the n points (one of them
# "∞", where only the leading coefficient counts), the product of a and g is V(n)⁻¹ [ V(3) g * V(m) a ].
#
# As a map of a it is a matrix with g in each column, one lower in each. Its *transpose* slides g along a signal d: our
# convolution! And a chain of matrices is transposed link by link, as in tutorial 3:
#
# - y = Aᵀ [ G g * Bᵀ d ], with Aᵀ = V(m)ᵀ, G = V(3), Bᵀ = V(n)⁻ᵀ: m outputs of a filter with 3 taps, called F(m, 3)
#   (Winograd 1980; for convolutional nets Lavin and Gray 2016).


# %%
def matrices(points):
    n = len(points) + 1
    V = {k: np.vstack([np.vander(points, k, increasing=True), np.eye(k)[-1]]) for k in (n - 2, 3, n)}
    return V[n - 2].T, V[3], np.linalg.inv(V[n]).T  # Aᵀ, G, Bᵀ


def winograd(x, weight, points):
    output, filters, inputs = (matrix.astype(x.dtype) for matrix in matrices(np.array(points, np.float64)))
    (N, _, H, W), O, m = x.shape, len(weight), len(output)  # here m has to divide H and W
    V = inputs @ windows(x, m + 2, m) @ inputs.T  # Bᵀ d B, in two dimensions, of patches that overlap by two
    U = filters @ weight @ filters.T  # G g Gᵀ
    y = output @ np.einsum("ocij,nchwij->nohwij", U, V) @ output.T  # tile by tile, (N, O, H / m, W / m, m, m)
    return y.swapaxes(3, 4).reshape(N, O, H, W)


output, filters, inputs = matrices([0, 1, -1])
d, g = np.array([1, 2, 3, 4]), np.array([1, 10, 100])
print(f"{g} along {d}: {output @ ((filters @ g) * (inputs @ d))}, with 4 multiplications instead of 6")

# %% [markdown]
# In two dimensions F(2x2) takes 16 multiplications for 4 outputs instead of 36 (with stride 2, 25), F(4x4) 36 for 16
# instead of 144. (Those by the matrices aren't counted: they are done once for a channel.) Now the price:

# %%
x, weight = rng.standard_normal((2, 16, 12, 12)), rng.standard_normal((16, 16, 3, 3))
truth = direct(x, weight)
ways = {"im2col": (9, im2col), "direct": (9, direct)}
for m, points in ((2, (0, 1, -1)), (4, (0, 1, -1, 2, -2)), (4, (0, 1, 2, 3, 4))):
    ways[f"F({m}x{m}) at {', '.join(map(str, points))}, ∞"] = ((m + 2) ** 2 / m**2, winograd, points)


def error(way, dtype, *settings):
    return abs(way(x.astype(dtype), weight.astype(dtype), *settings) - truth).max() / abs(truth).max()


print(f"\n{'products for one output':>54}   error in float64   in float32")
for name, (products, way, *points) in ways.items():
    errors = [error(way, dtype, *points) for dtype in (np.float64, np.float32)]
    print(f"{name:33}{products:19.2f} C{errors[0]:19.0e}{errors[1]:13.0e}")

# %% [markdown]
# In exact arithmetic they are equal. But evaluating at 4 means powers up to 4⁵ = 1024, which come in and cancel out
# again, and take digits with them. Where to evaluate is a choice, and it decides the error.
#
# ## Bytes, and the roof
# A kernel can't be faster than its multiply-adds over the processor's peak, nor than its bytes over the memory's
# bandwidth: the **roofline**. Two layers of ResNet-20, batch 32. im2col writes and reads its columns. Winograd's
# patches (2.25 times x) would cost likewise, if they weren't used up block by block, while they are in the cache.

# %%
peaks = roofline.measure(numba.get_num_threads(), seconds=1.0)
speed = peaks.operations / 2
print(f"\nThis machine: {speed / 1e9:.0f} billion multiply-adds a second, {peaks.bytes / 1e9:.0f} GB/s;", end=" ")
print(f"below {speed / peaks.bytes:.0f} multiply-adds for each byte, memory is the bound.")
window, library = Window.of(3, padding=1), {"im2col": "im2col", "direct": "numba_cpu", "F(4x4)": "winograd4_cpu"}
kernels = {way: load("convolution", name).forward for way, name in library.items()}
for C, side in ((16, 32), (64, 8)):
    images, filters = (rng.standard_normal(shape, np.float32) for shape in ((32, C, side, side), (C, C, 3, 3)))
    operations, moved = convolution.cost(images.shape, filters.shape, window)
    costs = {"im2col": (9, moved + 2 * 9 * images.nbytes), "direct": (9, moved), "F(4x4)": (2.25, moved)}
    calls = {way: functools.partial(kernel, images, filters, window) for way, kernel in kernels.items()}
    measured = alternate(calls, rounds=20, seconds=1.5, warm_up=0.1)
    print(f"\n32 images of {side} x {side}, {C} channels\n         products  moved  a byte    bound   measured")
    for way, (per_output, total) in costs.items():
        products, times = operations / 18 * per_output, measured.times[way]
        bound = max(products / speed, total / peaks.bytes)
        print(f"  {way}{products / 1e6:7.0f} M{total / 1e6:4.0f} MB{products / total:8.1f}{bound * 1e3:9.2f}", end="")
        print(f"{times.median * 1e3:11.2f} ms ±{times.spread:.0%}{' (disturbed)' if measured.disturbed else ''}")

# %% [markdown]
# On an idle machine im2col pays for its columns, and direct comes close to its bound. F(4x4) has the lowest bound and
# misses it by more: its transforms, which we didn't count, weigh the more the fewer channels share them. So fewer is
# faster where there are many channels. (F(6x6)? On 8 x 8 pixels it would compute 12 x 12, and lose all that it gains.)
#
# ## Do they agree?

# %%
for _, way, *points in ways.values():
    assert error(way, np.float64, *points) < 1e-9
for way, limit in {"im2col": 2e-6, "direct": 2e-6, "F(4x4)": 3e-5}.items():
    assert error(kernels[way], np.float32, window) < limit, way
print("\nThe five smallest versions and the library's three agree, each within its own rounding.")

# %% [markdown]
# ## Exercise: better points
# F(6x6) needs seven points and ∞, for 1.78 C products. These lose two digits more than F(4x4), although they lie as
# near to 0 as seven whole numbers can. Must they be whole?

# %%
points = (0, 1, -1, 2, -2, 3, -3)
lost = error(winograd, np.float32, points)
print("Exercise:", "mended, well done!" if len(points) == 7 and lost < 2e-5 else f"wrong by {lost:.0e}")
