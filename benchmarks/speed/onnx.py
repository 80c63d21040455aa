"""Exported layers in onnxruntime, beside fffcpu's own kernels and dense layers in onnxruntime.

    python -m benchmarks.speed.onnx
    python -m benchmarks.speed.onnx --layers 768:1x11 --rows 1 256 --threads 1

No other heavy program may run at the same time. A layer is WIDTH:TREESxDEPTH. The same layer runs
in fffcpu, and, exported by `fffcpu.onnx`, in onnxruntime. Beside it two dense layers run in
onnxruntime: of as many neurons as a row uses, and of all neurons that the layer has. The outputs
are checked first: of the exported layer, at least 99.8% of the rows must agree within 1e-4. The
contenders alternate on distinct rows.
"""

from __future__ import annotations

import argparse

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_seconds
from benchmarks.speed.price import Shape
from fffcpu.benchmarking.machine import describe_machine, package_version
from fffcpu.benchmarking.onnx_dense import in_onnxruntime
from fffcpu.benchmarking.timing import Contender, alternate, cycling, inference, ratio
from fffcpu.benchmarking.verification import check_close, check_paths, distinct_batches
from fffcpu.errors import WrongOutputError
from fffcpu.onnx import to_model
from fffcpu.system.terminal import print_status

LAYERS = ("768:1x11", "768:8x7", "128:1x11", "64:8x3")
ROWS = (1, 16, 256, 4096)
AGREEING, TOLERANCE = 0.998, 1e-4

Array = np.ndarray

HEAD = (
    "width",
    "trees x depth (used)",
    "rows",
    "threads",
    "fffcpu",
    "exported",
    "dense, used neurons",
    "dense, all neurons",
    "exported / fffcpu",
    "dense, all / exported",
)


def main() -> None:
    options = parse()
    versions = {name: package_version(name) for name in ("onnx", "onnxruntime")}
    print(facts({"fffcpu": fffcpu.__version__, **describe_machine(), **versions}))
    print(f"`{command_line()}`\n\nMicroseconds per row; all but fffcpu in onnxruntime\n")
    rows = [
        race(options, shape, count, threads)
        for threads in options.threads
        for shape in map(Shape.of, options.layers)
        for count in options.rows
    ]
    print(*table(HEAD, rows), sep="\n")


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    most = min(2, fffcpu.get_num_threads())
    parser.add_argument(
        "--layers", nargs="+", default=LAYERS, metavar="WIDTH:TxD", help=" ".join(LAYERS)
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help=f"rows per call ({ROWS})")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=range(1, most + 1), help="threads (1, and 2)"
    )
    parser.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    add_seconds(parser, 0.2)
    add_quick(parser)
    options = parser.parse_args()
    if options.quick:
        options.layers, options.rows, options.threads = ("16:2x4",), (1, 8), (1,)
        options.repeats, options.seconds = 1, 0.001
    return options


def race(options: argparse.Namespace, shape: Shape, rows: int, threads: int) -> tuple[object, ...]:
    """Time all contenders on one shape."""
    print_status(f"{shape.width}, {shape}, {rows:,} rows, {threads} threads ...")
    fffcpu.set_num_threads(threads)
    layer, batches = shape.layer(), distinct_batches(rows, shape.width, rng=1)
    check_paths(layer, batches[0], layer(batches[0]), layer.route(batches[0]))
    exported = in_onnxruntime(to_model(layer).SerializeToString(), threads)
    check_agreement(exported, layer, batches)
    contenders = [
        Contender("fffcpu", inference(layer, batches), rows),
        Contender("exported", cycling(exported, batches), rows),
        dense(shape, shape.used, batches, threads),
        dense(shape, layer.config.neurons, batches, threads),
    ]
    ours, tree, used, full = alternate(contenders, options.repeats, options.seconds)
    return (
        shape.width,
        shape,
        f"{rows:,}",
        threads,
        *(f"{timing.microseconds:.2f}" for timing in (ours, tree, used, full)),
        f"**{ratio(tree, ours):.3g}**",
        f"**{ratio(full, tree):.3g}**",
    )


def check_agreement(exported: object, layer: fffcpu.FastFeedForward, batches: list[Array]) -> None:
    """Fail unless the exported layer gives what the layer gives, apart from routes near ties."""
    chosen = batches[: -(-1000 // len(batches[0]))]
    found = np.concatenate([exported(batch) for batch in chosen])
    expected = layer(np.concatenate(chosen))
    error = np.abs(found - expected).max(axis=1)
    share = float((error <= TOLERANCE * np.abs(expected).max()).mean())
    if share < AGREEING:
        raise WrongOutputError(f"{AGREEING:.1%} of the rows must agree, got {share:.2%}")


def dense(shape: Shape, neurons: int, batches: list[Array], threads: int) -> Contender:
    """Return a dense layer of so many neurons in onnxruntime."""
    layer = fffcpu.DenseFeedForward(shape.width, shape.width, neurons, rng=0)
    run = in_onnxruntime(to_model(layer).SerializeToString(), threads)
    few = batches[0][:8]
    check_close(run(few), layer(few), TOLERANCE)
    return Contender(f"dense {neurons}", cycling(run, batches), len(batches[0]))


if __name__ == "__main__":
    main()
