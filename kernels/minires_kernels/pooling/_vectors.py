"""Two vector operations that only the maximum needs: NaN wins, and places are stored as integers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minires_kernels.simd.emit import Code, check_vectors, emitter


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
    """``store_places(value, places, i, origin, count)``: places[i : i + count] = origin + value, as int32."""
    kind = check_vectors(value)
    integers = ir.VectorType(ir.IntType(32), kind.lanes)

    def body(code: Code, item: Any, array: Any, at: Any, start: Any, valid: Any) -> None:
        builder = code.builder
        first = builder.insert_element(
            ir.Constant(integers, ir.Undefined), builder.trunc(start, ir.IntType(32)), ir.IntType(32)(0)
        )
        starts = builder.shuffle_vector(
            first, ir.Constant(integers, ir.Undefined), ir.Constant(integers, [0] * kind.lanes)
        )
        result = builder.add(builder.fptosi(item, integers), starts)
        pointer = builder.bitcast(code.pointer(places, array, at), integers.as_pointer())
        arguments = [result, pointer, ir.IntType(32)(4), code.mask(valid)]
        function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        name = f"llvm.masked.store.v{kind.lanes}i32.p0"
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)

    return types.void(value, places, types.intp, types.intp, types.intp), emitter(kind, body)
