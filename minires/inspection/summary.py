"""What a net consists of, layer by layer: shapes, parameters and multiply-adds, as far as it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import nn
from minires.display import html_table
from minires.function import Function
from minires.graph import no_grad, watch
from minires.inspection.text import shape_text, table
from minires.nn import Module
from minires.tensor import Tensor
from minires_kernels.arrays import Array


@dataclass
class Layer:
    """A row: a module without children. ``multiply_adds`` counts convolutions and linear layers, for one image."""

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


_HEADERS = ("layer", "kind", "input", "output", "parameters", "multiply-adds")
_LEFT = (0, 1)


@dataclass
class Summary:
    """The rows of a net; ``error`` is what stopped it, if something did: then the rows are those before it."""

    layers: list[Layer]
    parameters: int
    error: Exception | None
    failed: str

    def __str__(self) -> str:
        return f"{table(_HEADERS, self._rows(), left=_LEFT)}\n\n{self._outcome()}"

    def __repr__(self) -> str:
        return f"Summary({len(self.layers)} layers, {self._outcome()}; print(summary) shows each)"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each layer, of a deep net for the first and the last."""
        whole = "print(summary) shows all"
        return html_table(_HEADERS, self._rows(), left=_LEFT, title=self._outcome(), whole=whole)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (layer.name, layer.kind, shape_text(layer.input_shape), shape_text(layer.output_shape),
             f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
            for layer in self.layers
        ]  # fmt: skip

    def _outcome(self) -> str:
        """The totals, or what stopped the net."""
        if self.error is not None:
            return f"{self.failed} failed: {self.error}"
        multiply_adds = sum(layer.multiply_adds for layer in self.layers)
        return f"{self.parameters:,} parameters, {multiply_adds:,} multiply-adds per image"


def summary(net: Module, shape: Sequence[int]) -> Summary:
    """Run ``net`` on a zero image of ``shape`` (C, H, W), in evaluation mode, and note each layer that it passes.

    A layer that fails ends the list: what ran before it is in the result, and so is the error.
    """
    watcher = _Watcher(net)
    error: Exception | None = None
    with net.keep_modes():
        net.eval()
        try:
            with no_grad(), watch(watcher):
                net(Tensor(np.zeros((1, *shape), np.float32)))
        except Exception as failure:  # shown with the rows before it, which is what the reader needs
            error = failure
    total = sum(parameter.size for parameter in net.parameters())
    return Summary(watcher.layers, total, error, watcher.failed)


class _Watcher:
    """Notes each leaf module's first input and last output while the net runs."""

    def __init__(self, net: Module) -> None:
        self.names = {id(module): name or "the net" for name, module in net.named_modules()}
        self.layers: list[Layer] = []
        self.stack: list[str] = []
        self.failed = "the net"
        self._first: tuple[int, ...] | None = None
        self._last: tuple[int, ...] = ()
        self._outer_error = sys.exc_info()[1]

    def on_forward(self, function: Function, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        if self._first is None and inputs[0] is not None:
            self._first = inputs[0].shape
        self._last = output.shape

    def enter(self, module: Any) -> None:
        self.stack.append(self.names.get(id(module), type(module).__name__))
        self._first = None

    def leave(self, module: Any) -> None:
        name = self.stack.pop()
        error = sys.exc_info()[1]
        if error is not None and error is not self._outer_error:
            if self.failed == "the net":  # the innermost module leaves first
                self.failed = name
            return
        if self._first is None or next(module.named_children(), None) is not None:
            return
        parameters = sum(parameter.size for parameter in module.parameters())
        kind = type(module).__name__
        self.layers.append(Layer(name, kind, self._first, self._last, parameters, self._work(module)))

    def _work(self, module: Module) -> int:
        if isinstance(module, nn.Conv2d):
            return module.weight.size * self._last[2] * self._last[3]
        return module.weight.size if isinstance(module, nn.Linear) else 0

    def on_contribution(self, tensor: Tensor, consumer: Function | None, slot: int, grad: Array) -> None:
        """Nothing: there is no backward pass."""

    def on_gradient(self, tensor: Tensor, grad: Array) -> None:
        """Nothing."""

    def on_release(self, function: Function) -> None:
        """Nothing."""
