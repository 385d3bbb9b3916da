# %% [markdown]
# # Checking gradients
#
# A backward pass is a claim: *this is the derivative of that forward pass*. The claim can be tested. Move the input a
# little in some direction $d$, look how the output moves, and compare:
#
# $$\langle v, J d\rangle = \langle J^T v, d\rangle$$
#
# The left side needs the forward pass only; the right side is what backward computes for the upstream gradient $v$.

# %%
import numpy as np

import minires
from minires import Function, functional

rng = np.random.default_rng(0)
x = rng.standard_normal((4, 3))


class Square(Function):
    def forward(self, x):
        self.save_for_backward(x=x)
        return x * x

    def backward(self, grad_output):
        return (2 * self.saved.x * grad_output,)


print(minires.gradcheck(Square, x))

# %% [markdown]
# ## How small is "a little"?
#
# A difference quotient has two errors. *Truncation*: the function isn't a line; it shrinks with $h^2$. *Rounding*: two
# nearly equal numbers are subtracted; it grows with $1/h$. Between the two slopes lies a valley, and it is found by
# measuring, not by knowing a magic number.

# %%
point, right = 1.0, np.exp(1.0)
print("  step      error of the central difference of exp at 1")
for power in range(1, 13):
    h = 10.0**-power
    quotient = (np.exp(point + h) - np.exp(point - h)) / (2 * h)
    print(f"  1e-{power:02d}  {abs(quotient - right):.1e}  {'#' * int(16 + np.log10(abs(quotient - right) + 1e-16))}")

# %% [markdown]
# ## Why an upstream gradient of ones lies
#
# Many checks take $v = 1$, the gradient of `output.sum()`. Then a backward pass that hands the gradients to the *wrong
# images* is right: the sum doesn't care. A random $v$ does.


# %%
class WrongImages(Function):
    def forward(self, x):
        return np.tanh(x)

    def backward(self, grad_output):
        return (grad_output[::-1] * (1 - np.tanh(self.inputs[0].data) ** 2),)


h, by_hand = 1e-5, np.zeros_like(x)
for index in np.ndindex(x.shape):
    moved = x.copy()
    moved[index] += h
    above = np.tanh(moved).sum()
    moved[index] -= 2 * h
    by_hand[index] = (above - np.tanh(moved).sum()) / (2 * h)
tensor = minires.Tensor(x, requires_grad=True)
minires.tensor.apply(WrongImages(), tensor).backward(np.ones(x.shape))
fooled = np.allclose(tensor.grad, by_hand)
print("a check with ones is content:", fooled)
report = minires.gradcheck(WrongImages, x)
print(report)

# %% [markdown]
# ## Kinks
#
# At 0 the ReLU has no derivative: from the left its slope is 0, from the right 1. A difference quotient says 1/2, and
# a naive check calls a right backward wrong. Here every piecewise operation tells which piece it was on; a quotient
# counts only if all three points lie on the same one. What lies on the kink is left out, counted, and named.

# %%
on_kinks = minires.gradcheck(functional.relu, np.array([0.0, 1e-4, 1.0, -2.0, 0.0]))
print(on_kinks)

# %%
assert minires.gradcheck(Square, x)
assert fooled
assert not report
assert report.cause == "permuted"
assert on_kinks
assert on_kinks.excluded == 2
