"""The modules of fffcpu.torch: a training step beside PyTorch's masked one, and calls of one row.

    python -m benchmarks.speed.pytorch

No other heavy program may run at the same time. Both steps are of PyTorch, on the same weights,
with the same fused AdamW; all threads are those of --threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.peers.layers import TorchMasked
from benchmarks.report import facts
from benchmarks.speed.figures import Figure, figure_table
from benchmarks.speed.options import add_quick, add_seconds, add_threads
from benchmarks.speed.shapes import BERT_BASE, PathShape
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate, cycling
from fffcpu.benchmarking.verification import check_close, distinct_batches
from fffcpu.errors import require_extra
from fffcpu.testing import oracle

Array = np.ndarray

SAFE = 1e-4
"""Least |logit| on the path of a row whose gradients are compared: routes agree."""


def main() -> None:
    options = parse()
    torch = require_extra("torch", "torch")
    fffcpu.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    shape = PathShape(6, 6, 3, 1) if options.quick else BERT_BASE
    batch = 32 if options.quick else options.batch
    layer = fffcpu.FastFeedForward(*shape, rng=0)
    figures = [*steps(torch, layer, batch, options), *one_row(torch, layer, options)]
    versions = f"fffcpu {fffcpu.__version__}, PyTorch {torch.__version__}"
    print(f"{shape}, float32, {versions}, {options.threads} threads.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    print("\n".join(figure_table(figures)))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_threads(parser, "kernels and of PyTorch")
    parser.add_argument("--batch", type=int, default=1024, help="rows per step (1024)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of an alternation (15)")
    add_seconds(parser, 0.3)
    add_quick(parser)
    return parser.parse_args()


def race(contenders: list[Contender], options: argparse.Namespace) -> list[Timing]:
    return alternate(contenders, options.repeats, options.seconds)


def steps(
    torch: Any, layer: fffcpu.FastFeedForward, rows: int, options: argparse.Namespace
) -> list[Figure]:
    """Time forward and backward, alone and with AdamW, with batches in turn."""
    from fffcpu.torch import FastFeedForward

    module = FastFeedForward.from_layer(layer.copy())
    masked = TorchMasked(options.threads)
    masked.prepare(layer.params)
    ours = module_step(torch, module)
    batches = distinct_batches(rows, layer.config.input_dim, rng=1)
    upstream = distinct_batches(rows, layer.config.output_dim, rng=2)
    check(layer, ours, masked.run, batches[0], upstream[0])
    calls = {
        "module": ours,
        "masked": masked.run,
        "module, AdamW": with_adamw(torch, ours, list(module.parameters())),
        "masked, AdamW": with_adamw(torch, masked.run, list(masked.leaves.values())),
    }
    contenders = [
        Contender(name, cycling(call, batches, upstream), rows) for name, call in calls.items()
    ]
    fast, slow, fast_step, slow_step = race(contenders, options)
    return [
        milliseconds(f"forward and backward, B = {rows}, the module", fast),
        Figure.times_faster("the same, masked PyTorch / the module", slow, fast, 20),
        milliseconds("the same with AdamW, the module", fast_step),
        Figure.times_faster("the same, masked PyTorch / the module", slow_step, fast_step),
    ]


def module_step(torch: Any, module: Any) -> Callable[[Array, Array], Any]:
    """Return forward and backward of a module, as of the peer: (dx, gradients)."""

    def step(x: Array, dy: Array) -> Any:
        module.zero_grad()
        rows = torch.from_numpy(x).requires_grad_()
        module(rows).backward(torch.from_numpy(dy))
        grads = {name: value.grad.numpy() for name, value in module.named_parameters()}
        return rows.grad.numpy(), grads

    return step


def with_adamw(
    torch: Any, step: Callable[[Array, Array], Any], parameters: list[Any]
) -> Callable[[Array, Array], None]:
    """Return a step that changes its parameters, too."""
    optimizer = torch.optim.AdamW(parameters, 1e-5, fused=True)

    def run(x: Array, dy: Array) -> None:
        step(x, dy)
        optimizer.step()

    return run


def check(
    layer: fffcpu.FastFeedForward, ours: Any, masked: Any, batch: Array, upstream: Array
) -> None:
    """Raise unless both steps have the same gradients, on rows whose routes are certain."""
    x, dy = batch[:64], upstream[:64]
    safe = oracle.path(x, **layer.params).margin > SAFE
    dx, grads = ours(x[safe], dy[safe])
    other_dx, other_grads = masked(x[safe], dy[safe])
    check_close(dx, other_dx, TorchMasked.tolerance)
    for name, grad in grads.items():
        check_close(grad, other_grads[name], TorchMasked.tolerance)


def one_row(torch: Any, layer: fffcpu.FastFeedForward, options: argparse.Namespace) -> list[Figure]:
    """Time calls of one row in eager mode without gradients: the layer, and the module."""
    from fffcpu.torch import FastFeedForward

    module = FastFeedForward.from_layer(layer).eval()
    batches = distinct_batches(1, layer.config.input_dim, rng=3)[:1]
    rows = [torch.from_numpy(batch) for batch in batches]
    with torch.no_grad():
        check_close(module(rows[0]).numpy(), layer(batches[0]), 0)
        direct, called = race(
            [
                Contender("layer", cycling(layer, batches), 1),
                Contender("module", cycling(module, rows), 1),
            ],
            options,
        )
    pairs = zip(called.seconds, direct.seconds, strict=True)
    return [
        Figure.at_most("one row, the layer", microseconds(direct), "us"),
        Figure.at_most("one row, the module without gradients", microseconds(called), "us"),
        Figure.at_most("the module less the layer", [1e6 * (a - b) for a, b in pairs], "us", 3),
    ]


def microseconds(timing: Timing) -> list[float]:
    return [1e6 * seconds for seconds in timing.seconds]


def milliseconds(what: str, timing: Timing) -> Figure:
    return Figure.at_most(what, [1e3 * seconds for seconds in timing.seconds], "ms")


if __name__ == "__main__":
    main()
