"""fffcpu beside the strongest dense runtimes and the other FFFs: the whole table in one run.

Run ``python -m benchmarks.speed.layers``; ``--help`` tells the rest, ``--only`` runs parts. Nothing
else heavy may run at the time. Every part checks the outputs first, times its contenders in
alternation with a copy and a matrix product (the roofline), and quotes medians of the ratios
within rounds. FastFeedForward is called as ``layer(x)``, from 256 rows on as ``layer(x, out=y)``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

import fffcpu
from benchmarks.peers import layers as peers
from benchmarks.speed.shapes import BERT_BASE, LeafShape, PathShape
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.roofline import (
    Roofline,
    dense_work,
    leaf_work,
    path_work,
    roofline_contenders,
    visited_nodes,
)
from fffcpu.benchmarking.timing import (
    REST,
    Contender,
    Timing,
    alternate,
    cycling,
    inference,
    ratio,
    ratios,
)
from fffcpu.benchmarking.verification import (
    DISTINCT_ROWS,
    check_close,
    check_leaves,
    check_paths,
    distinct_batches,
)
from fffcpu.cli.support.table import format_number, format_rates
from fffcpu.errors import WrongOutputError

Array = np.ndarray

OURS = "fffcpu float32"
CHECKED_ROWS = 64
"""Rows of a dense peer's output that are checked, in float64."""
NEAR_ZERO = 1e-4
"""Rows with a logit nearer zero, relative to the largest, may take another route in a peer."""
LOW_BIT_TOLERANCE = {"bfloat16": 0.03, "int8": 0.05}
"""Largest error of low-bit weights on equal routes, relative to the largest output."""
MOST_FLIPPED = 0.5
"""Share of rows whose routes low-bit weights may change before we call them wrong."""

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
"""Prints the bytes by which a call's peak of resident memory exceeds what was there before."""


class Figure(NamedTuple):
    """A line of the table of goals."""

    what: str
    value: float
    low: float
    high: float
    unit: str
    goal: float | None = None
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """Whether the goal was reached."""
        if self.goal is None:
            return "-"
        reached = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "reached" if reached else "missed"


class Race(NamedTuple):
    """What was timed in one alternation."""

    title: str
    timings: list[Timing]
    roofline: Roofline


class Sizes(NamedTuple):
    """What is measured: as the project's goals ask, or tiny, to see that the script runs."""

    shape: PathShape
    leaf: LeafShape
    batches: tuple[int, ...]
    batch: int
    depths: tuple[int, ...]
    low_bit_depths: tuple[int, ...]
    memory_rows: tuple[int, ...]
    pool_rows: tuple[int, ...]


FULL = Sizes(
    BERT_BASE,
    LeafShape(768, 768, 7, 32),
    batches=(16384, 4096, 256, 16, 1),
    batch=4096,
    depths=tuple(range(3, 17)),
    low_bit_depths=(11, 15),
    memory_rows=(4096, 16384),
    pool_rows=(128, 1024),
)
QUICK = Sizes(
    PathShape(12, 8, 3, 1),
    LeafShape(12, 8, 2, 4),
    batches=(64, 1),
    batch=64,
    depths=(1, 2, 3),
    low_bit_depths=(2,),
    memory_rows=(64,),
    pool_rows=(16,),
)

DENSE_GOALS = {16384: 130.0, 4096: 95.0, 256: 100.0, 16: 60.0, 1: 130.0}
LOW_BIT_GOALS = {11: 1.2, 15: 1.4}


