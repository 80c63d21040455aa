"""Labels of classes and of regressions."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.models.targets import class_labels, number_labels


def test_labels_are_returned_as_arrays():
    labels = class_labels([[0, -100], [2, 1]], (2, 2), 3)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [[0, -100], [2, 1]])
    assert class_labels([], (0,), 3).dtype == np.int64
    numbers = number_labels([1, 2], (2,))
    assert numbers.dtype == np.float64


def test_what_is_no_label_is_an_error():
    with pytest.raises(ArgumentError, match=r"0 to 2, or -100 .*, got -1 at index \(1,\)"):
        class_labels([0, -1], (2,), 3)
    with pytest.raises(ArgumentError, match=r"from 0 to 2, got -100 at index \(0,\)"):
        class_labels([-100, 1], (2,), 3, may_miss=False)
    with pytest.raises(ArgumentTypeError, match="must hold integers"):
        class_labels([0.0, 1.0], (2,), 3)
    with pytest.raises(ArgumentTypeError, match="must hold real numbers"):
        class_labels(["a", "b"], (2,), 3)
    with pytest.raises(ShapeError, match=r"must have shape \(3,\), got shape \(2,\)"):
        number_labels([1.0, 2.0], (3,))
    with pytest.raises(ArgumentError, match="must hold finite numbers"):
        number_labels([np.inf], (1,))
