"""The Numba types of vectors and tiles in registers, and the LLVM code from which the operations on them are made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import models, register_model

from minires_kernels.simd.kinds import Constant, Tile, Vector


class VectorType(types.Type):  # type: ignore[misc]
    """The Numba type of a vector value; ``llvm`` is its LLVM type."""

    def __init__(self, kind: Vector) -> None:
        self.kind = kind
        self.lanes = kind.lanes
        self.element = types.float32 if kind.dtype == "float32" else types.float64
        self.scalar = ir.FloatType() if kind.dtype == "float32" else ir.DoubleType()
        self.llvm = ir.VectorType(self.scalar, kind.lanes)
        super().__init__(f"vector({kind.dtype} x {kind.lanes})")

    def constant(self, number: float) -> Any:
        """``number`` in every lane."""
        return ir.Constant(self.llvm, [ir.Constant(self.scalar, float(number))] * self.lanes)

    def intrinsic_name(self, name: str) -> str:
        """The LLVM intrinsic ``name`` for this type, for example llvm.fma.v16f32."""
        return f"llvm.{name}.v{self.lanes}f{self.element.bitwidth}"


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, kind.llvm)


class TileType(types.Type):  # type: ignore[misc]
    """The Numba type of a tile value: an LLVM array of rows x columns vectors, row by row."""

    def __init__(self, kind: Tile) -> None:
        self.kind = kind
        self.rows, self.columns = kind.rows, kind.columns
        self.vector = VectorType(kind.vector)
        super().__init__(f"tile({kind.rows} x {kind.columns} of {self.vector})")

    def unpack(self, builder: Any, tile: Any) -> list[list[Any]]:
        """The vectors of ``tile``, as rows of columns."""
        vectors = [builder.extract_value(tile, k) for k in range(self.rows * self.columns)]
        return [vectors[r * self.columns : (r + 1) * self.columns] for r in range(self.rows)]

    def pack(self, builder: Any, rows: list[list[Any]]) -> Any:
        """The tile of these vectors."""
        tile = ir.Constant(ir.ArrayType(self.vector.llvm, self.rows * self.columns), ir.Undefined)
        for k, item in enumerate(item for row in rows for item in row):
            tile = builder.insert_value(tile, item, k)
        return tile


@register_model(TileType)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: TileType) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.vector.llvm, kind.rows * kind.columns))


class Code:
    """What the intrinsics emit: addresses, loads, stores and arithmetic for one vector type."""

    def __init__(self, context: Any, builder: Any, kind: VectorType) -> None:
        self.context, self.builder, self.kind = context, builder, kind

    def index(self, number: int) -> Any:
        """``number`` as an index."""
        return self.context.get_constant(types.intp, number)

    def pointer(self, array_type: Any, array: Any, index: Any) -> Any:
        """The address of array[index]."""
        return self.builder.gep(self.context.make_array(array_type)(self.context, self.builder, array).data, [index])

    def load(self, array_type: Any, array: Any, index: Any) -> Any:
        """The vector at array[index], which needn't be aligned."""
        pointer = self.builder.bitcast(self.pointer(array_type, array, index), self.kind.llvm.as_pointer())
        return self.builder.load(pointer, align=self.kind.element.bitwidth // 8)

    def store(self, value: Any, array_type: Any, array: Any, index: Any) -> None:
        """Writes a vector at array[index]."""
        pointer = self.builder.bitcast(self.pointer(array_type, array, index), self.kind.llvm.as_pointer())
        self.builder.store(value, pointer, align=self.kind.element.bitwidth // 8)

    def broadcast(self, scalar: Any) -> Any:
        """``scalar`` in every lane."""
        undefined = ir.Constant(self.kind.llvm, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.lanes), [0] * self.kind.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def broadcast_at(self, array_type: Any, array: Any, index: Any) -> Any:
        """array[index] in every lane."""
        return self.broadcast(self.builder.load(self.pointer(array_type, array, index)))

    def broadcast_number(self, number_type: Any, number: Any) -> Any:
        """``number``, of any numeric type, rounded to the element type, in every lane."""
        return self.broadcast(self.context.cast(self.builder, number, number_type, self.kind.element))

    def steps(self, start: Any, step: Any, count: int) -> list[Any]:
        """The indices start, start + step, ...; or start + step[0], start + step[1], ... where ``step`` is a tuple.

        Additions, not products: the processor folds them into addresses.
        """
        if isinstance(step.type, ir.ArrayType):
            return [self.builder.add(start, self.builder.extract_value(step, k)) for k in range(count)]
        indices = [start]
        for _ in range(count - 1):
            indices.append(self.builder.add(indices[-1], step))
        return indices

    def row(self, start: Any, tile: TileType) -> list[Any]:
        """The indices at which the vectors of one row of ``tile`` lie that starts at ``start``."""
        return [self.builder.add(start, self.index(c * self.kind.lanes)) for c in range(tile.columns)]

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x y + z, fused where the processor can: elsewhere a call per lane would be a hundred times slower."""
        function_type = ir.FunctionType(self.kind.llvm, [self.kind.llvm] * 3)
        name = self.kind.intrinsic_name("fmuladd")
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), [x, y, z])

    def add(self, x: Any, y: Any) -> Any:
        """x + y, which may be contracted with a product."""
        return self.builder.fadd(x, y, flags=("contract",))

    def subtract(self, x: Any, y: Any) -> Any:
        """x - y, which may be contracted with a product."""
        return self.builder.fsub(x, y, flags=("contract",))

    def multiply(self, x: Any, y: Any) -> Any:
        """x y, which may be contracted with a sum."""
        return self.builder.fmul(x, y, flags=("contract",))

    def mask(self, count: Any) -> Any:
        """True in lanes below ``count``."""
        wide = ir.VectorType(count.type, self.kind.lanes)
        undefined = ir.Constant(wide, ir.Undefined)
        first = self.builder.insert_element(undefined, count, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.lanes), [0] * self.kind.lanes)
        counts = self.builder.shuffle_vector(first, undefined, zeros)
        return self.builder.icmp_signed("<", ir.Constant(wide, list(range(self.kind.lanes))), counts)

    def counted(self, r: int, c: int, top: Any, bottom: Any, left: Any, right: Any, count: Any) -> Any:
        """``count`` if top <= r < bottom and left <= c < right, else 0."""
        row, column = self.index(r), self.index(c)
        tests = [("<=", top, row), (">", bottom, row), ("<=", left, column), (">", right, column)]
        inside = [self.builder.icmp_signed(sign, bound, item) for sign, bound, item in tests]
        return self.builder.select(functools.reduce(self.builder.and_, inside), count, self.index(0))

    def store_part(self, value: Any, array_type: Any, array: Any, index: Any, count: Any) -> None:
        """Writes the first ``count`` lanes at array[index]."""
        pointer = self.builder.bitcast(self.pointer(array_type, array, index), self.kind.llvm.as_pointer())
        mask = self.mask(count)
        arguments = [value, pointer, ir.IntType(32)(self.kind.element.bitwidth // 8), mask]
        function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        name = self.kind.intrinsic_name("masked.store") + ".p0"
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), arguments)

    def load_part(self, array_type: Any, array: Any, index: Any, count: Any) -> Any:
        """The first ``count`` numbers at array[index], then zeros."""
        pointer = self.builder.bitcast(self.pointer(array_type, array, index), self.kind.llvm.as_pointer())
        alignment = ir.IntType(32)(self.kind.element.bitwidth // 8)
        arguments = [pointer, alignment, self.mask(count), self.kind.constant(0.0)]
        function_type = ir.FunctionType(self.kind.llvm, [argument.type for argument in arguments])
        name = self.kind.intrinsic_name("masked.load") + ".p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), arguments)

    def gather(self, array_type: Any, array: Any, index: Any, stride: Any, count: Any) -> Any:
        """The numbers at index, index + stride, ...; lanes from ``count`` on are zeros, and read the last one again."""
        vector = ir.Constant(self.kind.llvm, ir.Undefined)
        for lane in range(self.kind.lanes):
            if lane:
                more = self.builder.icmp_signed("<", self.index(lane), count)
                index = self.builder.add(index, self.builder.select(more, stride, self.index(0)))
            number = self.builder.load(self.pointer(array_type, array, index))
            vector = self.builder.insert_element(vector, number, ir.IntType(32)(lane))
        return self.builder.select(self.mask(count), vector, self.kind.constant(0.0))

    def prefetch(self, array_type: Any, array: Any, index: Any, written: bool) -> None:
        """Asks for the cache line of array[index]: into the first level to be written, into the second to be read."""
        kind = ir.IntType(32)
        pointer = self.builder.bitcast(self.pointer(array_type, array, index), ir.IntType(8).as_pointer())
        arguments = [pointer, kind(int(written)), kind(3 if written else 2), kind(1)]
        function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, "llvm.prefetch.p0")
        self.builder.call(function, arguments)

    def maximum(self, x: Any, y: Any) -> Any:
        """x where x > y or either is NaN, else y."""
        return self.builder.select(self.builder.fcmp_unordered(">", x, y), x, y)

    def where_greater(self, a: Any, b: Any, x: Any, y: Any) -> Any:
        """x where a > b, else y."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), x, y)

    def gate(self, x: Any, y: Any) -> Any:
        """x where y > 0 or is NaN, else 0: chosen, not multiplied, for x may be infinite."""
        nought = self.kind.constant(0.0)
        return self.builder.select(self.builder.fcmp_unordered(">", y, nought), x, nought)

    def fold(self, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """All lanes combined in halves: lane k with lane k + lanes/2, and so on. The order is fixed."""
        undefined = ir.Constant(self.kind.llvm, ir.Undefined)
        half = self.kind.lanes // 2
        while half:
            order = [k + half if k < half else 0 for k in range(self.kind.lanes)]
            indices = ir.Constant(ir.VectorType(ir.IntType(32), self.kind.lanes), order)
            vector = combine(vector, self.builder.shuffle_vector(vector, undefined, indices))
            half //= 2
        return self.builder.extract_element(vector, ir.IntType(32)(0))


def vector_type(constant: Any) -> VectorType:
    """The type of vectors of the kind ``constant``; TypingError when it isn't a Vector."""
    if not (isinstance(constant, Constant) and isinstance(constant.value, Vector)):
        raise TypingError(f"simd: expected a Vector, got {constant}")
    return VectorType(constant.value)


def tile_type(constant: Any) -> TileType:
    """The type of tiles of the kind ``constant``; TypingError when it isn't a Tile."""
    if not (isinstance(constant, Constant) and isinstance(constant.value, Tile)):
        raise TypingError(f"simd: expected a Tile, got {constant}")
    return TileType(constant.value)


def check_array(array: Any, kind: VectorType, written: bool = False) -> None:
    """TypingError when ``array`` isn't a one-dimensional contiguous array of ``kind``'s element type."""
    if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == kind.element):
        raise TypingError(f"simd: expected a one-dimensional contiguous array of {kind.element}, got {array}")
    if written and not array.mutable:
        raise TypingError(f"simd: cannot store into a read-only array, {array}")


def check_vectors(*kinds: Any) -> VectorType:
    """The common type of vectors; TypingError when they differ or one isn't a vector."""
    if not isinstance(kinds[0], VectorType) or any(kind != kinds[0] for kind in kinds):
        raise TypingError(f"simd: expected vectors of one type, got {', '.join(map(str, kinds))}")
    return kinds[0]


def check_tile(tile: Any) -> TileType:
    """``tile``'s type; TypingError when it isn't a tile."""
    if not isinstance(tile, TileType):
        raise TypingError(f"simd: expected a tile, got {tile}")
    return tile


def emitter(kind: VectorType, body: Callable[..., Any]) -> Callable[..., Any]:
    """What an intrinsic returns beside its signature: ``body(code, *values)`` emits it; None is a void result."""

    def emit(context: Any, builder: Any, call: Any, arguments: Any) -> Any:
        result = body(Code(context, builder, kind), *arguments)
        return context.get_dummy_value() if result is None else result

    return emit
