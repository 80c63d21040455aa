"""Vectors for kernels, which all sums and all activations use.

A vector has 64 bytes: 16 lanes of float32 or 8 of float64. It is an LLVM vector, so the compiler
turns plain loops into AVX-512, pairs of AVX2 or quads of NEON instructions. All give the same bits,
because the lanes are fixed here and not by the compiler. A register is the part of a vector that
the widest registers of the CPU hold.

The functions take an array of any shape, C-contiguous, and a place ``at``, counted in elements of
the flattened array. They check no bounds. With ``NUMBA_DISABLE_JIT=1`` a vector is a NumPy array of
one dimension and the same kernels run as plain Python (multiply-adds then round twice, so the bits
differ from compiled ones). `fffcpu.kernels.sums` has the sums that kernels use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.kernels.jit import JIT, inner
from fffcpu.lowbit import from_bfloat16

__all__ = [
    "PREFETCHES",
    "VECTOR_BYTES",
    "WHOLE_REGISTERS",
    "add",
    "add_sums",
    "broadcast",
    "constant",
    "divide",
    "element",
    "fence",
    "fma",
    "keep",
    "lanes",
    "largest_lane",
    "load",
    "load_partial",
    "load_register",
    "load_register_partial",
    "low_bits_to_exponent",
    "may_stream",
    "multiply",
    "ordered_sum",
    "ordered_sums",
    "pointer",
    "polynomial",
    "prefetch",
    "prefetch_run",
    "register_lanes",
    "register_zeros",
    "repeat",
    "repeat_register",
    "store",
    "store_partial",
    "store_sums",
    "stream",
    "subtract",
    "where_greater",
    "zeros",
]

VECTOR_BYTES = 64

Array = NDArray[Any]

if JIT:
    from fffcpu.kernels._numba.vector import (
        PREFETCHES,
        REGISTER_BYTES,
        add,
        add_sums,
        broadcast,
        constant,
        divide,
        element,
        fence,
        fma,
        keep,
        lanes,
        largest_lane,
        load,
        load_partial,
        load_register,
        load_register_partial,
        low_bits_to_exponent,
        multiply,
        ordered_sum,
        ordered_sums,
        pointer,
        polynomial,
        prefetch,
        register_lanes,
        register_zeros,
        repeat,
        repeat_register,
        store,
        store_partial,
        store_sums,
        stream,
        subtract,
        where_greater,
        zeros,
    )
else:
    PREFETCHES, REGISTER_BYTES = False, VECTOR_BYTES

    def _widened(elements: Array) -> Array:
        """Return elements as vectors hold them: bfloat16 and int8 as float32, others unchanged."""
        if elements.dtype == np.uint16:
            return from_bfloat16(elements)
        return elements.astype(np.float32 if elements.dtype == np.int8 else elements.dtype)

    def lanes(array: Array) -> int:
        """Return the number of lanes of a vector of the array's dtype."""
        return int(zeros(array).size)

    def zeros(array: Array) -> Array:
        """Return a vector of zeros of the array's dtype."""
        dtype = _widened(array.reshape(-1)[:0]).dtype
        return np.zeros(VECTOR_BYTES // dtype.itemsize, dtype)

    def repeat(array: Array, at: int) -> Array:
        """Return a vector with the element at place ``at`` in every lane."""
        return np.full(lanes(array), array.reshape(-1)[at])

    def pointer(array: Any, at: int) -> Any:
        """Return the elements from place ``at`` on as a pointer; None of None.

        A pointer takes the place of an array in all these functions, and its elements are read and
        written like those of an array. It counts no reference, so it passes through calls in a
        register. It does not keep an array alive that a kernel has made: `keep` does.
        """
        return None if array is None else array.reshape(-1)[at:]

    def keep(array: Array) -> None:
        """Keep an array alive up to here, whose pointers are used before."""

    def element(array: Array, at: int) -> Any:
        """Return the element at place ``at``."""
        return array.reshape(-1)[at]

    def prefetch(address: int) -> None:
        """Do nothing; only compiled code prefetches."""

    def broadcast(scalar: Any) -> Array:
        """Return a vector with the scalar in every lane."""
        vector: Array = np.full(VECTOR_BYTES // scalar.itemsize, scalar)
        return vector

    def load(array: Array, at: int) -> Array:
        """Return a vector of the elements from place ``at`` on."""
        return _widened(array.reshape(-1)[at : at + lanes(array)])

    def load_partial(array: Array, at: int, count: int) -> Array:
        """Like ``load``, but lanes from ``count`` on are 0 and their memory is not accessed."""
        vector: Array = zeros(array)
        count = min(count, lanes(array))
        vector[:count] = _widened(array.reshape(-1)[at : at + count])
        return vector

    def store(array: Array, at: int, vector: Array) -> None:
        """Write a vector to the elements from place ``at`` on."""
        array.reshape(-1)[at : at + lanes(array)] = vector

    def stream(array: Array, at: int, vector: Array) -> None:
        """Like ``store``, past the caches, for memory that is not read soon.

        The elements must be a whole cache line, and a `fence` must follow before others read it.
        """
        store(array, at, vector)

    def fence() -> None:
        """Make streamed elements visible to code that runs after this kernel."""

    def store_partial(array: Array, at: int, vector: Array, count: int) -> None:
        """Like ``store``, but only the first ``count`` lanes."""
        count = min(count, lanes(array))
        array.reshape(-1)[at : at + count] = vector[:count]

    def fma(a: Array, b: Array, c: Array) -> Array:
        """Return ``a * b + c``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a * b + c
        return result

    def add(a: Array, b: Array) -> Array:
        """Return ``a + b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a + b
        return result

    def subtract(a: Array, b: Array) -> Array:
        """Return ``a - b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a - b
        return result

    def multiply(a: Array, b: Array) -> Array:
        """Return ``a * b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a * b
        return result

    def divide(a: Array, b: Array) -> Array:
        """Return ``a / b``, lane by lane."""
        with np.errstate(all="ignore"):
            result: Array = a / b
        return result

    def where_greater(a: Array, b: Array, chosen: Array, other: Array) -> Array:
        """Return ``chosen`` if a > b, else ``other``, also if one of them is NaN, lane by lane."""
        return np.where(a > b, chosen, other)

    def low_bits_to_exponent(vector: Array) -> Array:
        """Shift each lane's bits left by the length of a mantissa.

        This turns a number k + 1.5 * 2**23 (float32; 2**52 in float64) into 2**(k - 127)
        (k - 1023), for integers k from 1 to 254 (to 2046).
        """
        single = vector.itemsize == 4
        bits: Array = vector.view(np.uint32 if single else np.uint64)
        shifted: Array = np.left_shift(bits, 23 if single else 52).view(vector.dtype)
        return shifted

    def constant(like: Array, pair: tuple[float, float]) -> Array:
        """Return a vector of the type of another, with one number in all lanes.

        It is given as (number for float32, number for float64), each exact in its dtype.
        """
        number = pair[0 if like.itemsize == 4 else 1]
        vector: Array = np.full_like(like, number)
        return vector

    def polynomial(x: Array, pair: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
        """Return a polynomial of each lane, by Horner's rule: one fused multiply-add per power.

        The coefficients, highest power first, are given as (for float32, for float64), also exact.
        """
        total, *rest = (np.full_like(x, c) for c in pair[0 if x.itemsize == 4 else 1])
        for coefficient in rest:
            total = fma(total, x, coefficient)
        return total

    def ordered_sum(vector: Array) -> Any:
        """Return the sum of the lanes: the upper half is added to the lower until one is left."""
        with np.errstate(all="ignore"):
            while vector.size > 1:
                half = vector.size // 2
                vector = vector[:half] + vector[half:]
        return vector[0]

    def largest_lane(vector: Array) -> Any:
        """Return the largest lane; a lane that is NaN counts only if all lanes below it do."""
        return np.fmax.reduce(vector)

    def store_sums(array: Array, at: int, sums: tuple[Array, ...]) -> None:
        """Write vectors one after the other, from place ``at`` on."""
        for k, vector in enumerate(sums):
            store(array, at + k * vector.size, vector)

    def add_sums(array: Array, at: int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return vectors, each plus the one that ``store_sums`` wrote at its place."""
        return tuple(add(v, load(array, at + k * v.size)) for k, v in enumerate(sums))

    def ordered_sums(array: Array, sums: tuple[Array, ...]) -> None:
        """Write the ``ordered_sum`` of each vector to the first elements of an array."""
        for k, vector in enumerate(sums):
            array[k] = ordered_sum(vector)

    # A register is a whole vector.
    register_lanes, register_zeros, repeat_register = lanes, zeros, repeat
    load_register, load_register_partial = load, load_partial


WHOLE_REGISTERS = REGISTER_BYTES == VECTOR_BYTES
"""Whether one register holds a vector, as with AVX-512, which has 32 registers."""


@inner
def prefetch_run(array: Array, at: int, count: int) -> None:
    """Prefetch the cache lines of ``count`` elements from place ``at`` on, maybe not the last."""
    address = array.ctypes.data + at * array.itemsize
    for byte in range(0, count * array.itemsize, VECTOR_BYTES):
        prefetch(address + byte)


@inner
def may_stream(array: Array) -> bool:
    """Whether the rows of an array are whole cache lines, each of which one register writes.

    Only then are stores past the caches faster: half a line takes its own access to memory.
    """
    row_bytes = array.shape[-1] * array.itemsize
    whole = array.ctypes.data % VECTOR_BYTES == 0 and row_bytes % VECTOR_BYTES == 0
    return whole and register_lanes(array) * array.itemsize == VECTOR_BYTES
