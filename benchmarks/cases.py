"""What the kernel benchmark measures: for each family, calls of its contract on the shapes of the papers' nets.

A case knows how to make fresh inputs, its cost by the family's contract, and, where PyTorch has the same operation, the
same call in PyTorch on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires_kernels import Window, activation, convolution, cross_entropy, normalization, patches, pooling, update
from minires_kernels.arrays import channels_last

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One call: ``kernel`` of ``family`` on the arguments that ``inputs(rng)`` makes.

    ``cost`` is (floating-point operations, bytes). ``peer(torch, *arguments)`` returns a function without arguments
    that does the same in PyTorch (channels-last) and returns an array or a tuple, or None where there is no such thing.
    ``products``: multiplications of an implementation over those that ``cost`` counts, where it does fewer. They are
    what the roofline bounds.
    """

    family: str
    kernel: str
    name: str
    inputs: Callable[[Rng], tuple[Any, ...]]
    cost: tuple[int, int]
    peer: Callable[..., Callable[[], Any]] | None = None
    products: dict[str, float] = field(default_factory=dict)


def images(rng: Rng, *shape: int) -> np.ndarray[Any, Any]:
    """Random float32 images, channels-last in memory."""
    return channels_last(rng.standard_normal(shape, np.float32))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Layer:
    """A convolution of one of the nets: batch, channels in and out, image side, kernel size, stride."""

    net: str
    N: int
    C: int
    O: int
    side: int
    size: int = 3
    stride: int = 1

    @property
    def window(self) -> Window:
        """Padded so that stride 1 keeps the size."""
        return Window.of(self.size, stride=self.stride, padding=self.size // 2)

    @property
    def products(self) -> dict[str, float]:
        """Multiplications of Winograd's algorithms over those of the direct sum, for 3x3 windows."""
        return {"winograd2_cpu": 25 / 36} if self.stride == 2 else {"winograd2_cpu": 16 / 36, "winograd4_cpu": 36 / 144}

    def choice(self, kernel: str) -> convolution.Choice:
        """The algorithm that ``convolution`` tries first for ``kernel`` of this layer, and why."""
        output = self.N, *self.window.output_size(self.side, self.side)
        return convolution.first_choice(kernel, "float32", (self.C, self.O), output, self.window, 1)

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.net} {self.size}x{self.size}{stride} {self.C}->{self.O} @{self.side} N={self.N}"


LAYERS = (
    Layer("cifar", 128, 3, 16, 32),
    Layer("cifar", 128, 16, 16, 32),
    Layer("cifar", 128, 16, 32, 32, stride=2),
    Layer("cifar", 128, 32, 32, 16),
    Layer("cifar", 128, 32, 64, 16, stride=2),
    Layer("cifar", 128, 64, 64, 8),
    Layer("imagenet", 8, 3, 64, 224, size=7, stride=2),
    Layer("imagenet", 8, 64, 64, 56),
    Layer("imagenet", 8, 64, 128, 56, stride=2),
    Layer("imagenet", 8, 128, 128, 28),
    Layer("imagenet", 8, 128, 256, 28, stride=2),
    Layer("imagenet", 8, 256, 256, 14),
    Layer("imagenet", 8, 256, 512, 14, stride=2),
    Layer("imagenet", 8, 512, 512, 7),
    Layer("imagenet", 8, 64, 128, 56, size=1, stride=2),
)


