"""Matrix products of int8 weights and of rows that are rounded to int8 on the way.

A row x (I,) has one scale, and so has each column of the weights::

    q[k] = round(x[k] / s)        s = largest |x| / 127
    y[n] = (sum over k of q[k] w[k, n]) * (s * scale[n]) + bias[n]

The sum is one of integers, in int32, and exact. So a row has the same bits in any batch, on any
number of threads and any CPU: those of `fffcpu.kernels.encoder.vectorized`.

Sixteen columns of the weights lie together as a panel, four numbers of each column side by side, as
the instructions of x86-64 take them; I is padded with zeros to whole blocks of 64::

    panel    k = 0 1 2 3 of column 0 | of column 1 | ... | of column 15      64 bytes
             k = 4 5 6 7 of column 0 | ...

    by lanes (VNNI)    6 rows by 4 panels: 24 sums of 16 columns in registers
    by tiles (AMX)     32 rows by 2 panels: 4 sums of 16 rows and 16 columns, 64 k at a time

A thread takes a block of rows: it rounds them, multiplies them with all columns or a share of them,
and makes float32 numbers of 32 rows and two panels while these are in the nearest cache. A dense
feedforward does both of its products on a block, so that no logit leaves the L2 cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.config.layers import NO_ACTIVATION
from fffcpu.kernels._numba.integers import (
    LANES,
    PANELS,
    ROWS,
    SHIFT,
    TILES,
    begin_tiles,
    end_tiles,
    lane_step,
    larger_magnitudes,
    largest_magnitude,
    load_as_floats,
    narrow_tile_step,
    no_magnitude,
    store_bytes,
    store_lane_sums,
    store_tiles,
    tile_step,
    zero_sums,
    zero_tiles,
)
from fffcpu.kernels.elementwise import activate_run
from fffcpu.kernels.jit import inlined, inner, kernel, launch, launch_threads, writable
from fffcpu.kernels.simd import (
    VECTOR_BYTES,
    add,
    broadcast,
    load,
    load_partial,
    multiply,
    pointer,
    store,
    store_partial,
)
from fffcpu.lowbit import LARGEST
from fffcpu.system.memory import check_memory
from fffcpu.system.tiles import permitted

__all__ = ["feed_forward", "integer_matrix", "project"]

Array = NDArray[Any]
Pointer = Any
"""The address of an array's elements; see `fffcpu.kernels.simd.pointer`."""

DEPTH = 64
"""Numbers of a row that a step of the tiles takes; rows are padded to a multiple."""
PANELS_TOGETHER = 4
"""Panels are padded to a multiple."""
BLOCK_ROWS = 64
"""Rows that a thread takes at a time: they meet weights in L2, and panels in L1."""
SCRATCH_ROWS = BLOCK_ROWS + 8
"""Rows of scratch memory: the last six rows of a block may be more than are left."""

MOST_ITEMS = 8
"""Tasks of a product with few rows: shares of the columns."""
SPEED = 4
"""Products of bytes in the time of a multiply-add of float32."""

_LARGEST = np.float32(LARGEST)
_ONE = np.float32(1)
_SMALLEST = np.finfo(np.float32).tiny
_FINITE = np.finfo(np.float32).max
_NAN = np.float32(np.nan)


class Panels(NamedTuple):
    """Weights of a product in panels, as inner functions take them: I inputs and O outputs."""

    panels: Array
    """int8 (P, G, 64): of a panel, G groups of four rows of weights."""
    offsets: Array
    """int32 (16 P,): what the shift of the rows' bytes adds to the sum of each column, negated."""
    scales: Array
    """float32 (16 P,): scale of each column."""
    bias: Array
    """float32 (16 P,)."""


class IntegerMatrix(NamedTuple):
    """Weights of a product as the functions of this module take them."""

    panels: Panels
    columns: int
    """Number O of columns."""