class Run:
    """Options, and what was found so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sizes = QUICK if options.quick else FULL
        self.figures: list[Figure] = []
        self.races: list[Race] = []
        self.notes: list[str] = []

    @functools.cached_property
    def layer(self) -> fffcpu.FastFeedForward:
        """The layer of most parts."""
        return fffcpu.FastFeedForward(*self.sizes.shape, rng=0)

    @functools.cached_property
    def dense_params(self) -> dict[str, Array]:
        """The layer's neurons as those of a dense layer."""
        return {name: array.reshape(-1, *array.shape[2:]) for name, array in _items(self.layer)}

    def race(self, title: str, contenders: Sequence[Contender]) -> dict[str, Timing]:
        """Time contenders in alternation with those of the roofline; return them by name."""
        tell(f"{title}: {', '.join(contender.name for contender in contenders)}")
        machine = roofline_contenders(self.options.threads)
        timings = alternate([*contenders, *machine], self.options.rounds, self.options.seconds)
        own = timings[: len(contenders)]
        self.races.append(Race(title, own, Roofline.of(timings)))
        return {timing.name: timing for timing in own}

    def times_faster(self, what: str, slow: Timing, fast: Timing, goal: float | None) -> None:
        """Add the figure that one contender is so many times faster than another."""
        rounds = ratios(slow, fast)
        self.figures.append(Figure(what, ratio(slow, fast), min(rounds), max(rounds), "x", goal))

    def at_most(self, what: str, rounds: Sequence[float], unit: str, goal: float | None) -> None:
        """Add a figure that should be small: the median of those of the rounds."""
        value = statistics.median(rounds)
        self.figures.append(Figure(what, value, min(rounds), max(rounds), unit, goal, False))

    def peer(self, peer: type[peers.Peer], params: Any, activation: str) -> peers.Peer | None:
        """Return a peer with these weights, or note why there is none."""
        if missing := peers.absent(peer):
            self.note(missing)
            return None
        instance = peer(self.options.threads, not self.options.no_spinning)
        instance.prepare(params, activation)
        return instance

    def note(self, text: str) -> None:
        """Add a line under the tables, once."""
        if text not in self.notes:
            tell(text)
            self.notes.append(text)


# --- Contenders ---------------------------------------------------------------------------------


