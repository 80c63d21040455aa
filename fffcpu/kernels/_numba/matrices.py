"""Blocks of sums of a matrix product, as Numba and LLVM define them.

`fffcpu.kernels.matrix_products` describes the product. A block has `ROWS` rows and `REGISTERS`
registers of columns, and all of its sums stay in registers. A step multiplies one number of each
row with one row of a panel::

    panel    |r r r r|r r r r|r r r r|r r r r|     a register each
    rows     a   a   a   a   a   a                 one number, repeated in all lanes
    sums     +=  24 fused multiply-adds with AVX-512, 12 with the 16 registers of AVX2
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fffcpu.kernels._numba.vector import (
    _INT32,
    REGISTER_BYTES,
    VECTOR_BYTES,
    _data,
    _declare,
    _llvm_type,
    _load_masked,
    _mask,
    _pointer,
    _splat,
    _suffix,
    _vector_of,
    _VectorType,
)

_INT64 = ir.IntType(64)

ROWS = 6
"""Rows of a block."""
REGISTERS = 4 if REGISTER_BYTES == VECTOR_BYTES else 2
"""Registers of a row of a block."""


def _register_of(array_type: Any) -> _VectorType:
    return _vector_of(array_type, REGISTER_BYTES)


def _block_of(array_type: Any) -> Any:
    return types.UniTuple(_register_of(array_type), ROWS * REGISTERS)


def _alignment(array_type: Any) -> int:
    return int(array_type.dtype.bitwidth // 8)


def _places(context: Any, builder: Any, array_type: Any, arguments: Any) -> list[Any]:
    """Return the addresses of a block's registers, from an array, a place and a step of rows."""
    array, at, step = arguments[:3]
    vector = _register_of(array_type)
    places = []
    for row in range(ROWS):
        first = builder.add(at, builder.mul(step, _INT64(row)))
        for k in range(REGISTERS):
            own = array, builder.add(first, _INT64(k * vector.lanes))
            places.append(_pointer(context, builder, array_type, own, vector))
    return places


@intrinsic
def block_zeros(typingctx: Any, array: Any) -> Any:
    """Return a block of zeros of the array's dtype."""
    block = _block_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(block), None)

    return block(array), codegen


@intrinsic
def block_add(typingctx: Any, array: Any, at: Any, step: Any, block: Any) -> Any:
    """Return the block that starts at a place plus another; its rows are ``step`` apart."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = arguments[3]
        for k, place in enumerate(_places(context, builder, array, arguments)):
            value = builder.load(place, align=_alignment(array))
            value = builder.fadd(value, builder.extract_value(result, k))
            result = builder.insert_value(result, value, k)
        return result

    return block(array, types.intp, types.intp, block), codegen


@intrinsic
def block_store(typingctx: Any, array: Any, at: Any, step: Any, block: Any) -> Any:
    """Write a block to the place where it starts; its rows are ``step`` apart."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for k, place in enumerate(_places(context, builder, array, arguments)):
            value = builder.extract_value(arguments[3], k)
            builder.store(value, place, align=_alignment(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), codegen


@intrinsic
def block_fma(
    typingctx: Any, block: Any, x: Any, at: Any, step: Any, panel: Any, place: Any
) -> Any:
    """Return a block plus the products of one number of each row with a row of a panel.

    The numbers of the rows are ``step`` apart, from place ``at`` on.
    """
    vector = block.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, left, at, step, right, place = arguments
        kind = _llvm_type(vector)
        function = _declare(builder, f"llvm.fma.{_suffix(kind)}", kind, [kind] * 3)
        row_of_panel = []
        for k in range(REGISTERS):
            own = right, builder.add(place, _INT64(k * vector.lanes))
            address = _pointer(context, builder, panel, own, vector)
            row_of_panel.append(builder.load(address, align=_alignment(panel)))
        data, result = _data(context, builder, x, left), sums
        for row in range(ROWS):
            address = builder.gep(data, [builder.add(at, builder.mul(step, _INT64(row)))])
            number = _splat(builder, kind, builder.load(address))
            for k, weights in enumerate(row_of_panel):
                index = row * REGISTERS + k
                total = builder.extract_value(sums, index)
                total = builder.call(function, [number, weights, total])
                result = builder.insert_value(result, total, index)
        return result

    return block(block, x, types.intp, types.intp, panel, types.intp), codegen


def _transposed(
    context: Any, builder: Any, matrix: Any, array: Any, at: Any, step: Any, last: Any, count: Any
) -> list[Any]:
    """Return the columns of a square with as many rows and columns as a register has lanes.

    The rows of the square are ``step`` apart. Rows behind row ``last`` are not read, but have its
    numbers. Columns from ``count`` on are not read, but are 0.
    """
    vector = _register_of(matrix)
    lanes = vector.lanes
    mask = _mask(builder, lanes, count)
    rows = []
    for k in range(lanes):
        number = _INT64(k)
        row = builder.select(builder.icmp_signed("<", number, last), number, last)
        own = array, builder.add(at, builder.mul(step, row))
        address = _pointer(context, builder, matrix, own, vector)
        rows.append(_load_masked(builder, matrix, address, mask))
    # Each turn interleaves row k with row k + lanes / 2. That rotates the bits of both numbers of
    # an element together, of its row and of its lane, by one.
    lower = [lane for k in range(lanes // 2) for lane in (k, lanes + k)]
    orders = [
        ir.Constant(ir.VectorType(_INT32, lanes), [lane + first for lane in lower])
        for first in (0, lanes // 2)
    ]
    for _ in range(lanes.bit_length() - 1):
        pairs = zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True)
        rows = [builder.shuffle_vector(*pair, order) for pair in pairs for order in orders]
    return rows


@intrinsic
def store_transposed(
    typingctx: Any,
    out: Any,
    out_at: Any,
    out_step: Any,
    matrix: Any,
    at: Any,
    step: Any,
    last: Any,
    count: Any,
) -> Any:
    """Write the columns of a square (see `_transposed`) as rows that are ``out_step`` apart."""
    vector = _register_of(matrix)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, out_at, out_step, *square = arguments
        for k, column in enumerate(_transposed(context, builder, matrix, *square)):
            own = target, builder.add(out_at, builder.mul(out_step, _INT64(k)))
            address = _pointer(context, builder, out, own, vector)
            builder.store(column, address, align=_alignment(out))
        return context.get_dummy_value()

    places = types.intp, types.intp
    return types.void(out, *places, matrix, *places, types.intp, types.intp), codegen


@intrinsic
def fma_transposed(
    typingctx: Any,
    total: Any,
    x: Any,
    x_at: Any,
    matrix: Any,
    at: Any,
    step: Any,
    last: Any,
    count: Any,
) -> Any:
    """Return a register plus the columns of a square (see `_transposed`), each times a number of x.

    Numbers of x from ``count`` on are not read.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result, array, x_at, *square = arguments
        kind, count = result.type, square[-1]
        function = _declare(builder, f"llvm.fma.{_suffix(kind)}", kind, [kind] * 3)
        data = _data(context, builder, x, array)
        for k, column in enumerate(_transposed(context, builder, matrix, *square)):
            number = _INT64(k)
            within = builder.icmp_signed("<", number, count)
            own = builder.add(x_at, builder.select(within, number, _INT64(0)))
            factor = _splat(builder, kind, builder.load(builder.gep(data, [own])))
            longer = builder.call(function, [factor, column, result])
            result = builder.select(within, longer, result)
        return result

    places = types.intp, types.intp
    return total(total, x, types.intp, matrix, *places, types.intp, types.intp), codegen
