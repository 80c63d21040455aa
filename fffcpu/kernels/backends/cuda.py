"""CUDA kernels: one block of threads per row, dot products summed through shared memory.

`fffcpu.kernels.backends.vectorized` documents the backend functions. Threads of a block take
neighbouring columns of one row, so each read of weights is one run of memory::

    thread              0   1   2  ... 255   0   1  ...
    column of x         0   1   2  ... 255 | 256 257 ...
    weights_in, node    w0  w1  w2 ... w255| ...              each thread adds up its products

    partial sums        p0  p1  p2  p3  p4  p5  p6  p7        in shared memory, here of 8 threads
                        p0+p4  p1+p5  p2+p6  p3+p7            always the same tree, so a row has
                           .-----+------'                     the same bits in any batch
                        logit: the whole block goes left or right

The backward has two steps and no atomics. The first uses one block per row: it computes the row's
logit gradients and its ``dx``. For the second the host sorts rows by the last node of their path,
and so by node at every level. Then a block takes one run (rows of one node) and 32 columns, and
writes them once::

                        columns 0 .. 31 | 32 .. 63 | ...      one block each
    rows of the run     lane 0: r7   r1 ...                   8 lanes share the rows, in turns, and
                        lane 1: r2   r0 ...                   are added as a tree in the end
                        ...

Arrays are NumPy's, which are copied to the GPU and back at each call, or already on the GPU
(`numba.cuda` device arrays, or anything with ``__cuda_array_interface__``), which are used in
place. The two may be mixed: weights that stay on the GPU, and rows that are copied. A call whose
outputs are all on the GPU returns before it has finished, as is usual there. CUDA must be requested
with ``FFFCPU_BACKEND=cuda`` or `fffcpu.kernels.load_backend`; it is never chosen automatically.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fffcpu.config import Activation
from fffcpu.errors import ArgumentTypeError, MissingExtraError, describe, require_extra

__all__ = [
    "leaf_infer",
    "leaf_route",
    "path_backward",
    "path_choices",
    "path_forward",
    "path_infer",
    "path_logits",
]

cuda: Any = require_extra("numba.cuda", "cuda")

if not cuda.is_available():
    _reason = " ".join(str(cuda.cuda_error() or "the CUDA compiler was not found").split())
    raise MissingExtraError(
        "backend 'cuda' needs an NVIDIA GPU, its driver and the CUDA compiler; "
        f"Numba reports: {_reason.rstrip(' .:')}. "
        "Install the compiler with: pip install 'fffcpu[cuda]'"
    )

Array = Any
"""A NumPy array, or one on the GPU."""

SIMULATED = bool(require_extra("numba", "cuda").config.ENABLE_CUDASIM)
"""Whether ``NUMBA_ENABLE_CUDASIM=1`` runs each thread of a block as a thread of Python. Blocks then
have few threads."""

MOST_THREADS = 4 if SIMULATED else 256
"""Maximum number of threads per block; a power of two. Not measured yet: three columns per thread
at width 768, and by their registers three blocks per multiprocessor."""

LEAST_THREADS = 2 if SIMULATED else 32
"""Minimum number of threads per block; a power of two. Hardware runs 32 at a time."""

MOST_BLOCKS = 4 if SIMULATED else 1 << 16
"""Maximum number of blocks per launch. If there are more rows, a block takes every 65,536th."""

VISITS = 32
"""Visited nodes whose activations stay in shared memory until the row's output is summed."""

COLUMNS = 4 if SIMULATED else 32
LANES = 2 if SIMULATED else 8
"""Threads of a block in the backward's second step: 32 columns by 8 rows; the number of lanes is a
power of two."""

_GELU = int(Activation.GELU)
_RELU = int(Activation.RELU)


# --- What one thread computes -----------------------------------------------------------------


@cuda.jit(device=True)
def _at_most(limit: int, number: int) -> int:
    """Return the smaller; ``min`` does not compile for the CUDA target of Numba 0.68 itself."""
    return limit if number > limit else number


