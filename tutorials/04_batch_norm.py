# %% [markdown]
# # 4 · Batch norm
#
# **Question.** Forward, batch norm is one line: subtract the mean, divide by the standard deviation. Why then is its
# backward pass the one that gets written wrong most often, and passes its test all the same?
#
# (Ioffe and Szegedy 2015. In their letters γ is our `weight`, β our `bias`, m = N·H·W the numbers in one channel.)

# %%
import numpy as np

import minires

rng = np.random.default_rng(4)
np.set_printoptions(precision=3)
AXES = (0, 2, 3)  # all but the channels: each channel is normalized on its own

# %% [markdown]
# ## The smallest version, forward
# `variance` is the biased one, divided by m. `eps` keeps a constant channel from dividing by zero.


# %%
def statistics(x, eps=1e-5):
    mean = x.mean(AXES, keepdims=True)  # (1, C, 1, 1)
    variance = ((x - mean) ** 2).mean(AXES, keepdims=True)
    return mean, variance, 1 / np.sqrt(variance + eps)


def batch_norm(x, weight, bias):
    mean, _, inverse_std = statistics(x)
    return weight * (x - mean) * inverse_std + bias


x = rng.standard_normal((4, 3, 5, 6)) * [[[1]], [[5]], [[0.2]]] + [[[0]], [[-3]], [[10]]]
weight, bias = rng.uniform(0.5, 1.5, (3, 1, 1)), rng.standard_normal((3, 1, 1))
y = batch_norm(x, weight, bias)
print("channel   mean before   std before   mean after (bias)   std after (weight)")
for c in range(3):
    print(f"{c:5}{x[:, c].mean():14.3f}{x[:, c].std():13.3f}{y[:, c].mean():14.3f}{bias[c, 0, 0]:8.3f}", end="")
    print(f"{y[:, c].std():12.3f}{weight[c, 0, 0]:8.3f}")
moved = abs(batch_norm(100 * x + 7, weight, bias) - y).max()
print(f"Stretch x by 100 and shift it by 7: the output moves by {moved:.0e}. Without eps it wouldn't at all.")

# %% [markdown]
# So a bias in front of a batch norm does nothing, which is why the convolutions of residual nets have none.
#
# ## Backward, term by term
#
# Each number of x acts on x̂ = (x − mean) · inverse_std in **three** ways. With g the upstream gradient, γg is what
# arrives at x̂, and the chain rule says:
#
# 1. *directly*: γg · inverse_std
# 2. *through the mean*, of which each number is one m-th: −Σ(γg · inverse_std) / m
# 3. *through the variance*, whose slope is 2 (x − mean) / m: Σ(γg (x − mean)) · (−½ inverse_std³) · 2 (x − mean) / m
#
# (The variance contains the mean too, but its slope there is −2 Σ(x − mean) / m = 0: no fourth way.)


# %%
def three_ways(g, x, weight):
    (mean, _, inverse_std), m = statistics(x), x.size // x.shape[1]
    grad_variance = (weight * g * (x - mean)).sum(AXES, keepdims=True) * (-0.5 * inverse_std**3)
    direct = weight * g * inverse_std
    through_mean = -direct.sum(AXES, keepdims=True) / m + np.zeros_like(x)
    through_variance = grad_variance * 2 * (x - mean) / m
    return direct, through_mean, through_variance


def simplified(g, x, weight):
    mean, _, inverse_std = statistics(x)
    x_hat = (x - mean) * inverse_std
    constant_part = g.mean(AXES, keepdims=True)
    parallel_part = x_hat * (g * x_hat).mean(AXES, keepdims=True)
    return weight * inverse_std * (g - constant_part - parallel_part)


mean, variance, inverse_std = statistics(x)
x_hat = (x - mean) * inverse_std
g = rng.standard_normal(x.shape)
g[:, 1], g[:, 2] = 0.5, x_hat[:, 2]  # channel 1: the same everywhere; channel 2: parallel to x̂
terms = three_ways(g, x, weight)
print("\nchannel: upstream     directly + mean + variance =  grad_x   (norms of the four)")
for c, kind in enumerate(("random", "constant", "parallel")):
    norms = [np.linalg.norm(term[:, c]) for term in (*terms, sum(terms))]
    print(f"  {c}: {kind:12} {norms[0]:12.5f} {norms[1]:8.5f} {norms[2]:8.5f} {norms[3]:10.5f}")

