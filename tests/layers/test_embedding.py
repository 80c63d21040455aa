"""Embedding: words and positions, and who gets which gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.layers import Embedding, LearnedEmbedding
from tests.support.finite_differences import check_gradients


@given(
    batch=st.integers(0, 4),
    length=st.integers(1, 6),
    half=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_output_and_gradients(batch, length, half, seed):
    rng = np.random.default_rng(seed)
    layer = Embedding(7, 2 * half, 6, padding_id=3, dtype=np.float64, rng=seed)
    ids = rng.choice([0, 1, 2, 4, 5, 6], (batch, length))
    dy = rng.standard_normal((batch, length, 2 * half))
    y, cache = layer.forward(ids)
    for b, s in np.ndindex(batch, length):
        for c in range(half):
            angle = s / 10000 ** (2 * c / (2 * half))
            for column, position in ((2 * c, math.sin(angle)), (2 * c + 1, math.cos(angle))):
                word = layer.params["words"][ids[b, s], column]
                expected = word + position / math.sqrt(2 * half)
                assert math.isclose(y[b, s, column], expected, abs_tol=1e-6)
    np.testing.assert_array_equal(layer(ids), y)
    grads = layer.backward(dy, cache)
    assert list(grads) == list(layer.params)
    pairs = [(layer.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: (layer(ids) * dy).sum(), pairs, seed)


def test_the_table_of_positions_is_that_of_float32():
    layer = Embedding(2, 6, 600, dtype=np.float64, rng=0)
    layer.params["words"][...] = 0
    layer.params["position_scale"][...] = 1
    table = layer(np.ones((1, 600), int))[0]
    assert (table == table.astype(np.float32)).all()
    frequency = np.exp(np.float64(np.float32(2) * np.float32(-math.log(10000) / 6)))
    angle = np.float32(599) * np.float32(frequency)
    assert table[599, 2] == np.float32(math.sin(angle))
    # The product of two float32 numbers, rounded to float32, is off by more than the table's last
    # digit: with one in float64, models would not agree with published ones to that digit.
    assert table[599, 2] != np.float32(math.sin(599 * 10000 ** (-2 / 6)))


def test_the_table_of_positions_is_made_as_far_as_it_is_needed():
    vast, small = (Embedding(5, 4, positions, rng=0) for positions in (1 << 62, 7))
    for length in (1, 2, 3, 5, 7):
        ids = np.ones((1, length), int)
        np.testing.assert_array_equal(vast(ids), small(ids))


def test_padding_gets_no_gradient_from_being_looked_up():
    layer = Embedding(5, 4, 3, padding_id=2, rng=0)
    _, cache = layer.forward([[2, 1, 2], [1, 4, 2]])
    d_words = layer.backward(np.ones((2, 3, 4)), cache)["words"]
    np.testing.assert_array_equal(d_words[:, 0], [0, 2, 0, 0, 1])


def test_gradients_are_added_to_those_of_a_decoder():
    layer = Embedding(5, 4, 3, rng=0)
    _, cache = layer.forward([[0, 1, 1]])
    decoder = np.full((5, 4), 10, np.float32)
    d_words = layer.backward(np.ones((1, 3, 4)), cache, decoder)["words"]
    assert d_words is decoder
    np.testing.assert_array_equal(d_words[:, 0], [10, 12, 10, 10, 10])


def test_initial_values():
    layer = Embedding(300, 64, 8, padding_id=5, rng=0)
    words = layer.params["words"]
    assert not words[5].any()
    assert abs(np.delete(words, 5, axis=0).std() - 0.02) < 0.001
    assert layer.params["position_scale"] == np.float32(1 / 8)


def test_wrong_tokens_are_errors():
    layer = Embedding(5, 4, 3)
    with pytest.raises(ShapeError, match=r"sequence of 1 to 3 positions, got shape \(2, 4\)"):
        layer(np.zeros((2, 4), int))
    with pytest.raises(ShapeError, match=r"got shape \(3,\)"):
        layer([1, 2, 3])
    with pytest.raises(ShapeError, match=r"got shape \(2, 0\)"):
        layer(np.zeros((2, 0), int))
    with pytest.raises(ArgumentTypeError, match="'input_ids' must hold integers, got an array"):
        layer([[1.0, 2.0]])
    with pytest.raises(ArgumentError, match=r"from 0 to 4, got 5 at index \(0, 1\)"):
        layer([[4, 5]])
    with pytest.raises(ArgumentError, match=r"from 0 to 4, got -1 at index \(1, 0\)"):
        layer([[4], [-1]])
    with pytest.raises(ArgumentError, match="'width' must be even, got 5"):
        Embedding(5, 5, 3)
    with pytest.raises(ArgumentError, match="'padding_id' must be an integer from 0 to 4, got 5"):
        Embedding(5, 4, 3, padding_id=5)
    with pytest.raises(ArgumentTypeError, match="'cache' must be the EmbeddingCache"):
        layer.backward(np.ones((1, 1, 4)), None)


@given(
    batch=st.integers(0, 4),
    length=st.integers(1, 6),
    width=st.integers(1, 9),
    typed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_learned_positions_and_types(batch, length, width, typed, seed):
    rng = np.random.default_rng(seed)
    layer = LearnedEmbedding(7, width, 6, 3, padding_id=3, dtype=np.float64, rng=seed)
    ids = rng.choice([0, 1, 2, 4, 5, 6], (batch, length))
    types = rng.integers(0, 3, (batch, length)) if typed else None
    dy = rng.standard_normal((batch, length, width))
    y, cache = layer.forward(ids, types)
    words, positions, kinds = layer.params.values()
    for b, s in np.ndindex(batch, length):
        kind = kinds[types[b, s] if typed else 0]
        np.testing.assert_allclose(y[b, s], words[ids[b, s]] + positions[s] + kind)
    np.testing.assert_array_equal(layer(ids, types), y)
    grads = layer.backward(dy, cache)
    assert list(grads) == list(layer.params)
    pairs = [(layer.params[name], grad) for name, grad in grads.items()]
    check_gradients(lambda: (layer(ids, types) * dy).sum(), pairs, seed)


def test_padding_gets_no_gradient_in_a_learned_embedding():
    layer = LearnedEmbedding(5, 4, 3, padding_id=2, rng=0)
    _, cache = layer.forward([[2, 1, 2], [1, 4, 2]])
    d_words = layer.backward(np.ones((2, 3, 4)), cache)["words"]
    np.testing.assert_array_equal(d_words[:, 0], [0, 2, 0, 0, 1])


@pytest.mark.parametrize(
    ("ids", "types", "error", "message"),
    [
        ([[5]], None, ArgumentError, "'input_ids'"),
        ([[1, 2, 3, 4]], None, ShapeError, "1 to 3 positions"),
        ([[1]], [[2]], ArgumentError, "'token_type_ids'"),
        ([[1]], [0], ShapeError, "'token_type_ids' must have shape"),
        ([[1]], [[0.5]], ArgumentTypeError, "'token_type_ids'"),
    ],
)
def test_wrong_tokens_and_types_are_named(ids, types, error, message):
    with pytest.raises(error, match=message):
        LearnedEmbedding(5, 4, 3, rng=0)(ids, types)
