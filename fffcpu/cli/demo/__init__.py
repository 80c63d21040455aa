"""``fffcpu demo``: masked sentences; train on real digits, save, reload, run; BERT's size."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import fffcpu
from fffcpu import kernels
from fffcpu.checks import check_integer
from fffcpu.cli.demo.digits import compare_networks, compile_kernels, draw_examples, split_digits
from fffcpu.cli.demo.files import save_and_reload
from fffcpu.cli.demo.sentences import fill_sentences
from fffcpu.cli.demo.speed import compare_at_bert_size, threads
from fffcpu.cli.support.outputs import check_output

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Demonstrate fffcpu on the data in its package:
  1. Fill masked sentences with a small FastBERT, pretrained on WordNet's glosses.
  2. Train a fast feedforward network on real handwritten digits (8x8 pixels), and a dense network
     of as many active neurons by the same recipe; test both; save the first, reload it, run it.
  3. Time the layer at BERT's size (768 -> 768, depth 11: 12 of 4,095 neurons per row) against the
     dense layers of 4,095 and of 12 neurons, and check the outputs.

examples:
  fffcpu demo
  fffcpu demo --seed 1 --out digits.safetensors
  fffcpu demo --quick

how to read the output:
  test accuracy  mean over the runs (and lowest to highest), on rows that training never saw
  neurons        neurons that a row uses, of those that the network holds
  µs/row         microseconds, the median of 7 rounds in alternation; all rows are distinct
  doubtful       the rounds differ by more than ten percent, or a ratio exceeds what the arithmetic
                 allows: the machine was busy, or the dense layer's weights lie in no cache
"""


class Plan(NamedTuple):
    """The amount of work in the demo."""

    runs: int
    """Number of training runs of each network, from different initial values."""
    epochs: int
    bert_rows: tuple[int, ...]
    """Batch sizes at BERT's size."""
    min_time: float
    """Least seconds of a measurement."""


FULL = Plan(runs=3, epochs=30, bert_rows=(1, 256, 4096), min_time=0.05)
QUICK = Plan(runs=1, epochs=5, bert_rows=(1, 64), min_time=0.01)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (0)")
    parser.add_argument(
        "--quick", action="store_true", help="train each network once and shortly; small batches"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="file for the network (default: in a new temporary folder)"
    )


def run(options: argparse.Namespace) -> None:
    """Run the demo."""
    seed = check_integer("seed", options.seed, 0)
    plan = QUICK if options.quick else FULL
    check_output(options.out)
    kernels.choose()  # a wrong FFFCPU_BACKEND is an error before anything is printed
    digits = split_digits()
    print(f"fffcpu {fffcpu.__version__}, {threads()}\n")
    print("compiling kernels (once; later runs find them on disk) ...", end=" ", flush=True)
    start = time.perf_counter()
    sentences = fill_sentences()
    compile_kernels(digits)
    print(f"{time.perf_counter() - start:.1f} s")
    print(f"\n1. {sentences}\n\n2. {digits}")
    network = compare_networks(digits, plan.runs, plan.epochs, plan.min_time, seed)
    path = save_and_reload(network, options.out, digits.test)
    print(f"\n{draw_examples(digits.test, network.layer)}\n\n3. At BERT's size")
    compare_at_bert_size(plan.bert_rows, plan.min_time, seed)
    print(_next_steps(path))


def _next_steps(path: Path) -> str:
    return f"""
4. Next steps
  fffcpu info {path}
  fffcpu train TABLE.csv --target COLUMN --out MODEL.safetensors
  fffcpu serve NAME=MODEL.safetensors"""