def ours(run: Run, layer: fffcpu.FastFeedForward, batches: list[Array]) -> Contender:
    """FastFeedForward, its output and routes checked."""
    rows = len(batches[0])
    some = batches[: -(-DISTINCT_ROWS // rows)]  # of 16,384 rows one batch, of one row 4,096
    y = np.concatenate([layer(x) for x in some])
    nodes = np.concatenate([layer.route(x) for x in some])
    leaves = check_paths(layer, np.concatenate(some), y, nodes)
    config = layer.config
    run.note(
        f"depth {config.depth}, {rows:,} rows a call: {len(y):,} rows checked, "
        f"they reach {leaves:,} of {config.trees << config.depth:,} leaves"
    )
    work = path_work(config, rows, visited_nodes(layer.route(batches[0])))
    return Contender(OURS, inference(layer, batches), rows, work)


def low_bit(
    run: Run, kind: str, layer: fffcpu.FastFeedForward, batches: list[Array]
) -> tuple[Contender, Any] | None:
    """The same layer with weights of fewer bits, compared with float32 on equal routes."""
    if not hasattr(layer, "quantize"):
        run.note(f"{kind} weights: this version has no layer.quantize")
        return None
    quantized, x = layer.quantize(kind), batches[0]
    nodes = quantized.route(x)
    same = (nodes == layer.route(x)).all(axis=(1, 2))
    if same.mean() < 1 - MOST_FLIPPED:
        raise WrongOutputError(f"{kind} weights change {1 - same.mean():.0%} routes")
    check_close(quantized(x)[same], layer(x)[same], LOW_BIT_TOLERANCE[kind])
    run.note(
        f"{kind} weights at depth {layer.config.depth}: {1 - same.mean():.2%} of random rows take "
        f"another route, {quantized.nbytes / layer.nbytes:.2f} of the bytes"
    )
    size = 2 if kind == "bfloat16" else 1
    work = path_work(layer.config, len(x), visited_nodes(nodes), size)
    return Contender(f"fffcpu {kind}", inference(quantized, batches), len(x), work), quantized


def dense_peer(
    run: Run, peer: type[peers.Peer], params: Any, batches: list[Array], activation: str = "gelu"
) -> Contender | None:
    """A dense peer, its output checked in float64."""
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
    """Another FFF, its output checked where no logit is so near zero that its route may differ."""
    instance = run.peer(peer, run.layer.params, "gelu")
    if instance is None:
        return None
    x, params = batches[0], run.layer.params
    logits, nodes = fffcpu.cmm(x, params["weights_in"], params["bias_in"])
    safe = np.abs(logits).min(axis=(1, 2)) > NEAR_ZERO * np.abs(logits).max()
    check_close(instance.run(x)[safe], run.layer(x)[safe], peer.tolerance)
    work = path_work(run.layer.config, len(x), visited_nodes(nodes))
    return Contender(peer.name, cycling(instance.run, batches), len(x), work)


def inputs(run: Run, rows: int, width: int | None = None) -> list[Array]:
    return distinct_batches(rows, width or run.sizes.shape.input_dim, rng=rows)


# --- Parts --------------------------------------------------------------------------------------


def dense(run: Run) -> None:
    """Against onnxruntime's dense layer in float32, by rows a call."""
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
    """Weights of 8 bits against onnxruntime's dense layer with weights of 8 bits."""
    batches = inputs(run, run.sizes.batch)
    other = dense_peer(run, peers.OnnxDenseInt8, run.dense_params, batches)
    own = low_bit(run, "int8", run.layer, batches)
    contenders = [ours(run, run.layer, batches), *([own[0]] if own else [])]
    if other is None:
        return
    timings = run.race(f"int8, B = {run.sizes.batch}", [*contenders, other])
    for contender, goal in zip(contenders[::-1], (42.0, None), strict=False):
        run.times_faster(
            f"{other.name} / {contender.name}, B = {run.sizes.batch}",
            timings[other.name],
            timings[contender.name],
            goal if contender.name != OURS else None,
        )


def bfloat16(run: Run) -> None:
    """Weights of 16 bits against our own of 32."""
    shape, batches = run.sizes.shape, inputs(run, run.sizes.batch)
    for depth in run.sizes.low_bit_depths:
        layer = fffcpu.FastFeedForward(*shape._replace(depth=depth), rng=0)
        found = low_bit(run, "bfloat16", layer, batches)
        if found is None:
            return
        own, quantized = found
        timings = run.race(f"bfloat16, depth {depth}", [ours(run, layer, batches), own])
        goal = LOW_BIT_GOALS.get(depth)
        what = f"float32 / bfloat16, depth {depth}, B = {run.sizes.batch}"
        run.times_faster(what, timings[OURS], timings[own.name], goal)
        share = quantized.nbytes / layer.nbytes
        run.at_most(f"bytes of bfloat16 / float32, depth {depth}", [share], "x", 0.51)


def pytorch(run: Run) -> None:
    """Against FFFs in PyTorch."""
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
    """What one level more costs."""
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
        # Rows near a tie may go elsewhere, and do so in all gradients: take those that do not.
        logits, _ = fffcpu.cmm(x, run.layer.params["weights_in"], run.layer.params["bias_in"])
        safe = np.abs(logits).min(axis=(1, 2)) > NEAR_ZERO * np.abs(logits).max()
        (dx, grads), (other_dx, other_grads) = (
            step(x[safe], dy[safe]),
            masked.run(x[safe], dy[safe]),
        )
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
        tell(f"FFF and GEMM in turn, B = {rows}")
        rounds = [
            in_turn_over_alone(tree, gemm, run.options.seconds) for _ in range(run.options.rounds)
        ]
        for name, found in zip(("FFF", "GEMM"), zip(*rounds, strict=True), strict=True):
            run.at_most(f"{name} in turn with the other / alone, B = {rows}", found, "x", 1.5)


def in_turn_over_alone(
    one: Callable[[], object], other: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """How many times longer each of two takes when they take turns, by medians of single calls."""
    alone = [statistics.median(call_times([function], seconds)[0]) for function in (one, other)]
    in_turn = [statistics.median(times) for times in call_times([one, other], seconds)]
    return in_turn[0] / alone[0], in_turn[1] / alone[1]


def call_times(functions: Sequence[Callable[[], object]], seconds: float) -> list[list[float]]:
    """Call functions in turn for so long, and return the seconds of each call by function."""
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
    """One row a call, from Python."""
    batches = inputs(run, 1)
    distinct = ours(run, run.layer, batches)._replace(name="distinct rows")
    repeated = distinct._replace(name="the same row", run=cycling(run.layer, batches[:1]))
    timings = run.race("one row from Python", [repeated, distinct])
    for contender, goal in ((repeated, 3.0), (distinct, 5.0)):
        microseconds = [1e6 * seconds for seconds in timings[contender.name].seconds]
        run.at_most(f"one row from Python, {contender.name}", microseconds, "us", goal)


def leaf(run: Run) -> None:
    """The leaf layer against onnxruntime's dense layer of its training width, both with ReLU."""
    shape, rows = run.sizes.leaf, run.sizes.batch
    layer = fffcpu.LeafFeedForward(*shape, rng=0)
    batches = inputs(run, rows, shape.input_dim)
    x = batches[0]
    leaves = check_leaves(layer, x, layer(x), layer.route(x))
    run.note(f"leaf layer: {rows:,} rows reach {leaves:,} of {1 << shape.depth:,} leaves")
    twin = fffcpu.DenseFeedForward(
        shape.input_dim,
        shape.output_dim,
        shape.leaf_width << shape.depth,
        activation=layer.config.activation,
        rng=0,
    )
    other = dense_peer(run, peers.OnnxDense, twin.params, batches, twin.config.activation)
    if other is None:
        return
    work = leaf_work(layer.config, rows, leaves)
    own = Contender("fffcpu leaf layer", inference(layer, batches), rows, work)
    timings = run.race(f"leaf layer, B = {rows}", [own, other])
    what = f"{other.name} of width {twin.config.width} / leaf layer, B = {rows}"
    run.times_faster(what, timings[other.name], timings[own.name], 40.0)


def memory(run: Run) -> None:
    """Memory that a call takes beyond its output: the rise of the peak of resident memory."""
    shape = run.sizes.shape
    for rows in run.sizes.memory_rows:
        tell(f"memory of a call, B = {rows}")
        arguments = [str(number) for number in (*shape, rows, run.options.threads)]
        command = [sys.executable, "-c", MEMORY, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            run.note(f"memory: not measured, needs Linux's /proc ({done.stderr.splitlines()[-1]})")
            return
        each = int(done.stdout) / (rows * shape.trees * (shape.depth + 1))
        what = f"memory beyond the output, a row and level, B = {rows}"
        run.at_most(what, [each], "bytes", 64.0)


def field(run: Run) -> None:
    """Every peer that computes an output, for the picture of the field; no goals."""
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


PARTS: dict[str, Callable[[Run], None]] = {
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


# --- The command --------------------------------------------------------------------------------


def main() -> None:
    options = parse()
    run = Run(options)
    run_parts(run, PARTS)
    print(json.dumps(report(run), indent=2) if options.json else format_report(run))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="parts:\n"
        + "\n".join(f"  {name:9} {part.__doc__}" for name, part in PARTS.items())
        + "\n\nThe whole table takes some minutes; progress goes to stderr.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="run these parts")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (2)")
    parser.add_argument("--rounds", type=int, default=9, help="of each alternation (9)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement (0.2)")
    parser.add_argument(
        "--no-spinning",
        action="store_true",
        help="tell onnxruntime's idle threads not to spin, which is not its default",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="tiny layers, to see that it runs")
    return parser.parse_args()


def run_parts(run: Any, parts: Mapping[str, Callable[[Any], None]]) -> None:
    """Run the parts that were asked for, or all, every library on the same number of threads."""
    options = run.options
    fffcpu.set_num_threads(options.threads)
    start = time.monotonic()
    with threadpoolctl.threadpool_limits(options.threads, "blas"):
        for name in options.only or parts:
            tell(f"--- {name} ({time.monotonic() - start:.0f} s)")
            parts[name](run)
    tell(f"--- done ({time.monotonic() - start:.0f} s)")


def tell(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def header(run: Run) -> dict[str, Any]:
    options = run.options
    versions = {name: package_version(name) for name in ("onnxruntime", "torch", "scikit-learn")}
    return {
        "command": f"python {shlex.join(sys.argv)}",
        "fffcpu": fffcpu.__version__,
        **describe_machine(),
        **versions,
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "thread layer": thread_layer(),
        "onnxruntime spinning": "off" if options.no_spinning else "on (its default)",
    }


def thread_layer() -> str:
    """Numba's choice, once a parallel kernel has run."""
    import numba

    try:
        return str(numba.threading_layer())
    except ValueError:
        return "not started"


def format_report(run: Run) -> str:
    facts = header(run)
    shape = run.sizes.shape
    layer = f"{shape.input_dim} -> {shape.output_dim}, depth {shape.depth}, trees {shape.trees}"
    lines = [
        f"`{facts.pop('command')}`",
        "",
        f"FastFeedForward {layer}, float32, unless said.",
        ", ".join(f"{name} {value}" for name, value in facts.items()) + ".",
        "",
        "| figure | median | range | goal | |",
        "|---|---|---|---|---|",
        *(format_figure(figure) for figure in run.figures),
    ]
    for race in run.races:
        lines += ["", *format_race(race)]
    return "\n".join([*lines, "", *(f"- {note}" for note in run.notes)])


def format_figure(figure: Figure) -> str:
    goal = "-"
    if figure.goal is not None:
        limit = "at least" if figure.at_least else "at most"
        goal = f"{limit} {figure.goal:.4g} {figure.unit}"
    cells = (
        figure.what,
        f"{format_number(figure.value)} {figure.unit}",
        f"{format_number(figure.low)} to {format_number(figure.high)}",
        goal,
        figure.verdict,
    )
    return f"| {' | '.join(cells)} |"


def format_race(race: Race) -> list[str]:
    copy = race.roofline.copy.gigabytes or math.nan
    gemm = race.roofline.gemm.gigaflops or math.nan
    lines = [
        f"{race.title}. The machine meanwhile: copy {copy:.1f} GB/s, GEMM {gemm:.0f} GFLOP/s.",
        "",
        "| contender | us a row | spread | rows/s | GB/s | GFLOP/s | roofline, us | of roofline |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for timing in race.timings:
        best = race.roofline.microseconds(timing)
        size, flops, fraction = format_rates(timing, race.roofline)
        cells = (
            timing.name,
            format_number(timing.microseconds),
            f"{100 * timing.spread:.0f} %",
            f"{timing.rows_per_second:,.0f}",
            size,
            flops,
            "-" if best is None else format_number(best),
            fraction,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(run: Run) -> dict[str, Any]:
    """Return all results as plain JSON values."""
    return {
        **header(run),
        "figures": [{**figure._asdict(), "verdict": figure.verdict} for figure in run.figures],
        "races": [
            {
                "title": race.title,
                "copy_gigabytes_a_second": race.roofline.copy.gigabytes,
                "gemm_gigaflops": race.roofline.gemm.gigaflops,
                "timings": [
                    {
                        "name": timing.name,
                        "rows": timing.rows,
                        "microseconds_a_row": timing.microseconds,
                        "spread": timing.spread,
                        "gigabytes_a_second": timing.gigabytes,
                        "gigaflops": timing.gigaflops,
                        "roofline_microseconds_a_row": race.roofline.microseconds(timing),
                        "fraction_of_roofline": race.roofline.fraction(timing),
                        "seconds_a_call": list(timing.seconds),
                    }
                    for timing in race.timings
                ],
            }
            for race in run.races
        ],
        "notes": run.notes,
    }


def _items(layer: fffcpu.FastFeedForward) -> list[tuple[str, Array]]:
    return [(name, np.asarray(array)) for name, array in layer.params.items()]


if __name__ == "__main__":
    main()
