"""``fffcpu inspect``: how the rows of a table use the trees of a saved layer.

The module is not named like the command, because Python has a module ``inspect`` of its own.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fffcpu.cli.support.tables import layer_rows
from fffcpu.diagnosis import TreeUsage, UsageReport, diagnose, leaf_means
from fffcpu.diagnosis.routes import BLOCK_ROWS
from fffcpu.errors import ArgumentError
from fffcpu.inference.predictor import Schema, load_model
from fffcpu.plots import check_plot_path, plot_prototypes, plot_regions, plot_tree

__all__ = ["DESCRIPTION", "add_arguments", "run"]

Array = NDArray[Any]

DESCRIPTION = """\
Send the rows of a table through a saved FastFeedForward or LeafFeedForward, quantized or not, and
report how they use its trees: which nodes and leaves they reach, how evenly, and how firmly nodes
decide. Rows are read in blocks.

examples:
  fffcpu inspect digits.safetensors images.npy
  fffcpu inspect digits.safetensors images.npy --tree 2 --plot tree.png
  fffcpu inspect digits.safetensors images.npy --plot means.png --draw prototypes
  fffcpu inspect plane.safetensors points.csv --plot regions.svg --draw map

how to read the output:
  balance           entropy of the leaves' shares of rows over the largest possible: 1 where all
                    leaves get equally many rows, 0 where one leaf gets all rows.
  effective leaves  the number of equally used leaves that would have the same entropy.
  dead subtrees     largest subtrees that no row enters. Their weights have no effect on this table,
                    and a shallower tree might predict as well.
  balance of splits the balance between the two sides of a node. Its mean over the levels is the
                    tree's balance.
  choice entropy    LeafFeedForward: entropy of sigmoid(logit), from 0 to 0.693. Near 0 the choices
                    of training are as hard as those of inference.
  near ties         decisions that a small change of weights or input may flip.
With --tree, or for a single tree, its upper levels are drawn. Each node shows its share of rows or,
where space is narrow, a mark: x no row, . less than a quarter of an even share, - less than one,
+ less than four, # more.

what --plot draws, with the extra 'plot':
  tree        the nodes of each level coloured by visits, the leaves' shares, the levels' measures.
  map         for two features: the region of each leaf, and of each class if the model has classes.
  prototypes  for images: the mean of the rows that reach each of the most visited leaves.
"""

DRAWINGS = ("tree", "map", "prototypes")

MAP_ROWS = 2000
"""Largest number of rows drawn on a map: the first rows of the table."""

PROTOTYPES = 24
"""Number of leaves whose mean row is drawn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("model", metavar="MODEL", help="file that a layer's save wrote")
    parser.add_argument("data", metavar="DATA", help="table: .npy, .npz, .csv or IDX")
    parser.add_argument(
        "--tree", type=int, metavar="T", help="report on this tree only, counted from 0"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", metavar="FILE", help="draw to this file: .png, .svg, .pdf")
    parser.add_argument(
        "--draw", choices=DRAWINGS, help="drawing for --plot (tree), of --tree or of tree 0"
    )
    parser.add_argument(
        "--image-shape",
        metavar="HxW",
        help="height and width of the images of --draw prototypes (default: square)",
    )


def run(options: argparse.Namespace) -> None:
    """Count, report and draw."""
    layer, predictor = load_model(options.model)
    schema = None if predictor is None else predictor.schema
    shape = _check_drawing(options, layer.config.input_dim)
    report = diagnose(layer, _blocks(options.data, schema))
    if options.tree is not None:
        report = report.of_tree(options.tree)
    if options.plot is not None:
        _draw(options, layer, schema, report, shape)
    if options.json:
        source = {"model": options.model, "data": options.data}
        print(json.dumps(source | report.to_dict(), indent=2))
    else:
        print(report)
        if options.plot is not None:
            print(f"\ndrawn to {options.plot}")


def _blocks(path: str, schema: Schema | None, rows: int = BLOCK_ROWS) -> Iterable[Array]:
    """Return the table in blocks of rows; from a .csv file the columns that the model names."""
    return (block.inputs for block in layer_rows(path, schema, rows))


def _check_drawing(options: argparse.Namespace, width: int) -> tuple[int, int]:
    """Raise unless the drawing is possible; return the images' shape, if it has images."""
    if options.plot is None and options.draw is not None:
        raise ArgumentError(f"argument '--draw' must come with --plot, got '{options.draw}' alone")
    if options.image_shape is not None and options.draw != "prototypes":
        raise ArgumentError(
            f"argument '--image-shape' must come with --draw prototypes, got {options.image_shape}"
        )
    if options.plot is not None:
        check_plot_path(options.plot)
    if options.draw == "map" and width != 2:
        raise ArgumentError(
            f"argument '--draw' must be 'tree' or 'prototypes' unless the layer reads two "
            f"features, got 'map' for {width}"
        )
    return _image_shape(options.image_shape, width) if options.draw == "prototypes" else (1, width)


def _image_shape(text: str | None, width: int) -> tuple[int, int]:
    """Return the height and width of images of ``width`` pixels."""
    if text is None:
        side = math.isqrt(width)
        if side * side == width:
            return side, side
    else:
        height, _, breadth = text.partition("x")
        if height.isdecimal() and breadth.isdecimal() and int(height) * int(breadth) == width:
            return int(height), int(breadth)
    raise ArgumentError(
        f"argument '--image-shape' must be HEIGHTxWIDTH of {width} pixels, as the layer reads, "
        f"got {'none' if text is None else repr(text)}"
    )


def _draw(
    options: argparse.Namespace,
    layer: Any,
    schema: Schema | None,
    report: UsageReport,
    shape: tuple[int, int],
) -> None:
    """Draw the picture that the options name."""
    usage = report.trees[0]
    title = (
        f"{options.model}: {report.kind}, tree {usage.tree}\n{usage.rows:,} rows: {options.data}"
    )
    if options.draw == "map":
        first = next(iter(_blocks(options.data, schema, MAP_ROWS)))
        classes = () if schema is None else schema.classes
        plot_regions(layer, first, options.plot, title, tree=usage.tree, classes=classes)
    elif options.draw == "prototypes":
        leaves = _most_visited(usage)
        means = leaf_means(layer, _blocks(options.data, schema), leaves, usage.tree)
        captions = [f"leaf {leaf}\n{usage.leaf_visits[leaf]:,} rows" for leaf in leaves]
        plot_prototypes(means.reshape(-1, *shape), captions, options.plot, title)
    else:
        plot_tree(usage, options.plot, title)


def _most_visited(usage: TreeUsage) -> list[int]:
    """Return the leaves that most rows reach, the most visited first."""
    order = np.argsort(-usage.leaf_visits, kind="stable")[:PROTOTYPES]
    return [leaf for leaf in order.tolist() if usage.leaf_visits[leaf]]
