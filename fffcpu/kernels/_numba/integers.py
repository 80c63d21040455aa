"""Vectors of bytes and of int32 sums, as Numba and LLVM define them, and the tiles of AMX.

`fffcpu.kernels.integer_products` describes the layout. A sum is a vector of 16 int32, one for each
column of a panel. A step multiplies four bytes of a row with four bytes of each column::

    row      |a b c d|                                 one int32, repeated in all lanes
    panel    |a b c d|a b c d| ... |a b c d|           64 bytes: 16 columns, four rows of weights
    sum      |  int32|  int32| ... |  int32|           += a a + b b + c c + d d

x86-64 has an instruction for that, for unsigned bytes of the row: VNNI, of 64 bytes with AVX-512
and of 32 with AVX-VNNI. AVX2 takes four instructions for signed bytes. Elsewhere LLVM makes of it
what there is. Sums are exact, so all have the same bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fffcpu.kernels._numba.vector import (
    _BYTES,
    _FEATURES,
    _INT32,
    _data,
    _declare,
    _llvm_type,
    _pointer,
    _splat,
    _VectorType,
)

_KNOWN = _FEATURES.split(",")
_INT64 = ir.IntType(64)
_I8, _I16 = ir.IntType(8), ir.IntType(16)
LANES = 16
"""Columns of a panel."""

_SUM = _VectorType(types.int32)

WIDE_STEPS = "+avx512vnni" in _KNOWN
"""Whether one instruction makes a step of 64 bytes."""
SHIFT = 128 if WIDE_STEPS or "+avxvnni" in _KNOWN else 0
"""What is added to a row's numbers, so that the instructions get unsigned bytes."""
TILES = SHIFT != 0 and "+amx-int8" in _KNOWN
"""Whether the CPU that Numba compiles for has tiles; Linux has to permit them. Lanes, the way
without them, must take the same shifted bytes."""


def _integers(element: Any, count: int) -> Any:
    return ir.VectorType(element, count)


