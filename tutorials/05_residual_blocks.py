# %% [markdown]
# # 5 · Residual blocks
#
# **Question.** What does a single `+` do to the gradient? And why, a year later, were the ReLUs moved?
#
# - **2015** (He et al., "Deep Residual Learning", eq. 1 and fig. 2): out = relu(x + F(x)), with
#   F(x) = bn(conv(relu(bn(conv(x))))). The last ReLU stands *behind* the addition.
# - **2016** (He et al., "Identity Mappings", eq. 9 and fig. 4e): out = x + F(x), with
#   F(x) = conv(relu(bn(conv(relu(bn(x)))))). Each batch norm and ReLU stands in front of "its" convolution.
#
# What it is *not* about: very deep plain nets have the higher training error (*degradation*), although batch norm keeps
# their gradients at a healthy size; vanishing gradients are an unlikely cause, says the paper (2015, section 4.1).

# %%
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import minires
from minires import inspection
from minires.models import BasicBlock, PreActivationBlock

# %% [markdown]
# ## The smallest version: what tutorials 3 and 4 taught, in brief
# 3 x 3 convolutions, stride 1, padding 1; batch norm in training, with γ = 1 and β = 0 as at the start.


# %%
def windows(x):
    return sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))  # (N, C, H, W, 3, 3)


def conv(x, weight):
    return np.einsum("nchwij,ocij->nohw", windows(x), weight)


def conv_back(grad, x, weight):  # the transpose of a convolution is a convolution with the kernel turned round
    return conv(grad, weight[..., ::-1, ::-1].swapaxes(0, 1)), np.einsum("nohw,nchwij->ocij", grad, windows(x))


def mean(x):
    return x.mean((0, 2, 3), keepdims=True)


def bn(x):
    return (x - mean(x)) / np.sqrt(mean((x - mean(x)) ** 2) + 1e-5)


def bn_back(grad, x):
    inverse_std = 1 / np.sqrt(mean((x - mean(x)) ** 2) + 1e-5)
    return inverse_std * (grad - mean(grad) - bn(x) * mean(grad * bn(x)))


# %% [markdown]
# In each function the lower half is the upper half, read from the bottom up. At the addition the gradient **splits**:
# both ways get all of it. At the fork, where x was used twice, the parts **meet** and add up; we return both parts.


# %%
def block_2015(x, weight1, weight2, grad):
    first = conv(x, weight1)
    inner = np.maximum(bn(first), 0)
    second = conv(inner, weight2)
    y = bn(second) + x
    out = np.maximum(y, 0)

    grad_y = grad * (y > 0)  # the ReLU behind the addition lets through what was positive
    past = through = grad_y  # the addition: the split
    through, grad_weight2 = conv_back(bn_back(through, second), inner, weight2)
    through, grad_weight1 = conv_back(bn_back(through * (inner > 0), first), x, weight1)
    return out, past, through, grad_weight1, grad_weight2


def block_2016(x, weight1, weight2, grad):
    activated = np.maximum(bn(x), 0)
    first = conv(activated, weight1)
    inner = np.maximum(bn(first), 0)
    out = conv(inner, weight2) + x

    past = through = grad  # nothing behind the addition: all that arrives is split
    through, grad_weight2 = conv_back(through, inner, weight2)
    through, grad_weight1 = conv_back(bn_back(through * (inner > 0), first), activated, weight1)
    through = bn_back(through * (activated > 0), x)
    return out, past, through, grad_weight1, grad_weight2


rng = np.random.default_rng(5)
x, grad = rng.standard_normal((2, 8, 4, 7, 5))  # both (N, C, H, W) = (8, 4, 7, 5)
settings = {"shortcut": "A", "rng": rng, "fan": "fan_in"}
blocks = [kind(4, 4, 1, **settings).astype(np.float64) for kind in (BasicBlock, PreActivationBlock)]
weights = [(block.conv1.weight.data, block.conv2.weight.data) for block in blocks]
by_hand = [smallest(x, *pair, grad) for smallest, pair in zip((block_2015, block_2016), weights, strict=True)]
print("Norms on the way back:\nblock   grad arrives   past F   through F   together at x   of grad, unchanged at x")
for year, (_, past, through, *_) in zip((2015, 2016), by_hand, strict=True):
    norms = [np.linalg.norm(array) for array in (grad, past, through, past + through)]
    print(f"{year}{norms[0]:15.2f}{norms[1]:9.2f}{norms[2]:12.2f}{norms[3]:16.2f}{np.mean(past == grad):22.0%}")

