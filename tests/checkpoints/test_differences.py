"""One error that says all there is to say about arrays that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.checkpoints.differences import check_arrays, list_differences
from fffcpu.config import DenseFeedForwardConfig
from fffcpu.errors import CheckpointError

CONFIG = DenseFeedForwardConfig(3, 2, 4)


def test_nothing_to_say() -> None:
    assert list_differences({}, {}) == ""
    assert list_differences({"a": "x", "b": ""}, {"b": "", "a": "x"}) == ""


def test_all_kinds_of_difference() -> None:
    expected = {"a": "(1,)", "b": "(2,)", "c": "(3,)"}
    came = {"d": "", "c": "(4,)", "b": "(2,)"}
    text = "missing 'a'; unexpected 'd'; 'c' must be (3,), got (4,)"
    assert list_differences(expected, came) == text


def test_long_texts_and_lists_are_cut() -> None:
    came = {"long\n" * 1000 + str(i): "" for i in range(10**4)}
    text = list_differences({"a": "9" * 5000}, came | {"a": "8" * 5000})
    assert len(text) < 3000
    assert "\n" not in text
    assert text.endswith("and 9981 more")


def test_arrays_that_fit_come_in_order_uncopied() -> None:
    shapes = CONFIG.shapes()
    arrays = {name: np.zeros(shape, np.float32) for name, shape in reversed(shapes.items())}
    fitting = check_arrays(CONFIG, arrays)
    assert list(fitting) == list(shapes)
    assert all(fitting[name] is arrays[name] for name in shapes)


def test_arrays_that_do_not_fit() -> None:
    arrays = {"weights_in": np.zeros((4, 3)), "weights_out": [[0.0]]}
    with pytest.raises(CheckpointError) as caught:
        check_arrays(CONFIG, arrays)
    assert str(caught.value) == (
        f"the arrays do not fit {CONFIG}: missing 'bias_in'; "
        "'weights_in' must be float32 (4, 3), got float64 (4, 3); "
        "'weights_out' must be float32 (4, 2), got float64 (1, 1)"
    )
