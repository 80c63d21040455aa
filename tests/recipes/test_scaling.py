"""Scaling of columns and targets that are large compared with their changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.data import Column, Encoding
from fffcpu.errors import ArgumentError
from fffcpu.recipes.scaling import EncodedRows, Moments, Scaling, TargetScaling

ALL = np.arange(200)


@given(
    mean=st.floats(-1e12, 1e12),
    deviation=st.floats(1e-3, 1e6),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_scaled_columns_keep_what_float64_holds(mean, deviation, dtype):
    noise = np.random.default_rng(0).standard_normal((200, 1))
    x = mean + deviation * noise
    scaling = Scaling.of(x, ALL, "columns")
    expected = (x - scaling.mean) / scaling.scale
    tolerance = 2.0**-12 if dtype == "float32" else 1e-9 + 1e-12 * abs(mean) / deviation
    np.testing.assert_allclose(scaling.apply(x, dtype), expected, atol=tolerance, rtol=1e-6)


@given(
    mean=st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=3),
    scale=st.lists(st.floats(1e-25, 1e25), min_size=3, max_size=3),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_two_parts_of_a_scaling_make_it_up(mean, scale, dtype):
    scaling = Scaling(np.array(mean), np.array(scale))
    exact, rest = scaling.split(dtype)
    assert not rest.is_far(dtype).any()
    far = scaling.is_far(dtype)
    assert np.where(far, exact.mean, rest.mean).tolist() == mean
    assert np.where(far, exact.scale, rest.scale).tolist() == scale
    assert (exact.mean[~far] == 0).all()
    assert (rest.scale[far] == 1).all()


def test_columns_that_are_not_scaled_must_fit_float32():
    t = 1.7e9 + np.arange(200.0)[:, np.newaxis]
    for by in ("none", "table"):
        with pytest.raises(
            ArgumentError, match=r"column 't' changes too little .* must be columns"
        ):
            Scaling.of(t, ALL, by, names=["t"])
    constant = np.full((200, 1), 1.7e9)
    assert Scaling.of(constant, ALL, "none").mean.tolist() == [0.0]


def test_rows_are_encoded_when_they_are_asked_for():
    encoding = Encoding(["a", "b"], [Column(), Column("category", ("x", "y"))])
    rows = EncodedRows(np.array([[1.5, 0], [2.5, 1]]), encoding)
    assert rows.shape == (2, 3)
    assert rows[np.array([1])].tolist() == [[2.5, 0, 1]]
    assert Scaling.of(rows, np.arange(2), "columns").mean.tolist() == [2.0, 0.5, 0.5]


def test_targets_of_one_number_have_unit_1():
    found = TargetScaling.of(np.full((5, 1), 3.3))
    assert found.unit.tolist() == [1.0]
    assert found.apply(np.full((5, 1), 3.3), np.float32).tolist() == [[0.0]] * 5
    assert not found.is_far(np.float32)


@pytest.mark.parametrize("factor", [1e40, 1e-40, 1e200])
def test_targets_that_no_layer_can_predict_are_named(factor):
    y = factor * np.random.default_rng(0).standard_normal((50, 1))
    with pytest.raises(ArgumentError, match=r"^target 'price' must hold numbers whose standard"):
        TargetScaling.of(y, name="target 'price'")


def test_offsets_that_float32_cannot_add_are_far():
    y = np.random.default_rng(0).standard_normal((50, 1))
    assert TargetScaling.of(y + 1.7e9).is_far(np.float32)
    assert not TargetScaling.of(y + 1.7e9).is_far(np.float64)
    assert not TargetScaling.of(y + 100).is_far(np.float32)


def test_numbers_to_predict_have_the_scaling_of_their_moments():
    y = np.random.default_rng(0).standard_normal((30, 2)) * [1.0, 1e3] + 5
    y[:, 1] = 7.0
    moments = Moments.of(y[:20], np.arange(20)).plus(Moments.of(y[20:], np.arange(10)))
    for found, wanted in zip(TargetScaling.from_moments(moments), TargetScaling.of(y), strict=True):
        np.testing.assert_allclose(found, wanted)
    huge = Moments.of(y * 1e300, np.arange(30))
    with pytest.raises(ArgumentError, match="'y' must hold numbers whose standard deviation"):
        TargetScaling.from_moments(huge)
