"""A small table and quick estimators, which the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.data import load_digits
from fffcpu.sklearn import FFFClassifier, FFFRegressor

IMAGES, DIGITS = load_digits()
RNG = np.random.default_rng(0)
X = RNG.standard_normal((120, 4)) * [1.0, 300.0, 1e-3, 1.0] + [0.0, 5000.0, 0.0, -1.0]
SCALED = (X - X.mean(axis=0)) / X.std(axis=0)
LABELS = np.array(["cat", "dog", "owl"])[np.digitize(SCALED[:, 0] + SCALED[:, 1], [-0.7, 0.7])]
TRUTH = (SCALED[:, :3] > 0).astype(int)
NUMBERS = 1000 + 50 * SCALED @ [[1.0, 2.0], [3.0, 0.0], [-1.0, 1.0], [0.0, 1.0]]

QUICK = {"max_iter": 40, "depth": 2, "trees": 4, "random_state": 0}
LEAF = {"layer": "leaf", "max_iter": 40, "depth": 2, "random_state": 0}
LONG = {"max_iter": 200}
SHAPES = pytest.mark.parametrize("shape", [QUICK, LEAF], ids=["fast", "leaf"])


def classifier(**parameters):
    return FFFClassifier(**{**QUICK, **parameters})


def regressor(**parameters):
    return FFFRegressor(**{**QUICK, **parameters})
