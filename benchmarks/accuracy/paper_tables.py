"""Tables of accuracy: Table 1 of "Fast Feedforward Networks" (arXiv 2308.14711), and two more.

    python -m benchmarks.data.tables DIR DATA
    python -m benchmarks.accuracy.paper_tables table1 DATA OUT
    python -m benchmarks.accuracy.paper_tables trees DATA OUT
    python -m benchmarks.accuracy.paper_tables methods DATA OUT
    python -m benchmarks.accuracy.paper_tables choose DATA OUT
    python -m benchmarks.accuracy.paper_tables speed OUT

table1   leaf layers of training width 16 to 128 and leaf width 8 to 1, beside dense layers of the
         same training width, one recipe for all layers of a data set
trees    at equal neurons a row: few deep trees or many shallow ones, beside a dense layer
methods  ways to train: one changed at a time, from one configuration of each layer; those that
         the library does not have are in methods.py
choose   the settings that the other tables use for letters and satellite, among others
speed    table1's layers timed beside the dense one; nothing else may run at the time

A run is a line of OUT/TABLE.jsonl, written when it is done, and no run is done twice: the same
command goes on where it was stopped. All layers with seed 0 come first, so that a table that is not
finished is a whole one of fewer seeds. --show prints it from what is there.

Of MNIST and FashionMNIST the test images are those published; of letters the last 4,000 rows, as
usual; of satellite 2,000 rows at random, always the same. A tenth of the other rows is held out,
other ones with each seed, and the rest is trained on. Only rows held out choose anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fffcpu
from benchmarks.accuracy import methods
from benchmarks.data.tables import TEST_ROWS, read_data
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, alternate, inference, ratios
from fffcpu.benchmarking.verification import check_dense, check_leaves, distinct_batches
from fffcpu.data import Table
from fffcpu.recipes.fitting import FitSettings, evaluate, fit
from fffcpu.recipes.table_objective import Scaling
from fffcpu.training.batches import split_rows

Record = dict[str, Any]


class Data(NamedTuple):
    """What there is to know of a data set beforehand."""

    inputs: int
    outputs: int
    standardize: str
    """Pixels are scaled all alike, measurements each by itself."""


DATA = {
    "mnist": Data(784, 10, "table"),
    "fashion-mnist": Data(784, 10, "table"),
    "letters": Data(16, 26, "columns"),
    "satellite": Data(36, 6, "columns"),
}

WIDTHS = (16, 32, 64, 128)
"""Training widths of table 1."""

LEAF_WIDTHS = (8, 4, 2, 1)

DEEPEST = 15
"""Of the trees: another level would double the 65,535 neurons that such a tree holds."""

PAPER = {("mnist", 128, 8): 0.949, ("fashion-mnist", 128, 8): 0.861}
"""The paper's generalization, by data, training width and leaf width."""

RECIPES: dict[str, dict[str, Any]] = {
    "mnist": {"epochs": 25, "batch_size": 256},
    "fashion-mnist": {"epochs": 25, "batch_size": 256},
    "letters": {"epochs": 100, "batch_size": 256},
    "satellite": {"epochs": 100, "batch_size": 256},
}
"""How table 1 trains all layers; all else is what `FitSettings` takes by default. For letters and
satellite chosen of `RECIPE_CHOICES`, by the leaf layer 8 of 128 and the dense layer 128 alike."""

RECIPE_CHOICES = ((25, 256), (25, 64), (100, 256))
"""Epochs and rows of a step."""


class Chosen(NamedTuple):
    """Settings of the trees and of the dense layer beside them."""

    lr: float
    weight_decay: float
    validation: float
    """Mean accuracy on the rows held out, by which they were chosen."""


