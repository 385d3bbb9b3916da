"""Operations on vectors. In a kernel: ``store(a * load(kind, x, i) + b, y, i)``."""

from __future__ import annotations

import operator
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from minires_kernels.simd.emit import Code, VectorType, check_array, check_vectors, emitter, vector_type


@intrinsic
def load(typing: Any, kind: Any, x: Any, i: Any) -> Any:
    """``load(kind, x, i)``: the vector x[i : i + lanes]."""
    result = vector_type(kind)
    check_array(x, result)
    return result(kind, x, types.intp), emitter(result, lambda code, _, array, at: code.load(x, array, at))


@intrinsic
def load_part(typing: Any, kind: Any, x: Any, i: Any, count: Any) -> Any:
    """``load_part(kind, x, i, count)``: x[i : i + count], then zeros for the other lanes, which aren't read."""
    result = vector_type(kind)
    check_array(x, result)
    body = emitter(result, lambda code, _, array, at, valid: code.load_part(x, array, at, valid))
    return result(kind, x, types.intp, types.intp), body


@intrinsic
def store(typing: Any, value: Any, y: Any, i: Any) -> Any:
    """``store(value, y, i)``: y[i : i + lanes] = value."""
    kind = check_vectors(value)
    check_array(y, kind, written=True)
    return types.void(value, y, types.intp), emitter(kind, lambda code, item, *at: code.store(item, y, *at))


@intrinsic
def store_part(typing: Any, value: Any, y: Any, i: Any, count: Any) -> Any:
    """``store_part(value, y, i, count)``: y[i : i + count] = the first ``count`` lanes; no other element is written."""
    kind = check_vectors(value)
    check_array(y, kind, written=True)
    body = emitter(kind, lambda code, item, *at: code.store_part(item, y, *at))
    return types.void(value, y, types.intp, types.intp), body


@intrinsic
def gather(typing: Any, kind: Any, x: Any, i: Any, stride: Any, count: Any) -> Any:
    """``gather(kind, x, i, stride, count)``: x[i], x[i + stride], ..., ``count`` (at least 1) of them, then zeros."""
    result = vector_type(kind)
    check_array(x, result)
    body = emitter(result, lambda code, _, array, *where: code.gather(x, array, *where))
    return result(kind, x, types.intp, types.intp, types.intp), body


@intrinsic
def prefetch(typing: Any, kind: Any, x: Any, i: Any) -> Any:
    """``prefetch(kind, x, i)``: fetches the cache line of x[i] into the second-level cache, to be read later.

    Only a hint; no address is too far.
    """
    vector_kind = vector_type(kind)
    check_array(x, vector_kind)
    body = emitter(vector_kind, lambda code, _, array, at: code.prefetch(x, array, at, written=False))
    return types.void(kind, x, types.intp), body


@intrinsic
def broadcast(typing: Any, kind: Any, number: Any) -> Any:
    """``broadcast(kind, number)``: ``number``, rounded to the vector's dtype, in every lane."""
    result = vector_type(kind)
    if not isinstance(number, types.Number):
        raise TypingError(f"simd.broadcast: expected a number, got {number}")
    return result(kind, number), emitter(result, lambda code, _, value: code.broadcast_number(number, value))


@intrinsic
def zero(typing: Any, kind: Any) -> Any:
    """``zero(kind)``: the vector of zeros."""
    result = vector_type(kind)
    return result(kind), emitter(result, lambda code, _: result.constant(0.0))


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """``fma(x, y, z)``: x y + z, rounded once where the processor can."""
    kind = check_vectors(x, y, z)
    return kind(x, y, z), emitter(kind, Code.fma)


@intrinsic
def maximum(typing: Any, x: Any, y: Any) -> Any:
    """``maximum(x, y)``: x where x > y or either is NaN, else y. So a NaN in x stays: maximum(x, zero) is a ReLU."""
    kind = check_vectors(x, y)
    return kind(x, y), emitter(kind, Code.maximum)


@intrinsic
def where_greater(typing: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """``where_greater(a, b, x, y)``: x where a > b, else y (also where a or b is NaN)."""
    kind = check_vectors(a, b, x, y)
    return kind(a, b, x, y), emitter(kind, Code.where_greater)


@intrinsic
def gate(typing: Any, x: Any, y: Any) -> Any:
    """``gate(x, y)``: x where y > 0 or y is NaN, else 0. The backward of a ReLU whose output is y."""
    kind = check_vectors(x, y)
    return kind(x, y), emitter(kind, Code.gate)


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """``total(x)``: the sum of the lanes, added in halves (a fixed order)."""
    kind = check_vectors(x)
    return kind.element(x), emitter(kind, lambda code, item: code.fold(item, code.builder.fadd))


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """``largest(x)``: the largest lane."""
    kind = check_vectors(x)
    return kind.element(x), emitter(kind, lambda code, item: code.fold(item, code.maximum))


def _define_operator(python_operator: Any, instruction: str) -> None:
    """``python_operator`` between vectors, or a vector and a number, is the LLVM ``instruction``."""

    @infer_global(python_operator)
    class _VectorOperator(AbstractTemplate):  # type: ignore[misc]
        def generic(self, arguments: Any, keywords: Any) -> Any:
            kinds = [item for item in arguments if isinstance(item, VectorType)]
            if len(arguments) != 2 or not kinds or any(kind != kinds[0] for kind in kinds):
                return None
            if all(isinstance(item, VectorType | types.Number) for item in arguments):
                return signature(kinds[0], *arguments)
            return None

    def emit(context: Any, builder: Any, call: Any, arguments: Any) -> Any:
        code = Code(context, builder, call.return_type)
        operands = [
            value if isinstance(item, VectorType) else code.broadcast_number(item, value)
            for item, value in zip(call.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*operands, flags=("contract",))

    for operands in ((VectorType, VectorType), (VectorType, types.Number), (types.Number, VectorType)):
        lower_builtin(python_operator, *operands)(emit)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")
