"""Where fast feedforward networks pay off: accuracy against measured time, with other classifiers.

    python -m benchmarks.crossover train DATA OUT
    python -m benchmarks.crossover time OUT          on an idle machine
    python -m benchmarks.crossover show OUT

`train` trains all models on all sets (a record per run in OUT/models.jsonl). `time` times them (a
record per set in OUT/times.jsonl). `show` prints a table and the verdicts of each set, and draws
three pictures into OUT.

Sets: MNIST and FashionMNIST; letters, with the last 4,000 rows as the test; satellite, with 2,000
random test rows (seed 0); shuttle and DNA, with the test rows of the Statlog project; the digits
that fffcpu carries, with 360 random test rows; and glosses of WordNet, 45 classes, whose TF-IDF
features are reduced to 64 by a truncated SVD. A set whose files are not in DATA is left out by
name. benchmarks.data.tables makes mnist/, fashion-mnist/, letters.csv, satellite.csv, shuttle.csv
and dna.csv; benchmarks.data.texts makes glosses-training.jsonl and glosses-test.jsonl.

Models: fff-TxD and two-TxD are FastFeedForward layers of T trees of depth D, two with output
weights for each side of a node; leaf-DxW is a LeafFeedForward of depth D and leaves of W neurons;
dense-W and mlp-W have W neurons; boosting-NxL and lightgbm-NxL are N iterations of boosted trees of
L leaves, by scikit-learn and by LightGBM. LightGBM is left out if it is not installed.

Each model is trained with four pairs of learning rate and regularization. All layers have the same
four. A tenth of the training rows is held out and chooses one pair; the test rows choose nothing.
fffcpu.recipes.fitting.fit trains the layers, with equally many rows and epochs. MLPClassifier stops
early by a tenth that it draws itself. Its inputs are scaled as those of layers, and the scaling
moves into its weights, as in layers. The boosted trees of 100 iterations stop early by the held-out
rows.

Times are those of the whole test set as one batch, and of one row per call, with all models of a
set in one alternation. Layers return scores, whose largest is the class, and so does
Booster.predict of LightGBM with raw_score. scikit-learn's predict_proba, called as users call it,
ends in a softmax. Each model gets rows of the type that it computes with, so that it converts
nothing. The dense layer is timed in NumPy, in onnxruntime if it is installed, and in fffcpu, as a
DenseFeedForward and as a FastFeedForward of trees with one node each. The fastest counts. Costs
without a clock are multiply-adds per row, and for boosted trees comparisons: the nodes that an
average training row visits.

Repeat a command to continue after an interruption. A chosen model with a record and without a file
is trained again: copy benchmarks/results/crossover_models.jsonl to OUT/models.jsonl to skip the
search of settings. Records with settings that are no longer tried count only for models that have
no others. Two trainings may run at once on different sets (--data). scikit-learn 1.7 or newer is
required, and Matplotlib for the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.command import add_out, add_selection, new_parser, parse_into
from benchmarks.crossover.models import MODELS
from benchmarks.crossover.sets import SOURCES
from benchmarks.crossover.show import show
from benchmarks.crossover.timing import measure
from benchmarks.crossover.training import train
from benchmarks.speed.options import add_seconds


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, name, what in (
        (train, "train", "train every model on every set"),
        (measure, "time", "time the trained models"),
        (show, "show", "print tables and verdicts, and draw pictures"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        command.set_defaults(run=function)
        if function is train:
            command.add_argument("folder", type=Path, metavar="DATA", help="files of the sets")
            command.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
            add_selection(command, "--models", MODELS, "MODEL", "models to train")
        else:
            command.add_argument(
                "--threads", type=int, default=1, help="threads of every model (1)"
            )
        if function is measure:
            command.add_argument("--repeats", type=int, default=7, help="rounds (7)")
            add_seconds(command, 0.05)
        add_out(command)
        add_selection(command, "--data", SOURCES, "SET", "sets")
    return parse_into(parser)


def main() -> None:
    options = parse()
    options.run(options)


if __name__ == "__main__":
    main()
