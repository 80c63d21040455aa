"""Leaf layers of table 1, timed with the dense layer of the same training width."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import fffcpu
from benchmarks.accuracy.paper_tables import cells
from benchmarks.accuracy.paper_tables.cells import DATA, leaf_sizes
from benchmarks.accuracy.paper_tables.runs import runs_bar
from benchmarks.records import Record, append_records, read_records
from benchmarks.report import table
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, alternate, inference, ratios
from fffcpu.benchmarking.verification import check_dense, check_leaves, distinct_batches

BATCH = 4096
"""Rows per call."""

REPEATS = 15
"""Rounds of an alternation."""


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
    """Time the widths that the file does not hold for this number of threads."""
    threads = fffcpu.get_num_threads()
    known = {
        (record["data"], record["width"])
        for record in read_records(path)
        if record["threads"] == threads
    }
    planned = [(name, width) for name in data for width in cells.WIDTHS]
    missing = [place for place in planned if place not in known]
    with runs_bar(len(planned), len(missing)) as bar:
        for name, width in missing:
            bar.set_description(f"{name}, width {width}")
            append_records(path, time_layers(name, width))
            bar.update()


def show_speed(data: Iterable[str], path: Path) -> str:
    """Return the table of times."""
    head = (
        *("data", "training width", "leaf width", "rows", "threads", "ns per row"),
        *("dense, ns per row", "times faster"),
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
    return "\n".join(table(head, rows))
