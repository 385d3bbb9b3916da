"""Three vector operations that only the maximum needs: NaN wins, and places are integers.

Vectors hold floating-point numbers, which can't count beyond 2^24 in single precision. A vector of places holds the
*bits* of integers instead: whoever chooses between lanes doesn't ask what they mean.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minires_kernels.simd.emit import Code, VectorType, check_vectors, emitter, vector_type


def _integers(kind: VectorType) -> ir.VectorType:
    """Integers of the size of the vector's numbers."""
    return ir.VectorType(ir.IntType(kind.element.bitwidth), kind.lanes)


def _splat(builder: Any, integers: ir.VectorType, number: Any) -> Any:
    """``number``, of which the lowest bits are taken, in every lane."""
    undefined, nought = ir.Constant(integers, ir.Undefined), ir.IntType(32)(0)
    lowest = number if number.type == integers.element else builder.trunc(number, integers.element)
    first = builder.insert_element(undefined, lowest, nought)
    order = ir.Constant(ir.VectorType(ir.IntType(32), integers.count), [0] * integers.count)
    return builder.shuffle_vector(first, undefined, order)


@intrinsic
def broadcast_place(typing: Any, kind: Any, place: Any) -> Any:
    """``broadcast_place(kind, place)``: the integer ``place`` in every lane, as bits."""
    result = vector_type(kind)

    def body(code: Code, _: Any, number: Any) -> Any:
        return code.builder.bitcast(_splat(code.builder, _integers(result), number), result.llvm)

    return result(kind, types.intp), emitter(result, body)


@intrinsic
def where_beats(typing: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """``where_beats(a, b, x, y)``: x where a > b or a is the first NaN (b is none), else y."""
    kind = check_vectors(a, b, x, y)

    def body(code: Code, number: Any, best: Any, yes: Any, no: Any) -> Any:
        builder = code.builder
        first_nan = builder.and_(builder.fcmp_unordered("uno", number, number), builder.fcmp_ordered("ord", best, best))
        return builder.select(builder.or_(builder.fcmp_ordered(">", number, best), first_nan), yes, no)

    return kind(a, b, x, y), emitter(kind, body)


@intrinsic
def store_places(typing: Any, value: Any, places: Any, i: Any, origin: Any, count: Any) -> Any:
    """``store_places(value, places, i, origin, count)``: places[i : i + count] = origin + the places in ``value``."""
    kind = check_vectors(value)
    integers = ir.VectorType(ir.IntType(32), kind.lanes)

    def body(code: Code, item: Any, array: Any, at: Any, start: Any, valid: Any) -> None:
        builder = code.builder
        bits = builder.bitcast(item, _integers(kind))
        result = builder.add(builder.trunc(bits, integers) if bits.type != integers else bits,
                             _splat(builder, integers, start))  # fmt: skip
        pointer = builder.bitcast(code.pointer(places, array, at), integers.as_pointer())
        arguments = [result, pointer, ir.IntType(32)(4), code.mask(valid)]
        function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        name = f"llvm.masked.store.v{kind.lanes}i32.p0"
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)

    return types.void(value, places, types.intp, types.intp, types.intp), emitter(kind, body)