CHOSEN = {
    ("mnist", "node"): Chosen(0.004, 0.2, 0.960),
    ("mnist", "dense"): Chosen(0.004, 0.2, 0.958),
    ("fashion-mnist", "node"): Chosen(0.004, 0.2, 0.880),
    ("fashion-mnist", "dense"): Chosen(0.004, 0.2, 0.876),
    ("letters", "node"): Chosen(0.04, 0.01, 0.882),
    ("letters", "dense"): Chosen(0.02, 0.01, 0.836),
    ("satellite", "node"): Chosen(0.04, 0.01, 0.897),
    ("satellite", "dense"): Chosen(0.04, 0.0, 0.901),
}
"""For letters and satellite chosen of `RATES` x `DECAYS` (`choose`), by 4 trees of depth 3 and the
dense layer of 16 neurons; for the images see docs/benchmarks.md. Means of seeds 0, 1 and 2, of
letters seed 0."""

RATES = (0.002, 0.004, 0.01, 0.02, 0.04)
DECAYS = (0.0, 0.01, 0.2)

ROUTES = {"node": {"straight_through": True}, "dense": {}}
"""Said of each run, since what is done where nothing is said may change."""

FOREST = {"trees": 4, "depth": 3}
LEAVES = {"depth": 4, "leaf_width": 8}
"""The layers that settings are chosen by and that methods are tried on."""


class Method(NamedTuple):
    """What is done in another way."""

    name: str
    layers: tuple[str, ...]
    """The kinds of layers that it is for."""
    changes: dict[str, Any]
    """Fields of `FitSettings` that take other values."""
    maker: str = ""
    """Of `methods.MAKERS`, where the library does not have it."""


BOTH = ("leaf", "node")

METHODS = (
    Method("as in the other tables", BOTH, {}),
    Method("no hardening", ("leaf",), {"hardening": 0.0}),
    Method("hardening 1", ("leaf",), {"hardening": 1.0}),
    Method("hardening 3", ("leaf",), {"hardening": 3.0}),
    Method("hardening rises to 0.3", ("leaf",), {"hardening_schedule": "linear"}),
    Method("hardening rises to 3", ("leaf",), {"hardening": 3.0, "hardening_schedule": "linear"}),
    Method("region leak 0.05", ("leaf",), {"region_leak": 0.05}),
    Method("dropout 0.1", ("leaf",), {"dropout": 0.1}),
    Method("no weight decay", BOTH, {"weight_decay": 0.0}),
    Method("local Adam, no weight decay", BOTH, {"optimizer": "local-adam", "weight_decay": 0.0}),
    Method("SGD, 0.1, no weight decay", BOTH, {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0}),
    Method(
        "local SGD, 0.1, no weight decay",
        BOTH,
        {"optimizer": "local-sgd", "lr": 0.1, "weight_decay": 0.0},
    ),
    Method("routes held constant", ("node",), {"straight_through": False}),
    *(
        Method(name, (layer,), changes, name)
        for layer, name, changes in (
            ("node", "soft routes, temperature 1 to 0.03", {}),
            ("node", "soft routes, temperature 0.3 to 0.03", {}),
            ("node", "load balancing 0.1", {}),
            ("node", "dropout of nodes 0.1", {}),
            ("node", "decay doubles from level to level", {"weight_decay": 0.0}),
            ("node", "decay halves from level to level", {"weight_decay": 0.0}),
            ("node", "balanced routes", {}),
            ("leaf", "load balancing of leaves 0.1", {}),
            ("leaf", "load balancing of leaves 1", {}),
            ("leaf", "master leaf, half of the neurons", {}),
        )
    ),
)
"""A local optimizer adds its weight decay to the gradient, AdamW does not: they compare without."""

BATCH = 4096
"""Rows of a call that is timed."""

REPEATS = 15
"""Rounds of an alternation."""


class Cell(NamedTuple):
    """What is trained with each seed."""

    data: str
    layer: str
    sizes: dict[str, Any]
    settings: dict[str, Any]
    label: str = ""
    """What a table calls it, where data and sizes do not tell."""
    maker: str = ""
    """Of `methods.MAKERS`."""

    def key(self, seed: int) -> str:
        """What makes a run this run."""
        return _key([self.data, self.layer, self.sizes, seed, self.settings, self.maker])


def _key(values: Any) -> str:
    return json.dumps(values, sort_keys=True)


# What the tables hold.