def convolution_cases() -> Iterator[Case]:
    """The three kernels on each layer."""
    for layer in LAYERS:
        window, (N, C, O, side) = layer.window, (layer.N, layer.C, layer.O, layer.side)
        OH, OW = window.output_size(side, side)
        x_shape, weight_shape, y_shape = (N, C, side, side), (O, C, layer.size, layer.size), (N, O, OH, OW)
        cost = convolution.cost(x_shape, weight_shape, window)

        def forward(rng: Rng, x: Any = x_shape, w: Any = weight_shape, window: Window = window) -> tuple[Any, ...]:
            return images(rng, *x), rng.standard_normal(w, np.float32), window, 1

        def grad_input(
            rng: Rng, x: Any = x_shape, w: Any = weight_shape, y: Any = y_shape, window: Window = window
        ) -> tuple[Any, ...]:
            return images(rng, *y), rng.standard_normal(w, np.float32), x, window, 1

        def grad_weight(rng: Rng, x: Any = x_shape, y: Any = y_shape, window: Window = window) -> tuple[Any, ...]:
            return images(rng, *y), images(rng, *x), window, 1

        yield Case("convolution", "forward", str(layer), forward, cost, _torch_forward, layer.products)
        if C > 3:  # nobody needs the gradient of the images
            yield Case("convolution", "grad_input", str(layer), grad_input, cost, _torch_grad_input, layer.products)
        yield Case("convolution", "grad_weight", str(layer), grad_weight, cost, _torch_grad_weight, layer.products)


def _torch_forward(torch: Any, x: Any, weight: Any, window: Window, groups: int) -> Callable[[], Any]:
    x, weight = _to_torch(torch, x), _to_torch(torch, weight)
    return lambda: torch.nn.functional.conv2d(x, weight, stride=window.stride, padding=window.padding)


def _torch_grad_input(
    torch: Any, grad: Any, weight: Any, x_shape: tuple[int, ...], window: Window, groups: int
) -> Callable[[], Any]:
    grad, weight = _to_torch(torch, grad), _to_torch(torch, weight)
    x = torch.empty(x_shape).to(memory_format=torch.channels_last)
    return lambda: _torch_backward(torch, grad, x, weight, window, (True, False, False))[0]


def _torch_grad_weight(torch: Any, grad: Any, x: Any, window: Window, groups: int) -> Callable[[], Any]:
    grad, x = _to_torch(torch, grad), _to_torch(torch, x)
    weight = torch.empty((grad.shape[1], x.shape[1], *window.size)).to(memory_format=torch.channels_last)
    return lambda: _torch_backward(torch, grad, x, weight, window, (False, True, False))[1]


def _torch_backward(torch: Any, grad: Any, x: Any, weight: Any, window: Window, wanted: tuple[bool, ...]) -> Any:
    geometry = window.stride, window.padding, window.dilation, False, (0, 0), 1
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, wanted)


def _to_torch(torch: Any, array: Any) -> Any:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


MAPS = ((128, 16, 32, 32), (128, 32, 16, 16), (128, 64, 8, 8), (8, 64, 56, 56))
"""The activations of the CIFAR nets' stages and of the first ImageNet stage."""


def normalization_cases() -> Iterator[Case]:
    """Batch statistics; normalize and its backward, alone and fused with addition and ReLU."""
    for shape in MAPS:
        C, name = shape[1], "x".join(map(str, shape))

        def statistics(rng: Rng, shape: tuple[int, ...] = shape) -> tuple[Any, ...]:
            return (images(rng, *shape),)

        def forward(rng: Rng, fused: bool = False, shape: tuple[int, ...] = shape, C: int = C) -> tuple[Any, ...]:
            parameters = (rng.standard_normal(C, np.float32) for _ in range(2))
            return (*_normalized(rng, shape), *parameters, images(rng, *shape) if fused else None, fused)

        def backward(rng: Rng, fused: bool = False, shape: tuple[int, ...] = shape, C: int = C) -> tuple[Any, ...]:
            output = images(rng, *shape) if fused else None
            grad = images(rng, *shape)
            return grad, *_normalized(rng, shape), rng.standard_normal(C, np.float32), output, fused

        cost = normalization.cost
        yield Case("normalization", "batch_statistics", name, statistics, cost("batch_statistics", shape))
        yield Case("normalization", "normalize", name, forward, cost("normalize", shape))
        yield Case("normalization", "batch_norm_backward", name, backward, cost("batch_norm_backward", shape))
        for kernel, make in (("normalize", forward), ("batch_norm_backward", backward)):
            yield Case(
                "normalization",
                kernel,
                f"{name} + add + relu",
                lambda rng, make=make: make(rng, True),  # type: ignore[misc]
                cost(kernel, shape, relu=True, addend=True),
            )


