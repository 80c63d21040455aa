"""Tables of quality, worth, price and advantage, by feedforward, and their means."""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.accuracy.worth.models import DENSE, LINEAR, MODELS, TREES, is_rival
from benchmarks.accuracy.worth.pictures import Point, draw
from benchmarks.accuracy.worth.timing import KINDS, last_times
from benchmarks.accuracy.worth.training import Run, records_path, run_of
from benchmarks.accuracy.worth.worths import Width, equal_width, time_of_width
from benchmarks.records import Record, read_records
from benchmarks.report import facts, table
from fffcpu.system.terminal import print_status


class Fit(NamedTuple):
    """The runs of one layer on one feedforward."""

    records: list[Record]

    @property
    def r2(self) -> float:
        """The mean of R2 over the seeds."""
        return statistics.fmean(record["r2"] for record in self.records)

    def __str__(self) -> str:
        found = [record["r2"] for record in self.records]
        spread = f" ± {(max(found) - min(found)) / 2:.3f}" if len(found) > 1 else ""
        return f"{self.r2:.3f}{spread}"


class Case(NamedTuple):
    """A layer that was timed on one feedforward."""

    time: Record
    width: Width | None
    """Dense neurons of equal quality."""
    advantage: float | None
    """Worth over price."""
    faster: float | None
    """Time of a dense layer of equal quality over that of this layer."""


Fits = dict[int, dict[str, Fit]]
"""The runs by feedforward and model."""


def show(options: argparse.Namespace) -> None:
    """Print the tables and draw the pictures."""
    fits = read_fits(options)
    if not fits:
        raise SystemExit(f"no runs in {records_path(options.out)}; `train` makes them")
    times = last_times(options.out)
    recipe = next(iter(next(iter(fits.values())).values())).records[0]["recipe"]
    lines = [f"Recipe: {facts(recipe)}.", "", *describe_quality(fits), "", *describe_worth(fits)]
    for kind, name in KINDS.items():
        found = {layer: times[layer, kind] for layer in fits if (layer, kind) in times}
        lines += ["", *(describe_times(name, fits, found) if found else [f"{name}: not timed"])]
    print("\n".join(lines))
    if importlib.util.find_spec("matplotlib") is None:
        print_status("no pictures: pip install 'fffcpu[plot]'")
        return
    for name, panels in pictures_of(fits, times).items():
        draw(panels, options.out / f"{name}.svg")


def read_fits(options: argparse.Namespace) -> Fits:
    """Return the runs of the chosen feedforwards and models, in the order of `MODELS`."""
    # A run that was done again, because its file was lost, counts once.
    last: dict[Run, Record] = {
        run_of(record): record for record in read_records(records_path(options.out))
    }
    layers = options.layers or sorted({run.layer for run in last})
    fits: Fits = {}
    for layer in layers:
        for model in options.models:
            records = [
                last[run] for run in sorted(last) if (run.layer, run.model) == (layer, model)
            ]
            if records:
                fits.setdefault(layer, {})[model] = Fit(records)
    return fits


def describe_quality(fits: Fits) -> list[str]:
    """Return the table of R2."""
    rows = []
    for model in models_of(fits):
        own = [found.get(model) for found in fits.values()]
        records = [record for fit in own if fit for record in fit.records]
        rows.append(
            (
                model,
                MODELS[model].used or "-",
                f"{records[0]['parameters']:,}",
                *(fit or "-" for fit in own),
                mean([fit.r2 if fit else None for fit in own], 3),
                f"{statistics.fmean(record['seconds'] for record in records):,.0f} s",
            )
        )
    head = ("layer", "used", "parameters", *names_of(fits), "mean", "training")
    return ["### R2 on the tokens held out", "", *table(head, rows)]


def describe_worth(fits: Fits) -> list[str]:
    """Return the table of worth."""
    rows = []
    for model in models_of(fits, TREES):
        widths, used = [width_of(found, model) for found in fits.values()], MODELS[model].used
        worths = [None if width is None else width.neurons / used for width in widths]
        cells = map(marked, widths, worths)
        rows.append((model, used, *cells, marks(widths) + mean(worths, 2)))
    head = ("layer", "used", *names_of(fits), "mean")
    return [
        "### Worth: dense neurons of equal R2 per used neuron",
        "",
        *table(head, rows),
        "",
        "< and >: beyond the narrowest and the widest dense layer.",
    ]