def integer_matrix(weights: Array, scales: Array, bias: Array | None) -> Any:
    """Return the weights of a product as `project` and `feed_forward` take them."""
    outputs, inputs = weights.shape
    panels = -(-outputs // (LANES * PANELS_TOGETHER)) * PANELS_TOGETHER
    depth = -(-inputs // DEPTH) * DEPTH
    check_memory(2 * panels * LANES * depth, f"int8 weights of {outputs} x {inputs}")
    padded = np.zeros((panels * LANES, depth), np.int8)
    padded[:outputs, :inputs] = weights
    fours = padded.reshape(panels, LANES, depth // 4, 4).swapaxes(1, 2)
    packed = _aligned(fours).reshape(panels, depth // 4, 4 * LANES)
    offsets = padded.sum(axis=1, dtype=np.int64) * -SHIFT
    terms = np.zeros((2, panels * LANES), np.float32)
    terms[0, :outputs] = scales
    if bias is not None:
        terms[1, :outputs] = bias
    return IntegerMatrix(Panels(packed, offsets.astype(np.int32), *terms), outputs)


def _aligned(numbers: Array) -> Array:
    """Return a copy of int8 numbers, in their order, that starts at a cache line."""
    memory = np.empty(numbers.size + VECTOR_BYTES, np.int8)
    start = -memory.ctypes.data % VECTOR_BYTES
    copy = memory[start : start + numbers.size]
    copy.reshape(numbers.shape)[...] = numbers
    return copy


# --- Rounding -------------------------------------------------------------------------------------


@inner
def _scale_of(x: Pointer, at: int, width: int) -> Any:
    """Return the scale of a row; NaN if a number of it is not finite."""
    largest = no_magnitude()
    for k in range(0, width, LANES):
        left = width - k
        numbers = load(x, at + k) if left >= LANES else load_partial(x, at + k, left)
        largest = larger_magnitudes(largest, numbers)
    most = largest_magnitude(largest)
    if not most <= _FINITE:
        return _NAN
    return max(most / _LARGEST, _SMALLEST)


# --- Products -------------------------------------------------------------------------------------
#
# ``tiles`` is True for tiles and None for lanes: Numba compiles a version of each function for the
# type of the argument, and lanes need no tiles then.


class _Scratch(NamedTuple):
    """Memory of a thread."""

    octets: Array
    """uint8 (SCRATCH_ROWS, I), I padded: a block of rows as bytes."""
    scales: Array
    """float32 (SCRATCH_ROWS,): their scales."""
    sums: Array
    """int32 (1024,): sums of up to 32 rows and two panels, or six rows and four panels."""


@inner
def _scratch(matrix: Panels) -> _Scratch:
    """Return memory for the products of a block of rows with a matrix."""
    depth = matrix.panels.shape[1] * 4
    return _Scratch(
        np.empty(SCRATCH_ROWS * depth, np.uint8),
        np.empty(SCRATCH_ROWS, np.float32),
        np.empty(4 * LANES * LANES, np.int32),
    )


@inner
def _round_rows(scratch: _Scratch, x: Pointer, count: int, width: int, depth: int) -> None:
    """Write rows as bytes, with zeros up to ``depth``, and their scales."""
    octets, scales = pointer(scratch.octets, 0), pointer(scratch.scales, 0)
    for row in range(count):
        at = row * width
        scale = _scale_of(x, at, width)
        scales[row] = scale
        inverse = broadcast(_ONE / scale)
        for k in range(0, depth, LANES):
            left = width - k
            numbers = load(x, at + k) if left >= LANES else load_partial(x, at + k, max(left, 0))
            store_bytes(octets, row * depth + k, multiply(numbers, inverse))


@inlined
def _sums_by_lanes(
    sums: Array, octets: Array, at: int, depth: int, panels: Array, place: int
) -> None:
    """Write the sums of six rows and four panels, `ROWS` and `PANELS`."""
    totals = zero_sums()
    for k in range(0, depth, 4):
        totals = lane_step(totals, octets, at + k, depth, panels, place + k * LANES, depth * LANES)
    store_lane_sums(sums, totals)


@inlined
def _sums_by_tiles(
    sums: Array, octets: Array, at: int, depth: int, panels: Array, place: int, rows: int
) -> None:
    """Write the sums of up to 32 rows for two panels."""
    zero_tiles()
    if rows > LANES:
        for k in range(0, depth, DEPTH):
            tile_step(octets, at + k, depth, panels, place + k * LANES, depth * LANES)
    else:
        for k in range(0, depth, DEPTH):
            narrow_tile_step(octets, at + k, depth, panels, place + k * LANES, depth * LANES)
    store_tiles(sums)


@inner
def _write_sums(
    y: Array,
    y_at: int,
    y_step: int,
    left: int,
    sums: Array,
    sums_at: int,
    sums_step: int,
    terms: tuple[Array, Array, Array],
    scales: Array,
    count: int,
) -> None:
    """Write the outputs of some rows for a panel with ``left`` columns from the first one on."""
    offsets, column_scales, bias = terms
    own, start = load(column_scales, 0), load(bias, 0)
    for row in range(count):
        total = load_as_floats(sums, sums_at + row * sums_step, offsets, 0)
        result = add(multiply(total, multiply(own, broadcast(scales[row]))), start)
        place = y_at + row * y_step
        if left >= LANES:
            store(y, place, result)
        else:
            store_partial(y, place, result, left)


@inner
def _multiply(
    y: Array,
    y_at: int,
    y_step: int,
    columns: int,
    scratch: _Scratch,
    count: int,
    matrix: Panels,
    panels: tuple[int, int],
    tiles: bool | None,
) -> None:
    """Write the products of a block of rounded rows with a range of panels."""
    depth = matrix.panels.shape[1] * 4
    octets, sums = pointer(scratch.octets, 0), pointer(scratch.sums, 0)
    weights, out = pointer(matrix.panels, 0), pointer(y, y_at)
    rows, together = ROWS, PANELS
    if tiles is not None:
        rows, together = 2 * LANES, 2
        begin_tiles()
    for panel in range(panels[0], panels[1], together):
        place = panel * depth * LANES
        for row in range(0, count, rows):
            number = min(rows, count - row)
            if tiles is None:
                _sums_by_lanes(sums, octets, row * depth, depth, weights, place)
            else:
                _sums_by_tiles(sums, octets, row * depth, depth, weights, place, number)
            for p in range(together):
                at = (panel + p) * LANES
                if at < columns:
                    terms = (
                        pointer(matrix.offsets, at),
                        pointer(matrix.scales, at),
                        pointer(matrix.bias, at),
                    )
                    _write_sums(
                        out,
                        row * y_step + at,
                        y_step,
                        columns - at,
                        sums,
                        p * LANES,
                        together * LANES,
                        terms,
                        pointer(scratch.scales, row),
                        number,
                    )
    if tiles is not None:
        end_tiles()


@inner
def _activate(y: Pointer, step: int, columns: int, count: int, activation: int) -> None:
    """Replace some columns of rows by their activations."""
    if activation != NO_ACTIVATION:
        for row in range(count):
            activate_run(y, row * step, y, row * step, columns, activation, False)


@kernel
def _project(
    y: Array,
    x: Array,
    panels: Array,
    offsets: Array,
    scales: Array,
    bias: Array,
    shares: int,
    activation: int,
    tiles: bool | None,
    start: int,
    stop: int,
) -> None:
    """Process blocks of rows, each ``shares`` times with a share of the columns."""
    matrix = Panels(panels, offsets, scales, bias)
    (rows, columns), width = y.shape, x.shape[1]
    fours = matrix.panels.shape[0] // PANELS_TOGETHER
    scratch = _scratch(matrix)
    depth = matrix.panels.shape[1] * 4
    rounded = -1
    for item in range(start, stop):
        block, share = item // shares, item % shares
        first = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, rows - first)
        if block != rounded:
            _round_rows(scratch, pointer(x, first * width), count, width, depth)
            rounded = block
        own = (
            fours * share // shares * PANELS_TOGETHER,
            fours * (share + 1) // shares * PANELS_TOGETHER,
        )
        _multiply(y, first * columns, columns, columns, scratch, count, matrix, own, tiles)
        at, last = own[0] * LANES, min(own[1] * LANES, columns)
        if at < last:
            _activate(pointer(y, first * columns + at), columns, last - at, count, activation)


@kernel
def _feed_forward(
    y: Array,
    x: Array,
    panels_in: Array,
    offsets_in: Array,
    scales_in: Array,
    bias_in: Array,
    panels_out: Array,
    offsets_out: Array,
    scales_out: Array,
    bias_out: Array,
    neurons: int,
    activation: int,
    tiles: bool | None,
    start: int,
    stop: int,
) -> None:
    """Process blocks of rows: both products, and the activations between them."""
    first = Panels(panels_in, offsets_in, scales_in, bias_in)
    second = Panels(panels_out, offsets_out, scales_out, bias_out)
    (rows, columns), width = y.shape, x.shape[1]
    scratch, inner_scratch = _scratch(first), _scratch(second)
    active = np.empty((BLOCK_ROWS, neurons), np.float32)
    for block in range(start, stop):
        row = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, rows - row)
        depth = first.panels.shape[1] * 4
        _round_rows(scratch, pointer(x, row * width), count, width, depth)
        panels = (0, first.panels.shape[0])
        _multiply(active, 0, neurons, neurons, scratch, count, first, panels, tiles)
        _activate(pointer(active, 0), neurons, neurons, count, activation)
        depth = second.panels.shape[1] * 4
        _round_rows(inner_scratch, pointer(active, 0), count, neurons, depth)
        panels = (0, second.panels.shape[0])
        _multiply(y, row * columns, columns, columns, inner_scratch, count, second, panels, tiles)


def _tiles() -> bool | None:
    """Return True if kernels may use tiles, else None."""
    return True if TILES and permitted() else None


def project(y: Array, x: Array, matrix: Any) -> None:
    """Write the products of rows with a matrix of int8 weights, in float32."""
    _launch_project(y, x, matrix.panels, NO_ACTIVATION)


def _launch_project(y: Array, x: Array, panels: Panels, activation: int) -> None:
    """Write the products of rows with a matrix, or their activations."""
    blocks = -(-len(x) // BLOCK_ROWS)
    most = len(panels.panels) // PANELS_TOGETHER
    shares = max(1, min(MOST_ITEMS // max(blocks, 1), most))
    work = min(len(x), BLOCK_ROWS) * panels.panels.size // (SPEED * shares)
    arguments = y, writable(x), *panels, shares, activation, _tiles()
    launch(_project, blocks * shares, work, *arguments)


def feed_forward(y: Array, x: Array, first: Any, activation: int, second: Any) -> None:
    """Write the outputs of a dense feedforward with int8 weights."""
    blocks = -(-len(x) // BLOCK_ROWS)
    if blocks < launch_threads():
        active = np.empty((len(x), first.columns), np.float32)
        _launch_project(active, x, first.panels, activation)
        project(y, active, second)
        return
    work = BLOCK_ROWS * (first.panels.panels.size + second.panels.panels.size) // SPEED
    both = *first.panels, *second.panels
    arguments = y, writable(x), *both, first.columns, activation, _tiles()
    launch(_feed_forward, blocks, work, *arguments)
