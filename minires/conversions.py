"""What a Tensor becomes outside of the engine: a number, a list, an array, text, a table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minires.display import html_table
from minires.function import Function
from minires.shapes import Shapes
from minires_kernels.arrays import to_cpu


class Conversions(Shapes):
    """What Python, NumPy and a notebook ask of an object that holds numbers."""

    __slots__ = ()

    if TYPE_CHECKING:
        creator: Function | None

    def item(self) -> float:
        """Its only element as a Python number. Raises ValueError when it has more than one."""
        if self.size != 1:
            raise ValueError(
                f"item: the tensor must have one element, but its shape is {self.shape}; x.tolist() gives all of them"
            )
        return self.data.item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """Its elements as Python numbers, in lists as deep as it has axes."""
        return self.data.tolist()

    def numpy(self) -> np.ndarray[Any, Any]:
        """Its data as a NumPy array; shares memory on the CPU."""
        return to_cpu(self.data)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"bool: a tensor of shape {self.shape} isn't true or false as a whole; "
                "ask for .any() or .all() of it, or take one element's .item()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind == "f" or self.size != 1:
            raise TypeError(
                f"index: only a tensor of one integer can be an index or a length, got {self.shape} {self.dtype}"
            )
        return int(self.item())

    def __format__(self, form: str) -> str:
        """Its repr; or its only element in a number's own format, as in ``f"{loss:.3f}"``."""
        return format(self.item(), form) if form else repr(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.requires_grad:
            raise RuntimeError(
                "numpy.asarray: the tensor requires a gradient, which NumPy would lose; use tensor.data or, to join "
                "tensors, minires.functional.stack or concatenate"
            )
        return np.array(to_cpu(self.data), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        made = f", {self.creator!r}" if self.creator is not None else ", requires_grad" if self.requires_grad else ""
        return f"{type(self).__name__}({self._content()}, {self.shape} {self.dtype}{made})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each of its properties."""
        rows = [("shape", str(self.shape)), ("dtype", str(self.dtype)), ("data", self._content())]
        if self.creator is not None:
            rows.append(("made by", f"{self.creator!r}{self.creator.where()}"))
        rows.append(("requires grad", str(self.requires_grad)))
        return html_table((), rows, left=(0, 1), title=type(self).__name__)

    def _content(self) -> str:
        """Its numbers in a line or, of more than 8, what sums them up."""
        if self.size <= 8:
            return " ".join(np.array2string(to_cpu(self.data), precision=4, separator=", ").split())
        if self.dtype.kind != "f":
            return "..."
        with np.errstate(all="ignore"):  # infinities have no standard deviation
            return f"mean {float(self.data.mean()):.4g}, std {float(self.data.std()):.4g}"
