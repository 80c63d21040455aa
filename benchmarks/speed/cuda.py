"""FastFeedForward on a GPU, compared with a dense layer by cuBLAS.

    python -m benchmarks.speed.cuda                   on a machine with a GPU

Weights, rows and outputs lie on the GPU, and each call waits until it has finished. The dense layer
holds as many neurons as the tree. It runs in CuPy and in PyTorch, as far as they are installed, in
float32 without TF32.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_seconds
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling, ratio
from fffcpu.benchmarking.verification import (
    check_dense,
    check_paths,
    distinct_batches,
    path_arguments,
)
from fffcpu.errors import MissingExtraError
from fffcpu.kernels import load_backend

Array = NDArray[Any]

CHECKED_ROWS = 4096
"""Most rows whose outputs are checked. Of the dense layer they are two, since its check is slow."""


def main() -> None:
    options = parse()
    try:
        backend = load_backend("cuda")
    except MissingExtraError as error:
        sys.exit(str(error))
    shape = PathShape(5, 4, 2, 1) if options.quick else BERT_BASE
    layer = fffcpu.FastFeedForward(*shape, rng=0)
    dense = fffcpu.DenseFeedForward(shape.input_dim, shape.output_dim, layer.config.neurons, rng=0)
    peers = {name: make for name, make in PEERS.items() if serves_a_gpu(name)}
    print(heading(backend, shape, layer))
    for rows in options.rows:
        batches = distinct_batches(rows, shape.input_dim, rng=1)
        checked = np.concatenate(batches)[: 8 if options.quick else CHECKED_ROWS]
        check(backend, layer, checked)
        contenders = [path_contender(backend, layer, batches)]
        contenders += [make(dense, batches) for make in peers.values()]
        rows_of_table = table_rows(layer, alternate(contenders, options.repeats, options.seconds))
        print("\n".join(table(HEAD, rows_of_table)[2:]), flush=True)
    for name in PEERS:
        if name not in peers:
            print(f"\nLeft out, since it is not installed or has no GPU: dense by {name}.")


def serves_a_gpu(name: str) -> bool:
    """Whether a peer is installed and finds a GPU. There are builds of PyTorch for CPUs only."""
    if not importlib.util.find_spec(name):
        return False
    peer = importlib.import_module(name)
    return bool(peer.cuda.is_available())


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    rows = [1, 16, 256, 4096, 16384, 65536]
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=rows,
        help=f"rows per call ({' '.join(map(str, rows))})",
    )
    parser.add_argument("--repeats", type=int, default=15, help="rounds of an alternation (15)")
    add_seconds(parser, 0.1)
    add_quick(parser)
    return parser.parse_args()


def path_contender(
    backend: ModuleType, layer: fffcpu.FastFeedForward, batches: list[Array]
) -> Contender:
    """Return FastFeedForward with everything on the GPU."""
    cuda, rows = backend.cuda, len(batches[0])
    *weights, code = path_arguments(layer)
    weights = [array if array is None else cuda.to_device(array) for array in weights]
    outputs = [cuda.device_array((rows, layer.config.output_dim), np.float32) for _ in range(2)]

    def call(x: Any, y: Any) -> None:
        backend.path_infer(y, x, *weights, code)
        cuda.synchronize()

    on_gpu = [cuda.to_device(batch) for batch in batches]
    return Contender("FastFeedForward", cycling(call, on_gpu, outputs), rows)


def check(backend: ModuleType, layer: fffcpu.FastFeedForward, x: Array) -> None:
    config, arguments = layer.config, path_arguments(layer)
    y = np.empty((len(x), config.output_dim), np.float32)
    nodes = np.empty((len(x), config.trees, config.depth + 1), np.int32)
    backend.path_infer(y, x, *arguments)
    weights_in, bias_in, *_ = arguments
    backend.path_logits(np.empty(nodes.shape, np.float32), nodes, x, weights_in, bias_in, None)
    check_paths(layer, x, y, nodes)


def cupy_contender(dense: fffcpu.DenseFeedForward, batches: list[Array]) -> Contender:
    """Return a dense layer in CuPy, whose matrix products are cuBLAS's."""
    import cupy
    from cupyx.scipy.special import ndtr

    weights_in, bias_in, weights_out = (cupy.asarray(dense.params[name]) for name in DENSE_PARAMS)

    def call(x: Any) -> Any:
        logits = x @ weights_in.T + bias_in
        y = (logits * ndtr(logits)) @ weights_out
        cupy.cuda.get_current_stream().synchronize()
        return y

    def run(x: Array) -> Array:
        return cupy.asnumpy(call(cupy.asarray(x)))

    return dense_contender("cupy", dense, batches, run, call, cupy.asarray)