@cuda.jit(device=True)
def _activate(s: Any, activation: int) -> Any:
    """Return the activation in the dtype of ``s``: most GPUs run float64 32 to 64 times slower."""
    number = type(s)
    if not math.isfinite(s):
        return number(math.nan)
    if activation == _GELU:
        half = number(0.5)
        return half * s * number(math.erfc(-s * number(math.sqrt(half))))
    if activation == _RELU:
        return s if s > 0 else number(0)
    return s


@cuda.jit(device=True)
def _density(s: Any) -> Any:
    """Return the density of the normal distribution."""
    number = type(s)
    return number(0.3989422804014327) * number(math.exp(-number(0.5) * s * s))


@cuda.jit(device=True)
def _activate_gradient(s: Any, activation: int) -> Any:
    """Return the derivative of `_activate`; 0 at 0 for ReLU."""
    number = type(s)
    if not math.isfinite(s):
        return number(math.nan)
    if activation == _GELU:
        half = number(0.5)
        return half * number(math.erfc(-s * number(math.sqrt(half)))) + s * _density(s)
    if activation == _RELU:
        return number(1) if s > 0 else number(0)
    return number(1)


@cuda.jit(device=True)
def _node_activation(s: Any, sides: int, activation: int) -> Any:
    """Return what a node with this logit adds: at two sides, the activation of its magnitude."""
    return _activate(abs(s) if sides == 2 else s, activation)


@cuda.jit(device=True)
def _node_slope(s: Any, sides: int, activation: int) -> Any:
    """Return the derivative of `_node_activation`; at two sides 0 at 0."""
    if sides == 1:
        return _activate_gradient(s, activation)
    if s == 0:
        return type(s)(0)
    slope = _activate_gradient(abs(s), activation)
    return slope if s > 0 else -slope


@cuda.jit(device=True)
def _outer_row(node: int, logit: Any, sides: int) -> int:
    """Return the row of output weights (T * N * S, O) that is used at a node with this logit."""
    if sides == 1:
        return node
    return 2 * node + (1 if logit > 0 else 0)


# --- What one block computes; all its threads call these, with the same arguments ---------------


@cuda.jit(device=True)
def _dot(partial: Any, weights: Any, place: int, x: Any, row: int) -> Any:
    """Return the dot product of ``weights[place]`` and ``x[row]`` in every thread of the block.

    ``partial`` is shared memory with one number per thread.
    """
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    total = partial.dtype.type(0)
    for column in range(thread, weights.shape[1], threads):
        total += weights[place, column] * x[row, column]
    partial[thread] = total
    cuda.syncthreads()
    half = threads // 2
    while half > 0:
        if thread < half:
            partial[thread] += partial[thread + half]
        cuda.syncthreads()
        half //= 2
    total = partial[0]
    cuda.syncthreads()  # nobody writes the next product before all have read this one
    return total


@cuda.jit(device=True)
def _descend(
    partial: Any, logits: Any, nodes: Any, row: int, x: Any, weights_in: Any, bias_in: Any
) -> None:
    """Write one row's path through every tree; ``weights_in`` has shape (T * N, I)."""
    _, trees, levels = logits.shape
    count = weights_in.shape[0] // trees
    for tree in range(trees):
        node = 0
        for level in range(levels):
            logit = _dot(partial, weights_in, tree * count + node, x, row) + bias_in[tree, node]
            if cuda.threadIdx.x == 0:
                logits[row, tree, level] = logit
                nodes[row, tree, level] = node
            node = 2 * node + (2 if logit > 0 else 1)
    cuda.syncthreads()  # all threads may read what the first one wrote


