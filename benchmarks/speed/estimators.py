"""The cost of one row: the estimator, scikit-learn's checks of the row, the predictor, the layer.

    python -m benchmarks.speed.estimators

No other heavy program may run at the same time. The layer has the default size of FFFClassifier, on
the digits: 64 features, 10 classes. "scikit-learn's checks" are `validate_data` and
`check_is_fitted`, which estimators usually call for each prediction.
"""

from __future__ import annotations

from functools import partial

from sklearn.utils.validation import check_is_fitted, validate_data

import fffcpu
from benchmarks.command import command_line, new_parser
from benchmarks.report import facts
from benchmarks.speed.figures import Figure, figure_table
from benchmarks.speed.options import add_quick, add_seconds
from fffcpu.benchmarking.machine import describe_machine
from fffcpu.benchmarking.timing import Contender, Timing, alternate
from fffcpu.data import load_digits
from fffcpu.sklearn import FFFClassifier

GOALS = {"FFFClassifier.predict": 60.0, "Predictor.predict": 8.0}
"""Largest microseconds of a call with one row."""


def main() -> None:
    parser = new_parser(__doc__)
    add_seconds(parser, 0.2)
    add_quick(parser)
    options = parser.parse_args()
    images, labels = load_digits()
    classifier = FFFClassifier(max_iter=1 if options.quick else 20, random_state=0)
    classifier.fit(images, labels)
    timings = alternate(contenders(classifier), min_time=options.seconds)
    print(f"One row, fffcpu {fffcpu.__version__}.")
    print(f"{facts(describe_machine())}.\n`{command_line()}`\n")
    print("\n".join(figure_table(map(figure, timings))))


def contenders(classifier: FFFClassifier) -> list[Contender]:
    """Return the calls that are compared, each for one row."""
    predictor = classifier.to_predictor()
    images, _ = load_digits()
    row, small = images[:1].astype(float), images[:1].astype("float32")

    def check() -> None:
        check_is_fitted(classifier, "layer_")
        validate_data(classifier, row, reset=False, accept_sparse="csr")

    calls = {
        "FFFClassifier.predict": partial(classifier.predict, row),
        "scikit-learn's checks": check,
        "Predictor.predict": partial(predictor.predict, small),
        "the layer": partial(predictor.layer, small),
    }
    return [Contender(name, call, 1) for name, call in calls.items()]


def figure(timing: Timing) -> Figure:
    """Return the figure of a contender."""
    rounds = [1e6 * seconds for seconds in timing.seconds]
    return Figure.at_most(timing.name, rounds, "µs", GOALS.get(timing.name))


if __name__ == "__main__":
    main()
