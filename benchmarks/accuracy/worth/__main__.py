"""Worth and price of a used neuron, on the feedforwards of a real sentence encoder.

    python -m benchmarks.data.minilm MODEL TEXTS DATA
    python -m benchmarks.accuracy.worth train DATA OUT
    python -m benchmarks.accuracy.worth time OUT          on an idle machine
    python -m benchmarks.accuracy.worth show OUT

Does a layer of trees pay? A row uses few of its neurons, so each of them must be worth more than a
neuron of a dense layer:

    worth        dense neurons of equal quality, per used neuron
    price        time of the layer, over the time of the two bare matrix products of as many dense
                 neurons as a row uses, by NumPy, for the same rows and with the same threads
    advantage    worth / price; above 1 the layer is faster than the products of a dense layer that
                 is as good, if these take a time that is proportional to their neurons

The last condition is not true of single rows, where a call of few neurons takes hardly less time
than one of many. So `show` also prints a ratio of two measured times: that of a dense layer of
equal quality, interpolated between the dense layers that were timed, over that of the layer.

`train` fits layers to the inputs and outputs of each feedforward of the encoder, which has 1,536
neurons. All layers have the same recipe and see the same rows: every column is standardized, and
AdamW takes steps of 256 rows for 16 epochs, with a cosine schedule. The quality is R2 on the tokens
held out, the mean over the outputs. `linear` is the best linear map (least squares). The number of
dense neurons with the same R2 is interpolated in the logarithm of the width, between the dense
layers that were fitted. Beyond the narrowest (<) or widest (>) of them it is extrapolated.

Every run is a line of OUT/models.jsonl, written when the run ends, and no run is done twice: repeat
the command to continue after an interruption. OUT holds runs of one recipe only. The layers of
seed 0 and the tokens held out are saved in OUT. `time` times these layers on these tokens: in
batches, and in calls of one row each. All layers of a feedforward alternate, after their outputs
were checked, and each follows the products that it is compared with. A dense layer counts with the
fastest of its runtimes: NumPy, onnxruntime if it is installed, and fffcpu, as a DenseFeedForward
and as trees of one node each. The times of a feedforward are a line of OUT/times.jsonl for each
kind of call. `show` prints tables and draws R2 against time, for each feedforward and for their
mean.

Names: dense-W has W neurons, fff-TxD has T trees of depth D (T (D + 1) neurons per row), two-TxD
has the same trees with two-sided nodes, and leaf-DxW is a tree of depth D over leaves of W neurons.
The gates of a leaf layer are not counted as neurons, but they take part of its time. A layer whose
name ends in bfloat16 or int8 is that of seed 0 with quantized weights. Those of int8 are compared
with dense layers of int8, and have no advantage, since the products of the price are of float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fffcpu
from benchmarks.accuracy.worth.models import MODELS
from benchmarks.accuracy.worth.show import show
from benchmarks.accuracy.worth.timing import measure
from benchmarks.accuracy.worth.training import train
from benchmarks.command import add_out, add_selection, new_parser, parse_into
from benchmarks.speed.options import add_seconds


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, name, what in (
        (train, "train", "fit every layer to every feedforward"),
        (measure, "time", "time the fitted layers"),
        (show, "show", "print tables of worth, price and advantage, and draw pictures"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=function)
        if function is train:
            command.add_argument(
                "folder",
                type=Path,
                metavar="DATA",
                help="folder that benchmarks.data.minilm wrote",
            )
        add_out(command)
        command.add_argument(
            "--layers", type=int, nargs="+", metavar="N", help="feedforwards, counted from 0 (all)"
        )
        add_selection(command, "--models", MODELS, "MODEL", "layers to fit, time or show")
        if function is train:
            add_recipe(command)
        if function is measure:
            add_timing(command)
    return parse_into(parser, arguments)


def add_recipe(command: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    command.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    command.add_argument(
        "--tokens", type=int, default=200_000, help="use the first training tokens only (200000)"
    )
    command.add_argument("--epochs", type=int, default=16, help="passes over the tokens (16)")
    command.add_argument("--batch-size", type=int, default=256, help="tokens per step (256)")
    command.add_argument("--lr", type=float, default=4e-3, help="peak learning rate (0.004)")
    command.add_argument(
        "--weight-decay", type=float, default=0.3, help="weight decay of AdamW (0.3)"
    )


def add_timing(command: argparse.ArgumentParser) -> None:
    """Add the options of `time`."""
    threads = min(2, fffcpu.get_num_threads())
    command.add_argument("--rows", type=int, default=8192, help="rows per call of batches (8192)")
    command.add_argument(
        "--threads",
        type=int,
        default=threads,
        help=f"threads of batches ({threads}); single rows have one",
    )
    command.add_argument("--repeats", type=int, default=9, help="rounds (9)")
    add_seconds(command, 0.1)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