@cuda.jit(device=True)
def _combine(
    out: Any, row: int, weights: Any, factors: Any, places: Any, count: int, onto: bool
) -> None:
    """Write ``out[row]`` = sum of ``factors[k] * weights[places[k]]``, or add it to that."""
    for column in range(cuda.threadIdx.x, out.shape[1], cuda.blockDim.x):
        total = out[row, column] if onto else out.dtype.type(0)
        for k in range(count):
            total += factors[k] * weights[places[k], column]
        out[row, column] = total
    cuda.syncthreads()  # factors and places may be written again


@cuda.jit(device=True)
def _descend_gates(partial: Any, x: Any, row: int, gate_weights: Any, gate_bias: Any) -> Any:
    """Return the leaf that a row reaches, and whether every logit on its path was finite."""
    gates = gate_weights.shape[0]
    node = 0
    finite = True
    while node < gates:
        logit = _dot(partial, gate_weights, node, x, row) + gate_bias[node]
        finite = finite and math.isfinite(logit)
        node = 2 * node + (2 if logit >= 0 else 1)
    return node - gates, finite


# --- FastFeedForward: launched with one block per row ---------------------------------------------


@cuda.jit
def _path_logits(logits: Any, nodes: Any, x: Any, weights_in: Any, bias_in: Any) -> None:
    partial = cuda.shared.array(MOST_THREADS, x.dtype)
    for row in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        _descend(partial, logits, nodes, row, x, weights_in, bias_in)


@cuda.jit
def _path_forward(
    y: Any,
    logits: Any,
    nodes: Any,
    x: Any,
    weights_in: Any,
    bias_in: Any,
    weights_out: Any,
    activation: int,
) -> None:
    """Write outputs, logits and nodes; weights have shapes (T * N, I) and (T * N * S, O)."""
    partial = cuda.shared.array(MOST_THREADS, x.dtype)
    active = cuda.shared.array(VISITS, x.dtype)
    places = cuda.shared.array(VISITS, np.int64)
    _, trees, levels = logits.shape
    count = weights_in.shape[0] // trees
    sides = weights_out.shape[0] // weights_in.shape[0]
    for row in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        _descend(partial, logits, nodes, row, x, weights_in, bias_in)
        for first in range(0, trees * levels, VISITS):
            visits = _at_most(VISITS, trees * levels - first)
            for k in range(cuda.threadIdx.x, visits, cuda.blockDim.x):
                tree, level = (first + k) // levels, (first + k) % levels
                logit = logits[row, tree, level]
                active[k] = _node_activation(logit, sides, activation)
                places[k] = _outer_row(tree * count + nodes[row, tree, level], logit, sides)
            cuda.syncthreads()
            _combine(y, row, weights_out, active, places, visits, first > 0)


@cuda.jit
def _path_choices(
    d_logits: Any,
    dy: Any,
    x: Any,
    logits: Any,
    nodes: Any,
    weights_in: Any,
    bias_in: Any,
    weights_out: Any,
    activation: int,
) -> None:
    """Go up each path, and down again from each child that was not taken."""
    partial = cuda.shared.array(MOST_THREADS, x.dtype)
    number = x.dtype.type
    _, trees, levels = logits.shape
    count = weights_in.shape[0] // trees
    sides = weights_out.shape[0] // weights_in.shape[0]
    for row in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        for tree in range(trees):
            taken = number(0)
            for level in range(levels - 1, -1, -1):
                own, first = logits[row, tree, level], nodes[row, tree, level]
                right = own > 0
                node = 2 * first + (1 if right else 2)
                other = number(0)
                for _ in range(level + 1, levels):
                    place = tree * count + node
                    logit = _dot(partial, weights_in, place, x, row) + bias_in[tree, node]
                    share = _dot(partial, weights_out, _outer_row(place, logit, sides), dy, row)
                    other += _node_activation(logit, sides, activation) * share
                    node = 2 * node + (2 if logit > 0 else 1)
                here = _outer_row(tree * count + first, own, sides)
                active = _node_activation(own, sides, activation)
                share = number(0)
                if level > 0 or sides == 2:  # the value of the only side of a root is not needed
                    share = active * _dot(partial, weights_out, here, dy, row)
                if sides == 2:
                    taken += share
                    # The rows of a node's two sides are next to each other.
                    other += active * _dot(partial, weights_out, here ^ 1, dy, row)
                better = taken - other if math.isfinite(other) else number(0) * taken
                if cuda.threadIdx.x == 0:
                    better = better if right else -better
                    d_logits[row, tree, level] = better * _density(own)
                if sides == 1:
                    taken += share


