"""Products of floats, compiled and plain, against float64 and against a sum term by term."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import Activation
from fffcpu.config.layers import NO_ACTIVATION
from fffcpu.kernels import jit, matrix_products
from fffcpu.kernels.encoder import fused
from fffcpu.kernels.encoder import vectorized as plain
from fffcpu.kernels.matrix_products import CHUNK

DTYPES = st.sampled_from([np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)
MODULES = pytest.mark.parametrize(
    "module", [plain, pytest.param(fused, marks=pytest.mark.slow)], ids=["plain", "fused"]
)
MEMORIES = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "strided": lambda matrix: np.repeat(matrix, 2, axis=1)[:, ::2],
    "read-only": lambda matrix: _locked(matrix.copy()),
}
MEMORY = st.sampled_from(list(MEMORIES))
SIZES = {
    "rows": st.integers(0, 30),
    "inputs": st.integers(0, 90),
    "outputs": st.integers(0, 150),
    "dtype": DTYPES,
    "seed": SEEDS,
}
HIDDEN = [(800, 40, 30), (20, 800, 30), (385, 400, 200)]
"""Inputs, neurons and outputs of hidden layers with several chunks."""


def _locked(matrix):
    matrix.flags.writeable = False
    return matrix


def case(seed, rows, inputs, outputs, dtype):
    rng = np.random.default_rng(seed)
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def product(module, x, weights, *rest):
    y = np.full((len(x), len(weights)), np.nan, x.dtype)
    module.matmul(y, x, weights.T, *rest)
    return y


def assert_close(found, x, weights, bias=0):
    """Assert that products are exact up to one rounding per term, each of a whole sum."""
    x, weights = x.astype(np.float64), weights.astype(np.float64)
    largest = np.abs(x) @ np.abs(weights).T + np.abs(bias)
    bound = (x.shape[1] + 2) * np.finfo(found.dtype).eps * largest
    assert (np.abs(found - (x @ weights.T + bias)) <= bound).all()


@MODULES
@given(**SIZES, x_memory=MEMORY, memory=MEMORY, biased=st.booleans())
def test_products(module, rows, inputs, outputs, dtype, seed, x_memory, memory, biased):
    x, weights, bias = case(seed, rows, inputs, outputs, dtype)
    given_x, given_weights = MEMORIES[x_memory](x), MEMORIES[memory](weights)
    found = product(module, given_x, given_weights, bias if biased else None)
    assert_close(found, x, weights, bias if biased else 0)


@MODULES
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(7, 1000, 70), (400, 385, 65), (2, 800, 9), (1, 769, 70)]
)
def test_products_of_several_chunks_and_ranges(module, rows, inputs, outputs):
    x, weights, bias = case(0, rows, inputs, outputs, np.float32)
    assert_close(product(module, x, weights, bias), x, weights, bias)


@MODULES
@given(**SIZES, activation=st.sampled_from([NO_ACTIVATION, *Activation]))
def test_activations(module, rows, inputs, outputs, dtype, seed, activation):
    x, weights, bias = case(seed, rows, inputs, outputs, dtype)
    found = product(module, x, weights, bias, activation)
    logits = product(module, x, weights, bias)
    expected = logits if activation == NO_ACTIVATION else module.activate(logits, activation)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow  # NumPy's BLAS has an order of its own
@given(
    rows=st.integers(1, 9),
    inputs=st.sampled_from([1, 17, CHUNK, CHUNK + 1, 2 * CHUNK + 30]),
    outputs=st.integers(1, 90),
    seed=SEEDS,
    memory=MEMORY,
)
def test_terms_are_added_one_after_the_other_in_chunks(rows, inputs, outputs, seed, memory):
    x, weights, _ = case(seed, rows, inputs, outputs, np.float32)
    # With so few bits, the product of two numbers and its sum with a third are exact in float64. So
    # its rounding to float32 is that of a fused multiply-add.
    x, weights = (np.round(array * 2**14) / 2**14 for array in (x, weights))
    expected = np.zeros((rows, outputs), np.float32)
    for start in range(0, inputs, CHUNK):
        total = np.zeros_like(expected)
        for k in range(start, min(start + CHUNK, inputs)):
            terms = x[:, k, np.newaxis].astype(np.float64) * weights[:, k]
            total = (total + terms).astype(np.float32)
        expected = expected + total
    np.testing.assert_array_equal(product(fused, x, MEMORIES[memory](weights)), expected)


@pytest.mark.slow  # only compiled kernels give a row the same bits in any batch
@given(
    rows=st.integers(1, 420),
    inputs=st.integers(1, 900),
    outputs=st.integers(1, 200),
    dtype=DTYPES,
    seed=SEEDS,
    x_memory=MEMORY,
    memory=MEMORY,
    parallel=st.booleans(),
)
def test_a_row_has_the_same_bits_in_any_batch_and_on_any_thread(
    rows, inputs, outputs, dtype, seed, x_memory, memory, parallel
):
    x, weights, bias = case(seed, rows, inputs, outputs, dtype)
    with jit.recording(parallel=parallel):
        together = product(fused, MEMORIES[x_memory](x), MEMORIES[memory](weights), bias)
    rng = np.random.default_rng(seed)
    for count in {1, 2, min(rows, 3), min(rows, 11)}:
        some = rng.permutation(rows)[:count]
        np.testing.assert_array_equal(product(fused, x[some], weights, bias), together[some])


@MODULES
@given(
    **SIZES,
    width=st.integers(0, 70),
    biased=st.booleans(),
    activation=st.sampled_from([*Activation, NO_ACTIVATION]),
)
def test_a_hidden_layer_is_two_products(
    module, rows, inputs, outputs, dtype, seed, width, biased, activation
):
    x, weights_in, bias = case(seed, rows, inputs, width, dtype)
    weights_out = np.random.default_rng(seed).standard_normal((width, outputs)).astype(dtype)
    biases = bias if biased else None
    active = product(module, x, weights_in, biases, activation)
    expected = product(module, active, weights_out.T)
    # Rows are taken one by one, two by two and all together, by different kernels.
    for count in (1, 2, max(rows, 1)):
        for first in range(0, rows, count):
            few = x[first : first + count]
            found = np.full((len(few), outputs), np.nan, dtype)
            module.hidden_layer(found, _locked(few), weights_in, biases, activation, weights_out)
            if module is fused:
                np.testing.assert_array_equal(found, expected[first : first + count])
            else:
                np.testing.assert_allclose(found, expected[first : first + count], atol=1e-3)


@MODULES
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(("inputs", "width", "outputs"), HIDDEN)
def test_a_hidden_layer_of_several_chunks(module, rows, inputs, width, outputs):
    x, weights_in, bias = case(0, rows, inputs, width, np.float32)
    weights_out = np.random.default_rng(1).standard_normal((width, outputs), np.float32)
    active = product(module, x, weights_in, bias, int(Activation.RELU))
    expected = product(module, active, weights_out.T)
    found = np.full((rows, outputs), np.nan, np.float32)
    module.hidden_layer(found, x, weights_in, bias, int(Activation.RELU), weights_out)
    np.testing.assert_array_equal(found, expected)


def test_some_hidden_layers_are_small_and_some_are_not():
    sizes = [inputs * width + width * outputs for inputs, width, outputs in HIDDEN]
    assert min(sizes) <= matrix_products.SMALL < max(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2])
def test_a_hidden_layer_has_the_same_bits_on_the_pool(rows):
    x, weights_in, bias = case(0, rows, 30, 70, np.float32)
    weights_out = np.random.default_rng(1).standard_normal((70, 300), np.float32)
    arguments = x, weights_in, bias, int(Activation.GELU), weights_out
    expected, found = (np.full((rows, 300), np.nan, np.float32) for _ in range(2))
    fused.hidden_layer(expected, *arguments)
    with jit.recording(parallel=True):  # more threads than shares
        for _ in range(300):
            fused.hidden_layer(found, *arguments)
            np.testing.assert_array_equal(found, expected)


@MODULES
@pytest.mark.parametrize("memory", ["rows", "columns"])
@pytest.mark.parametrize("rows", [1, 2, 20])
def test_a_row_or_a_column_that_is_not_finite_spoils_no_other(module, rows, memory):
    x, weights, _ = case(0, rows, 50, 70, np.float32)
    expected = product(module, x, MEMORIES[memory](weights))
    x[-1, 5], weights[40, 7] = np.nan, np.inf
    found = product(module, x, MEMORIES[memory](weights))
    assert not np.isfinite(found[-1]).any()
    assert not np.isfinite(found[:, 40]).any()
    columns = np.arange(70) != 40
    np.testing.assert_array_equal(found[:-1, columns], expected[:-1, columns])


@pytest.mark.slow  # there are no launches without compiled kernels
def test_no_row_and_no_column_launch_nothing():
    with jit.recording(parallel=False) as launches:
        product(fused, *case(0, 0, 5, 5, np.float32))
        product(fused, *case(0, 5, 5, 0, np.float32))
    assert launches == []


@pytest.mark.parametrize(
    ("rows", "outputs", "busy"),
    [(1, 640, 4), (16, 640, 4), (16, 64, 3), (100, 64, 4), (193, 640, 4), (960, 640, 8)],
)
def test_no_thread_idles_unless_there_are_few_rows_and_columns(rows, outputs, busy, monkeypatch):
    items = []

    def launch(kernel, count, *_):
        items.append(count)

    monkeypatch.setattr(matrix_products, "launch_threads", lambda: 4)
    monkeypatch.setattr(matrix_products, "launch", launch)
    monkeypatch.setattr(matrix_products, "REGISTERS", 4)
    monkeypatch.setattr(matrix_products, "REGISTER_BYTES", 64)
    x, weights, _ = case(0, rows, 4, outputs, np.float32)
    matrix_products.matmul(np.empty((rows, outputs), np.float32), x, weights.T)
    assert items == [busy]
