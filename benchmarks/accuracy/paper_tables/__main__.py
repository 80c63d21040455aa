"""Tables of accuracy: Table 1 of "Fast Feedforward Networks" (arXiv 2308.14711), and more.

    python -m benchmarks.data.tables DIR DATA
    python -m benchmarks.accuracy.paper_tables table1 DATA OUT
    python -m benchmarks.accuracy.paper_tables trees DATA OUT
    python -m benchmarks.accuracy.paper_tables methods DATA OUT
    python -m benchmarks.accuracy.paper_tables choose DATA OUT
    python -m benchmarks.accuracy.paper_tables speed OUT

Each run is a line of OUT/TABLE.jsonl, written when the run ends. No run is done twice: repeat the
command to continue after an interruption. All layers with seed 0 come first, so that an unfinished
table is a whole table of fewer seeds. --show prints the table of the runs that are there.

The test images of MNIST and FashionMNIST are those published. The test rows are the last 4,000 of
letters, and 2,000 random ones of satellite, always the same. Each seed holds out another tenth of
the other rows. Only held-out rows choose settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.paper_tables.cells import (
    DATA,
    Cell,
    choose_cells,
    methods_cells,
    table1_cells,
    trees_cells,
)
from benchmarks.accuracy.paper_tables.runs import carry_out
from benchmarks.accuracy.paper_tables.show import show_choose, show_methods, show_table1, show_trees
from benchmarks.accuracy.paper_tables.speed import show_speed, time_all
from benchmarks.command import new_parser

HELP = {
    "table1": "leaf layers of training width 16 to 128 and leaf width 8 to 1, with dense layers "
    "of the same training width, with one recipe for all layers of a data set",
    "trees": "layers of equally many neurons per row: few deep trees or many shallow ones, "
    "with a dense layer",
    "methods": "training methods, each a single change of one configuration of each layer",
    "choose": "the settings that the other tables use for letters and satellite, among others",
    "speed": "the layers of table1 timed with the dense one; no other program may run meanwhile",
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.table == "speed":
        path = options.out / "speed.jsonl"
        if not options.show:
            time_all(options.data, path)
        print(show_speed(options.data, path))
        return
    cells = options.cells(options)
    if options.epochs:
        cells = [
            cell._replace(settings={**cell.settings, "epochs": options.epochs}) for cell in cells
        ]
    if not options.show:
        carry_out(cells, options.seeds, options.folder, options.out / f"{options.table}.jsonl")
    print(options.print(cells, options.seeds, options.out))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    tables = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    add(tables, "table1", DATA, lambda options: table1_cells(options.data), show_table1)
    trees = add(
        tables,
        "trees",
        DATA,
        lambda options: trees_cells(options.data, options.active, not options.constant_routes),
        show_trees,
    )
    trees.add_argument("--active", type=int, default=16, help="neurons per row (16)")
    trees.add_argument(
        "--constant-routes", action="store_true", help="do not train the routes of the trees"
    )
    some = ("mnist", "letters")
    add(tables, "methods", some, lambda options: methods_cells(options.data), show_methods)
    add(
        tables,
        "choose",
        ("letters", "satellite"),
        lambda options: choose_cells(options.data),
        show_choose,
    )
    add_common(tables, "speed", DATA)
    return parser.parse_args(arguments)


def add(
    tables: Any,
    name: str,
    data: Iterable[str],
    cells: Callable[[argparse.Namespace], list[Cell]],
    show: Callable[[Sequence[Cell], int, Path], str],
) -> argparse.ArgumentParser:
    """Add the command of a table of trained layers, and return its parser."""
    parser = add_common(tables, name, data, folder=True)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (5)")
    parser.add_argument("--epochs", type=int, help="epochs of every run, for a trial run")
    parser.set_defaults(cells=cells, print=show)
    return parser


def add_common(
    tables: Any, name: str, data: Iterable[str], *, folder: bool = False
) -> argparse.ArgumentParser:
    """Add a command with the arguments of all tables, and return its parser."""
    parser: argparse.ArgumentParser = tables.add_parser(
        name, help=HELP[name], description=f"Make a table: {HELP[name]}."
    )
    if folder:
        parser.add_argument(
            "folder", metavar="DATA", type=Path, help="folder that benchmarks.data.tables wrote"
        )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of the results")
    parser.add_argument(
        "--data",
        nargs="+",
        choices=tuple(DATA),
        default=list(data),
        help=f"data sets ({' '.join(data)})",
    )
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    return parser


if __name__ == "__main__":
    main()
