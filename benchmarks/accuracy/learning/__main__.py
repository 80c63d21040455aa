"""What makes a fast feedforward layer learn more? Changes of a recipe, each tried alone.

    python -m benchmarks.data.minilm MODEL TEXTS ACTIVATIONS
    python -m benchmarks.data.tables DIR TABLES
    python -m benchmarks.accuracy.learning train ACTIVATIONS TABLES OUT
    python -m benchmarks.accuracy.learning show OUT

Each set has a base recipe. A try changes one thing in it, and everything else stays: the rows, the
order of the batches and, unless the try is about them, the initial weights.

    set              score                             base
    minilm-1         R2 on the tokens held out, of     8 trees of depth 7, lr 0.004, decay 0.3,
    minilm-4         feedforwards 1 and 4 (from 0)     6 epochs of batches of 256, 200,000 tokens
    letters          accuracy on the test rows         4 trees of depth 3, lr 0.025, decay 0.02,
                                                       40 epochs of batches of 64
    mnist            the same                          4 trees of depth 3, lr 0.006, decay 0.1,
    fashion-mnist                                      20 epochs of batches of 64

Nodes of the base are two-sided, with GELU. AdamW has a cosine schedule, gradients are clipped to a
norm of 1, and routes have a straight-through gradient. Columns are standardized; pixels are scaled
by the deviation of the whole table. The base is what fffcpu.recipes.fitting.fit does.

The gradient of routes takes the derivative of a choice, which is s > 0, to be the normal density
at s. Some tries put another density in its place:

    routes-xF           F times the density
    density-W           normal, of standard deviation W
    density-2-to-0.5    normal, of a deviation that falls from 2 to 0.5
    density-smooth-step derivative of the smooth-step of width 2 (arXiv 2002.07772)
    constant-routes     none: no node learns where to send rows

Initial weights: `balanced-start` makes each node halve the rows that reach it. Other starts turn
it, too: towards what differs most in their targets (`start-from-targets`), from one cluster of the
rows to another (`start-from-clusters`), or to where some neurons of the feedforward that is
imitated give more than others (`start-from-neurons`, `start-from-norms`, arXiv 2310.04361).

Routes: after each batch, `balancing-S` moves the bias of a node by S towards equally many rows on
both sides. `fixed-norms` gives input weights their initial norms before each step. `flips-P` sends
rows to the other side at a share P of the choices, in training only. The rates of `level-rates-xF`
grow by F per level, and their geometric mean over the levels is that of the base. `soft` computes
all nodes in the first 3/4 of 4/3 as many epochs, mixed by logistic functions of the logits that
become ever steeper; compare it with `epochs-x1.33`. `side-constants` adds a vector for each side of
each node, without activation. TxD is T trees of depth D; a row uses about as many neurons as in the
base. dense-W has W neurons, all of which a row uses.

Every run is a line of OUT/runs.jsonl, written when the run ends, and no run is done twice: repeat
the command to continue after an interruption. A run whose try has another recipe by now is done
again, and is not shown. Two trainings may run at once on different sets (--sets). A set whose files
are missing is left out by name. `show` prints a table per set. Its differences are those to the
base with equal seeds; ± is half of the range over the seeds. `train` is the score on up to 20,000
training rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy.learning.sets import SOURCES, tries_of
from benchmarks.accuracy.learning.show import show
from benchmarks.accuracy.learning.training import train
from benchmarks.command import add_out, add_selection, new_parser, parse_into

TRIES = list(dict.fromkeys(name for data in SOURCES for name in tries_of(data)))
"""The names of all tries. Sets differ in shapes, dense layers and tries that need a teacher."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, name, what in (
        (train, "train", "train a layer for every try on every set"),
        (show, "show", "print a table per set"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=function)
        if function is train:
            add_data(command)
        add_out(command)
        add_selection(command, "--sets", SOURCES, "SET", "sets")
        add_selection(command, "--tries", TRIES, "TRY", "tries")
    return parse_into(parser, arguments)


def add_data(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    for name, writer in (("activations", "minilm"), ("tables", "tables")):
        command.add_argument(
            name,
            type=Path,
            metavar=name.upper(),
            help=f"folder that benchmarks.data.{writer} wrote",
        )
    command.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