# %% [markdown]
# The three ways cancel! An upstream gradient that is constant asks to *shift* the channel, one that is parallel to x̂
# asks to *stretch* it. The forward pass would undo both, so both are taken out, and what is left is the short form
# `simplified`. Two exact identities follow, to check any implementation with (only eps spoils a perfect 0):
#
# - Σ grad_x = 0
# - Σ grad_x · x̂ = γ · inverse_std · Σ(g x̂) · eps / (variance + eps)

# %%
grad_x = sum(terms)
left = (grad_x * x_hat).sum(AXES)
right = (weight * inverse_std * 1e-5 / (variance + 1e-5) * (g * x_hat).sum(AXES, keepdims=True)).ravel()
print(f"\nΣ grad_x     = {grad_x.sum(AXES)}\nΣ grad_x · x̂ = {left}\n   and should = {right}")
assert np.allclose(grad_x.sum(AXES), 0, atol=1e-10)
assert np.allclose(left, right, atol=1e-10)
assert np.allclose(grad_x, simplified(g, x, weight), atol=1e-12)

# %% [markdown]
# ## The library's version, in training and in evaluation
# In training the running statistics move by `momentum` = 0.1 towards the batch's: the *unbiased* variance, divided by
# m − 1. In evaluation they are constants, so only the direct way is left, and no image sees its neighbours any more.

# %%
running_mean, running_var = np.zeros(3), np.ones(3)
tensors = [minires.Tensor(array, requires_grad=True) for array in (x, weight.ravel(), bias.ravel())]
trained = minires.functional.batch_norm(tensors[0], running_mean, running_var, *tensors[1:], training=True)
trained.backward(g)
assert np.allclose(trained.data, y)
for tensor, expected in zip(tensors, (grad_x, (g * x_hat).sum(AXES), g.sum(AXES)), strict=True):
    assert np.allclose(tensor.grad, expected, atol=1e-10)
assert np.allclose(running_mean, 0.9 * 0 + 0.1 * mean.ravel())
assert np.allclose(running_var, 0.9 * 1 + 0.1 * x.var(AXES, ddof=1))

image = minires.Tensor(x[:1], requires_grad=True)
for training in (True, False):
    state = running_mean.copy(), running_var.copy(), *tensors[1:]
    in_company = minires.functional.batch_norm(tensors[0], *state, training=training).data[:1]
    alone = minires.functional.batch_norm(image, *state, training=training)
    change, mode = abs(alone.data - in_company).max(), "In training" if training else "In evaluation"
    print(f"{mode}, image 0 without the other images comes out different by {change:.2f}.")
alone.backward(g[:1])
assert np.allclose(image.grad, (weight.ravel() / np.sqrt(running_var + 1e-5)).reshape(3, 1, 1) * g[:1])
print("The three ways and the library agree, in training and in evaluation.")

# %% [markdown]
# ## Exercise: a wrong gradient that passes its test
# First mend the test, so that it fails (the table above says what is wrong with it). Then mend the gradient.


# %%
def backward(g, x, weight):
    return weight * statistics(x)[2] * (g - g.mean(AXES, keepdims=True))


upstream, direction = np.ones_like(x), rng.standard_normal(x.shape)
ahead, behind = (batch_norm(x + step * direction, weight, bias) for step in (1e-5, -1e-5))
expected, got = np.sum(upstream * (ahead - behind)) / 2e-5, np.sum(backward(upstream, x, weight) * direction)
print(f"Exercise: the test expects {expected:.4f} and gets {got:.4f}; can these two ever differ?")
is_right = np.allclose(backward(g, x, weight), grad_x)
print("Exercise:", "mended, well done!" if is_right else "the gradient isn't right yet")