@cuda.jit
def _path_deltas(
    dx: Any,
    delta: Any,
    active: Any,
    dy: Any,
    logits: Any,
    nodes: Any,
    d_logits: Any,
    weights_in: Any,
    weights_out: Any,
    activation: int,
) -> None:
    """Backward, first step: write dx, and logit gradients and activations (B, T, L)."""
    partial = cuda.shared.array(MOST_THREADS, dx.dtype)
    own = cuda.shared.array(VISITS, dx.dtype)
    places = cuda.shared.array(VISITS, np.int64)
    _, trees, levels = logits.shape
    count = weights_in.shape[0] // trees
    sides = weights_out.shape[0] // weights_in.shape[0]
    for row in range(cuda.blockIdx.x, dx.shape[0], cuda.gridDim.x):
        for first in range(0, trees * levels, VISITS):
            visits = _at_most(VISITS, trees * levels - first)
            for k in range(visits):
                tree, level = (first + k) // levels, (first + k) % levels
                place = tree * count + nodes[row, tree, level]
                here = _outer_row(place, logits[row, tree, level], sides)
                d_active = _dot(partial, weights_out, here, dy, row)
                if cuda.threadIdx.x == 0:
                    own[k] = d_active
                    places[k] = place
            cuda.syncthreads()
            for k in range(cuda.threadIdx.x, visits, cuda.blockDim.x):
                tree, level = (first + k) // levels, (first + k) % levels
                logit = logits[row, tree, level]
                own[k] *= _node_slope(logit, sides, activation)
                if d_logits.shape[2]:
                    own[k] += d_logits[row, tree, level]
                delta[row, tree, level] = own[k]
                active[row, tree, level] = _node_activation(logit, sides, activation)
            cuda.syncthreads()
            _combine(dx, row, weights_in, own, places, visits, first > 0)


@cuda.jit
def _path_gradients(
    d_weights: Any, factors: Any, vectors: Any, order: Any, runs: Any, places: Any, sides: int
) -> None:
    """Backward, second step: each row of ``d_weights`` = sum over its rows of factor * vector.

    Launched with a block of `COLUMNS` by `LANES` threads per run and block of columns.

    Parameters
    ----------
    d_weights : array of shape (R * S, width), written
    factors : array of shape (B, T, L)
    vectors : array of shape (B, width)
    order : int64 array of shape (T, B)
        Rows in sorted order.
    runs : int64 array of shape (runs, 6)
        Runs that `_runs` returned, for S sides.
    places : int64 array of shape (T * N,)
        Number of each node among the R nodes of the gradient.
    sides : int
        S.
    """
    partial = cuda.shared.array((LANES, COLUMNS), d_weights.dtype)
    thread, lane = cuda.threadIdx.x, cuda.threadIdx.y
    width = vectors.shape[1]
    blocks = (width + COLUMNS - 1) // COLUMNS
    for task in range(cuda.blockIdx.x, runs.shape[0] * blocks, cuda.gridDim.x):
        run = task // blocks
        column = task % blocks * COLUMNS + thread
        tree, level = runs[run, 0], runs[run, 1]
        place = places[runs[run, 2]] * sides + runs[run, 3]
        total = d_weights.dtype.type(0)
        if column < width:
            for at in range(runs[run, 4] + lane, runs[run, 5], LANES):
                row = order[tree, at]
                total += factors[row, tree, level] * vectors[row, column]
        partial[lane, thread] = total
        cuda.syncthreads()
        half = LANES // 2
        while half > 0:
            if lane < half:
                partial[lane, thread] += partial[lane + half, thread]
            cuda.syncthreads()
            half //= 2
        if lane == 0 and column < width:
            d_weights[place, column] = partial[0, thread]
        cuda.syncthreads()