# %% [markdown]
# That is why: in 2016 all of `grad` reaches x as it is, in 2015 the ReLU behind the addition takes its toll at every
# block. Forward it is the same ReLU. With F = 0 the 2016 block is the identity, the 2015 block relu(x).
#
# ## The library's version, with a tape
# `record()` keeps every *contribution* as it was before the engine added it to the others.

# %%
assert np.array_equal(block_2016(x, weights[1][0], 0 * weights[1][1], grad)[0], x)
assert np.array_equal(block_2015(x, weights[0][0], 0 * weights[0][1], grad)[0], np.maximum(x, 0))
for block, (out, past, through, grad_weight1, grad_weight2) in zip(blocks, by_hand, strict=True):
    x_tensor = minires.Tensor(x, requires_grad=True)
    with minires.record() as tape:
        y = block(x_tensor)
        y.backward(grad)
    arrived = {part.consumer.op: part.array for part in tape.contributions(x_tensor)}
    norms = [f"{np.linalg.norm(array):.2f} from {consumer}" for consumer, array in arrived.items()]
    print(f"{type(block).__name__}: x receives {' and '.join(norms)}.")
    came_past = arrived.pop("add")
    pairs = [(y.data, out), (came_past, past), (*arrived.values(), through), (x_tensor.grad, past + through)]
    pairs += [(block.conv1.weight.grad, grad_weight1), (block.conv2.weight.grad, grad_weight2)]
    for library, ours in pairs:
        assert np.allclose(library, ours, rtol=1e-9, atol=1e-9)

# %% [markdown]
# ## Many blocks: equations (4) and (5) of 2016
# If nothing stands between one addition and the next, sums stay sums: x_L = x_0 + ΣF (4), and the gradient is
# ∂E/∂x_0 = ∂E/∂x_L + what came through each F (5). Both hold within a stage, where dimensions don't change.
# The ledger shows it: each "sum" is the next block's "shortcut".

# %%
stack = minires.nn.Sequential(*(PreActivationBlock(4, 4, 1, **settings) for _ in range(5))).astype(np.float64)
x_tensor = minires.Tensor(x, requires_grad=True)
with minires.record() as tape:
    stack(x_tensor).backward(grad)
ledger = inspection.ledger(tape)
print(f"\nFive blocks of 2016, from the loss back to the input:\n{ledger}")
assert np.allclose(x + sum(tape[f"{i}.conv2"].value for i in range(5)), tape["4"].value)  # eq. (4)
assert np.allclose(grad + sum(row.branches[0].grad for row in ledger), x_tensor.grad)  # eq. (5)
print("x_L = x_0 + ΣF, and ∂E/∂x_0 = ∂E/∂x_L + Σ(what came through F): both hold.")

# %% [markdown]
# ## Exercise: a right gradient in a wrong block
# The gradient check passes, for the gradient *is* right: of a block in which `grad` no longer comes home unchanged.
# Where does its shortcut begin? One word has to change.

# %%
suspect = PreActivationBlock(4, 4, 1, activates="both", **settings).astype(np.float64)
with minires.using("reference"):  # the plain NumPy kernels: slower, but there is nothing to compile first
    assert minires.gradcheck(suspect, x[:2], mode="fast")
with minires.record() as tape:
    suspect(x_tensor).backward(grad)
is_split = any(np.array_equal(part.array, grad) for part in tape.contributions(x_tensor))
print("Exercise:", "mended, well done!" if is_split else "not mended yet: no contribution to x equals grad")