def table1_cells(data: Iterable[str]) -> list[Cell]:
    """Return the dense layer of each training width, and the leaf layers."""
    cells = []
    for name in data:
        settings = recipe(name)
        for width in WIDTHS:
            cells.append(Cell(name, "dense", {"width": width}, settings))
            cells += [Cell(name, "leaf", sizes, settings) for sizes in leaf_sizes(width)]
    return cells


def recipe(data: str) -> dict[str, Any]:
    """Return the settings of table 1."""
    return {**RECIPES[data], "standardize": DATA[data].standardize, "activation": "relu"}


def leaf_sizes(width: int) -> list[dict[str, Any]]:
    """Return the sizes of the leaf layers of a training width, a power of two."""
    return [
        {"depth": (width // leaf_width).bit_length() - 1, "leaf_width": leaf_width}
        for leaf_width in LEAF_WIDTHS
    ]


def tree_sizes(active: int) -> list[dict[str, Any]]:
    """Return all sizes of forests that use so many neurons a row, but for trees too deep."""
    return [
        {"trees": trees, "depth": active // trees - 1}
        for trees in range(1, active + 1)
        if active % trees == 0 and active // trees - 1 <= DEEPEST
    ]


def trees_cells(data: Iterable[str], active: int, learn: bool = True) -> list[Cell]:
    """Return forests and a dense layer of so many neurons a row.

    `learn` says whether the routes of the forests do.
    """
    cells = []
    for name in data:
        dense = {"width": active}
        forest = tuned(name, "node") | {"straight_through": learn}
        cells += [Cell(name, "node", sizes, forest) for sizes in tree_sizes(active)]
        cells.append(Cell(name, "dense", dense, tuned(name, "dense")))
    return cells


def tuned(data: str, layer: str) -> dict[str, Any]:
    """Return the settings chosen for the trees, or for the dense layer beside them."""
    chosen = CHOSEN[data, layer]
    return {
        **ROUTES[layer],
        "lr": chosen.lr,
        "weight_decay": chosen.weight_decay,
        "standardize": DATA[data].standardize,
    }


def methods_cells(data: Iterable[str]) -> list[Cell]:
    """Return each layer as in the other tables, and with one method changed at a time."""
    cells = []
    for name in data:
        bases = {
            "leaf": (LEAVES, recipe(name)),
            "node": (FOREST, tuned(name, "node")),
        }
        for layer, (sizes, settings) in bases.items():
            cells += [
                Cell(name, layer, sizes, {**settings, **method.changes}, method.name, method.maker)
                for method in METHODS
                if layer in method.layers
            ]
    return cells


def choose_cells(data: Iterable[str]) -> list[Cell]:
    """Return the layers that settings are chosen by, with each of the settings to choose of."""
    cells = []
    for name in data:
        common = {"standardize": DATA[name].standardize}
        for layer, sizes in (("node", FOREST), ("dense", {"width": 16})):
            cells += [
                Cell(
                    name,
                    layer,
                    sizes,
                    {**ROUTES[layer], **common, "lr": rate, "weight_decay": decay},
                    f"learning rate {rate:g}, weight decay {decay:g}",
                )
                for rate in RATES
                for decay in DECAYS
            ]
        for layer, sizes in (("leaf", LEAVES), ("dense", {"width": 128})):
            cells += [
                Cell(
                    name,
                    layer,
                    sizes,
                    {**common, "activation": "relu", "epochs": epochs, "batch_size": rows},
                    f"{epochs} epochs, {rows} rows a step",
                )
                for epochs, rows in RECIPE_CHOICES
            ]
    return cells


# Runs and where they are kept.


def train(cell: Cell, seed: int, folder: Path) -> Record:
    """Train a layer and return what is told of it."""
    training, test = read_data(folder, cell.data)
    settings = FitSettings(layer=cell.layer, seed=seed, **cell.sizes, **cell.settings)
    learned, _ = split_rows(len(training.x), settings.validation, seed)
    make_layer = maker(cell, training, learned) if cell.maker else None
    fitted = fit(training, settings, progress=False, make_layer=make_layer)
    config = fitted.predictor.layer.config
    record = {
        "data": cell.data,
        "layer": cell.layer,
        "sizes": cell.sizes,
        "seed": seed,
        "settings": cell.settings,
        "maker": cell.maker,
        "neurons": {"held": config.neurons, "used": config.active_neurons},
        "train": evaluate(fitted.predictor, training, learned)["accuracy"],
        "validation": fitted.validation["accuracy"],
        "test": evaluate(fitted.predictor, test)["accuracy"],
        "seconds": fitted.outcome.seconds,
    }
    if cell.layer == "node":
        unused = methods.prune(fitted.predictor.layer, training.x[np.sort(learned)])
        record["unused"] = unused
        record["pruned"] = evaluate(fitted.predictor, test)["accuracy"]
    return record


def maker(
    cell: Cell, table: Table, learned: NDArray[np.int64]
) -> Callable[[FitSettings, int, int], Any]:
    """Return what makes the layer of a method that the library does not have."""

    def make(settings: FitSettings, inputs: int, outputs: int) -> Any:
        scaling = Scaling.of(table.x, learned, settings.standardize)
        some = np.sort(np.random.default_rng(settings.seed).permutation(learned)[:SOME_ROWS])
        context = methods.Context(
            scaling.apply(table.x[some], np.float32),
            settings.epochs * -(-len(learned) // settings.batch_size),
            tuned(cell.data, "node")["weight_decay"],
        )
        return methods.MAKERS[cell.maker](settings, inputs, outputs, context)

    return make


SOME_ROWS = 10_000
"""Rows that a method may look at to make a layer."""


def read_records(path: Path) -> list[Record]:
    """Return the lines of a file, but for one that was not finished."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def mend(path: Path) -> None:
    """Take off what was written last where that is no whole line: its run was killed."""
    content = path.read_bytes() if path.exists() else b""
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def by_key(records: Iterable[Record]) -> dict[str, Record]:
    """Return runs by what makes them these runs."""
    names = ("data", "layer", "sizes", "seed", "settings", "maker")
    return {_key([record.get(name, "") for name in names]): record for record in records}


def carry_out(cells: Sequence[Cell], seeds: int, folder: Path, path: Path) -> None:
    """Do the runs that the file does not hold, seed by seed."""
    mend(path)
    known = by_key(read_records(path))
    planned = {cell.key(seed): (cell, seed) for seed in range(seeds) for cell in cells}
    missing = [run for key, run in planned.items() if key not in known]
    with open(path, "a", encoding="utf-8") as file, _bar(len(planned), len(missing)) as bar:
        for cell, seed in missing:
            bar.set_description(f"seed {seed}, {cell.data}, {describe(cell)}")
            file.write(json.dumps(train(cell, seed, folder)) + "\n")
            file.flush()
            bar.update()


def _bar(total: int, missing: int) -> Any:
    """Return a progress bar that counts what was done before as well."""
    from tqdm import tqdm

    return tqdm(total=total, initial=total - missing, file=sys.stderr, disable=None, unit="run")


# What is told.


def describe(cell: Cell) -> str:
    """Name a layer by its sizes."""
    sizes = cell.sizes
    if cell.layer == "node":
        trees = "1 tree" if sizes["trees"] == 1 else f"{sizes['trees']} trees"
        return f"{trees} of depth {sizes['depth']}"
    if cell.layer == "leaf":
        return f"{sizes['leaf_width']} of {sizes['leaf_width'] << sizes['depth']}"
    return f"dense {sizes['width']}"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the runs of a cell came to, those that are there."""

    runs: list[Record]

    @classmethod
    def of(cls, cell: Cell, seeds: int, known: dict[str, Record]) -> Summary:
        """Gather a cell's runs."""
        keys = (cell.key(seed) for seed in range(seeds))
        return cls([known[key] for key in keys if key in known])

    def mean(self, name: str) -> str:
        """Mean of a figure over the seeds, in percent, and its range."""
        values = [run[name] for run in self.runs if name in run]  # dense layers have no nodes
        if len(values) < 2:
            return percent(*values)
        return (
            f"{percent(statistics.mean(values))} ({percent(min(values))} to {percent(max(values))})"
        )

    def memorization(self) -> str:
        """The best accuracy on rows trained on."""
        return percent(*sorted(run["train"] for run in self.runs)[-1:])

    def generalization(self) -> str:
        """The accuracy in the test of the run that is best on the rows held out."""
        best = sorted(self.runs, key=lambda run: run["validation"])[-1:]
        return percent(*(run["test"] for run in best))


def percent(value: float | None = None) -> str:
    """Return a share in percent, or a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_table1(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return table 1, with the times that `speed` found, where it was run."""
    known = by_key(read_records(out / "table1.jsonl"))
    faster = {
        (record["data"], record["width"], record["leaf_width"]): f"{record['times_faster']:.1f}"
        for record in read_records(out / "speed.jsonl")
    }
    rows = []
    for cell in cells:
        found = Summary.of(cell, seeds, known)
        leaf_width = cell.sizes.get("leaf_width", 0)
        width = cell.sizes.get("width") or leaf_width << cell.sizes["depth"]
        place = (cell.data, width, leaf_width)
        rows.append(
            (
                cell.data,
                str(width),
                str(leaf_width) if leaf_width else "dense",
                str(len(found.runs)),
                found.memorization(),
                found.generalization(),
                found.mean("test"),
                percent(PAPER.get(place)),
                faster.get(place, "-"),
            )
        )
    head = (
        *("data", "training width", "leaf width", "seeds", "memorization", "generalization"),
        *("test, mean", "the paper's generalization", "times faster than dense"),
    )
    return markdown(head, rows)


def show_trees(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return the table of trees."""
    known = by_key(read_records(out / "trees.jsonl"))
    rows = []
    for cell in cells:
        found = Summary.of(cell, seeds, known)
        sizes = cell.sizes
        trees, levels = sizes.get("trees", 1), sizes.get("depth", 0) + 1
        held = sizes.get("width") or trees * ((1 << levels) - 1)
        used = sizes.get("width") or trees * levels
        rows.append(
            (
                *(cell.data, describe(cell), f"{used} of {held:,}", *figures(found)),
                *(found.mean(name) for name in PRUNING),
            )
        )
    head = ("data", "layer", "neurons a row", *FIGURES, "nodes no row reached", "without them")
    return markdown(head, rows)


PRUNING = ("unused", "pruned")
"""What trees have of their nodes that no row to train on reaches: their share, and the accuracy
in the test once they give nothing."""


FIGURES = ("seeds", "train", "held out", "test")


def figures(found: Summary) -> tuple[str, ...]:
    """Return the columns `FIGURES`."""
    return (str(len(found.runs)), *(found.mean(name) for name in ("train", "validation", "test")))


def show_methods(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return the table of methods."""
    known = by_key(read_records(out / "methods.jsonl"))
    rows = [
        (cell.data, describe(cell), cell.label, *figures(Summary.of(cell, seeds, known)))
        for cell in cells
    ]
    return markdown(("data", "layer", "method", *FIGURES), rows)


def show_choose(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return the table of settings to choose of; the test has no say."""
    known = by_key(read_records(out / "choose.jsonl"))
    rows = [
        (cell.data, describe(cell), cell.label, *figures(Summary.of(cell, seeds, known))[:-1])
        for cell in cells
    ]
    return markdown(("data", "layer", "settings", *FIGURES[:-1]), rows)


# Speed.


def time_layers(data: str, width: int) -> list[Record]:
    """Time the leaf layers of a training width and the dense layer in one alternation."""
    inputs, outputs, _ = DATA[data]
    batches = distinct_batches(BATCH, inputs, rng=0)
    x = batches[0]
    dense = fffcpu.DenseFeedForward(inputs, outputs, width, activation="relu", rng=0)
    check_dense(dense, x[:16], dense(x[:16]))
    contenders = [Contender("dense", inference(dense, batches), BATCH)]
    for sizes in leaf_sizes(width):
        layer = fffcpu.LeafFeedForward(inputs, outputs, **sizes, activation="relu", rng=0)
        check_leaves(layer, x, layer(x), layer.route(x))
        contenders.append(Contender(str(sizes["leaf_width"]), inference(layer, batches), BATCH))
    own, *others = alternate(contenders, REPEATS)
    return [
        {
            "data": data,
            "width": width,
            "leaf_width": int(other.name),
            "rows": BATCH,
            "threads": fffcpu.get_num_threads(),
            "processor": describe_machine()["processor"],
            "microseconds": other.microseconds,
            "dense_microseconds": own.microseconds,
            "times_faster": statistics.median(ratios(own, other)),
            "range": [min(ratios(own, other)), max(ratios(own, other))],
        }
        for other in others
    ]


def time_all(data: Iterable[str], path: Path) -> None:
    """Time what the file does not hold for so many threads."""
    mend(path)
    threads = fffcpu.get_num_threads()
    known = {
        (record["data"], record["width"])
        for record in read_records(path)
        if record["threads"] == threads
    }
    planned = [(name, width) for name in data for width in WIDTHS]
    missing = [place for place in planned if place not in known]
    with open(path, "a", encoding="utf-8") as file, _bar(len(planned), len(missing)) as bar:
        for name, width in missing:
            bar.set_description(f"{name}, width {width}")
            # One write, so that a width is there as a whole or not at all.
            file.write("".join(json.dumps(record) + "\n" for record in time_layers(name, width)))
            file.flush()
            bar.update()


def show_speed(data: Iterable[str], path: Path) -> str:
    """Return the table of times."""
    head = (
        *("data", "training width", "leaf width", "rows", "threads", "ns a row"),
        *("dense, ns a row", "times faster"),
    )
    rows = [
        (
            record["data"],
            str(record["width"]),
            str(record["leaf_width"]),
            f"{record['rows']:,}",
            str(record["threads"]),
            f"{1000 * record['microseconds']:,.0f}",
            f"{1000 * record['dense_microseconds']:,.0f}",
            f"{record['times_faster']:.1f} ({record['range'][0]:.1f} to {record['range'][1]:.1f})",
        )
        for record in read_records(path)
        if record["data"] in data
    ]
    return markdown(head, rows)


# The command.


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    add(tables, "table1", DATA, lambda options: table1_cells(options.data), show_table1)
    trees = add(
        tables,
        "trees",
        DATA,
        lambda options: trees_cells(options.data, options.active, not options.constant_routes),
        show_trees,
    )
    trees.add_argument("--active", type=int, default=16, help="neurons a row (16)")
    trees.add_argument(
        "--constant-routes", action="store_true", help="hold those of trees constant"
    )
    images = ("mnist", "letters")
    add(tables, "methods", images, lambda options: methods_cells(options.data), show_methods)
    add(tables, "choose", TEST_ROWS, lambda options: choose_cells(options.data), show_choose)
    speed = tables.add_parser("speed")
    _add_common(speed, DATA)
    return parser.parse_args(arguments)


def add(
    tables: Any,
    name: str,
    data: Iterable[str],
    cells: Callable[[argparse.Namespace], list[Cell]],
    show: Callable[[Sequence[Cell], int, Path], str],
) -> argparse.ArgumentParser:
    """Add the command of a table of trained layers."""
    parser: argparse.ArgumentParser = tables.add_parser(name)
    parser.add_argument("folder", metavar="DATA", type=Path, help="what tables.py wrote")
    _add_common(parser, data)
    parser.add_argument("--seeds", type=int, default=5, help="how many (5)")
    parser.add_argument("--epochs", type=int, help="of every run, to see that it goes")
    parser.set_defaults(cells=cells, print=show)
    return parser


def _add_common(parser: argparse.ArgumentParser, data: Iterable[str]) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder for results")
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=list(data))
    parser.add_argument("--show", action="store_true", help="print what is there, run nothing")


if __name__ == "__main__":
    main()
