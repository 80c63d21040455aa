"""Matrix products of float32 or float64, whose bits depend on neither the batch nor the threads.

Of rows x (B, I), weights (I, O) and a bias (O,)::

    y[b, n] = activation(x[b, 0] w[0, n] + x[b, 1] w[1, n] + ... + bias[n])

The terms of a chunk, of `CHUNK` inputs, are summed by themselves: from 0 on, with one fused
multiply-add per term, in this order. Then the sums of the chunks are added. So a row has the same
bits in any batch, at any position, on any number of threads and any CPU. A BLAS promises none of
that: it chooses its blocks by the shape.

Panels, chunks and blocks, with 64 columns of float32 in a panel where there is AVX-512::

    weights, a chunk of 384 inputs       y
    |      |  panel of columns,          |   |####|   |  6 rows of a panel:
    |      |  copied to the L2 cache,    |   |####|   |  a block of sums in registers
    |      |  one row per input          |            |

A thread takes a range of rows, or a range of panels if there are few rows. It goes from chunk to
chunk and from panel to panel, and multiplies each panel with all of its rows. A BLAS copies panels
too, but all of them before the first product, and to memory. With few rows, that takes longer than
the products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu.config.layers import NO_ACTIVATION
from fffcpu.kernels._numba.matrices import (
    REGISTERS,
    ROWS,
    block_add,
    block_fma,
    block_store,
    block_zeros,
    fma_transposed,
    store_transposed,
)
from fffcpu.kernels._numba.vector import REGISTER_BYTES
from fffcpu.kernels.elementwise import activate_run
from fffcpu.kernels.jit import inlined, inner, kernel, launch, launch_threads, writable
from fffcpu.kernels.simd import (
    VECTOR_BYTES,
    add,
    fma,
    keep,
    lanes,
    load,
    load_partial,
    load_register,
    load_register_partial,
    pointer,
    prefetch,
    register_lanes,
    register_zeros,
    repeat_register,
    store,
    store_partial,
)

__all__ = ["hidden_layer", "matmul"]

Array = NDArray[Any]
Pointer = Any
"""The address of an array's elements; see `fffcpu.kernels.simd.pointer`."""

Address = Any
"""An address as a signed integer: an unsigned one plus a signed distance would become a float."""

CHUNK = 384
"""Inputs whose weights are copied at once. Another number gives other bits."""
MOST_ROWS = 192
"""Rows of a range: a chunk of them stays in the L2 cache, together with a panel."""
TURNS = REGISTERS * REGISTER_BYTES // VECTOR_BYTES
"""Blocks of a panel whose steps, together, prefetch all lines of the next panel."""
FEW_ROWS = 2
"""Most rows for which weights are not copied."""
SMALL = 1 << 16
"""Most weights of a hidden layer that takes a few rows in one launch, on the caller's thread."""
READ_COST = 16
"""Cost of a weight that is read from memory, in multiply-adds."""


class _Matrix(NamedTuple):
    """Numbers of rows, or of weights by column."""

    numbers: Pointer
    of_rows: int
    """Distance of neighbouring rows, or columns of weights."""
    of_inputs: int
    """Distance of neighbouring inputs. One of both distances is 1."""


@inlined
def _copy_panel(
    panel: Pointer, weights: _Matrix, first: int, k0: int, columns: int, depth: int
) -> None:
    """Copy the weights of some columns and of the inputs from ``k0`` on, one row per input.

    The last rows may go up to a register's lanes beyond the last input.
    """
    size = register_lanes(panel)
    width = REGISTERS * size
    for column in range(0, width, size):
        left = columns - column
        at = (first + column) * weights.of_rows + k0 * weights.of_inputs
        if left <= 0:  # nobody reads their sums, but subnormal numbers would take long
            for k in range(depth):
                store(panel, k * width + column, register_zeros(panel))
        elif weights.of_inputs == 1:
            for k in range(0, depth, size):
                place = k * width + column
                square = at + k, weights.of_rows, left - 1, depth - k
                store_transposed(panel, place, width, weights.numbers, *square)
        else:
            for k in range(depth):
                place = at + k * weights.of_inputs
                if left >= size:
                    numbers = load_register(weights.numbers, place)
                else:
                    numbers = load_register_partial(weights.numbers, place, left)
                store(panel, k * width + column, numbers)


class _Lines(NamedTuple):
    """Cache lines of memory, in runs that lie at equal distances."""

    first: Address
    """Address of the first line."""
    run: int
    """Lines of a run."""
    gap: int
    """Bytes from the end of a run to the beginning of the next."""


