"""Row kernels and grouped kernels on a grid of shapes, and what `fffcpu.kernels.choose` takes.

    python -m benchmarks.speed.backends
    python -m benchmarks.speed.backends --widths 384 --rows 64 256 1024 --threads 1

No other heavy program may run at the same time. Each cell times both backends in alternation on
distinct rows, after their outputs were compared to the bit. The table shows the time of the row
kernels over that of the grouped ones: above 1 the grouped kernels are faster. It is bold where the
grouped kernels are the choice. An exclamation mark follows where the choice takes more than a
twentieth longer than the other backend.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts, table
from benchmarks.speed.options import add_quick, add_seconds, add_threads
from benchmarks.speed.shapes import PathShape
from fffcpu import kernels
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, alternate, cycling, ratio
from fffcpu.benchmarking.verification import distinct_batches
from fffcpu.errors import WrongOutputError
from fffcpu.kernels import load_backend
from fffcpu.parameters import empty_output
from fffcpu.system.cpus import cache_bytes
from fffcpu.system.terminal import print_status

WIDTHS = (64, 128, 256, 384, 512, 768, 1024)
FORESTS = ("1x3", "1x5", "1x7", "1x9", "1x11", "4x5", "8x5", "8x7", "16x7")
ROWS = (1, 16, 64, 128, 256, 512, 1024, 4096, 16384)
MARKED = 1.05
"""Ratio from which a wrong choice is marked."""
ALLOWED = 1.10
"""Largest ratio of the backend that is taken to the better one."""


class Cell(NamedTuple):
    """One shape and number of rows."""

    width: int
    forest: str
    rows: int
    rowwise: float
    """Microseconds per row."""
    grouped: float
    """Microseconds per row."""
    gain: float
    """Time of the row kernels over that of the grouped ones."""
    chosen: str
    """Backend that `fffcpu.kernels.choose` takes."""

    @property
    def loss(self) -> float:
        """Time of the backend that is taken over that of the better one."""
        return max(1.0, self.gain if self.chosen == "rowwise" else 1 / self.gain)


def main() -> None:
    options = parse()
    fffcpu.set_num_threads(options.threads)
    cells = [
        measure(options, width, forest, rows)
        for width in options.widths
        for forest in options.forests
        for rows in options.rows
    ]
    if options.json:
        for cell in cells:
            print(json.dumps(cell._asdict()))
    else:
        print(format_report(options, cells))


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_threads(parser)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="input and output")
    parser.add_argument(
        "--forests", nargs="+", default=FORESTS, metavar="TxD", help="trees x depth"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows per call")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (7)")
    add_seconds(parser, 0.01)
    parser.add_argument("--json", action="store_true", help="print a line of JSON per cell")
    add_quick(parser)
    options = parser.parse_args()
    if options.quick:
        options.widths, options.forests, options.rows = (32,), ("1x3", "2x2"), (1, 64)
        options.repeats = 1
    return options


def measure(options: argparse.Namespace, width: int, forest: str, rows: int) -> Cell:
    """Time both backends."""
    print_status(f"{width}, {forest}, {rows:,} rows ...")
    trees, depth = map(int, forest.split("x"))
    layer = fffcpu.FastFeedForward(*PathShape(width, width, depth, trees), rng=0)
    batches = distinct_batches(rows, width, rng=1)
    backends = [load_backend(name) for name in ("rowwise", "grouped")]
    outputs = [run(layer, backend, batches[0]) for backend in backends]
    if not np.array_equal(*outputs):
        raise WrongOutputError("both backends must give the same bits, got different ones")
    contenders = [
        Contender(backend.__name__, cycling(bind(layer, backend, rows), batches), rows)
        for backend in backends
    ]
    rowwise, grouped = alternate(contenders, options.repeats, options.seconds, rest=0)
    chosen = kernels.choose(rows, layer._weights.weights_in).__name__.rpartition(".")[2]
    gain = ratio(rowwise, grouped)
    times = rowwise.microseconds, grouped.microseconds
    return Cell(width, forest, rows, *times, gain, chosen)


def run(layer: fffcpu.FastFeedForward, backend: ModuleType, x: np.ndarray) -> np.ndarray:
    """Return the output of a backend."""
    y = empty_output(len(x), layer.config.output_dim, x.dtype)
    backend.path_infer(y, x, *layer._weights, layer._activation)
    return y


def bind(
    layer: fffcpu.FastFeedForward, backend: ModuleType, rows: int
) -> Callable[[np.ndarray], None]:
    """Return a function that runs a backend on a batch."""
    y = empty_output(rows, layer.config.output_dim, np.dtype(np.float32))
    weights, activation = layer._weights, layer._activation
    return lambda x: backend.path_infer(y, x, *weights, activation)


def format_report(options: argparse.Namespace, cells: list[Cell]) -> str:
    """Return the tables, under the machine and the command."""
    what = "Time of the row kernels over that of the grouped kernels"
    lines = [
        f"{what}, float32, {options.threads} threads, {cache_bytes() >> 10} KiB of L2 cache.",
        f"{facts(describe_machine())}.",
        f"`{command_line()}`",
        "",
    ]
    found = {(cell.width, cell.forest, cell.rows): cell for cell in cells}
    head = ("width", "trees x depth", *(f"{rows:,} rows" for rows in options.rows))
    body = [
        (width, forest, *(show(found[width, forest, rows]) for rows in options.rows))
        for width in options.widths
        for forest in options.forests
    ]
    lines += table(head, body)
    wrong = [cell for cell in cells if cell.loss > ALLOWED]
    worst = max(cells, key=lambda cell: cell.loss)
    place = f"{worst.width}, {worst.forest}, {worst.rows:,} rows"
    lines += [
        "",
        f"Of {len(cells)} cells, {len(wrong)} take over {ALLOWED - 1:.0%} longer than with the",
        f"better backend; at most {worst.loss - 1:.0%} ({place}).",
    ]
    return "\n".join(lines)


def show(cell: Cell) -> str:
    """Return a cell; the choice is the grouped kernels where it is bold."""
    text = f"**{cell.gain:.2f}**" if cell.chosen == "grouped" else f"{cell.gain:.2f}"
    return f"{text} (!)" if cell.loss > MARKED else text


if __name__ == "__main__":
    main()
