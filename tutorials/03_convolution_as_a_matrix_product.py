# %% [markdown]
# # 3 · Convolution as a matrix product
#
# **Question.** A convolution is written with seven nested loops. Almost every engine computes it as *one matrix
# product* instead. How, at what price, and why is its backward pass then done in two lines?
#
# (What the field calls convolution is a cross-correlation: the kernel slides over the image without being flipped.)

# %%
import numpy as np

import minires
from minires_kernels import Window, patches

rng = np.random.default_rng(3)

# %% [markdown]
# ## The smallest version
#
# **im2col** writes every window of the image as a column (Chellapilla, Puri and Simard 2006). There is no need to visit
# the windows one by one: row (i, j) of the matrix holds tap (i, j) of *all* windows, and that is the image itself,
# shifted by (i, j) and thinned out by the stride.


# %%
def taps(H, W, KH, KW, stride, padding):
    OH, OW = (H + 2 * padding - KH) // stride + 1, (W + 2 * padding - KW) // stride + 1
    for i in range(KH):
        for j in range(KW):
            yield i, j, OH, OW, np.s_[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride]


def im2col(x, KH, KW, stride=1, padding=0):
    N, C, H, W = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = [padded[pixels] for *_, pixels in taps(H, W, KH, KW, stride, padding)]  # KH·KW of (N, C, OH, OW)
    return np.stack(rows, axis=2).reshape(N, C * KH * KW, -1)  # (N, K, L)


image = np.arange(1.0, 13).reshape(1, 1, 3, 4)
print(f"An image of 3 x 4 pixels:\n{image[0, 0].astype(int)}")
print(f"Its windows of 2 x 2, each a column:\n{im2col(image, 2, 2)[0].astype(int)}")

# %% [markdown]
# Column 0 is the window at the top left, 1 2 5 6; row 0 is the top left tap of all six windows. The price: inner
# numbers stand there several times (128 CIFAR images of 16 channels are 8.4 MB, their 3 x 3 columns 75.5 MB). The
# gain: with each filter as a row of a matrix M (O, K) and the columns as X (K, L), the seven loops become `Y = M X`.


# %%
def convolve_by_loops(x, weight, stride, padding):
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    (O, _, KH, KW), (N, _, H, W) = weight.shape, padded.shape
    y = np.zeros((N, O, (H - KH) // stride + 1, (W - KW) // stride + 1))
    for n, o, oh, ow in np.ndindex(y.shape):
        window = padded[n, :, oh * stride : oh * stride + KH, ow * stride : ow * stride + KW]
        y[n, o, oh, ow] = np.sum(window * weight[o])  # loops five, six and seven
    return y


x, weight = rng.standard_normal((2, 3, 5, 6)), rng.standard_normal((4, 3, 3, 2))  # N C H W, O C KH KW
loops = convolve_by_loops(x, weight, stride=2, padding=1)
geometry = (3, 2, 2, 1)  # KH, KW, stride, padding
M, X = weight.reshape(4, -1), im2col(x, *geometry)
product = (M @ X).reshape(loops.shape)
print(f"\nLoops and matrix product, x {x.shape} * weight {weight.shape} -> {loops.shape}:")
print(f"  largest difference {abs(loops - product).max():.0e}")

# %% [markdown]
# ## Backward: a linear map goes home by its transpose
#
# From Y = M X follow dM = dY Xᵀ and dX = Mᵀ dY. But X isn't the image yet. im2col is linear too (it only copies), so
# its backward is its transpose, called **col2im**: each copy carries its gradient back to the pixel it was copied from,
# and there they *add up*. A pixel in nine windows is a fork with nine ways, just like `x` at a skip connection.


# %%
def col2im(columns, shape, KH, KW, stride=1, padding=0):
    N, C, H, W = shape
    padded = np.zeros((N, C, H + 2 * padding, W + 2 * padding))
    for i, j, OH, OW, pixels in taps(H, W, KH, KW, stride, padding):
        padded[pixels] += columns.reshape(N, C, KH, KW, OH, OW)[:, :, i, j]
    return padded[:, :, padding : padding + H, padding : padding + W]


for stride in (1, 2):
    ones = np.ones((1, 1, 5, 5))
    visits = col2im(im2col(ones, 3, 3, stride, 1), ones.shape, 3, 3, stride, 1)[0, 0].astype(int)
    print(f"\nIn how many 3 x 3 windows does each pixel lie? Stride {stride}, padding 1:\n{visits}")

# %% [markdown]
# How do we know that col2im is the transpose, without writing down a huge matrix? The **dot-product test**: A and B are
# transposes of each other exactly if ⟨A x, c⟩ = ⟨x, B c⟩ for all x and c. Two random ones are enough to expose a
# wrong one. There is no step size, nothing is approximated: the two numbers agree to the last digits or they don't.


# %%
def dot_product_test(forward, back, x, *geometry):
    c = rng.standard_normal(forward(x, *geometry).shape)
    left, right = np.sum(forward(x, *geometry) * c), np.sum(x * back(c, x.shape, *geometry))
    return left, right, abs(left - right) < 1e-12 * np.linalg.norm(c) * np.linalg.norm(x)


left, right, is_transpose = dot_product_test(im2col, col2im, x, *geometry)
print(f"\nDot-product test:  ⟨im2col x, c⟩ = {left:.13f}\n                   ⟨x, col2im c⟩ = {right:.13f}")

grad_y = rng.standard_normal(product.shape)
grad_rows = grad_y.reshape(2, 4, -1)  # dY, (N, O, L)
grad_weight = (grad_rows @ X.swapaxes(1, 2)).sum(0).reshape(weight.shape)  # dM = dY Xᵀ; every image adds its share
grad_x = col2im(M.T @ grad_rows, x.shape, *geometry)  # dX = Mᵀ dY, and home

# %% [markdown]
# ## The library's version

# %%
window = Window.of((3, 2), stride=2, padding=1)
x_tensor, weight_tensor = minires.Tensor(x, requires_grad=True), minires.Parameter(weight)
y = minires.functional.conv2d(x_tensor, weight_tensor, stride=2, padding=1)
y.backward(grad_y)
assert is_transpose
assert np.allclose(loops, product, rtol=1e-12)
assert np.array_equal(patches.im2col(x, window), X)
for name, ours, theirs in (
    ("y", product, y.data),
    ("grad_weight", grad_weight, weight_tensor.grad),
    ("grad_x", grad_x, x_tensor.grad),
):
    print(f"{name:12} differs from the library's by at most {abs(ours - theirs).max():.0e}")
    assert np.allclose(ours, theirs, rtol=1e-10)

# %% [markdown]
# ## Exercise: three tests passed
# This col2im passes as long as stride and kernel are equal. One character is missing. Which, and why did they pass?


# %%
def col2im_broken(columns, shape, KH, KW, stride, padding):
    padded = np.zeros(shape)  # the exercise has no padding
    for i, j, OH, OW, pixels in taps(*shape[2:], KH, KW, stride, padding):
        padded[pixels] = columns.reshape(*shape[:2], KH, KW, OH, OW)[:, :, i, j]
    return padded


images = rng.standard_normal((2, 3, 6, 6))
for size, stride in ((1, 1), (2, 2), (3, 3), (3, 1)):
    left, right, passed = dot_product_test(im2col, col2im_broken, images, size, size, stride, 0)
    verdict = "passed" if passed else f"not yet: {left:.2f} is not {right:.2f}"
    print(f"Exercise: kernel {size}, stride {stride}: {verdict}")
print("Exercise: mended, well done!" if passed else "Exercise: not yet mended")
