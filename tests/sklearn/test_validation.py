"""Tables, weights and class weights that an estimator refuses or converts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning

from tests.sklearn.support import (
    DIGITS,
    LABELS,
    SCALED,
    TRUTH,
    X,
    classifier,
)


def test_a_column_of_classes_is_taken_with_a_warning():
    with pytest.warns(DataConversionWarning):
        learned = classifier(max_iter=2).fit(X, LABELS[:, np.newaxis])
    assert learned.predict(X).shape == (120,)


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        (X[:5], LABELS, None, "inconsistent numbers of samples"),
        (np.where(X > 5300, np.nan, X), LABELS, None, "NaN"),
        (X[0], LABELS, None, "Expected 2D array"),
        (X, SCALED[:, 0], None, "Unknown label type"),
        (X, DIGITS[:240].reshape(120, 2), None, "several classes per row"),
        (X, TRUTH * 2, None, "0 or 1 for each of 3 labels"),
        (X, LABELS, np.ones(3), r"'sample_weight' must have shape \(120,\)"),
        (X, LABELS, np.ones((120, 1)), r"got shape \(120, 1\)"),
        (X, LABELS, -np.ones(120), "must hold finite numbers of at least 0, got -1.0 at index 0"),
        (X, LABELS, np.full(120, np.inf), "'sample_weight' must hold finite .*got inf at index 0"),
        (X, LABELS, np.zeros(120), "above 0 for at least one row, got zero for all"),
    ],
)
def test_refuses_a_table(x, y, weights, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, y, sample_weight=weights)


@pytest.mark.parametrize(
    ("class_weight", "y", "message"),
    [
        ("even", LABELS, "'class_weight' must be a mapping, None, or for fit 'balanced'"),
        (3, LABELS, "class_weight"),
        ({"cat": -1.0}, LABELS, "'class_weight' must hold finite numbers of at least 0"),
        ({"cat": np.inf}, LABELS, "'class_weight' must hold finite numbers of at least 0"),
        ({0: 1.0}, TRUTH, "'class_weight' must be None where a row may have several labels"),
    ],
)
def test_refuses_class_weights(class_weight, y, message):
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=class_weight).fit(X, y)
