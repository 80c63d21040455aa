"""The vector type of `fffcpu.kernels.simd`, as Numba and LLVM define it.

Numba has no vectors, and LLVM does not turn hand-written lanes in loops or local arrays into vector
instructions (the code is ten times slower). So this module adds a type whose values are LLVM
vectors, and one intrinsic per operation of kernels on vectors. `simd` describes them.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

VECTOR_BYTES = 64
_INT32 = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


_, _CPU, _FEATURES = cpu_target.target_context.codegen().magic_tuple()

REGISTER_BYTES = 64 if "+avx512f" in _FEATURES.split(",") else 32
"""Bytes of the widest registers of the CPU that Numba compiles for."""

PREFETCHES = _CPU.startswith("znver")
"""Whether prefetching pays while there is other work. On Intel's CPUs a prefetch takes one of the
few buffers that other loads need; on AMD's it saves a quarter of the time of 16 rows."""

_ELEMENTS = {types.float32: ir.FloatType(), types.int32: _INT32}
"""LLVM's elements of vectors, those of float64 aside."""

_WIDENED = {types.uint16: types.float32, types.int8: types.float32}
"""Elements of vectors for arrays with narrow elements: bfloat16, stored as its bits, and int8."""


class _VectorType(types.Type):  # type: ignore[misc]  # numba has no type information
    """A vector of float32 or float64, of 64 bytes or as wide as a register."""

    def __init__(self, dtype: Any, size: int = VECTOR_BYTES) -> None:
        self.dtype = dtype
        self.lanes = size * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype} x {self.lanes})")

    @property
    def key(self) -> Any:
        return self.dtype, self.lanes


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """Data model of a vector: an LLVM vector, in memory and in registers."""

    def __init__(self, dmm: Any, fe_type: _VectorType) -> None:
        super().__init__(dmm, fe_type, _llvm_type(fe_type))


class _PointerType(types.Type):  # type: ignore[misc]
    """The address of an array's elements, without the reference that an array counts."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Pointer({dtype})")

    @property
    def key(self) -> Any:
        return self.dtype


@register_model(_PointerType)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    """Data model of a pointer: that of LLVM."""

    def __init__(self, dmm: Any, fe_type: _PointerType) -> None:
        super().__init__(dmm, fe_type, dmm.lookup(fe_type.dtype).get_data_type().as_pointer())


def _llvm_type(vector: _VectorType) -> Any:
    element = _ELEMENTS.get(vector.dtype) or ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


def _suffix(vector: Any) -> str:
    """Return the suffix of a vector type in LLVM's function names: v16f32, v8f64 or v16i8."""
    element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}.get(vector.element)
    return f"v{vector.count}{element or f'i{vector.element.width}'}"


def _vector_of(array_type: Any, size: int = VECTOR_BYTES) -> _VectorType:
    """Return the vector type of an array, whose elements must be contiguous, or of a vector."""
    if isinstance(array_type, _VectorType):
        return array_type
    _check_contiguous(array_type)
    return _VectorType(_WIDENED.get(array_type.dtype, array_type.dtype), size)


def _check_contiguous(array_type: Any) -> None:
    """Refuse arrays whose elements are not contiguous; those of a pointer are."""
    if not isinstance(array_type, _PointerType) and array_type.layout != "C":
        raise TypingError(f"vectors need C-contiguous arrays, got {array_type}")


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Return the address of the elements of an array, or a pointer itself."""
    if isinstance(array_type, _PointerType):
        return array
    return context.make_array(array_type)(context, builder, array).data


def _stored_type(array_type: Any, vector: _VectorType) -> Any:
    """Return the LLVM type of a vector as an array stores it, narrow or not."""
    if array_type.dtype not in _WIDENED:
        return _llvm_type(vector)
    return ir.VectorType(ir.IntType(array_type.dtype.bitwidth), vector.lanes)


def _widen(builder: Any, array_type: Any, vector: _VectorType, value: Any) -> Any:
    """Return a vector loaded from an array, as float32 if it was narrow."""
    if array_type.dtype == types.uint16:  # bfloat16 is the upper half of a float32
        integers = ir.VectorType(_INT32, vector.lanes)
        sixteen = ir.Constant(integers, [16] * vector.lanes)
        bits = builder.shl(builder.zext(value, integers), sixteen)
        return builder.bitcast(bits, _llvm_type(vector))
    if array_type.dtype == types.int8:
        integers = builder.sext(value, ir.VectorType(_INT32, vector.lanes))
        return builder.sitofp(integers, _llvm_type(vector))
    return value


def _pointer(
    context: Any, builder: Any, array_type: Any, arguments: Any, vector: _VectorType
) -> Any:
    """Return the address of a vector; the first two arguments are an array and a place in it."""
    array, at = arguments[:2]
    address = builder.gep(_data(context, builder, array_type, array), [at])
    return builder.bitcast(address, _stored_type(array_type, vector).as_pointer())


def _splat(builder: Any, vector_type: Any, scalar: Any) -> Any:
    """Return a vector with the scalar in every lane."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    everywhere = ir.Constant(ir.VectorType(_INT32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(first, undefined, everywhere)