def _cast(builder: Any, value: Any, element: Any) -> Any:
    """Return the bits of a vector as integers of another size."""
    bits = value.type.count * value.type.element.width
    return builder.bitcast(value, _integers(element, bits // element.width))


def _slice(builder: Any, value: Any, first: int, count: int) -> Any:
    lanes = ir.Constant(_integers(_INT32, count), list(range(first, first + count)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), lanes)


def _joined(builder: Any, values: list[Any]) -> Any:
    """Return two vectors as one."""
    count = values[0].type.count
    lanes = ir.Constant(_integers(_INT32, 2 * count), list(range(2 * count)))
    return builder.shuffle_vector(values[0], values[1], lanes)


def _step(builder: Any, total: Any, row: Any, weights: Any) -> Any:
    """Return sums after a step; all are vectors of 16 int32."""
    if WIDE_STEPS:
        return _vnni(builder, "512", total, row, weights)
    halves = []
    for first in (0, LANES // 2):
        half = [_slice(builder, value, first, LANES // 2) for value in (total, row, weights)]
        if "+avxvnni" in _KNOWN:
            halves.append(_vnni(builder, "256", *half))
        elif "+avx2" in _KNOWN:
            halves.append(_avx2_step(builder, *half))
        else:
            halves.append(_plain_step(builder, *half))
    return _joined(builder, halves)


def _vnni(builder: Any, bits: str, total: Any, row: Any, weights: Any) -> Any:
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    function = _declare(builder, name, total.type, [total.type] * 3)
    return builder.call(function, [total, row, weights])


def _avx2_step(builder: Any, total: Any, row: Any, weights: Any) -> Any:
    """Return sums after a step with a row's bytes from -127 to 127, whose pairs fit into int16.

    A weight may be -128, as in a file of another program: its magnitude is an unsigned byte.
    """
    octets, words = _integers(_I8, 32), _integers(_I16, 16)
    row, weights = _cast(builder, row, _I8), _cast(builder, weights, _I8)
    sign = _declare(builder, "llvm.x86.avx2.psign.b", octets, [octets] * 2)
    pairs = _declare(builder, "llvm.x86.avx2.pmadd.ub.sw", words, [octets] * 2)
    fours = _declare(builder, "llvm.x86.avx2.pmadd.wd", total.type, [words] * 2)
    magnitude = builder.call(sign, [weights, weights])
    products = builder.call(pairs, [magnitude, builder.call(sign, [row, weights])])
    ones = ir.Constant(words, [1] * 16)
    return builder.add(total, builder.call(fours, [products, ones]))


def _plain_step(builder: Any, total: Any, row: Any, weights: Any) -> Any:
    """Return sums after a step with signed bytes, by instructions that every CPU has."""
    for byte in range(4):
        left, right = (_signed_byte(builder, value, byte) for value in (row, weights))
        total = builder.add(total, builder.mul(left, right))
    return total


def _signed_byte(builder: Any, value: Any, byte: int) -> Any:
    """Return one of the four bytes in each int32, with its sign."""
    up, down = ([ir.Constant(value.type, [n] * value.type.count)] for n in (24 - 8 * byte, 24))
    return builder.ashr(builder.shl(value, *up), *down)


def _tuple_of_sums(count: int) -> Any:
    @intrinsic
    def make(typingctx: Any) -> Any:
        kind = types.UniTuple(_SUM, count)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return ir.Constant(context.get_value_type(kind), None)

        return kind(), codegen

    return make


PANELS = 4 if WIDE_STEPS else 1
"""Panels that `lane_step` multiplies rows with at once; all sums stay in registers."""
ROWS = 6 if WIDE_STEPS else 4
"""Rows that it takes at once."""

zero_sums = _tuple_of_sums(ROWS * PANELS)


@intrinsic
def lane_step(
    typingctx: Any, sums: Any, rows: Any, at: Any, row: Any, panels: Any, place: Any, panel: Any
) -> Any:
    """Return the sums of `ROWS` rows and `PANELS` panels after a step."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals, left, at, row, right, place, panel = arguments
        left = _data(context, builder, rows, left)
        weights = []
        for p in range(PANELS):
            own = builder.add(place, builder.mul(panel, ir.Constant(panel.type, p)))
            pointer = _pointer(context, builder, panels, (right, own), _BYTES_64)
            weights.append(_cast(builder, builder.load(pointer, align=1), _INT32))
        result = totals
        for r in range(ROWS):
            own = builder.add(at, builder.mul(row, ir.Constant(row.type, r)))
            address = builder.bitcast(builder.gep(left, [own]), _INT32.as_pointer())
            four = _splat(builder, _integers(_INT32, LANES), builder.load(address, align=1))
            for p in range(PANELS):
                k = r * PANELS + p
                total = _step(builder, builder.extract_value(totals, k), four, weights[p])
                result = builder.insert_value(result, total, k)
        return result

    place_types = types.intp, types.intp
    return sums(sums, rows, *place_types, panels, *place_types), codegen


class _Octets:
    """What `_pointer` has to know of 64 bytes."""

    lanes = 64


_BYTES_64: Any = _Octets()


@intrinsic
def store_lane_sums(typingctx: Any, out: Any, sums: Any) -> Any:
    """Write sums to an int32 array, one row of `PANELS` vectors after the other."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for k in range(sums.count):
            at = ir.Constant(_INT64, k * LANES)
            pointer = _pointer(context, builder, out, (arguments[0], at), _SUM)
            builder.store(builder.extract_value(arguments[1], k), pointer, align=4)
        return context.get_dummy_value()

    return types.void(out, sums), codegen


@intrinsic
def no_magnitude(typingctx: Any) -> Any:
    """Return 16 magnitudes of 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_llvm_type(_SUM), None)

    return _SUM(), codegen


@intrinsic
def larger_magnitudes(typingctx: Any, largest: Any, vector: Any) -> Any:
    """Return the bits of the larger magnitudes; those of infinity and NaN are the largest."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        old, value = arguments
        unsigned = ir.Constant(old.type, [0x7FFFFFFF] * LANES)
        bits = builder.and_(builder.bitcast(value, old.type), unsigned)
        return builder.select(builder.icmp_signed(">", bits, old), bits, old)

    return largest(largest, vector), codegen


@intrinsic
def largest_magnitude(typingctx: Any, largest: Any) -> Any:
    """Return the largest magnitude as a float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        reduce = _declare(builder, "llvm.vector.reduce.smax.v16i32", _INT32, [kind])
        return builder.bitcast(builder.call(reduce, arguments), ir.FloatType())

    return types.float32(largest), codegen


@intrinsic
def store_bytes(typingctx: Any, out: Any, at: Any, vector: Any) -> Any:
    """Write float32 numbers from -127 to 127, rounded to integers and shifted, as bytes.

    A number plus 1.5 * 2**23 has the integer in its lowest bits, rounded to nearest and ties to
    even.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[2]
        large = ir.Constant(value.type, [1.5 * 2**23 + SHIFT] * vector.lanes)
        bits = builder.bitcast(builder.fadd(value, large), _integers(_INT32, vector.lanes))
        octets = builder.trunc(bits, _integers(_I8, vector.lanes))
        data = _data(context, builder, out, arguments[0])
        address = builder.bitcast(builder.gep(data, [arguments[1]]), octets.type.as_pointer())
        builder.store(octets, address, align=1)
        return context.get_dummy_value()

    return types.void(out, types.intp, vector), codegen


@intrinsic
def load_as_floats(typingctx: Any, sums: Any, at: Any, offsets: Any, place: Any) -> Any:
    """Return 16 int32 sums, plus their offsets, as float32, rounded to nearest."""
    vector = _VectorType(types.float32)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (
            builder.load(_pointer(context, builder, array, own, _SUM), align=4)
            for array, own in ((sums, arguments[:2]), (offsets, arguments[2:]))
        )
        return builder.sitofp(builder.add(left, right), _llvm_type(vector))

    return vector(sums, types.intp, offsets, types.intp), codegen


# --- Tiles ----------------------------------------------------------------------------------------
#
# A tile register has 16 rows of 64 bytes. Registers 0 to 3 hold sums: two times 16 rows by two
# panels. Registers 4 and 5 hold rows, 6 and 7 panels.

_CONFIG = bytes([1, 0, *[0] * 14, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])
"""The configuration that the processor reads: palette 1, 64 bytes per row and 16 rows, 8 times."""


def _tile(
    builder: Any, name: str, registers: list[int], parameters: Any = (), *values: Any
) -> None:
    """Call an instruction on tile registers."""
    kinds = [_I8] * len(registers) + list(parameters)
    function = _declare(builder, f"llvm.x86.{name}", ir.VoidType(), kinds)
    builder.call(function, [*(_I8(register) for register in registers), *values])


@intrinsic
def begin_tiles(typingctx: Any) -> Any:
    """Configure the tile registers of this thread, up to `end_tiles`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        content = cgutils.make_bytearray(_CONFIG)
        config = cgutils.global_constant(builder, "tile_config", content)
        config.align = 64
        _tile(builder, "ldtilecfg", [], [_BYTES], builder.bitcast(config, _BYTES))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def end_tiles(typingctx: Any) -> Any:
    """Release the tile registers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _tile(builder, "tilerelease", [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def zero_tiles(typingctx: Any) -> Any:
    """Set the sums to 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for register in range(4):
            _tile(builder, "tilezero", [register])
        return context.get_dummy_value()

    return types.void(), codegen


def _tile_step(pairs_of_rows: int) -> Any:
    @intrinsic
    def step(
        typingctx: Any, rows: Any, at: Any, row: Any, panels: Any, place: Any, panel: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, at, row, right, place, panel = arguments
            kinds = _BYTES, _INT64
            sixteen = builder.mul(row, ir.Constant(row.type, 16))
            line = ir.Constant(_INT64, 64)
            for k in range(pairs_of_rows):
                own = at if k == 0 else builder.add(at, sixteen)
                pointer = _octet(context, builder, rows, left, own)
                _tile(builder, "tileloadd64", [4 + k], kinds, pointer, row)
            for k in range(2):
                own = place if k == 0 else builder.add(place, panel)
                pointer = _octet(context, builder, panels, right, own)
                _tile(builder, "tileloadd64", [6 + k], kinds, pointer, line)
            for k in range(2 * pairs_of_rows):
                _tile(builder, "tdpbusd", [k, 4 + k // 2, 6 + k % 2])
            return context.get_dummy_value()

        place_types = types.intp, types.intp
        return types.void(rows, *place_types, panels, *place_types), codegen

    return step


def _octet(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the address of an array's byte."""
    return builder.bitcast(builder.gep(_data(context, builder, array_type, array), [at]), _BYTES)


tile_step = _tile_step(2)
narrow_tile_step = _tile_step(1)


@intrinsic
def store_tiles(typingctx: Any, out: Any) -> Any:
    """Write the sums to an int32 array of 32 rows and 32 columns."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.Constant(_INT64, 128)
        for register in range(4):
            at = ir.Constant(_INT64, register // 2 * 16 * 32 + register % 2 * 16)
            pointer = _octet(context, builder, out, arguments[0], at)
            _tile(builder, "tilestored64", [register], [_BYTES, _INT64], pointer, line)
        return context.get_dummy_value()

    return types.void(out), codegen