# --- LeafFeedForward: launched with one block per row ---------------------------------------------


@cuda.jit
def _leaf_route(leaves: Any, x: Any, gate_weights: Any, gate_bias: Any) -> None:
    partial = cuda.shared.array(MOST_THREADS, x.dtype)
    for row in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        leaf, _ = _descend_gates(partial, x, row, gate_weights, gate_bias)
        if cuda.threadIdx.x == 0:
            leaves[row] = leaf


@cuda.jit
def _leaf_infer(
    y: Any,
    x: Any,
    gate_weights: Any,
    gate_bias: Any,
    leaf_weights_in: Any,
    leaf_bias_in: Any,
    leaf_weights_out: Any,
    leaf_bias_out: Any,
    activation: int,
) -> None:
    """Compute the output of one row's leaf, with as many neurons at a time as there are threads.

    If there are fewer neurons, groups of threads share the columns of x, so that the block still
    reads one run of memory.
    """
    partial = cuda.shared.array(MOST_THREADS, x.dtype)
    active = cuda.shared.array(MOST_THREADS, x.dtype)
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    number = x.dtype.type
    _, width, hidden = leaf_weights_in.shape
    for row in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        leaf, finite = _descend_gates(partial, x, row, gate_weights, gate_bias)
        for first in range(0, hidden, threads):
            neurons = _at_most(threads, hidden - first)
            groups = threads // neurons
            total = number(0)
            if thread < groups * neurons:
                neuron = first + thread % neurons
                for column in range(thread // neurons, width, groups):
                    total += x[row, column] * leaf_weights_in[leaf, column, neuron]
            partial[thread] = total
            cuda.syncthreads()
            if thread < neurons:
                for group in range(1, groups):
                    total += partial[group * neurons + thread]
                total += leaf_bias_in[leaf, first + thread]
                active[thread] = _activate(total, activation) if finite else number(math.nan)
            cuda.syncthreads()
            for column in range(thread, y.shape[1], threads):
                total = leaf_bias_out[leaf, column] if first == 0 else y[row, column]
                for neuron in range(neurons):
                    total += active[neuron] * leaf_weights_out[leaf, first + neuron, column]
                y[row, column] = total
            cuda.syncthreads()


# --- The host's side ------------------------------------------------------------------------------


def _threads(width: int) -> int:
    """Return the number of threads per block: the power of two that covers a width, in limits."""
    covering = 1 << max(0, width - 1).bit_length()
    return max(LEAST_THREADS, min(MOST_THREADS, covering))


def _blocks(tasks: int) -> int:
    return min(tasks, MOST_BLOCKS)


def _on_device(array: Array) -> Any:
    """Return the array if it is on the GPU, else a copy there.

    Raises
    ------
    ArgumentTypeError
        If it holds narrow weights, which these kernels would read as integers.
    """
    if getattr(array, "dtype", None) in (np.uint16, np.int8):
        raise ArgumentTypeError(
            f"weights for backend 'cuda' must be float32 or float64, got {describe(array)}; "
            "use another backend for a quantized layer, or the layer that its dequantize() returns"
        )
    if isinstance(array, np.ndarray):
        return cuda.to_device(array)
    return array if hasattr(array, "__cuda_ndarray__") else cuda.as_cuda_array(array)


def _on_host(array: Array) -> Any:
    """Return the array if it is NumPy's, else a copy from the GPU."""
    return array if isinstance(array, np.ndarray) else _on_device(array).copy_to_host()


@contextmanager
def _outputs(*arrays: Array, zeros: bool = False) -> Iterator[list[Any]]:
    """Yield outputs on the GPU; those of NumPy are copied back at the end.

    The contents of these arrays are copied only if they are ``zeros`` that the kernel partly keeps.
    """
    results = [
        cuda.device_array_like(array)
        if isinstance(array, np.ndarray) and not zeros
        else _on_device(array)
        for array in arrays
    ]
    yield results
    for array, result in zip(arrays, results, strict=True):
        if isinstance(array, np.ndarray):
            result.copy_to_host(array)


def _node_rows(weights: Array) -> Any:
    """Return weights (T, N, ..., width) on the GPU, with one axis for all their rows."""
    *leading, width = weights.shape
    return _on_device(weights).reshape(math.prod(leading), width)


def _runs(children: Array, levels: int, sides: int) -> Array:
    """Return the runs of sorted rows that share a node and its side, at every level of every tree.

    Parameters
    ----------
    children : int32 array of shape (T, B)
        A child of each row's last node, sorted; at two sides the one to which the row would
        continue. B is at least 1.
    levels : int
    sides : int
        1 for runs that share a node only.

    Returns
    -------
    int64 array of shape (runs, 6)
        Tree, level, node (numbered through all trees), side, first row and one past the last. The
        runs near the roots, which are long, come first.
    """
    trees, rows = children.shape
    count = (1 << levels) - 1
    runs = []
    for level in range(levels):
        # Numbered from 1, the child of a row after this level is a prefix of its last one.
        child = (children + 1) >> (levels - 1 - level)
        node = (child >> 1) - 1
        side = child & 1 if sides == 2 else np.zeros_like(child)
        starts = np.ones((trees, rows), np.bool_)
        shared = child >> (2 - sides)
        starts[:, 1:] = shared[:, 1:] != shared[:, :-1]
        tree, begin = np.nonzero(starts)
        end = np.roll(begin, -1)
        end[end == 0] = rows  # where the next run is the first of another tree
        fields = (np.full_like(tree, level), tree * count + node[starts], side[starts], begin, end)
        runs.append(np.stack([tree, *fields], axis=1))
    return np.concatenate(runs).astype(np.int64)


# --- What every backend module exports; `vectorized` documents it ---------------------------------


def path_logits(
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    scale_in: None,
) -> None:
    """Write the logits of the nodes that each row visits: conditional matrix multiplication."""
    rows, width = x.shape
    if not rows:
        return
    inputs = (_on_device(x), _node_rows(weights_in), _on_device(bias_in))
    with _outputs(logits, nodes) as outputs:
        _path_logits[_blocks(rows), _threads(width)](*outputs, *inputs)


def path_infer(
    y: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    scale_in: None,
    scale_out: None,
    activation: int,
) -> None:
    """Write the output of FastFeedForward."""
    x = _on_device(x)
    trees, count, _ = weights_in.shape
    shape = (x.shape[0], trees, count.bit_length())
    logits, nodes = cuda.device_array(shape, x.dtype), cuda.device_array(shape, np.int32)
    path_forward(y, logits, nodes, x, weights_in, bias_in, weights_out, activation)


def path_forward(
    y: Array,
    logits: Array,
    nodes: Array,
    x: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Like `path_infer`, but keep what `path_backward` needs."""
    rows = x.shape[0]
    if not rows:
        return
    threads = _threads(max(x.shape[1], y.shape[1]))
    weights = (_node_rows(weights_in), _on_device(bias_in), _node_rows(weights_out))
    inputs = (_on_device(x), *weights, activation)
    with _outputs(y, logits, nodes) as outputs:
        _path_forward[_blocks(rows), threads](*outputs, *inputs)


def path_choices(
    d_logits: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    weights_in: Array,
    bias_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write the gradients of FastFeedForward's logits due to choices, straight through."""
    rows = logits.shape[0]
    if not rows:
        return
    threads = _threads(max(x.shape[1], dy.shape[1]))
    weights = (_node_rows(weights_in), _on_device(bias_in), _node_rows(weights_out))
    inputs = (*map(_on_device, (dy, x, logits, nodes)), *weights, activation)
    with _outputs(d_logits) as outputs:
        _path_choices[_blocks(rows), threads](*outputs, *inputs)


def path_backward(
    dx: Array,
    d_weights_in: Array,
    d_bias_in: Array,
    d_weights_out: Array,
    dy: Array,
    x: Array,
    logits: Array,
    nodes: Array,
    d_logits: Array,
    places: Array,
    weights_in: Array,
    weights_out: Array,
    activation: int,
) -> None:
    """Write gradients of FastFeedForward at visited nodes; routes are fixed except for d_logits."""
    rows, _, levels = logits.shape
    if not rows:
        return
    outer_sides = weights_out.shape[2]
    # A child of each row's last node: at two sides that of the side taken.
    children = 2 * _on_host(nodes)[:, :, -1].T + 1
    if outer_sides == 2:
        children += _on_host(logits)[:, :, -1].T > 0
    order = np.argsort(children, axis=1, kind="stable")
    children = np.take_along_axis(children, order, axis=1)
    dy, x, logits, nodes = map(_on_device, (dy, x, logits, nodes))
    delta, active = (cuda.device_array(logits.shape, logits.dtype) for _ in range(2))
    threads = _threads(max(x.shape[1], dy.shape[1]))
    with _outputs(dx) as outputs:
        _path_deltas[_blocks(rows), threads](
            *outputs,
            delta,
            active,
            dy,
            logits,
            nodes,
            _on_device(d_logits),
            _node_rows(weights_in),
            _node_rows(weights_out),
            activation,
        )

    ones = np.ones((rows, 1), x.dtype)
    order, places = _on_device(order), _on_device(places)
    runs_of = {sides: _on_device(_runs(children, levels, sides)) for sides in {1, outer_sides}}
    with _outputs(d_weights_in, d_bias_in, d_weights_out, zeros=True) as outputs:
        for d_weights, factors, vectors, sides in zip(
            outputs,
            (delta, delta, active),
            (x, cuda.to_device(ones), dy),
            (1, 1, outer_sides),
            strict=True,
        ):
            runs, width = runs_of[sides], vectors.shape[1]
            blocks = _blocks(len(runs) * -(-width // COLUMNS))
            d_rows = d_weights.reshape(d_weights.shape[0] * sides, width)
            plan = (order, runs, places, sides)
            _path_gradients[blocks, (COLUMNS, LANES)](d_rows, factors, vectors, *plan)


def leaf_route(leaves: Array, x: Array, gate_weights: Array, gate_bias: Array) -> None:
    """Write the leaf that each row reaches in LeafFeedForward."""
    rows, width = x.shape
    if not rows:
        return
    inputs = tuple(map(_on_device, (x, gate_weights, gate_bias)))
    with _outputs(leaves) as outputs:
        _leaf_route[_blocks(rows), _threads(width)](*outputs, *inputs)


def leaf_infer(
    y: Array,
    x: Array,
    gate_weights: Array,
    gate_bias: Array,
    leaf_weights_in: Array,
    leaf_bias_in: Array,
    leaf_weights_out: Array,
    leaf_bias_out: Array,
    leaf_scale_in: None,
    leaf_scale_out: None,
    activation: int,
) -> None:
    """Write the output of LeafFeedForward at inference: that of the one leaf each row reaches."""
    rows, width = x.shape
    if not rows:
        return
    threads = _threads(max(width, leaf_weights_in.shape[2], y.shape[1]))
    gates = (gate_weights, gate_bias)
    leaf = (leaf_weights_in, leaf_bias_in, leaf_weights_out, leaf_bias_out)
    inputs = tuple(map(_on_device, (x, *gates, *leaf)))
    with _outputs(y) as outputs:
        _leaf_infer[_blocks(rows), threads](*outputs, *inputs, activation)
