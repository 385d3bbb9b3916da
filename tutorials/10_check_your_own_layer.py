# %% [markdown]
# # Gradient-check your own layer, in your own project
#
# You have written a layer. It may be a `Function` of MiniRes, plain NumPy, or a `torch.autograd.Function`: all three
# can be checked, and get the same explanation.

# %%
import numpy as np

import minires
from minires import Function, nn
from minires.checking import check_arrays
from minires.tensor import Parameter, apply

rng = np.random.default_rng(1)

# %% [markdown]
# ## As a Function and a Module
#
# A layer norm: each row is normalized by its own mean and standard deviation. Its backward pass has two terms that are
# easily forgotten, since mean and deviation depend on the input too. Let's forget one.


# %%
class RowNorm(Function):
    def forward(self, x):
        inverse_std = 1 / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x_hat = (x - x.mean(1, keepdims=True)) * inverse_std
        self.save_for_backward(x_hat=x_hat, inverse_std=inverse_std)
        return x_hat

    def backward(self, grad_output):
        centred = grad_output - grad_output.mean(1, keepdims=True)
        return (centred * self.saved.inverse_std,)  # and the term of the deviation?


class RightRowNorm(RowNorm):
    def backward(self, grad_output):
        x_hat, inverse_std = self.saved.x_hat, self.saved.inverse_std
        along = (grad_output * x_hat).mean(1, keepdims=True)
        return ((grad_output - grad_output.mean(1, keepdims=True) - x_hat * along) * inverse_std,)


x = rng.standard_normal((4, 6))
wrong = minires.gradcheck(RowNorm, x)
print(wrong)


# %%
class Scaled(nn.Module):
    """The norm with a learned scale: its parameters are checked along with its input, in float64, and put back."""

    def __init__(self, features):
        self.scale = Parameter(np.ones(features, np.float32))

    def forward(self, x):
        return apply(RightRowNorm(), x) * self.scale


layer = Scaled(6)
right = minires.gradcheck(layer, x)
print(right)

# %% [markdown]
# ## As plain NumPy
#
# `backward(grad_output, *inputs)` returns one gradient per input.


# %%
def affine(x, weight, bias):
    return x @ weight.T + bias


def affine_backward(grad_output, x, weight, bias):
    return grad_output @ weight, grad_output.T @ x, grad_output.mean(0)


plain = check_arrays(affine, affine_backward, x, rng.standard_normal((3, 6)), rng.standard_normal(3))
print(plain)

# %% [markdown]
# This one is analytic, so its derivative can also be had without subtracting anything: move an input by i h, look at
# the imaginary part. That is exact to the last digits, and forgives a thousand times less.

# %%
exact = check_arrays(np.tanh, lambda grad, x: grad / np.cosh(x) ** 2, x, method="complex", rtol=1e-12)
print(exact)

# %% [markdown]
# ## In your test suite
#
# A pytest plugin comes with MiniRes. In any project that has it installed:
#
# ```python
# def test_my_layer(gradcheck):
#     assert gradcheck(Scaled(6), np.random.default_rng(0).standard_normal((4, 6)))
# ```
#
# `pytest --gradcheck=full` compares every element; a failing `assert` prints what you saw above. With hypothesis:
#
# ```python
# from minires.checking.strategies import check_backward, shapes, tensors
#
# @check_backward(x=tensors(shapes(min_dims=2, max_dims=2, min_side=2)))
# def test_row_norm(x):
#     return apply(RightRowNorm(), x)
# ```
#
# And `minires mutate tests/` plants mistakes into the engine, one after the other, and says which your tests miss, and
# which test finds each of the others. It takes pytest's options: `minires mutate tests -n 2 -m "not slow"`.

# %%
assert not wrong
assert wrong.cause
assert right
assert layer.scale.dtype == np.float32
assert plain.cause == "factor"
assert [comparison.ok for comparison in plain.comparisons] == [True, True, False]
assert exact
