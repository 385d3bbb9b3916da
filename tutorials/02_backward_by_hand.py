# %% [markdown]
# # 2 · Backward by hand
#
# **Question.** Going forward, `x` takes two ways through a residual block: through F, and past it. Going backward, two
# contributions come home to `x`, at different times. What happens to an engine that doesn't wait for both?
#
# Numbers instead of arrays, small enough to check in your head:
#
# ```
#             ┌── h = 2x ── r = h/4 ──┐
# u ── x = 3u ┤                       + y = r + x ── E = y²/2
#             └───────────────────────┘
# ```

# %% [markdown]
# ## The smallest version: local slopes
#
# The chain rule needs one slope for each wire. At u = 2 we have x = 6, h = 12, r = 3, y = 9 and E = 40.5, so the wire
# from y to E has slope dE/dy = y = 9; the other slopes can be read off the drawing. Both wires into the addition
# have slope 1: an addition hands the *same* gradient to both of its inputs.

# %%
import numpy as np

import minires

WIRES = {  # node: (the node that it was made from, local slope) for each of its inputs
    "E": [("y", 9.0)],
    "y": [("r", 1.0), ("x", 1.0)],
    "r": [("h", 0.25)],
    "h": [("x", 2.0)],
    "x": [("u", 3.0)],
}


def walk_back(order, tell=False):
    grad = dict.fromkeys("Eyrhxu", 0.0) | {"E": 1.0}
    for node in order:
        for source, slope in WIRES[node]:
            grad[source] += slope * grad[node]
            if tell:
                print(f"  {node} sends {slope * grad[node]:5} to {source}, whose gradient is now {grad[source]}")
    return grad


def energy(u):
    x = 3 * u
    return (x / 2 + x) ** 2 / 2


truth = (energy(2 + 1e-4) - energy(2 - 1e-4)) / 2e-4
print(f"Without any chain rule, from E at u = 2 ± 0.0001: dE/du = {truth:.4f}\n\nIn the order E y r h x:")
walk_back("Eyrhx", tell=True)

# %% [markdown]
# 40.5, as it should be. Look at the two lines that end in `x`: 9 came past F and 4.5 came through it. Together they
# are 9 · (1 + ½): eq. (5) of He et al. 2016 for one block, ∂E/∂x = ∂E/∂y · (1 + ∂F/∂x).
#
# ## The same walk in the wrong order
#
# The skip connection is the shorter way, so its contribution arrives first. An eager engine serves `x` at once:

# %%
print("\nIn the order E y x r h:")
walk_back("Eyxrh", tell=True)
print("\norder         dE/dx   dE/du")
for order, comment in [
    ("Eyrhx", "x waits for both contributions: right"),
    ("Eyxrh", "x is served after the first: what came through F never gets to u"),
    ("Eyxrhx", "x is served after each: what came past F gets to u twice"),
]:
    grad = walk_back(order)
    print(f"{' '.join(order):12} {grad['x']:6} {grad['u']:7}   {comment}")

# %% [markdown]
# Mind how well the mistake hides. No error, no odd shape, and dE/dx is right in all three rows: the second contribution
# did arrive, but `x` had already passed on what it had. Only what lies *below* the skip connection is wrong: in a
# residual net, everything but the last block. In a plain net nothing is: there is only one order.
#
# Or let every contribution travel on alone, all the way down? That is right, and hopeless: each block doubles the ways.


# %%
def ways(blocks):
    return 1 if blocks == 0 else 2 * ways(blocks - 1)


print("\nblocks   steps when nodes wait   steps when each way is walked alone")
for blocks in (1, 3, 54):
    print(f"{blocks:6}{4 * blocks:18}{ways(blocks):36,}{'   (54: ResNet-110)' if blocks == 54 else ''}")

# %% [markdown]
# So: **a node may pass its gradient on only when all its consumers have sent theirs.** An order that respects this is
# called *topological*.
#
# ## The library's version
#
# MiniRes gets such an order for nothing. Each Function has a creation number; nothing can be used before it was
# made, so consumers have larger numbers than what they consume, and walking from the largest number downwards is
# topological.

# %%
u = minires.Tensor(np.array(2.0), requires_grad=True)
x = (3 * u).retain_grad()  # an intermediate tensor has to be asked to keep its gradient
h = 2 * x
r = h / 4
y = r + x
E = y * y / 2
makers = {"E": E.creator, "y": y.creator, "r": r.creator, "h": h.creator, "x": x.creator}
by_number = sorted(makers, key=lambda name: makers[name].number, reverse=True)
E.backward()
print(f"\nBy falling creation number: {' '.join(by_number)}, with dE/dx = {x.grad} and dE/du = {u.grad}")

start = minires.Tensor(np.array(1.0), requires_grad=True)
end = start
for _ in range(1000):
    end = end + end * 0.001  # a residual block of slope 1 + 0.001
end.backward()
print(f"1,000 blocks of slope 1 + 1/1000: {float(start.grad):.6f}, which is (1 + 1/1000)^1000, nearly e")

# %%
right = walk_back(by_number)  # the smallest version, in the library's order
assert np.allclose([x.grad, u.grad], [right["x"], right["u"]])
assert np.allclose([u.grad, start.grad], [truth, 1.001**1000])

# %% [markdown]
# ## Exercise: the impatient engine
# A backward pass of our own, on MiniRes's graph. It is right for every plain net, right even for `y = F(x) + x` while F
# is a single operation, and wrong below. Which line is impatient? Changing that line alone mends it.


# %%
def backward(output):
    grads, waiting = {output: np.ones_like(output.data)}, [output]
    while waiting:
        tensor = waiting[0]
        waiting = [other for other in waiting if other is not tensor]  # `remove` would compare their numbers
        for source, grad in zip(tensor.creator.inputs, tensor.creator.backward(grads[tensor]), strict=True):
            if source not in grads and source.creator:
                waiting.append(source)
            if grad is not None:
                grads[source] = grads.get(source, 0) + grad
    return grads


u = minires.Tensor(np.array(2.0), requires_grad=True)
x = 3 * u
y = x * 2 / 4 + x
slope = backward(y * y / 2)[u]
print("Exercise:", "mended, well done!" if np.isclose(slope, truth) else f"dE/du is {slope}, still not {truth:.1f}")
