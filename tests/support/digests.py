"""Digests of what the compiled kernels give; a process for another CPU must print the same ones.

Run as a program, it takes the names of the dtypes.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import sys

import numpy as np

from fffcpu import DenseFeedForward, FastFeedForward, LeafFeedForward, cmm, kernels
from fffcpu.config import Activation
from fffcpu.kernels.backends import grouped
from fffcpu.kernels.elementwise import activate_run, backpropagate_run
from fffcpu.layers import Attention


def digest(*arrays):
    """Hash of the bits of arrays; any NaN is the same as any other."""
    total = hashlib.sha256()
    for array in arrays:
        same = array.copy()
        same[np.isnan(same)] = np.nan
        total.update(same.tobytes())
    return total.hexdigest()


def activations(dtype):
    """Every activation and its derivative, over all sizes of numbers."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    patterns = np.linspace(0, np.iinfo(unsigned).max, 5003, dtype=np.float64)
    anything = patterns[:-1].astype(unsigned).view(dtype)
    s = np.concatenate([anything, np.linspace(-40, 40, 5003).astype(dtype)])
    for code, even in itertools.product(Activation, (False, True)):
        out, slope = np.empty_like(s), np.ones_like(s)
        activate_run(out, 0, s, 0, s.size, int(code), even)
        backpropagate_run(slope, 0, s, 0, s.size, int(code), even)
        yield f"{code.name} {even} {dtype.__name__}", digest(out, slope)


def layers(dtype):
    """Outputs, logits, routes and gradients of the layers, of one row and of many."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((43, 37)), rng.standard_normal((43, 29)).astype(dtype)
    x = x.astype(dtype)
    paths = [
        FastFeedForward(37, 29, 4, trees=3, two_sided=two_sided, dtype=dtype, rng=1)
        for two_sided in (False, True)
    ]
    for path in paths:
        name = f"{path.config.side_axes} {dtype.__name__}"
        y, cache = path.forward(x)
        dx, gradients = path.backward(dy, cache, straight_through=True)
        logits, nodes = cmm(x, path.params["weights_in"], path.params["bias_in"])
        yield f"path {name}", digest(path(x), path(x[:1]), y, logits)
        yield f"route {name}", digest(path.route(x).astype(dtype), nodes.astype(dtype))
        yield f"gradients {name}", digest(dx, *gradients.values())
    leaf = LeafFeedForward(37, 29, 4, 19, activation="gelu", dtype=dtype, rng=1)
    yield f"leaf {dtype.__name__}", digest(leaf(x), leaf(x[:1]), leaf.route(x).astype(dtype))
    many = rng.standard_normal((1100, 37)).astype(dtype)
    for nodes_per_row in (0, grouped.NODES_PER_ROW):  # in two stages, and in one
        before, grouped.NODES_PER_ROW = grouped.NODES_PER_ROW, nodes_per_row
        try:
            with kernels.backend_for_many():
                results = [(path.forward(many)[1].logits, path(many)) for path in paths]
                found = digest(*itertools.chain(*results), leaf(many))
            yield f"many rows, {nodes_per_row}, {dtype.__name__}", found
        finally:
            grouped.NODES_PER_ROW = before


def encoders(dtype):
    """Outputs and gradients of what encoders consist of, of few rows and of many."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 70)).astype(dtype)
    layer = DenseFeedForward(70, 130, 420, dtype=dtype, rng=1)
    y, cache = layer.forward(x)
    dx, gradients = layer.backward(y, cache)
    yield f"dense {dtype.__name__}", digest(layer(x), layer(x[:2]), y, dx, *gradients.values())
    attention = Attention(12, 2, bias=True, dtype=dtype, rng=1)
    yield f"attention {dtype.__name__}", digest(attention(x[:, :12].reshape(20, 30, 12)))


def products():
    """Outputs of layers with int8 weights, of few rows and of many."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 70)).astype(np.float32)
    layer = DenseFeedForward(70, 37, 53, activation="relu", rng=1).quantize("int8")
    layer.params["weights_in"][3] = -128  # no quantize makes it, but a file may hold it
    attention = Attention(12, 2, bias=True, rng=1).quantize("int8")
    projected = attention._project(x[:, :12].copy(), "qkv")
    yield "int8", digest(layer(x), layer(x[:5]), projected)


def digests(*dtypes):
    """Name and digest of everything that must have the same bits on every CPU."""
    found = {}
    for dtype in (np.dtype(name).type for name in dtypes):
        found.update(activations(dtype))
        found.update(layers(dtype))
        found.update(encoders(dtype))
    found.update(products())
    return found


def registers():
    """Sorts of vector registers that the compiled activations use."""
    return set(re.findall(r"%([xyz]mm)", "".join(activate_run.inspect_asm().values())))


if __name__ == "__main__":
    for name, value in digests(*sys.argv[1:]).items():
        print(f"{name}: {value}")
    print(f"registers: {' '.join(sorted(registers()))}")