def torch_contender(dense: fffcpu.DenseFeedForward, batches: list[Array]) -> Contender:
    """Return a dense layer in PyTorch, whose matrix products are cuBLAS's."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    weights_in, bias_in, weights_out = (
        torch.from_numpy(np.array(dense.params[name])).cuda() for name in DENSE_PARAMS
    )

    @torch.inference_mode()
    def call(x: Any) -> Any:
        y = torch.nn.functional.gelu(torch.addmm(bias_in, x, weights_in.T)) @ weights_out
        torch.cuda.synchronize()
        return y

    def place(x: Array) -> Any:
        return torch.from_numpy(x).cuda()

    def run(x: Array) -> Array:
        return call(place(x)).cpu().numpy()

    return dense_contender("torch", dense, batches, run, call, place)


def dense_contender(
    name: str,
    dense: fffcpu.DenseFeedForward,
    batches: list[Array],
    run: Callable[[Array], Array],
    call: Callable[[Any], Any],
    place: Callable[[Array], Any],
) -> Contender:
    x = np.concatenate(batches[:2])[:2]
    check_dense(dense, x, run(x))
    return Contender(
        f"dense, {name}", cycling(call, [place(batch) for batch in batches]), len(batches[0])
    )


DENSE_PARAMS = ("weights_in", "bias_in", "weights_out")

PEERS = {"cupy": cupy_contender, "torch": torch_contender}
"""Dense layers by cuBLAS, by the module that each needs."""

HEAD = ("layer", "rows per call", "us per row", "range", "weights read, GB/s", "dense/FFF")


def heading(backend: ModuleType, shape: PathShape, layer: fffcpu.FastFeedForward) -> str:
    """Return the layer, the GPU, the machine and the command, above the head of the table."""
    device = "the simulator"
    if not backend.SIMULATED:
        device = os.fsdecode(backend.cuda.get_current_device().name)
    limit = layer.config.neurons / layer.config.active_neurons
    return "\n".join(
        [
            f"{shape}, float32, fffcpu {fffcpu.__version__}.",
            f"The arithmetic allows {limit:.0f} times the speed of the dense layer.",
            f"{device}, blocks of at most {backend.MOST_THREADS} threads.",
            f"{facts(describe_machine())}.",
            f"`{command_line()}`",
            "",
            *table(HEAD, ()),
        ]
    )


def table_rows(layer: fffcpu.FastFeedForward, timings: list[Timing]) -> list[tuple[str, ...]]:
    """Return rows of the table. Each row of FastFeedForward reads the weights of its own path."""
    config, path = layer.config, timings[0]
    path_bytes = 4 * config.multiply_adds
    result = []
    for timing in timings:
        low, high = (1e6 * end(timing.seconds) / timing.rows for end in (min, max))
        rate = f"{path_bytes / timing.microseconds / 1e3:,.0f}" if timing is path else "-"
        times = "-" if timing is path else f"{ratio(timing, path):.1f}x"
        result.append(
            (
                timing.name,
                f"{timing.rows:,}",
                f"{timing.microseconds:.3g}",
                f"{low:.3g} to {high:.3g}",
                rate,
                times,
            )
        )
    return result


if __name__ == "__main__":
    main()
