"""``fffcpu bench``: microseconds per row, by rows, threads and backend, against a dense layer."""

from __future__ import annotations

import argparse
import json
import math
import os
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import DenseFeedForward, FastFeedForward, get_num_threads, set_num_threads
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.roofline import (
    Roofline,
    dense_work,
    format_rates,
    path_work,
    roofline_contenders,
    visits,
)
from fffcpu.benchmarking.timing import (
    Contender,
    Timing,
    alternate,
    cycling,
    doubts,
    ratio,
)
from fffcpu.benchmarking.verification import (
    DISTINCT_ROWS,
    check_dense,
    check_paths,
    distinct_batches,
    path_arguments,
)
from fffcpu.checks import check_integer, check_number
from fffcpu.cli.bench import sweep
from fffcpu.config import DenseFeedForwardConfig, FastFeedForwardConfig
from fffcpu.errors import ArgumentError
from fffcpu.kernels import load_backend
from fffcpu.layers.dense_feed_forward import inference_rows
from fffcpu.system.terminal import format_number, format_table, with_progress
from fffcpu.system.threads import get_thread_layer

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Array = NDArray[Any]

DENSE = "dense"
"""The contender that is not a backend: DenseFeedForward of as many neurons."""

REPEATS = 7
"""Number of rounds of each alternation."""

DENSE_BYTES = 4 << 30
"""The dense layer is left out where it would need more memory than this, ..."""

DENSE_WORK = 1 << 38
"""... or more multiply-adds per call: about ten seconds on a few cores."""

DESCRIPTION = """\
Time inference of a FastFeedForward layer with random weights, for each batch size, number of
threads and backend, against 'dense': DenseFeedForward of as many neurons as the tree holds. Rows
are random and distinct. Outputs are first checked against the plain NumPy backend; then the
contenders are timed in alternation.

examples:
  fffcpu bench                                       the layer of UltraFastBERT-1x11
  fffcpu bench --depth 15 --rows 1 --threads 1       a deeper tree, one row per call
  fffcpu bench --backends rowwise my.kernels         with a backend module of your own
  fffcpu bench --json > here.json
  fffcpu bench --plot speed.png                      draw speed-ups by width and batch instead

how to read the table:
  µs per row   microseconds, the median of 7 rounds. Kernels are called directly and write into an
               array that they are given; layer(x) adds its checks and a new array to each call.
  spread       half the distance between the quartiles of the rounds, in percent of the median.
               Above ten percent, another program was running: trust only ratios, or run again.
  GB/s         the bytes that the call must move at least, over its time: each row once, and each
               weight that it uses once.
  GFLOP/s      the additions and multiplications of the call, over its time.
  of roofline  the time that this machine needs at best, over the time taken. The best time is the
               larger of two: the bytes at the rate of a copy from memory to memory, and the
               products at the rate of a matrix product by BLAS. Both rates are measured in the same
               rounds, on all threads given. The figure exceeds 100 % where weights lie in a cache.
  dense/it     time of the dense layer over that of this backend: the median of the rounds' ratios.
               The arithmetic allows up to neurons held / neurons used.
  doubtful     figures with a spread above ten percent, or a ratio above what the arithmetic allows.
               The dense layer may have been disturbed, or its weights lie in no cache.
  threads      threads of the kernels, those of 'dense' included. Without Numba, NumPy's BLAS has
               threads of its own, which OPENBLAS_NUM_THREADS sets.
"""