@inlined
def _lines_of(
    weights: _Matrix, start: Address, itemsize: int, column: int, k0: int, width: int, depth: int
) -> _Lines:
    """Return the lines of the weights of a panel; those of all panels start at an address."""
    first = start + (column * weights.of_rows + k0 * weights.of_inputs) * itemsize
    length, step = depth, weights.of_rows
    if weights.of_inputs != 1:
        length, step = width, weights.of_inputs
    run = (length * itemsize + VECTOR_BYTES - 1) // VECTOR_BYTES
    return _Lines(first, max(run, 1), step * itemsize - run * VECTOR_BYTES)


@inlined
def _add_block(
    y: Pointer,
    at: int,
    step: int,
    x: _Matrix,
    x_at: int,
    panel: Pointer,
    depth: int,
    onto: bool,
    ahead: _Lines,
    turn: int,
) -> None:
    """Add the products of `ROWS` rows with a panel to a block of y, or write them.

    Each step prefetches one of the lines ``ahead``. The steps of a block with another ``turn``
    prefetch others.
    """
    width = REGISTERS * register_lanes(y)
    sums = block_zeros(y)
    number = turn * depth
    line = ahead.first + number * VECTOR_BYTES + number // ahead.run * ahead.gap
    left = ahead.run - number % ahead.run
    for k in range(depth):
        prefetch(line)
        line, left = line + VECTOR_BYTES, left - 1
        if left == 0:
            line, left = line + ahead.gap, ahead.run
        place = x_at + k * x.of_inputs
        sums = block_fma(sums, x.numbers, place, x.of_rows, panel, k * width)
    if onto:
        sums = block_add(y, at, step, sums)
    block_store(y, at, step, sums)


@inner
def _copy_rows(out: _Matrix, x: _Matrix, first: int, count: int, k0: int, depth: int) -> None:
    """Copy rows of x, from the inputs ``k0`` on."""
    for row in range(count):
        for k in range(depth):
            place = (first + row) * x.of_rows + (k0 + k) * x.of_inputs
            out.numbers[row * out.of_rows + k] = x.numbers[place]


@inner
def _copy_block(
    out: Pointer, out_at: int, out_step: int, block: Pointer, at: int, step: int, shape: Any
) -> None:
    """Copy the first rows and columns of a block."""
    rows, columns = shape
    for row in range(rows):
        for k in range(0, columns, register_lanes(out)):
            part = load_register_partial(block, at + row * step + k, columns - k)
            store_partial(out, out_at + row * out_step + k, part, columns - k)


@inner
def _finish(
    y: Pointer, at: int, step: int, shape: Any, bias: Pointer, biased: bool, activation: int
) -> None:
    """Add the bias to some rows and columns, if there is one, and apply the activation."""
    rows, columns = shape
    for row in range(rows):
        own = at + row * step
        if biased:
            for k in range(0, columns, lanes(y)):
                left = columns - k
                if left >= lanes(y):
                    store(y, own + k, add(load(y, own + k), load(bias, k)))
                else:
                    total = add(load_partial(y, own + k, left), load_partial(bias, k, left))
                    store_partial(y, own + k, total, left)
        if activation != NO_ACTIVATION:
            activate_run(y, own, y, own, columns, activation, False)