def _normalized(rng: Rng, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    x = images(rng, *shape)
    return x, x.mean((0, 2, 3)), 1 / x.std((0, 2, 3))


def activation_cases() -> Iterator[Case]:
    """Each elementwise kernel on each map."""
    for shape in MAPS:
        for kernel in activation.KERNELS:
            count = 1 if kernel == "relu" else 2

            def inputs(rng: Rng, shape: tuple[int, ...] = shape, count: int = count) -> tuple[Any, ...]:
                return tuple(images(rng, *shape) for _ in range(count))

            yield Case("activation", kernel, "x".join(map(str, shape)), inputs, activation.cost(kernel, shape))


def patches_cases() -> Iterator[Case]:
    """im2col and col2im on two of the layers (the column matrix is KH KW times the image)."""
    for layer in (LAYERS[1], LAYERS[5]):
        x_shape, window = (layer.N, layer.C, layer.side, layer.side), layer.window
        columns = (layer.N, layer.C * layer.size**2, window.output_size(layer.side, layer.side)[0] ** 2)

        def im2col(rng: Rng, x: Any = x_shape, window: Window = window) -> tuple[Any, ...]:
            return rng.standard_normal(x, np.float32), window

        def col2im(rng: Rng, x: Any = x_shape, columns: Any = columns, window: Window = window) -> tuple[Any, ...]:
            return rng.standard_normal(columns, np.float32), x, window

        for kernel, make in (("im2col", im2col), ("col2im", col2im)):
            yield Case("patches", kernel, str(layer), make, patches.cost(kernel, x_shape, window))


def pooling_cases() -> Iterator[Case]:
    """The ImageNet stem's max pooling."""
    x_shape, window = (8, 64, 112, 112), Window.of(3, stride=2, padding=1)

    def forward(rng: Rng) -> tuple[Any, ...]:
        return images(rng, *x_shape), window, False

    def backward(rng: Rng) -> tuple[Any, ...]:
        output, argmax = pooling.max_pool(images(rng, *x_shape), window)
        return images(rng, *output.shape), argmax, x_shape

    for kernel, make in (("max_pool", forward), ("max_pool_backward", backward)):
        yield Case("pooling", kernel, "imagenet stem 3x3/2 @112", make, pooling.cost(kernel, x_shape, window))


def update_cases() -> Iterator[Case]:
    """SGD with momentum on as many parameters as ResNet-20 and ResNet-18 have."""
    for net, size in (("resnet20", 269_722), ("resnet18", 11_689_512)):

        def inputs(rng: Rng, size: int = size) -> tuple[Any, ...]:
            arrays = (rng.standard_normal(size, np.float32) for _ in range(3))
            return *arrays, 1e-3, 0.9, 1e-4, False, False

        yield Case("update", "sgd", net, inputs, update.cost(size))


def cross_entropy_cases() -> Iterator[Case]:
    """The losses of a batch of CIFAR-10 and of one of ImageNet."""
    for N, K in ((128, 10), (8, 1000)):

        def forward(rng: Rng, N: int = N, K: int = K) -> tuple[Any, ...]:
            return rng.standard_normal((N, K), np.float32), rng.integers(0, K, N), 0.0

        def backward(rng: Rng, N: int = N, K: int = K) -> tuple[Any, ...]:
            logits, target, smoothing = forward(rng, N, K)
            share = rng.standard_normal(N, np.float32)
            return cross_entropy.cross_entropy(logits, target, smoothing)[1], target, smoothing, share

        for kernel, make in (("cross_entropy", forward), ("cross_entropy_backward", backward)):
            yield Case("cross_entropy", kernel, f"{N}x{K}", make, cross_entropy.cost(kernel, N, K))


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "activation": activation_cases,
    "convolution": convolution_cases,
    "cross_entropy": cross_entropy_cases,
    "normalization": normalization_cases,
    "patches": patches_cases,
    "pooling": pooling_cases,
    "update": update_cases,
}