class Result(NamedTuple):
    """One line of the table."""

    backend: str
    rows: int
    threads: int
    timing: Timing
    roofline: Roofline
    dense_ratio: float | None
    doubts: list[str]
    """What speaks against the figure."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    _add_number(parser, "--input-dim", 768, "input width")
    _add_number(parser, "--output-dim", 768, "output width")
    _add_number(parser, "--depth", 11, "depth of the trees")
    _add_number(parser, "--trees", 1, "number of trees")
    parser.add_argument(
        "--two-sided", action="store_true", help="output weights for each side of a node"
    )
    parser.add_argument("--dtype", default="float32", help="float32 or float64 (float32)")
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1, 16, 256, 4096],
        metavar="N",
        help="batch sizes (1 16 256 4096)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of threads for the kernels (1 and all)",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["rowwise", "vectorized", DENSE],
        metavar="NAME",
        help="rowwise, vectorized, dense (default: these three), grouped, cuda, or a module's "
        "dotted name",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.5,
        metavar="S",
        help="minimum seconds for each figure (0.5)",
    )
    _add_number(parser, "--seed", 0, "random seed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    sweep.add_arguments(parser)


def _add_number(parser: argparse.ArgumentParser, name: str, default: int, what: str) -> None:
    """Add an option that takes an integer."""
    parser.add_argument(name, type=int, default=default, metavar="N", help=f"{what} ({default})")


def run(options: argparse.Namespace) -> None:
    """Time all points and print them, or draw."""
    if options.plot is not None:
        sweep.run(options)
        return
    before = get_num_threads()
    threads = options.threads or sorted({1, before})
    _check(options)
    skipped: list[dict[str, Any]] = []
    try:
        for number in threads:  # a wrong number is an error before anything is timed
            set_num_threads(number)
        bench = _Bench(options)
        points = [(number, rows) for number in threads for rows in options.rows]
        results = [
            result
            for point in with_progress(points, "point", lambda p: f"rows {p[1]}, threads {p[0]}")
            for result in bench.measure(*point, skipped)
        ]
    finally:
        set_num_threads(before)
    if options.json:
        print(json.dumps(_report(bench.layer.config, results, skipped), indent=2))
    else:
        print(_format(bench.layer.config, results, skipped))
        print(f"\nthread layer: {get_thread_layer()}")


class _Bench:
    """The layers to time, and the functions that time them."""

    def __init__(self, options: argparse.Namespace) -> None:
        config = _config(options)
        self.backends = {name: load_backend(name) for name in options.backends if name != DENSE}
        self.layer = FastFeedForward(
            config.input_dim,
            config.output_dim,
            config.depth,
            config.trees,
            two_sided=config.two_sided,
            dtype=config.dtype,
            rng=options.seed,
        )
        self.dense = (
            DenseFeedForward(
                config.input_dim,
                config.output_dim,
                config.neurons,
                dtype=config.dtype,
                rng=options.seed,
            )
            if DENSE in options.backends
            else None
        )
        self.seed = options.seed
        self.min_time = options.seconds / REPEATS
        most_threads = max(options.threads or [get_num_threads()])
        self.machine = roofline_contenders(most_threads, config.dtype)

    def measure(self, threads: int, rows: int, skipped: list[dict[str, Any]]) -> list[Result]:
        """Check and time all contenders at one point; add those left out to ``skipped``."""
        set_num_threads(threads)
        config = self.layer.config
        batches = distinct_batches(rows, config.input_dim, config.dtype, self.seed)
        contenders = [self._path(name, batches) for name in self.backends]
        reason = _too_much(config, rows) if self.dense else None
        if reason:
            skipped.append({"backend": DENSE, "rows": rows, "threads": threads, "reason": reason})
        elif self.dense:
            contenders.append(self._dense(self.dense, batches))
        if not contenders:
            return []
        timings = alternate([*contenders, *self.machine], REPEATS, self.min_time)
        roofline, timings = Roofline.of(timings), timings[: len(contenders)]
        dense = next((timing for timing in timings if timing.name == DENSE), None)
        limit = config.neurons / config.active_neurons
        return [
            Result(
                timing.name,
                rows,
                threads,
                timing,
                roofline,
                ratio(dense, timing) if dense else None,
                doubts(timing, dense, limit),
            )
            for timing in timings
        ]

    def _path(self, name: str, batches: list[Array]) -> Contender:
        """Return a backend as a contender, after a check of its output."""
        backend, arguments = self.backends[name], path_arguments(self.layer)
        outputs = self._outputs(batches)
        count = -(-DISTINCT_ROWS // len(batches[0]))
        some = np.concatenate([batch[:DISTINCT_ROWS] for batch in batches[:count]])
        self._check_path(backend, some)
        run = cycling(lambda x, y: backend.path_infer(y, x, *arguments), batches, outputs)
        rows = len(batches[0])
        work = path_work(self.layer.config, rows, visits(self.layer, batches[0]))
        return Contender(name, run, rows, work)

    def _check_path(self, backend: ModuleType, x: Array) -> None:
        config, arguments = self.layer.config, path_arguments(self.layer)
        y = np.empty((len(x), config.output_dim), config.dtype)
        nodes = np.empty((len(x), config.trees, config.depth + 1), np.int32)
        backend.path_infer(y, x, *arguments)
        weights_in, bias_in, _, scale_in, _, _ = arguments
        logits = np.empty(nodes.shape, config.dtype)
        backend.path_logits(logits, nodes, x, weights_in, bias_in, scale_in)
        check_paths(self.layer, x, y, nodes)

    def _dense(self, dense: DenseFeedForward, batches: list[Array]) -> Contender:
        """Return the dense layer as a contender, after a check of its output."""
        x = batches[0][:2]
        check_dense(dense, x, dense(x))
        run = cycling(lambda x, y: dense(x, out=y), batches, self._outputs(batches))
        rows = len(batches[0])
        return Contender(DENSE, run, rows, dense_work(dense.config, rows))

    def _outputs(self, batches: list[Array]) -> list[Array]:
        """Return two arrays to write to in turn, so that a large one does not stay in cache."""
        config = self.layer.config
        return [np.empty((len(batches[0]), config.output_dim), config.dtype) for _ in range(2)]


def _config(options: argparse.Namespace) -> FastFeedForwardConfig:
    """Return the layer's config; making it checks the sizes and takes no memory."""
    return FastFeedForwardConfig(
        options.input_dim,
        options.output_dim,
        options.depth,
        options.trees,
        two_sided=options.two_sided,
        dtype=options.dtype,
    )