@kernel
def _matmul(
    y: Array,
    x: Array,
    x_row: int,
    x_input: int,
    weights: Array,
    weights_column: int,
    weights_input: int,
    bias: Array,
    activation: int,
    inputs: int,
    range_rows: int,
    shares: int,
    start: int,
    stop: int,
) -> None:
    """Process ranges of rows, each ``shares`` times with a share of the panels."""
    (rows, columns), out, biased = y.shape, pointer(y, 0), len(bias) > 0
    rows_of_x = _Matrix(pointer(x, 0), x_row, x_input)
    matrix = _Matrix(pointer(weights, 0), weights_column, weights_input)
    size = register_lanes(y)
    width, chunk = REGISTERS * size, min(CHUNK, inputs)
    panels = (columns + width - 1) // width
    of_panel, of_block = (chunk + size) * width, ROWS * width
    memory = np.empty(of_panel + of_block + ROWS * chunk + VECTOR_BYTES, y.dtype)
    aligned = (-memory.ctypes.data) % VECTOR_BYTES // memory.itemsize
    panel, block = pointer(memory, aligned), pointer(memory, aligned + of_panel)
    # The last rows of a range may be fewer than those of a block: they are copied, to be as many.
    last_rows = _Matrix(pointer(memory, aligned + of_panel + of_block), chunk, 1)
    for k in range(ROWS * chunk):
        last_rows.numbers[k] = 0
    start_of_weights = np.intp(weights.ctypes.data)
    in_cache = _Lines(np.intp(memory.ctypes.data), chunk + 1, 0)
    for item in range(start, stop):
        share = item % shares
        first = item // shares * range_rows
        last = min(first + range_rows, rows)
        whole = first + (last - first) // ROWS * ROWS
        own_panels = panels * share // shares, panels * (share + 1) // shares
        for k0 in range(0, max(inputs, 1), CHUNK):
            depth, onto = min(CHUNK, inputs - k0), k0 > 0
            _copy_rows(last_rows, rows_of_x, whole, last - whole, k0, depth)
            for p in range(own_panels[0], own_panels[1]):
                column = p * width
                left = min(width, columns - column)
                _copy_panel(panel, matrix, column, k0, left, depth)
                next_at = column + width
                following = _lines_of(
                    matrix, start_of_weights, weights.itemsize, next_at, k0, width, depth
                )
                for row in range(first, last, ROWS):
                    at, shape = row * columns + column, (min(ROWS, last - row), left)
                    own, own_at = rows_of_x, row * x_row + k0 * x_input
                    if row >= whole:
                        own, own_at = last_rows, 0
                    ahead, turn = following, (row - first) // ROWS
                    if turn >= TURNS or p + 1 == own_panels[1]:
                        ahead, turn = in_cache, 0
                    if row < whole and left == width:
                        _add_block(out, at, columns, own, own_at, panel, depth, onto, ahead, turn)
                    else:
                        if onto:
                            _copy_block(block, 0, width, out, at, columns, shape)
                        _add_block(block, 0, width, own, own_at, panel, depth, onto, ahead, turn)
                        _copy_block(out, at, columns, block, 0, width, shape)
                    if k0 + depth == inputs:
                        _finish(out, at, columns, shape, pointer(bias, column), biased, activation)
    keep(memory)


@inner
def _put(y: Pointer, at: int, total: Any, left: int, onto: bool) -> None:
    """Write the first ``left`` numbers of a register, or add them."""
    if onto:
        total = add(load_register_partial(y, at, left), total)
    store_partial(y, at, total, left)


@inlined
def _add_row(
    y: Pointer,
    first: int,
    columns: int,
    x: Pointer,
    k0: int,
    depth: int,
    weights: _Matrix,
) -> None:
    """Add the products of a row and a chunk to up to four registers of columns, or write them."""
    size, onto = register_lanes(y), k0 > 0
    if weights.of_inputs == 1:
        for column in range(0, columns, size):
            total, left = register_zeros(y), columns - column
            for k in range(0, depth, size):
                own = (first + column) * weights.of_rows + k0 + k
                square = own, weights.of_rows, left - 1, depth - k
                total = fma_transposed(total, x, k0 + k, weights.numbers, *square)
            _put(y, first + column, total, left, onto)
        return
    left1, left2, left3 = columns - size, columns - 2 * size, columns - 3 * size
    total0 = total1 = total2 = total3 = register_zeros(y)
    for k in range(k0, k0 + depth):
        factor, own = repeat_register(x, k), first + k * weights.of_inputs
        total0 = fma(factor, load_register_partial(weights.numbers, own, columns), total0)
        total1 = fma(factor, load_register_partial(weights.numbers, own + size, left1), total1)
        total2 = fma(factor, load_register_partial(weights.numbers, own + 2 * size, left2), total2)
        total3 = fma(factor, load_register_partial(weights.numbers, own + 3 * size, left3), total3)
    _put(y, first, total0, columns, onto)
    _put(y, first + size, total1, left1, onto)
    _put(y, first + 2 * size, total2, left2, onto)
    _put(y, first + 3 * size, total3, left3, onto)


class _Weights(NamedTuple):
    """Weights of a product, its bias and activation."""

    matrix: _Matrix
    inputs: int
    outputs: int
    bias: Pointer
    biased: bool
    activation: int


@inner
def _multiply_row(y: Pointer, x: Pointer, weights: _Weights, first: int) -> None:
    """Write the products of a row with the weights of four registers of columns from one on."""
    columns = min(4 * register_lanes(y), weights.outputs - first)
    for k0 in range(0, max(weights.inputs, 1), CHUNK):
        depth = min(CHUNK, weights.inputs - k0)
        _add_row(y, first, columns, x, k0, depth, weights.matrix)
    bias, shape = pointer(weights.bias, first), (1, columns)
    _finish(y, first, columns, shape, bias, weights.biased, weights.activation)


