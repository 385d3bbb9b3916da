"""Calling a compiled kernel by its address, so that only what depends on a tile is compiled for each tile.

A convolution is a small micro-kernel within many loops. The micro-kernel is compiled for each tile that some shape asks
for, in a fraction of a second; the loops are compiled once for each dtype, find the micro-kernel's ``address`` in a
record, and ``call`` it. In the same way ``in_parallel`` serves every program.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.extending import intrinsic

from minires_kernels.simd.kinds import NOTHING, Constant

_addresses: dict[tuple[Any, ...], tuple[int, Any]] = {}


def address(function: Any, constant: Any, *examples: Any) -> int:
    """The address of the jitted ``function(constant, ...)`` for arguments like ``examples``.

    ``constant`` is a Vector or a Tile; an example is an integer, or an array of the right dtype and dimension (its
    numbers don't matter). The function is compiled, or loaded from Numba's cache, when it is asked for first.
    """
    kinds = [types.intp if isinstance(item, int) else numba.typeof(item) for item in examples]
    key = (function, constant, *kinds)
    if key not in _addresses:
        arguments = (Constant(constant), *kinds)
        function.compile(arguments)
        compiled = function.overloads[arguments]
        pointer = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        _addresses[key] = pointer, compiled  # which keeps the machine code alive
    return _addresses[key][0]


@intrinsic
def call(typing: Any, pointer: Any, arguments: Any) -> Any:
    """``call(address, (argument, ...))``: the function there, with its constant, then these integers and arrays.

    Nothing checks that they are of the types for which the address was made.
    """
    if not isinstance(arguments, types.BaseTuple):
        raise TypingError(f"simd.call: expected an address and a tuple of arguments, got {arguments}")
    kinds = [types.intp if isinstance(item, types.Integer) else item for item in arguments]

    def emit(context: Any, builder: Any, call_signature: Any, values: Any) -> Any:
        items = [
            context.cast(builder, builder.extract_value(values[1], k), item, kind)
            for k, (item, kind) in enumerate(zip(arguments, kinds, strict=True))
        ]
        all_kinds = (types.int8, *kinds)  # the constant is laid out as one byte
        function_type = context.call_conv.get_function_type(types.void, all_kinds)
        function = builder.inttoptr(values[0], ir.PointerType(function_type))
        status, _ = context.call_conv.call_function(builder, function, types.void, all_kinds, [NOTHING, *items])
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return signature(types.void, pointer, arguments), emit
