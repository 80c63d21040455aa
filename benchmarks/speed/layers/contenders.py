"""The contenders of all sections, each with its output checked."""

from __future__ import annotations

from typing import Any

import numpy as np

import fffcpu
from benchmarks.peers import layers as peers
from benchmarks.speed.layers.run import Run
from fffcpu.benchmarking.roofline import dense_work, path_work, visits
from fffcpu.benchmarking.timing import Contender, cycling, inference
from fffcpu.benchmarking.verification import (
    DISTINCT_ROWS,
    check_close,
    check_paths,
    distinct_batches,
)
from fffcpu.errors import WrongOutputError

Array = np.ndarray

OURS = "fffcpu float32"
CHECKED_ROWS = 64
"""Rows of a dense peer's output that are checked, in float64."""
NEAR_ZERO = 1e-4
"""Rows with a logit nearer to zero, relative to the largest, may take another route in a peer."""
LOW_BIT_TOLERANCE = {"bfloat16": 0.03, "int8": 0.05}
"""Largest error of low-bit weights on equal routes, relative to the largest output."""
MOST_FLIPPED = 0.5
"""Largest share of rows whose routes low-bit weights may change."""


def ours(run: Run, layer: fffcpu.FastFeedForward, batches: list[Array]) -> Contender:
    """Return FastFeedForward, its output and routes checked."""
    rows = len(batches[0])
    some = batches[: -(-DISTINCT_ROWS // rows)]  # one batch of 16,384 rows, 4,096 of one row
    y = np.concatenate([layer(x) for x in some])
    nodes = np.concatenate([layer.route(x) for x in some])
    leaves = check_paths(layer, np.concatenate(some), y, nodes)
    config = layer.config
    run.note(
        f"depth {config.depth}, {rows:,} rows per call: {len(y):,} rows checked, "
        f"they reach {leaves:,} of {config.trees << config.depth:,} leaves"
    )
    work = path_work(config, rows, visits(layer, batches[0]))
    return Contender(OURS, inference(layer, batches), rows, work)


def low_bit(
    run: Run, kind: str, layer: fffcpu.FastFeedForward, batches: list[Array]
) -> tuple[Contender, Any]:
    """Return the layer with weights of fewer bits, compared with float32 on equal routes."""
    quantized, x = layer.quantize(kind), batches[0]
    nodes = quantized.route(x)
    same = (nodes == layer.route(x)).all(axis=(1, 2))
    if same.mean() < 1 - MOST_FLIPPED:
        raise WrongOutputError(
            f"{kind} weights must change at most {MOST_FLIPPED:.0%} of the routes, "
            f"got {1 - same.mean():.0%}"
        )
    check_close(quantized(x)[same], layer(x)[same], LOW_BIT_TOLERANCE[kind])
    run.note(
        f"{kind} weights at depth {layer.config.depth}: {1 - same.mean():.2%} of random rows take "
        f"another route, {quantized.nbytes / layer.nbytes:.2f} of the bytes"
    )
    size = 2 if kind == "bfloat16" else 1
    work = path_work(layer.config, len(x), visits(quantized, x), size)
    return Contender(f"fffcpu {kind}", inference(quantized, batches), len(x), work), quantized


def dense_peer(
    run: Run, peer: type[peers.Peer], params: Any, batches: list[Array], activation: str = "gelu"
) -> Contender | None:
    """Return a dense peer, its output checked in float64; None if it is not installed."""
    instance = run.peer(peer, params, activation)
    if instance is None:
        return None
    x, some = batches[0], slice(CHECKED_ROWS)
    expected = peers.expected_dense(params, x[some], activation)
    check_close(instance.run(x)[some], expected, peer.tolerance)
    (width, inner), outer = params["weights_in"].shape, params["weights_out"].shape[1]
    work = dense_work(fffcpu.DenseFeedForward(inner, outer, width).config, len(x))
    return Contender(peer.name, cycling(instance.run, batches), len(x), work)


def path_peer(run: Run, peer: type[peers.Peer], batches: list[Array]) -> Contender | None:
    """Return another FFF, its output checked on `safe_rows`; None if it is not installed."""
    instance = run.peer(peer, run.layer.params, "gelu")
    if instance is None:
        return None
    x = batches[0]
    safe = safe_rows(run.layer, x)
    check_close(instance.run(x)[safe], run.layer(x)[safe], peer.tolerance)
    work = path_work(run.layer.config, len(x), visits(run.layer, x))
    return Contender(peer.name, cycling(instance.run, batches), len(x), work)


def safe_rows(layer: fffcpu.FastFeedForward, x: Array) -> Array:
    """Return which rows have no logit so near to zero that their route may differ in a peer."""
    logits, _ = fffcpu.cmm(x, layer.params["weights_in"], layer.params["bias_in"])
    safe: Array = np.abs(logits).min(axis=(1, 2)) > NEAR_ZERO * np.abs(logits).max()
    return safe


def inputs(run: Run, rows: int, width: int | None = None) -> list[Array]:
    """Return batches of distinct rows, by default for the layer of most sections."""
    return distinct_batches(rows, width or run.sizes.shape.input_dim, rng=rows)
