"""Small graphs to put on a tape."""

from __future__ import annotations

import numpy as np

from minires import Tensor, functional, models, nn, optim, record


def leaf(*shape, seed=0, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def one_step(name, dtype, recording):
    """Loss, gradients and state of one training step of a small net; ``recording``: None, or record()'s ``check``."""
    net = models.create(name, widths=(3, 4, 6)).astype(dtype)
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = Tensor(np.random.default_rng(5).standard_normal((3, 3, 6, 7)).astype(dtype))

    def step():
        loss = functional.cross_entropy(net(images), np.array([1, 7, 4]))
        loss.backward()
        optimizer.step()
        return loss.data

    if recording is None:
        loss = step()
    else:
        with record(check=recording):
            loss = step()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"loss": loss, **net.state_dict(), **{f"grad of {name}": grad for name, grad in gradients.items()}}


class Net(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(3)
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, rng=rng)
        self.branches = [nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), nn.Identity()]
        self.scale = np.full(3, 2.0, np.float32)

    def forward(self, x):
        x = self.conv(x)
        x = self.branches[0](x) + self.branches[1](x)
        return (x * Tensor(self.scale).reshape(1, 3, 1, 1)).sum()


def recorded_net(shape=(2, 2, 5, 4)):
    net, x = Net(), leaf(*shape, dtype=np.float32)
    with record() as tape:
        net(x).backward()
    return net, x, tape
