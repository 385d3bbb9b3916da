# %% [markdown]
# # 1 · A tensor and its graph
#
# **Question.** You write `loss = ...`, call `loss.backward()`, and every weight has its gradient, although nobody
# wrote down a derivative. An array holds numbers. What more must a *tensor* hold to make that possible?
#
# Our example is a residual block made as small as it gets, `y = relu(x w) + x`, followed by a loss, the mean of y².
# (The block of He et al. 2015, eq. 1, has two weight layers in front of the addition; tutorial 5 builds it.)

# %% [markdown]
# ## The smallest version: a recipe
#
# NumPy computes `y` and forgets how. So let us write it down: one line per operation, with the name of what it makes,
# the operation, and the names of what it takes.

# %%
import numpy as np

import minires

RECIPE = [
    ("product", "MatMul", "x", "w"),
    ("residual", "ReLU", "product"),
    ("y", "Add", "residual", "x"),
    ("square", "Mul", "y", "y"),
    ("loss", "Mean", "square"),
]
OPERATIONS = {
    "MatMul": np.matmul,
    "ReLU": lambda values: np.maximum(values, 0),
    "Add": np.add,
    "Mul": np.multiply,
    "Mean": np.mean,
}


def cook(**values):
    for output, operation, *inputs in RECIPE:
        values[output] = OPERATIONS[operation](*(values[name] for name in inputs))
    return values


rng = np.random.default_rng(1)
x, w = rng.standard_normal((2, 3)), rng.standard_normal((3, 3))
print("How often does the recipe use each ingredient?")
for name in cook(x=x, w=w):
    uses = [output for output, _, *inputs in RECIPE for used in inputs if used == name]
    print(f"  {name:9}{len(uses)}   {'to make ' + ' and '.join(uses) if uses else '(it is the meal)'}")

# %% [markdown]
# `x` is used twice: to make the product and to make `y`. That is all a skip connection *is* to an engine: not a
# special wire, but a tensor with two consumers. (`y` has two uses as well: both factors of the square.)
#
# A recipe can be cooked again with a pinch more of something, and that is a derivative: change one weight a little,
# look how much the loss changes. It is slow (two cookings per weight, and ResNet-110 has 1.7 million weights), but
# there is no calculus in it that could go wrong.


# %%
def slope(row, column, pinch=1e-6):
    change = np.zeros_like(w)
    change[row, column] = pinch
    return (cook(x=x, w=w + change)["loss"] - cook(x=x, w=w - change)["loss"]) / (2 * pinch)


slopes = np.array([[slope(row, column) for column in range(3)] for row in range(3)])
print("\nHow the loss answers to a pinch more of each weight:")
print(slopes.round(4))

# %% [markdown]
# ## The library's version
#
# A `Tensor` is an array plus one line of the recipe: `tensor.creator` is the `Function` that made it, and
# `creator.inputs` are the tensors it was made of. Follow these two and the whole recipe unrolls from the loss alone.

# %%
x_tensor, w_tensor = minires.Tensor(x, requires_grad=True), minires.Parameter(w)
y = minires.functional.relu(x_tensor @ w_tensor) + x_tensor
loss = (y * y).mean()
names = {x_tensor: "x", w_tensor: "w", y: "y", loss: "loss"}


def draw(tensor, indent="  ", drawn=None):
    drawn = set() if drawn is None else drawn
    made = type(tensor.creator).__name__ if tensor.creator else "leaf, made by nobody"
    label = " = ".join([names[tensor], made] if tensor in names else [made])
    print(indent + (f"{names[tensor]}, again: its second consumer" if tensor in drawn else label))
    if tensor not in drawn and tensor.creator:
        drawn.add(tensor)
        for source in tensor.creator.inputs:
            draw(source, indent + "   ", drawn)
    drawn.add(tensor)


print("\nThe graph, read from the loss backwards:")
draw(loss)

# %% [markdown]
# Each Function carries two more things: a *creation number*, which tutorial 2 needs, and the arrays that its backward
# will ask for. Those arrays are why training takes more memory than evaluation.

# %%
functions, found = [], [loss]
while found:
    creator = found.pop().creator
    if creator and creator not in functions:
        functions.append(creator)
        found.extend(creator.inputs)
functions.sort(key=lambda function: function.number)
print("\nThe recipe again, this time collected from the graph:")
for function in functions:
    kept = " and ".join(str(array.shape) for array in function.saved_arrays().values())
    print(f"  number {function.number - functions[0].number}  {type(function).__name__:7} keeps {kept or 'nothing'}")
operations_in_order = [type(function).__name__ for function in functions]

loss.backward()
try:
    loss.backward()
except RuntimeError as error:
    print(f"\nThe walk back lets go of what was kept. A second walk is told: {str(error).split('; ')[-1]}.")
with minires.no_grad():
    print(f"And under no_grad() nothing is written down at all: creator = {(x_tensor @ w_tensor).creator}")

# %% [markdown]
# ## Do they agree?
# The operations, the loss, and the gradient of every weight, one walk against eighteen cookings:

# %%
assert operations_in_order == [operation for _, operation, *_ in RECIPE]
assert np.isclose(loss.item(), cook(x=x, w=w)["loss"], rtol=1e-12)
assert np.allclose(w_tensor.grad, slopes, rtol=1e-7, atol=1e-9)
print(f"\nRecipe and library agree: the gradients differ by at most {abs(w_tensor.grad - slopes).max():.0e}.")

# %% [markdown]
# ## Exercise: the loss is right, and nothing learns
# This block computes the same loss, raises no error, and gives `x` a gradient. Yet `w` gets none.
# Draw its graph, find the line that tears it, and mend it. (All answers: `tests/test_tutorials.py`.)

# %%
w_broken = minires.Parameter(w)
product = x_tensor @ w_broken
residual = minires.Tensor(np.maximum(product.data, 0))
(((residual + x_tensor) * (residual + x_tensor)).mean()).backward()
mended = w_broken.grad is not None and np.allclose(w_broken.grad, slopes)
print("Exercise:", "mended, well done!" if mended else f"still torn: the gradient of w is {w_broken.grad}")
