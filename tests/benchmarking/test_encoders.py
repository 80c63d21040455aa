"""Encoders are timed on the same tokens, with figures per token."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.benchmarking.encoders import BATCHES, Shape, time_encoders
from fffcpu.errors import ArgumentError


def test_every_encoder_gets_the_same_batches():
    seen = {"a": [], "b": []}

    def encoder(name):
        return lambda ids, mask: seen[name].append((ids, mask))

    shape = Shape(2, 5)
    timings = time_encoders({name: encoder(name) for name in seen}, shape, 30, 4, 0.0)
    assert [timing.name for timing in timings] == ["a", "b"]
    assert {timing.rows for timing in timings} == {10}
    for (own, mask), (other, _) in zip(*seen.values(), strict=True):
        assert own is other
        assert own.shape == mask.shape == shape
        assert mask.all()
        assert 0 <= own.min() <= own.max() < 30
    assert len({ids.tobytes() for ids, _ in seen["a"]}) == BATCHES
    assert seen["a"][0][0].dtype == np.int64


def test_a_shape_is_written_as_it_is_read():
    assert Shape.parse("8x128") == (8, 128)
    assert str(Shape(8, 128)) == "8x128"


@pytest.mark.parametrize("wrong", ["8", "x8", "0x8", "8x0", "8x-1", "8x8x8", ""])
def test_other_shapes_are_errors(wrong):
    with pytest.raises(ArgumentError, match="such as '8x128', got"):
        Shape.parse(wrong)
