"""The vector type of `fffcpu.kernels.simd`, as Numba and LLVM know it.

Numba has no vectors of its own, and LLVM does not turn hand-written lanes in loops or local arrays
into vector instructions (it runs ten times slower). So this adds a type whose values are LLVM
vectors, and an intrinsic for each thing kernels do with one. `simd` describes them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

VECTOR_BYTES = 64
_INT32 = ir.IntType(32)


class _VectorType(types.Type):  # type: ignore[misc]  # numba has no type information
    """A vector of 64 bytes of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype} x {self.lanes})")

    @property
    def key(self) -> Any:
        return self.dtype


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """In memory and in registers: an LLVM vector."""

    def __init__(self, dmm: Any, fe_type: _VectorType) -> None:
        super().__init__(dmm, fe_type, _llvm_type(fe_type))


def _llvm_type(vector: _VectorType) -> Any:
    element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


def _suffix(vector: _VectorType) -> str:
    """Return how LLVM's names of functions call the type: v16f32 or v8f64."""
    return f"v{vector.lanes}f{vector.dtype.bitwidth}"


def _vector_of(array_type: Any) -> _VectorType:
    """Return the vector type of an array, whose elements must lie side by side."""
    if array_type.layout != "C":
        raise TypingError(f"vectors need C-contiguous arrays, got {array_type}")
    return _VectorType(array_type.dtype)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return the address of a vector in an array."""
    data = context.make_array(array_type)(context, builder, array).data
    address = builder.gep(data, [at])
    return builder.bitcast(address, _llvm_type(_VectorType(array_type.dtype)).as_pointer())


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


@intrinsic
def lanes(typingctx: Any, array: Any) -> Any:
    number = _VectorType(array.dtype).lanes

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, number)

    return types.intp(array), codegen


@intrinsic
def zeros(typingctx: Any, array: Any) -> Any:
    vector = _VectorType(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_llvm_type(vector), [0.0] * vector.lanes)

    return vector(array), codegen


@intrinsic
def broadcast(typingctx: Any, scalar: Any) -> Any:
    vector = _VectorType(scalar)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, _llvm_type(vector), arguments[0])

    return vector(scalar), codegen


@intrinsic
def load(typingctx: Any, array: Any, at: Any) -> Any:
    vector = _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), codegen


@intrinsic
def load_partial(typingctx: Any, array: Any, at: Any, count: Any) -> Any:
    vector = _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments[:2])
        value = _llvm_type(vector)
        mask = _mask(builder, vector.lanes, arguments[2])
        name = f"llvm.masked.load.{_suffix(vector)}.p0{_suffix(vector)}"
        function = _declare(builder, name, value, [pointer.type, _INT32, mask.type, value])
        nothing = ir.Constant(value, [0.0] * vector.lanes)
        return builder.call(function, [pointer, _INT32(array.dtype.bitwidth // 8), mask, nothing])

    return vector(array, types.intp, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments[:2])
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def store_partial(typingctx: Any, array: Any, at: Any, vector: Any, count: Any) -> Any:
    _vector_of(array)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments[:2])
        value = arguments[2]
        mask = _mask(builder, vector.lanes, arguments[3])
        name = f"llvm.masked.store.{_suffix(vector)}.p0{_suffix(vector)}"
        parameters = [value.type, pointer.type, _INT32, mask.type]
        function = _declare(builder, name, ir.VoidType(), parameters)
        builder.call(function, [value, pointer, _INT32(array.dtype.bitwidth // 8), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = _llvm_type(a)
        function = _declare(builder, f"llvm.fma.{_suffix(a)}", value, [value] * 3)
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
    """Return the element of a (float32, float64) pair that is for the vector's dtype."""
    return builder.extract_value(pair, 0 if vector.dtype == types.float32 else 1)


def _constant(builder: Any, vector: _VectorType, number: Any) -> Any:
    """Return a vector with the float64 number in every lane, which its dtype must hold exactly."""
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
        function = _declare(builder, f"llvm.fma.{_suffix(x)}", value, [value] * 3)
        total, *rest = (
            _constant(builder, x, builder.extract_value(coefficients, term))
            for term in range(terms)
        )
        for coefficient in rest:
            total = builder.call(function, [total, arguments[0], coefficient])
        return total

    return x(x, pair), codegen


@intrinsic
def ordered_sum(typingctx: Any, vector: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, count = arguments[0], vector.lanes
        while count > 1:
            count //= 2
            lower, upper = (
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(_INT32, count), list(range(first, first + count))),
                )
                for first in (0, count)
            )
            value = builder.fadd(lower, upper)
        return builder.extract_element(value, _INT32(0))

    return vector.dtype(vector), codegen