def _mask(builder: Any, lanes: int, count: Any) -> Any:
    """Return a vector of bits, set in the first ``count`` lanes."""
    integers = ir.VectorType(count.type, lanes)
    numbers = ir.Constant(integers, list(range(lanes)))
    return builder.icmp_signed("<", numbers, _splat(builder, integers, count))


def _declare(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, function, name)


def _load_masked(builder: Any, array_type: Any, pointer: Any, mask: Any) -> Any:
    """Return the vector at an address, as the array stores it; lanes without a bit are 0."""
    stored = pointer.type.pointee
    name = f"llvm.masked.load.{_suffix(stored)}.p0{_suffix(stored)}"
    function = _declare(builder, name, stored, [pointer.type, _INT32, mask.type, stored])
    alignment, nothing = _INT32(array_type.dtype.bitwidth // 8), ir.Constant(stored, None)
    return builder.call(function, [pointer, alignment, mask, nothing])


def _makers(size: int) -> tuple[Any, ...]:
    """Return the intrinsics that make vectors of ``size`` bytes from no argument or a number."""

    @intrinsic
    def lanes(typingctx: Any, array: Any) -> Any:
        number = _vector_of(array, size).lanes

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.get_constant(types.intp, number)

        return types.intp(array), codegen

    @intrinsic
    def zeros(typingctx: Any, array: Any) -> Any:
        vector = _vector_of(array, size)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return ir.Constant(_llvm_type(vector), [0.0] * vector.lanes)

        return vector(array), codegen

    @intrinsic
    def broadcast(typingctx: Any, scalar: Any) -> Any:
        vector = _VectorType(scalar, size)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _splat(builder, _llvm_type(vector), arguments[0])

        return vector(scalar), codegen

    @intrinsic
    def repeat(typingctx: Any, array: Any, at: Any) -> Any:
        vector = _vector_of(array, size)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = _data(context, builder, array, arguments[0])
            element = builder.load(builder.gep(data, [arguments[1]]))
            return _splat(builder, _llvm_type(vector), element)

        return vector(array, types.intp), codegen

    return lanes, zeros, broadcast, repeat


def _loaders(size: int) -> tuple[Any, ...]:
    """Return the intrinsics that load vectors of ``size`` bytes."""

    @intrinsic
    def load(typingctx: Any, array: Any, at: Any) -> Any:
        vector = _vector_of(array, size)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _pointer(context, builder, array, arguments, vector)
            value = builder.load(pointer, align=array.dtype.bitwidth // 8)
            return _widen(builder, array, vector, value)

        return vector(array, types.intp), codegen

    @intrinsic
    def load_partial(typingctx: Any, array: Any, at: Any, count: Any) -> Any:
        vector = _vector_of(array, size)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _pointer(context, builder, array, arguments, vector)
            mask = _mask(builder, vector.lanes, arguments[2])
            value = _load_masked(builder, array, pointer, mask)
            return _widen(builder, array, vector, value)

        return vector(array, types.intp, types.intp), codegen

    return load, load_partial


lanes, zeros, broadcast, repeat = _makers(VECTOR_BYTES)
load, load_partial = _loaders(VECTOR_BYTES)
register_lanes, register_zeros, _, repeat_register = _makers(REGISTER_BYTES)
load_register, load_register_partial = _loaders(REGISTER_BYTES)


@intrinsic
def pointer(typingctx: Any, array: Any, at: Any) -> Any:
    if array == types.none:
        return types.none(types.none, types.intp), lambda context, *_: context.get_dummy_value()
    _check_contiguous(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(_data(context, builder, array, arguments[0]), [arguments[1]])

    return _PointerType(array.dtype)(array, types.intp), codegen


@intrinsic
def keep(typingctx: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), codegen


@intrinsic
def _set_element(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.gep(arguments[0], [arguments[1]])
        builder.store(arguments[2], address)
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


@intrinsic
def element(typingctx: Any, array: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, array, arguments[0])
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.intp), codegen


@overload(operator.getitem)
def _getitem(array: Any, at: Any) -> Any:
    def get(array: Any, at: Any) -> Any:
        return element(array, at)

    return get if isinstance(array, _PointerType) else None


@overload(operator.setitem)
def _setitem(array: Any, at: Any, value: Any) -> Any:
    def put(array: Any, at: Any, value: Any) -> Any:
        return _set_element(array, at, value)

    return put if isinstance(array, _PointerType) else None


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _BYTES)
        parameters = [_BYTES, _INT32, _INT32, _INT32]
        function = _declare(builder, "llvm.prefetch.p0i8", ir.VoidType(), parameters)
        read, second_level, data_cache = _INT32(0), _INT32(2), _INT32(1)
        builder.call(function, [pointer, read, second_level, data_cache])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, vector)
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def stream(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, vector)
        size = vector.lanes * array.dtype.bitwidth // 8
        instruction = builder.store(arguments[2], pointer, align=size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([_INT32(1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def store_partial(typingctx: Any, array: Any, at: Any, vector: Any, count: Any) -> Any:
    _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments, vector)
        value = arguments[2]
        mask = _mask(builder, vector.lanes, arguments[3])
        name = f"llvm.masked.store.{_suffix(value.type)}.p0{_suffix(value.type)}"
        parameters = [value.type, pointer.type, _INT32, mask.type]
        function = _declare(builder, name, ir.VoidType(), parameters)
        builder.call(function, [value, pointer, _INT32(array.dtype.bitwidth // 8), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = _llvm_type(a)
        function = _declare(builder, f"llvm.fma.{_suffix(value)}", value, [value] * 3)
        return builder.call(function, arguments)

    return a(a, a, a), codegen


@intrinsic
def add(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return a(a, a), codegen


@intrinsic
def subtract(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fsub(*arguments)

    return a(a, a), codegen


@intrinsic
def multiply(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return a(a, a), codegen


@intrinsic
def divide(typingctx: Any, a: Any, b: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fdiv(*arguments)

    return a(a, a), codegen


@intrinsic
def where_greater(typingctx: Any, a: Any, b: Any, chosen: Any, other: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", left, right), yes, no)

    return a(a, a, a, a), codegen


@intrinsic
def low_bits_to_exponent(typingctx: Any, vector: Any) -> Any:
    mantissa = 23 if vector.dtype == types.float32 else 52

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(vector.dtype.bitwidth), vector.lanes)
        shift = ir.Constant(integers, [mantissa] * vector.lanes)
        shifted = builder.shl(builder.bitcast(arguments[0], integers), shift)
        return builder.bitcast(shifted, _llvm_type(vector))

    return vector(vector), codegen


def _of_dtype(builder: Any, vector: _VectorType, pair: Any) -> Any:
    """Return the element of a (float32, float64) pair that matches the vector's dtype."""
    return builder.extract_value(pair, 0 if vector.dtype == types.float32 else 1)


def _constant(builder: Any, vector: _VectorType, number: Any) -> Any:
    """Return a vector with the float64 number in every lane; its dtype must hold it exactly."""
    value = _llvm_type(vector)
    if vector.dtype == types.float32:
        number = builder.fptrunc(number, value.element)
    return _splat(builder, value, number)


@intrinsic
def constant(typingctx: Any, like: Any, pair: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _constant(builder, like, _of_dtype(builder, like, arguments[1]))

    return like(like, pair), codegen


@intrinsic
def polynomial(typingctx: Any, x: Any, pair: Any) -> Any:
    terms = len(pair[0 if x.dtype == types.float32 else 1])

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = _llvm_type(x)
        coefficients = _of_dtype(builder, x, arguments[1])
        function = _declare(builder, f"llvm.fma.{_suffix(value)}", value, [value] * 3)
        total, *rest = (
            _constant(builder, x, builder.extract_value(coefficients, term))
            for term in range(terms)
        )
        for coefficient in rest:
            total = builder.call(function, [total, arguments[0], coefficient])
        return total

    return x(x, pair), codegen


def _reduction(combine: Any) -> Any:
    """Return the intrinsic that combines the upper lanes with the lower until one is left."""

    @intrinsic
    def reduce(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, count = arguments[0], vector.lanes
            while count > 1:
                count //= 2
                value = combine(builder, *_halves(builder, value, count))
            return builder.extract_element(value, _INT32(0))

        return vector.dtype(vector), codegen

    return reduce


def _halves(builder: Any, value: Any, count: int) -> list[Any]:
    """Return the lower and the upper ``count`` lanes."""
    undefined = ir.Constant(value.type, ir.Undefined)
    kind = ir.VectorType(_INT32, count)
    return [
        builder.shuffle_vector(
            value, undefined, ir.Constant(kind, list(range(first, first + count)))
        )
        for first in (0, count)
    ]


def _larger(builder: Any, lower: Any, upper: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", upper, lower), upper, lower)


ordered_sum = _reduction(lambda builder, lower, upper: builder.fadd(lower, upper))
largest_lane = _reduction(_larger)


@intrinsic
def store_sums(typingctx: Any, array: Any, at: Any, sums: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for k, pointer in enumerate(_pointers(context, builder, array, sums, arguments)):
            value = builder.extract_value(arguments[2], k)
            builder.store(value, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, sums), codegen


@intrinsic
def add_sums(typingctx: Any, array: Any, at: Any, sums: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = arguments[2]
        for k, pointer in enumerate(_pointers(context, builder, array, sums, arguments)):
            stored = builder.load(pointer, align=array.dtype.bitwidth // 8)
            value = builder.fadd(builder.extract_value(result, k), stored)
            result = builder.insert_value(result, value, k)
        return result

    return sums(array, types.intp, sums), codegen


def _pointers(context: Any, builder: Any, array: Any, sums: Any, arguments: Any) -> list[Any]:
    """Return the addresses of a tuple's vectors in an array, one after the other."""
    vector = sums.dtype
    places = (
        builder.add(arguments[1], ir.Constant(arguments[1].type, k * vector.lanes))
        for k in range(sums.count)
    )
    return [_pointer(context, builder, array, (arguments[0], at), vector) for at in places]


@intrinsic
def ordered_sums(typingctx: Any, array: Any, sums: Any) -> Any:
    vector = sums.dtype

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [builder.extract_value(arguments[1], k) for k in range(sums.count)]
        labels = [[k] for k in range(sums.count)]
        segment = vector.lanes
        while segment > 1:
            values, labels = _halve(builder, values, labels, segment, vector)
            segment //= 2
        data = _data(context, builder, array, arguments[0])
        for value, owners in zip(values, labels, strict=True):
            for lane, k in enumerate(owners):
                address = builder.gep(data, [ir.Constant(ir.IntType(64), k)])
                builder.store(builder.extract_element(value, _INT32(lane)), address)
        return context.get_dummy_value()

    return types.void(array, sums), codegen


def _halve(
    builder: Any, values: list[Any], labels: list[list[int]], segment: int, vector: _VectorType
) -> tuple[list[Any], list[list[int]]]:
    """Add the upper half of each segment of lanes onto the lower; two vectors become one.

    ``labels`` holds the owners of a vector's segments. Lanes move within 128 bits if possible,
    which takes one instruction instead of two.
    """
    if len(values) % 2:
        values, labels = [*values, values[-1]], [*labels, labels[-1]]
    half = segment // 2
    group = max(segment, min(vector.lanes, 128 // vector.dtype.bitwidth))
    sums, owners = [], []
    for a, b, of_a, of_b in zip(values[::2], values[1::2], labels[::2], labels[1::2], strict=True):
        lower: list[int] = []
        owner: list[int] = []
        for begin in range(0, vector.lanes, group):
            for first, of in ((begin, of_a), (begin + vector.lanes, of_b)):
                for at in range(first, first + group, segment):
                    lower += range(at, at + half)
                    owner.append(of[(at % vector.lanes) // segment])
        upper = [lane + half for lane in lower]
        shuffled = (
            builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, vector.lanes), lanes))
            for lanes in (lower, upper)
        )
        sums.append(builder.fadd(*shuffled))
        owners.append(owner)
    return sums, owners