@kernel
def _matmul_few(
    y: Array,
    x: Array,
    weights: Array,
    weights_column: int,
    weights_input: int,
    bias: Array,
    activation: int,
    second: Array,
    shares: int,
    start: int,
    stop: int,
) -> None:
    """Process shares of the columns for a few rows, whose weights are not copied.

    If there are ``second`` weights, one row per column, y is the product with these, and there is
    one share.
    """
    (rows, outputs), inputs, columns = y.shape, x.shape[1], len(second)
    hidden = np.empty(rows * columns, y.dtype)
    products = pointer(hidden, 0)
    if columns == 0:
        products, columns = pointer(y, 0), outputs
    matrix = _Matrix(pointer(weights, 0), weights_column, weights_input)
    own = _Weights(matrix, inputs, columns, pointer(bias, 0), len(bias) > 0, activation)
    width = 4 * register_lanes(y)
    groups = (columns + width - 1) // width
    for group in range(groups * start // shares, groups * stop // shares):
        for row in range(rows):
            out, numbers = pointer(products, row * columns), pointer(x, row * inputs)
            _multiply_row(out, numbers, own, group * width)
    if len(second) > 0 and start < stop:  # a thread without a share has no products to go on with
        matrix = _Matrix(pointer(second, 0), 1, outputs)
        last = _Weights(matrix, columns, outputs, pointer(bias, 0), False, NO_ACTIVATION)
        for column in range(0, outputs, width):
            for row in range(rows):
                out, numbers = pointer(y, row * outputs), pointer(products, row * columns)
                _multiply_row(out, numbers, last, column)
    keep(hidden)


def matmul(
    y: Array,
    x: Array,
    weights: Array,
    bias: Array | None = None,
    activation: int = NO_ACTIVATION,
) -> None:
    """Write products of rows with weights, ``y = activation(x weights + bias)``.

    The caller has checked the shapes.
    """
    (rows, inputs), outputs = x.shape, y.shape[1]
    if not y.size:
        return
    threads = launch_threads()
    rows_of_x, *x_steps = _with_steps(x)
    columns, *steps = _with_steps(weights.T)
    biases = np.empty(0, y.dtype) if bias is None else writable(bias)
    if rows <= FEW_ROWS and x_steps[1] == 1:
        work = READ_COST * columns.size // threads
        arguments = y, rows_of_x, columns, *steps, biases, activation, np.empty((0, 0), y.dtype)
        launch(_matmul_few, threads, work, *arguments, threads)
        return
    blocks, panels = -(-rows // ROWS), -(-outputs * y.itemsize // (REGISTERS * REGISTER_BYTES))
    ranges, shares = -(-rows // MOST_ROWS), 1
    if ranges < threads:
        shares = min(-(-threads // ranges), panels)
        ranges = min(max(ranges, threads // shares), blocks)
    else:
        ranges = -(-ranges // threads) * threads  # as many for each thread
    range_rows = -(-blocks // ranges) * ROWS
    items, work = -(-rows // range_rows) * shares, (range_rows + READ_COST) * columns.size // shares
    sizes = inputs, range_rows, shares
    arguments = rows_of_x, *x_steps, columns, *steps, biases, activation, *sizes
    launch(_matmul, items, work, y, *arguments)


def hidden_layer(
    y: Array, x: Array, weights_in: Array, bias: Array | None, activation: int, weights_out: Array
) -> None:
    """Write the output of a hidden layer, ``y = activation(x weights_in^T + bias) weights_out``.

    The caller has checked the shapes. Rows and weights are contiguous.
    """
    some = y.size > 0 and len(weights_out) > 0
    if some and len(x) <= FEW_ROWS and weights_in.size + weights_out.size <= SMALL:
        biases = np.empty(0, y.dtype) if bias is None else bias
        steps = weights_in.shape[1], 1
        arguments = y, writable(x), weights_in, *steps, biases, activation, weights_out
        launch(_matmul_few, 1, 1, *arguments, 1)
        return
    hidden = np.empty((len(x), len(weights_in)), y.dtype)
    matmul(hidden, x, weights_in.T, bias, activation)
    matmul(y, hidden, weights_out)


def _with_steps(matrix: Array) -> tuple[Array, int, int]:
    """Return a matrix, transposed if its memory is, and the distances of its rows and columns."""
    if matrix.flags.c_contiguous:
        return writable(matrix), matrix.shape[1], 1
    if matrix.flags.f_contiguous:
        return writable(matrix.T), 1, len(matrix)
    return np.ascontiguousarray(matrix), matrix.shape[1], 1
