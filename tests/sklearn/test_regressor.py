"""The regressor: numbers in their own units."""

from __future__ import annotations

import numpy as np

from fffcpu import FastFeedForward, Predictor, Schema
from fffcpu.sklearn import FFFRegressor
from tests.sklearn.support import (
    LONG,
    NUMBERS,
    SCALED,
    SHAPES,
    X,
)


@SHAPES
def test_learns_numbers_in_their_own_units(shape):
    learned = FFFRegressor(**shape | LONG).fit(X, NUMBERS)
    assert learned.predict(X).shape == (120, 2)
    assert learned.score(X, NUMBERS) > 0.8
    one = FFFRegressor(**shape | LONG).fit(X, NUMBERS[:, 0])
    assert one.predict(X).shape == (120,)
    assert one.score(X, NUMBERS[:, 0]) > 0.8


def test_a_regression_without_an_offset_goes_on():
    layer = FastFeedForward(4, 1, depth=1, rng=0)
    learned = FFFRegressor.from_predictor(Predictor(layer, Schema("regression")))
    assert np.array_equal(learned.predict(X), layer(X)[:, 0])
    assert learned.partial_fit(SCALED, SCALED[:, 0]).predict(X).shape == (120,)
