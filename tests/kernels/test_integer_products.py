"""Products of int8 weights and rounded rows, against an int64 oracle, on every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import Activation
from fffcpu.config.layers import MOST_INT8_TERMS
from fffcpu.kernels import integer_products, jit
from fffcpu.kernels.encoder import fused
from fffcpu.kernels.encoder import vectorized as plain

SEEDS = st.integers(0, 2**32 - 1)
PATHS = ["plain", *(pytest.param(path, marks=pytest.mark.slow) for path in ("lanes", "tiles"))]


@pytest.fixture(params=PATHS, scope="module")
def module(request):
    """A module with the products; of the compiled one, by lanes and by tiles."""
    if request.param == "plain":
        yield plain
        return
    if request.param == "tiles" and integer_products._tiles() is None:
        pytest.skip("this machine has no tiles, or does not permit them")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "lanes":
            patch.setattr(integer_products, "_tiles", lambda: None)
        yield fused


def exact(x, weights, scales, bias):
    """Products with sums of int64, row by row."""
    y = np.empty((len(x), len(weights)), np.float32)
    for row, out in zip(x, y, strict=True):
        if not np.isfinite(row).all():
            out[...] = np.nan
            continue
        largest = np.abs(row).max(initial=np.float32(0))
        scale = max(largest / np.float32(127), np.finfo(np.float32).tiny)
        numbers = np.rint(row * (np.float32(1) / scale)).astype(np.int64)
        assert np.abs(numbers).max(initial=0) <= 127
        sums = weights.astype(np.int64) @ numbers
        out[...] = sums.astype(np.float32) * (scale * scales) + bias
    return y


def case(seed, rows, inputs, outputs):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    x *= np.float32(10) ** rng.integers(-30, 30, (rows, 1)).astype(np.float32)
    weights = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    terms = rng.standard_normal((2, outputs)).astype(np.float32)
    return x, weights, *terms


def project(module, x, weights, scales, bias):
    y = np.full((len(x), len(weights)), 7, np.float32)
    module.project(y, x, module.integer_matrix(weights, scales, bias))
    return y


SIZES = {
    "rows": st.integers(0, 140),
    "inputs": st.integers(1, 200),
    "outputs": st.integers(1, 150),
    "seed": SEEDS,
}


@given(**SIZES)
def test_products_are_exact(module, rows, inputs, outputs, seed):
    x, *matrix = case(seed, rows, inputs, outputs)
    np.testing.assert_array_equal(project(module, x, *matrix), exact(x, *matrix))


@given(rows=st.integers(1, 80), seed=SEEDS)
def test_rows_that_are_not_finite_disturb_no_other(module, rows, seed):
    x, *matrix = case(seed, rows, 70, 40)
    rng = np.random.default_rng(seed)
    wrong = rng.random(rows) < 0.3
    places = rng.integers(0, 70, rows)
    x[wrong, places[wrong]] = rng.choice([np.nan, np.inf, -np.inf], wrong.sum())
    y = project(module, x, *matrix)
    np.testing.assert_array_equal(y, exact(x, *matrix))
    assert np.isnan(y[wrong]).all()
    assert np.isfinite(y[~wrong]).all()


@pytest.mark.parametrize("number", [0.0, -0.0, 1e-45, 1.1754944e-38, 3.4028235e38])
def test_extreme_rows(module, number):
    x = np.full((3, 65), number, np.float32)
    matrix = np.full((17, 65), -127, np.int8), np.full(17, 1e-4, np.float32), np.ones(17)
    np.testing.assert_array_equal(project(module, x, *matrix), exact(x, *matrix))


def test_the_largest_sums(module):
    """Sums of as many products as fit into int32, of the largest numbers."""
    inputs = MOST_INT8_TERMS
    x = np.ones((2, inputs), np.float32)
    x[1] = -1
    scales = np.ones(3, np.float32)
    weights = np.full((3, inputs), 127, np.int8)
    y = project(module, x, weights, scales, None)
    assert inputs * 127**2 < 2**31 <= (inputs + 1) * 127**2
    np.testing.assert_array_equal(y, exact(x, weights, scales, np.float32(0)))


def test_read_only_and_strided_weights(module):
    x, weights, scales, bias = case(0, 9, 30, 20)
    expected = exact(x, weights, scales, bias)
    x.flags.writeable = False
    strided = np.repeat(weights, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(project(module, x, strided, scales, bias), expected)


@given(rows=st.sampled_from([1, 63, 65, 700]), activation=st.sampled_from(list(Activation)))
def test_feedforward_is_its_products(module, rows, activation):
    x, weights, scales, bias = case(3, rows, 33, 50)
    _, weights_out, scales_out, _ = case(4, 0, 50, 21)
    x = np.clip(x, -1e6, 1e6)
    first = module.integer_matrix(weights, scales, bias)
    second = module.integer_matrix(weights_out, scales_out, None)
    y = np.empty((rows, 21), np.float32)
    module.feed_forward(y, x, first, int(activation), second)
    active = module.activate(exact(x, weights, scales, bias), int(activation))
    np.testing.assert_array_equal(y, exact(active, weights_out, scales_out, np.float32(0)))


@pytest.mark.parametrize("parallel", [False, True])
def test_bits_depend_on_neither_batch_nor_threads(module, parallel):
    x, *matrix = case(5, 700, 96, 130)
    expected = project(module, x, *matrix)
    with jit.recording(parallel=parallel):
        np.testing.assert_array_equal(project(module, x, *matrix), expected)
        for rows in (1, 16, 17, 64, 65):
            np.testing.assert_array_equal(project(module, x[:rows], *matrix), expected[:rows])