def _check(options: argparse.Namespace) -> None:
    """Raise if a number is out of range, or if layers and rows do not fit into memory."""
    check_number("seconds", options.seconds, 0)
    check_integer("seed", options.seed, 0)
    config = _config(options)
    layers = config.nbytes
    if DENSE in options.backends:
        layers *= 2
    row = (config.input_dim + config.output_dim) * config.itemsize
    batches = max(2 * row * check_integer("rows", rows, 1) for rows in options.rows)
    memory = _memory()
    if layers + batches > memory:
        raise ArgumentError(
            f"layers and rows must fit into the memory of {memory / 1e9:,.1f} GB, "
            f"got sizes that take {(layers + batches) / 1e9:,.1f} GB"
        )


def _memory() -> float:
    """Return the bytes of memory, or infinity where the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _too_much(config: FastFeedForwardConfig, rows: int) -> str | None:
    """Return the reason not to time the dense layer at this size, or None."""
    dense = DenseFeedForwardConfig(
        config.input_dim, config.output_dim, config.neurons, dtype=config.dtype
    )
    # The logits, their activations, and two arrays of the same size while NumPy computes these.
    logits = 4 * min(rows, inference_rows(dense.width)) * dense.width * dense.itemsize
    if dense.nbytes + logits > DENSE_BYTES:
        return f"needs more than {DENSE_BYTES >> 30} GiB of memory"
    if rows * dense.multiply_adds > DENSE_WORK:
        return f"takes more than {DENSE_WORK:.1e} multiply-adds per call"
    return None


def _report(
    config: FastFeedForwardConfig, results: list[Result], skipped: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return all results as plain JSON values."""
    return {
        "machine": describe_machine(),
        "layer": {
            **config.to_dict(),
            "neurons": config.neurons,
            "active_neurons": config.active_neurons,
        },
        "results": [
            {
                "backend": result.backend,
                "rows": result.rows,
                "threads": result.threads,
                "microseconds_a_row": result.timing.microseconds,
                "spread": result.timing.spread,
                "rows_a_second": result.timing.rows_per_second,
                "gigabytes_a_second": result.timing.gigabytes,
                "gigaflops": result.timing.gigaflops,
                "copy_gigabytes_a_second": result.roofline.copy.gigabytes,
                "gemm_gigaflops": result.roofline.gemm.gigaflops,
                "fraction_of_roofline": result.roofline.fraction(result.timing),
                "dense_ratio": result.dense_ratio,
                "doubts": result.doubts,
                "seconds_a_call": list(result.timing.seconds),
            }
            for result in results
        ],
        "skipped": skipped,
    }


def _format(
    config: FastFeedForwardConfig, results: list[Result], skipped: list[dict[str, Any]]
) -> str:
    """Return the table for people."""
    head = (
        *("backend", "rows", "threads", "µs per row", "spread", "rows/s"),
        *("GB/s", "GFLOP/s", "of roofline", "dense/it"),
    )
    cells = [
        (
            result.backend,
            f"{result.rows:,}",
            str(result.threads),
            format_number(result.timing.microseconds),
            f"{100 * result.timing.spread:.0f} %",
            f"{result.timing.rows_per_second:,.0f}",
            *format_rates(result.timing, result.roofline),
            "-" if result.dense_ratio is None else f"{format_number(result.dense_ratio)}x",
        )
        for result in results
    ]
    return "\n".join(
        [
            _format_layer(config),
            _format_rooflines([result.roofline for result in results]),
            "",
            format_table(head, cells),
            *_format_skipped(skipped),
            *_format_doubts(results),
        ]
    )


def _format_rooflines(rooflines: list[Roofline]) -> str:
    """Return a line with the ranges of the machine's rates while the points were timed."""
    copies = [roofline.copy.gigabytes or 0 for roofline in rooflines]
    gemms = [roofline.gemm.gigaflops or 0 for roofline in rooflines]
    if not rooflines:
        return "nothing was timed"
    return (
        f"this machine, in the same rounds: copy {min(copies):.1f} to {max(copies):.1f} GB/s, "
        f"matrix product {min(gemms):,.0f} to {max(gemms):,.0f} GFLOP/s"
    )


def _format_layer(config: FastFeedForwardConfig) -> str:
    """Return a line that describes the timed layer."""
    limit = config.neurons / config.active_neurons
    sides = "two-sided, " if config.two_sided else ""
    return (
        f"FastFeedForward {config.input_dim} -> {config.output_dim}, depth {config.depth}, "
        f"trees {config.trees}, {sides}{config.dtype}: {config.active_neurons:,} neurons used of "
        f"{config.neurons:,} (arithmetic allows up to {format_number(limit)}x)"
    )


def _format_skipped(skipped: list[dict[str, Any]]) -> list[str]:
    """Return a line for each contender left out, once for all threads."""
    lines = [
        f"{item['backend']} left out at {item['rows']:,} rows: {item['reason']}" for item in skipped
    ]
    return list(dict.fromkeys(lines))


def _format_doubts(results: list[Result]) -> list[str]:
    """Return a line for each figure that should not be trusted."""
    return [
        f"doubtful: {result.backend} at {result.rows:,} rows, threads {result.threads}: "
        f"{', '.join(result.doubts)}"
        for result in results
        if result.doubts
    ]
