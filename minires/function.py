"""Function: the forward and backward pass of one application of one operation, on arrays.

An instance is one application, and it *is* the node of the graph: its ``inputs`` are tensors, and the tensor that it
produced names it as ``creator``. Hyper-parameters are its attributes, set in ``__init__``. To define an operation::

    class Square(Function):
        def forward(self, x):
            self.save_for_backward(x=x)
            return x * x

        def backward(self, grad_output):
            return (2 * self.saved.x * grad_output,)

    y = minires.tensor.apply(Square(), x)

Arrays inside, tensors outside: nothing in a Function sees a Tensor (but ``expand``, which builds a graph).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from minires.display import brief
from minires_kernels.arrays import Array

if TYPE_CHECKING:
    from minires.tensor import Tensor


class Function:
    """One application of an operation: subclass it, write ``forward`` and ``backward``, call ``minires.tensor.apply``.

    - ``forward(*arrays)`` returns one array, of its inputs' floating-point type; or one of integers or booleans, which
      no gradient flows through. An input that is None (an absent bias) arrives as None.
    - ``backward(grad_output)`` returns a tuple: for each input a gradient of its shape and dtype, or None where
      ``needs_input_grad`` is False (or where no gradient flows).
    - Inputs and gradients are values: neither method writes into an array that it was given, and backward keeps none
      that it returns: one may become the ``grad`` of a leaf.
    - A *composite* Function is a fused kernel that knows its textbook form: it also has ``expand(*tensors)``, which
      computes the same from simpler operations. ``apply`` takes that way while a tape records and under
      ``using("reference")``, so that every term can be seen.
    """

    forward: Callable[..., Array]
    backward: Callable[[Array], tuple[Array | None, ...]]
    expand: ClassVar[Callable[..., Tensor] | None] = None
    casts: ClassVar[bool] = False
    """Whether its result may be of another floating-point type than its inputs: the purpose of one Function alone."""

    inputs: tuple[Tensor | None, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    saved: Any = SimpleNamespace()
    number: int = -1
    """Creation number: every input's creator has a smaller one, which is what orders the backward pass."""
    origin: tuple[str, int] | None = None
    """(file, line) of the code that applied it, outside the engine's own core."""
    released: bool = False

    def save_for_backward(self, **arrays: Array | None) -> None:
        """Keep ``arrays``, by name, for ``backward`` to read as ``self.saved.<name>``. Freed after backward."""
        self.saved = SimpleNamespace(**arrays)

    def saved_arrays(self) -> dict[str, Array]:
        """What is kept for backward, by name: for inspection."""
        return {} if self.released else {name: value for name, value in vars(self.saved).items() if value is not None}

    def signature(self) -> Array | None:
        """The discrete choice that a piecewise operation made (which elements ReLU passed, which pixel was largest).

        Two applications with equal signatures lie on the same smooth piece; None for a smooth operation. The gradient
        checker reads it, to tell a kink from a wrong gradient. Read it before the saved arrays are released.
        """
        return None

    def explain(self, *arrays: Array | None) -> str:
        """Why ``forward`` refused ``arrays``, by their shapes, in the user's words; ``""`` where they fit."""
        return ""

    def release(self) -> None:
        """Forget the saved arrays and the inputs, so that their memory can be used again."""
        self.released = True
        self.saved = SimpleNamespace()
        self.inputs = ()

    def where(self) -> str:
        """`` (file:line)`` of the code that applied it, or nothing when it isn't known."""
        return place(self.origin)

    def hyper_parameters(self) -> dict[str, Any]:
        """The attributes that describe this application: those set in ``__init__``, not what the engine adds."""
        return {name: value for name, value in vars(self).items() if not (hasattr(Function, name) or name[0] == "_")}

    def __repr__(self) -> str:
        settings = (f"{name}={described(value)}" for name, value in self.hyper_parameters().items())
        return f"{type(self).__name__}({', '.join(settings)})"


def described(setting: Any) -> str:
    """A hyper-parameter in a few characters; one that is itself a Function by its name."""
    return type(setting).__name__ if isinstance(setting, Function) else brief(setting)


_CORE = tuple(
    f"minires.{name}"
    for name in (
        "function", "vocabulary", "algebra", "shapes", "reductions", "operators", "tensor", "functional", "nn", "optim"
    )
)  # fmt: skip
"""Where somebody's work is done for him: what is applied or changed there has its origin in the first line outside."""


def origin_of_call() -> tuple[str, int] | None:
    """(file, line) of the innermost call that isn't in the engine's own core; None if there is none."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").startswith(_CORE):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def place(origin: tuple[str, int] | None) -> str:
    """`` (file:line)``, or nothing when it isn't known: the end of a phrase in a message."""
    return f" ({origin[0]}:{origin[1]})" if origin else ""
