"""The tables, from the records that are there."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.paper_tables.cells import Cell
from benchmarks.accuracy.paper_tables.runs import by_key, key_of
from benchmarks.records import Record, read_records
from benchmarks.report import table

PAPER = {("mnist", 128, 8): 0.949, ("fashion-mnist", 128, 8): 0.861}
"""The paper's generalization, by data, training width and leaf width."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """The figures of a cell, from the runs that are there."""

    runs: list[Record]

    @classmethod
    def of(cls, cell: Cell, seeds: int, known: dict[str, Record]) -> Summary:
        """Return the summary of a cell's runs."""
        keys = (key_of(cell.run(seed)) for seed in range(seeds))
        return cls([known[key] for key in keys if key in known])

    def mean(self, name: str) -> str:
        """Return the mean of a figure over the seeds, in percent, and its range."""
        values = [run[name] for run in self.runs if name in run]  # dense layers have no nodes
        if len(values) < 2:
            return percent(*values)
        return (
            f"{percent(statistics.mean(values))} ({percent(min(values))} to {percent(max(values))})"
        )

    def memorization(self) -> str:
        """Return the best accuracy on the training rows."""
        return percent(*sorted(run["train"] for run in self.runs)[-1:])

    def generalization(self) -> str:
        """Return the test accuracy of the run that is best on the held-out rows."""
        best = sorted(self.runs, key=lambda run: run["validation"])[-1:]
        return percent(*(run["test"] for run in best))


def percent(value: float | None = None) -> str:
    """Return a share in percent, or a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}"


def show_table1(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return table 1, with the times of `speed` as far as they are there."""
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
    return "\n".join(table(head, rows))


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
                *(cell.data, cell, f"{used} of {held:,}", *figures(found)),
                *(found.mean(name) for name in PRUNING),
            )
        )
    head = ("data", "layer", "neurons per row", *FIGURES, "nodes no row reached", "without them")
    return "\n".join(table(head, rows))


PRUNING = ("unused", "pruned")
"""Figures of the nodes that no training row reaches: their share, and the test accuracy without
them."""


FIGURES = ("seeds", "train", "held out", "test")


def figures(found: Summary) -> tuple[str, ...]:
    """Return the columns `FIGURES`."""
    return (str(len(found.runs)), *(found.mean(name) for name in ("train", "validation", "test")))


def show_methods(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return the table of methods."""
    known = by_key(read_records(out / "methods.jsonl"))
    rows = [
        (cell.data, cell, cell.label, *figures(Summary.of(cell, seeds, known))) for cell in cells
    ]
    return "\n".join(table(("data", "layer", "method", *FIGURES), rows))


def show_choose(cells: Sequence[Cell], seeds: int, out: Path) -> str:
    """Return the table of settings to choose from, without the test."""
    known = by_key(read_records(out / "choose.jsonl"))
    rows = [
        (cell.data, cell, cell.label, *figures(Summary.of(cell, seeds, known))[:-1])
        for cell in cells
    ]
    return "\n".join(table(("data", "layer", "settings", *FIGURES[:-1]), rows))
