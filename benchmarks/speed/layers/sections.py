"""The sections: what is compared, and the goals."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

import fffcpu
from benchmarks.peers import layers as peers
from benchmarks.speed.figures import Figure
from benchmarks.speed.layers.contenders import (
    OURS,
    dense_peer,
    inputs,
    low_bit,
    ours,
    path_peer,
    safe_rows,
)
from benchmarks.speed.layers.run import Run
from benchmarks.speed.session import Section
from fffcpu.benchmarking.roofline import leaf_work
from fffcpu.benchmarking.timing import REST, Contender, cycling, inference, ratio, ratios
from fffcpu.benchmarking.verification import check_close, check_leaves
from fffcpu.system.terminal import print_status

Array = np.ndarray

MEMORY = """
import ctypes, re, sys
import numpy as np
from pathlib import Path
from fffcpu import FastFeedForward, set_num_threads

def kibibytes(name):
    return int(re.search(name + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

inner, outer, depth, trees, rows, threads = map(int, sys.argv[1:])
set_num_threads(threads)
layer = FastFeedForward(inner, outer, depth, trees, rng=0)
x = np.random.default_rng(1).standard_normal((rows, inner), dtype=np.float32)
y = np.ones((rows, outer), np.float32)  # ones: its memory is there before the call
few = rows // 16
layer(x[:few], out=y[:few])  # compiles, and starts the threads
ctypes.CDLL(None).malloc_trim(0)  # so that the call cannot hide in memory freed before
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = kibibytes("VmRSS")
layer(x, out=y)
print(1024 * max(0, kibibytes("VmHWM") - before))
"""
"""A program that prints by how many bytes a call raises the peak of resident memory."""

DENSE_GOALS = {16384: 130.0, 4096: 95.0, 256: 100.0, 16: 60.0, 1: 130.0}
LOW_BIT_GOALS = {11: 1.2, 15: 1.4}


def dense(run: Run) -> None:
    """FastFeedForward and onnxruntime's dense layer in float32, by rows per call."""
    for rows in run.sizes.batches:
        batches = inputs(run, rows)
        other = dense_peer(run, peers.OnnxDense, run.dense_params, batches)
        if other is None:
            return
        timings = run.race(f"B = {rows}", [ours(run, run.layer, batches), other])
        goal = DENSE_GOALS.get(rows)
        run.times_faster(
            f"{other.name} / FFF, B = {rows}", timings[other.name], timings[OURS], goal
        )


def int8(run: Run) -> None:
    """FastFeedForward and onnxruntime's dense layer, with weights of 8 bits."""
    batches = inputs(run, run.sizes.batch)
    other = dense_peer(run, peers.OnnxDenseInt8, run.dense_params, batches)
    own, _ = low_bit(run, "int8", run.layer, batches)
    if other is None:
        return
    contenders = [ours(run, run.layer, batches), own, other]
    timings = run.race(f"int8, B = {run.sizes.batch}", contenders)
    for name, goal in ((own.name, 42.0), (OURS, None)):
        what = f"{other.name} / {name}, B = {run.sizes.batch}"
        run.times_faster(what, timings[other.name], timings[name], goal)


def bfloat16(run: Run) -> None:
    """FastFeedForward with weights of 16 bits and of 32."""
    shape, batches = run.sizes.shape, inputs(run, run.sizes.batch)
    for depth in run.sizes.low_bit_depths:
        layer = fffcpu.FastFeedForward(*shape._replace(depth=depth), rng=0)
        own, quantized = low_bit(run, "bfloat16", layer, batches)
        timings = run.race(f"bfloat16, depth {depth}", [ours(run, layer, batches), own])
        goal = LOW_BIT_GOALS.get(depth)
        what = f"float32 / bfloat16, depth {depth}, B = {run.sizes.batch}"
        run.times_faster(what, timings[OURS], timings[own.name], goal)
        share = quantized.nbytes / layer.nbytes
        run.at_most(f"bytes of bfloat16 / float32, depth {depth}", [share], "x", 0.51)


def pytorch(run: Run) -> None:
    """FastFeedForward and other FFFs in PyTorch."""
    batches = inputs(run, run.sizes.batch)
    goals = {peers.TorchGather: 40.0, peers.TorchBag: None}
    others = [(path_peer(run, peer, batches), goal) for peer, goal in goals.items()]
    found = [(other, goal) for other, goal in others if other is not None]
    if not found:
        return
    contenders = [ours(run, run.layer, batches), *(other for other, _ in found)]
    timings = run.race(f"FFF in PyTorch, B = {run.sizes.batch}", contenders)
    for other, goal in found:
        what = f"{other.name} / FFF, B = {run.sizes.batch}"
        run.times_faster(what, timings[other.name], timings[OURS], goal)


def growth(run: Run) -> None:
    """The cost of one more level, from depth to depth."""
    depths, batches = run.sizes.depths, inputs(run, run.sizes.batch)
    contenders = []
    for depth in depths:
        layer = fffcpu.FastFeedForward(*run.sizes.shape._replace(depth=depth), rng=0)
        contenders.append(ours(run, layer, batches)._replace(name=f"depth {depth}"))
    timings = list(run.race(f"growth, B = {run.sizes.batch}", contenders).values())
    steps = [ratio(deeper, timing) for timing, deeper in itertools.pairwise(timings)]
    allowed = statistics.mean(1 + 1.5 / (depth + 2) for depth in depths[:-1])
    what = f"time of depth d + 1 / depth d, mean over d = {depths[0]} to {depths[-2]}"
    mean = statistics.mean(steps)
    run.figures.append(Figure(what, mean, min(steps), max(steps), "x", allowed, at_least=False))
    for depth, step in zip(depths, steps, strict=False):
        run.note(f"depth {depth} to {depth + 1}: {step:.3f}x, allowed {1 + 1.5 / (depth + 2):.3f}x")


def training(run: Run) -> None:
    """Forward and backward over inference, and PyTorch's masked step over ours."""
    rows = run.sizes.batch
    batches = inputs(run, rows)
    upstream = inputs(run, rows, run.sizes.shape.output_dim)

    def step(x: Array, dy: Array) -> tuple[Array, dict[str, Array]]:
        _, cache = run.layer.forward(x)
        return run.layer.backward(dy, cache)

    contenders = [
        ours(run, run.layer, batches),
        Contender("fffcpu step", cycling(step, batches, upstream), rows),
    ]
    masked = run.peer(peers.TorchMasked, run.layer.params, "gelu")
    if masked is not None:
        x, dy = batches[0], upstream[0]
        # A row near a tie may take another route, which changes all gradients.
        safe = safe_rows(run.layer, x)
        dx, grads = step(x[safe], dy[safe])
        other_dx, other_grads = masked.run(x[safe], dy[safe])
        check_close(other_dx, dx, masked.tolerance)
        for name, gradient in grads.items():
            check_close(other_grads[name], gradient, masked.tolerance)
        contenders.append(Contender(masked.name, cycling(masked.run, batches, upstream), rows))
    timings = run.race(f"training, B = {rows}", contenders)
    own = timings["fffcpu step"]
    what = f"forward and backward / inference, B = {rows}"
    run.at_most(what, ratios(own, timings[OURS]), "x", 3.5)
    if masked is not None:
        what = f"{masked.name} / forward and backward, B = {rows}"
        run.times_faster(what, timings[masked.name], own, 40.0)


def pools(run: Run) -> None:
    """FFF and a matrix product of NumPy in turn, without rests, over each alone."""
    width = run.sizes.shape.input_dim
    matrix = np.random.default_rng(0).standard_normal((width, width), dtype=np.float32)
    for rows in run.sizes.pool_rows:
        batches = inputs(run, rows)
        products = [np.empty((rows, width), np.float32) for _ in range(2)]
        tree = ours(run, run.layer, batches).run
        gemm = cycling(lambda x, y: np.matmul(x, matrix, out=y), batches, products)
        print_status(f"FFF and GEMM in turn, B = {rows}")
        rounds = [
            in_turn_over_alone(tree, gemm, run.options.seconds) for _ in range(run.options.rounds)
        ]
        for name, found in zip(("FFF", "GEMM"), zip(*rounds, strict=True), strict=True):
            run.at_most(f"{name} in turn with the other / alone, B = {rows}", found, "x", 1.5)


def in_turn_over_alone(
    one: Callable[[], object], other: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """Return the time of each of two functions in turn over that alone, by medians of calls."""
    alone = [statistics.median(call_times([function], seconds)[0]) for function in (one, other)]
    in_turn = [statistics.median(times) for times in call_times([one, other], seconds)]
    return in_turn[0] / alone[0], in_turn[1] / alone[1]


def call_times(functions: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Call functions in turn for ``seconds``. Return the seconds of each call by function."""
    time.sleep(REST)
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[-1]:
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return times


def one_row(run: Run) -> None:
    """One row per call, from Python."""
    batches = inputs(run, 1)
    distinct = ours(run, run.layer, batches)._replace(name="distinct rows")
    repeated = distinct._replace(name="the same row", run=cycling(run.layer, batches[:1]))
    timings = run.race("one row from Python", [repeated, distinct])
    for contender, goal in ((repeated, 3.0), (distinct, 5.0)):
        microseconds = [1e6 * seconds for seconds in timings[contender.name].seconds]
        run.at_most(f"one row from Python, {contender.name}", microseconds, "us", goal)


def leaf(run: Run) -> None:
    """The leaf layer and onnxruntime's dense layer of its training width, both with ReLU."""
    shape, rows = run.sizes.leaf, run.sizes.batch
    layer = fffcpu.LeafFeedForward(*shape, rng=0)
    batches = inputs(run, rows, shape.input_dim)
    x = batches[0]
    leaves = check_leaves(layer, x, layer(x), layer.route(x))
    run.note(f"leaf layer: {rows:,} rows reach {leaves:,} of {1 << shape.depth:,} leaves")
    equal = fffcpu.DenseFeedForward(
        shape.input_dim,
        shape.output_dim,
        shape.leaf_width << shape.depth,
        activation=layer.config.activation,
        rng=0,
    )
    other = dense_peer(run, peers.OnnxDense, equal.params, batches, equal.config.activation)
    if other is None:
        return
    work = leaf_work(layer.config, rows, leaves)
    own = Contender("fffcpu leaf layer", inference(layer, batches), rows, work)
    timings = run.race(f"leaf layer, B = {rows}", [own, other])
    what = f"{other.name} of width {equal.config.width} / leaf layer, B = {rows}"
    run.times_faster(what, timings[other.name], timings[own.name], 40.0)


def memory(run: Run) -> None:
    """Memory that a call takes beyond its output: the rise of the peak of resident memory."""
    shape = run.sizes.shape
    for rows in run.sizes.memory_rows:
        print_status(f"memory of a call, B = {rows}")
        arguments = [str(number) for number in (*shape, rows, run.options.threads)]
        command = [sys.executable, "-c", MEMORY, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            run.note(f"memory: not measured, needs Linux's /proc ({done.stderr.splitlines()[-1]})")
            return
        each = int(done.stdout) / (rows * shape.trees * (shape.depth + 1))
        what = f"memory beyond the output, per row and level, B = {rows}"
        run.at_most(what, [each], "bytes", 64.0)


def field(run: Run) -> None:
    """Every peer that computes an output, without goals."""
    for rows in run.sizes.batches:
        if rows > run.sizes.batch:
            continue
        batches = inputs(run, rows)
        contenders = [ours(run, run.layer, batches)]
        for peer in peers.PEERS:
            found = (
                dense_peer(run, peer, run.dense_params, batches, peer.activation)
                if peer.kind == "dense"
                else path_peer(run, peer, batches)
                if peer.kind == "path"
                else None
            )
            contenders += [found] if found else []
        timings = run.race(f"the field, B = {rows}", contenders)
        for contender in contenders[1:]:
            what = f"{contender.name} / FFF, B = {rows}"
            run.times_faster(what, timings[contender.name], timings[OURS], None)


SECTIONS: dict[str, Section] = {
    "dense": dense,
    "int8": int8,
    "bfloat16": bfloat16,
    "pytorch": pytorch,
    "growth": growth,
    "training": training,
    "pools": pools,
    "one-row": one_row,
    "leaf": leaf,
    "memory": memory,
    "field": field,
}