def describe_times(name: str, fits: Fits, times: Mapping[int, Record]) -> list[str]:
    """Return the table of times, prices and advantages of one kind of call."""
    rows = []
    for model in models_of(fits, (DENSE, *TREES)):
        cases = [case_of(model, fits[layer], record) for layer, record in times.items()]
        if any(cases):
            rows.append((model, MODELS[model].used, *cells_of(cases)))
    head = (
        *("layer", "used", "µs per row", "runtime", "price (range)"),
        *(f"advantage, {name}" for name in names_of(times)),
        *("mean", "dense of equal R2: its time over this"),
    )
    first = next(iter(times.values()))
    load = max(record["load"] for record in times.values())
    conditions = (
        f"{first['rows']:,} rows per call, {first['threads']} threads; "
        f"load before {load:.2f}; {facts(first['machine'])}"
    )
    return [f"### Price and advantage: {name}", "", *table(head, rows), "", conditions]


def case_of(model: str, fits: Mapping[str, Fit], times: Record) -> Case | None:
    """Return a layer's time on a feedforward and what follows from it, if it was timed."""
    time, width = times["models"].get(model), width_of(fits, model)
    if time is None:
        return None
    if width is None:
        return Case(time, None, None, None)
    dense = {
        MODELS[name].used: found["microseconds"]
        for name, found in times["models"].items()
        if is_rival(name, model)
    }
    advantage = None
    if MODELS[model].weights != "int8":  # the products of the price are of float32
        advantage = width.neurons / MODELS[model].used / time["price"]
    slower = time_of_width(width.neurons, dense)
    return Case(time, width, advantage, slower and slower / time["microseconds"])


def cells_of(cases: Sequence[Case | None]) -> Iterator[str]:
    """Yield the cells of a layer: means over the feedforwards on which it was timed."""
    known = [case for case in cases if case]
    times = [case.time for case in known]
    yield mean([time["microseconds"] for time in times], 2)
    yield ", ".join(sorted({time["runtime"] for time in times}))
    low, high = min(time["low"] for time in times), max(time["high"] for time in times)
    yield f"{mean([time['price'] for time in times], 2)} ({low:.2f} to {high:.2f})"
    yield from (marked(case.width, case.advantage) if case else "-" for case in cases)
    mark = marks(case.width for case in known)
    yield mark + mean([case.advantage for case in known], 2)
    yield mark + mean([case.faster for case in known], 2)


def width_of(found: Mapping[str, Fit], model: str) -> Width | None:
    """Return the width of a dense layer that is as good as a model, which is no dense layer."""
    if model not in found or MODELS[model].family not in TREES:
        return None
    # A quantized layer is that of seed 0, and so are its rivals.
    dense = {
        MODELS[name].used: fit.records[0]["r2"] if MODELS[model].origin else fit.r2
        for name, fit in found.items()
        if is_rival(name, model)
    }
    return equal_width(found[model].r2, dense)


def models_of(fits: Fits, families: Iterable[str] = (LINEAR, DENSE, *TREES)) -> list[str]:
    """Return the models of some families that were fitted, in the order of `MODELS`."""
    return [
        name
        for name, model in MODELS.items()
        if model.family in tuple(families) and any(name in found for found in fits.values())
    ]


def names_of(layers: Iterable[int]) -> list[str]:
    """Return the names of feedforwards."""
    return [f"feedforward {layer}" for layer in layers]


def mean(values: Sequence[float | None], digits: int) -> str:
    """Return the mean of the values, or a dash if one is missing."""
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.{digits}f}" if known and len(known) == len(values) else "-"


def marks(widths: Iterable[Width | None]) -> str:
    """Return the marks of extrapolations that went into a mean."""
    return "".join(sorted({width.mark for width in widths if width}))


def marked(width: Width | None, value: float | None) -> str:
    """Return a number with the mark of its width, or a dash."""
    return "-" if width is None or value is None else f"{width.mark}{value:.2f}"


def pictures_of(
    fits: Fits, times: Mapping[tuple[int, str], Record]
) -> dict[str, dict[str, list[Point]]]:
    """Return the panels of each picture: those of each feedforward, and those of their mean."""
    pictures: dict[str, dict[str, list[Point]]] = {}
    for layer, found in fits.items():
        pictures[f"worth-layer{layer}"] = {
            name: [
                Point(model, MODELS[model].family, own["microseconds"], found[model].r2)
                for model, own in times[layer, kind]["models"].items()
                if model in found and not MODELS[model].origin
            ]
            for kind, name in KINDS.items()
            if (layer, kind) in times
        }
    pictures = {name: panels for name, panels in pictures.items() if panels}
    if len(pictures) > 1:
        pictures["worth"] = {
            name: mean_points([panels.get(name, []) for panels in pictures.values()])
            for name in KINDS.values()
        }
    return pictures


def mean_points(groups: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the means of the points of models that all groups have. Times have geometric means."""
    result = []
    for model, family, _, _ in groups[0]:
        own = [point for group in groups for point in group if point.model == model]
        if len(own) == len(groups):
            time = math.exp(statistics.fmean(math.log(point.microseconds) for point in own))
            result.append(Point(model, family, time, statistics.fmean(p.r2 for p in own)))
    return result
