"""Parameters are a fixed mapping of aligned arrays whose numbers may change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError
from fffcpu.parameters import (
    ALIGNED_ROWS,
    ALIGNMENT,
    Parameters,
    RowGradient,
    aligned_empty,
    aligned_zeros,
    empty_output,
    flush,
    generator,
    normal,
    uniform,
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


def some(dtype=np.float32):
    rng = np.random.default_rng(0)
    arrays = {"weights": rng.standard_normal((3, 5)), "bias": rng.standard_normal(7)}
    return Parameters(arrays, dtype)


def is_aligned(array):
    # NumPy moves the start of an empty slice at will; it has no data to align.
    return array.size == 0 or array.ctypes.data % ALIGNMENT == 0


def assert_same(again, params):
    """Same names in the same order, same numbers, aligned memory of its own."""
    assert type(again) is Parameters
    assert list(again) == list(params)
    for name, array in again.items():
        assert array.dtype == params[name].dtype
        np.testing.assert_array_equal(array, params[name])
        assert is_aligned(array)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not np.may_share_memory(array, params[name])


# --- Aligned memory -------------------------------------------------------------------------------


def test_alignment_is_a_cache_line():
    assert ALIGNMENT == 64


@given(SHAPES, st.sampled_from([np.float32, np.float64, np.int32, np.uint8]))
def test_aligned_array_is_what_was_asked_for(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert is_aligned(array)
    array[...] = 1  # all of it may be written
    assert array.sum() == array.size


def test_aligned_array_lies_inside_the_memory_it_owns():
    array = aligned_empty((1000,), np.float32)
    owner = array
    while owner.base is not None:
        owner = owner.base
    first = owner.ctypes.data
    assert first <= array.ctypes.data
    assert array.ctypes.data + array.nbytes <= first + owner.nbytes


@given(
    st.lists(SHAPES, max_size=5),
    st.sampled_from([np.float32, np.float64, np.int32, np.uint8]),
)
def test_arrays_of_zeros_are_aligned_and_apart(shapes, dtype):
    arrays = aligned_zeros(shapes, dtype)
    assert [array.shape for array in arrays] == shapes
    for number, array in enumerate(arrays, 1):
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert is_aligned(array)
        assert not array.any()  # though those before it have been filled
        array[...] = number
    for number, array in enumerate(arrays, 1):
        assert (array == number).all()


def test_no_arrays_of_zeros_are_none():
    assert aligned_zeros([], np.float32) == []


def test_arrays_of_zeros_begin_at_the_next_cache_line():
    first, none, second = aligned_zeros([(17,), (0, 4), (1,)], np.float32)
    assert none.shape == (0, 4)
    assert second.ctypes.data - first.ctypes.data == 2 * ALIGNMENT


@DTYPES
@pytest.mark.parametrize("rows", [0, 1, ALIGNED_ROWS - 1, ALIGNED_ROWS, ALIGNED_ROWS + 3])
def test_outputs_of_many_rows_are_aligned(rows, dtype):
    y = empty_output(rows, 5, np.dtype(dtype))
    assert (y.shape, y.dtype) == ((rows, 5), dtype)
    assert y.flags.c_contiguous
    assert rows < ALIGNED_ROWS or is_aligned(y)


# --- The mapping ----------------------------------------------------------------------------------


@DTYPES
def test_arrays_are_copied_into_aligned_memory_of_the_dtype(dtype):
    source = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "reversed": np.arange(5)[::-1],
        "empty": np.zeros((0, 3), np.float16),
        "scalar": np.array(2.5),
    }
    params = Parameters(source, dtype)
    assert list(params) == list(source)
    for name, array in params.items():
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert is_aligned(array)
        np.testing.assert_array_equal(array, source[name])
        assert not np.may_share_memory(array, source[name])


def test_empty_has_the_shapes_asked_for():
    shapes = {"weights": (3, 5), "bias": (7,), "none": (0, 4)}
    params = Parameters.empty(shapes, np.float64)
    assert {name: array.shape for name, array in params.items()} == shapes
    assert all(array.dtype == np.float64 for array in params.values())
    assert all(is_aligned(array) for array in params.values())


def test_it_is_a_mapping():
    params = some()
    assert isinstance(params, Mapping)
    assert list(params) == ["weights", "bias"]
    assert len(params) == 2
    assert "bias" in params
    assert "gate" not in params
    assert params.get("gate") is None
    assert dict(params)["bias"] is params["bias"]
    with pytest.raises(KeyError, match="gate"):
        params["gate"]


def test_items_can_be_neither_set_nor_deleted():
    params = some()
    before = dict(params)
    with pytest.raises(TypeError, match="item assignment"):
        params["bias"] = np.zeros(7)
    with pytest.raises(TypeError, match="item assignment"):
        params["gate"] = np.zeros(7)
    with pytest.raises(TypeError, match="item deletion"):
        del params["bias"]
    for change in ("pop", "popitem", "clear", "update", "setdefault"):
        assert not hasattr(params, change)
    assert all(params[name] is array for name, array in before.items())


def test_attributes_cannot_be_added():
    with pytest.raises(AttributeError):
        some().bias = np.zeros(7)


def test_numbers_are_changed_in_place():
    params = some()
    array = params["bias"]
    array[...] = 3
    params["weights"][1, 2] = 4
    assert params["bias"] is array
    np.testing.assert_array_equal(params["bias"], np.full(7, 3))
    assert params["weights"][1, 2] == 4


@DTYPES
def test_counts(dtype):
    params = some(dtype)
    assert params.count == 3 * 5 + 7
    assert params.nbytes == params.count * np.dtype(dtype).itemsize
    assert Parameters({}, dtype).count == Parameters({}, dtype).nbytes == 0


def test_repr_names_the_arrays_and_their_shapes():
    assert repr(some()) == "Parameters(weights (3, 5), bias (7,))"


# --- Copies ---------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_names_numbers_and_alignment(dtype, protocol):
    params = some(dtype)
    assert_same(pickle.loads(pickle.dumps(params, protocol)), params)


@DTYPES
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_have_memory_of_their_own(dtype, duplicate):
    params = some(dtype)
    again = duplicate(params)
    assert_same(again, params)
    again["bias"][...] = 0
    assert params["bias"].all()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_no_parameters_can_be_copied_too(duplicate):
    none = Parameters({}, np.float64)
    assert dict(duplicate(none)) == {}
    assert dict(pickle.loads(pickle.dumps(none))) == {}


# --- Random numbers -------------------------------------------------------------------------------


def test_generator_is_passed_on():
    rng = np.random.default_rng(3)
    assert generator(rng) is rng


@pytest.mark.parametrize("seed", [3, np.int64(3), np.random.SeedSequence(3)])
def test_seed_makes_the_generator_of_that_seed(seed):
    assert generator(seed).random() == np.random.default_rng(3).random()


def test_no_seed_makes_a_generator_of_its_own():
    assert generator(None).random() != generator(None).random()


@pytest.mark.parametrize("rng", [-1, 1.5, "3", object(), [1, "a"]])
def test_what_is_no_seed_is_an_error(rng):
    message = "argument 'rng' must be None, a seed of at least 0 or a numpy.random.Generator, got "
    with pytest.raises(ArgumentTypeError, match=message):
        generator(rng)


@DTYPES
def test_uniform_fills_the_range_and_no_more(dtype):
    array = aligned_empty((100, 100), dtype)
    uniform(array, 0.25, np.random.default_rng(0))
    assert array.dtype == dtype
    assert -0.25 <= array.min() < -0.249
    assert 0.249 < array.max() <= 0.25
    # The mean of 10,000 such numbers strays by 0.0014.
    assert abs(array.mean(dtype=np.float64)) < 0.01
    assert len(np.unique(array)) > 9000


@DTYPES
def test_uniform_draws_in_the_precision_of_the_array(dtype):
    array = aligned_empty((50,), dtype)
    uniform(array, 0.5, np.random.default_rng(7))
    expected = np.random.default_rng(7).random(50, dtype=dtype) - dtype(0.5)
    np.testing.assert_array_equal(array, expected)


def test_uniform_of_no_numbers_draws_none():
    rng = np.random.default_rng(7)
    uniform(aligned_empty((0, 5), np.float32), 1.0, rng)
    assert rng.random() == np.random.default_rng(7).random()


@DTYPES
def test_normal_draws_in_the_precision_of_the_array(dtype):
    array = aligned_empty((10_000,), dtype)
    normal(array, 0.5, np.random.default_rng(7))
    expected = np.random.default_rng(7).standard_normal(10_000, dtype=dtype) * dtype(0.5)
    np.testing.assert_array_equal(array, expected)
    assert abs(array.std() - 0.5) < 0.02


def test_sharing_copies_nothing():
    arrays = {"a": np.zeros(3), "b": np.ones((2, 2), np.float32)}
    params = Parameters.sharing(arrays)
    assert list(params) == ["a", "b"]
    assert all(params[name] is array for name, array in arrays.items())
    del arrays["a"]
    assert "a" in params


def test_a_part_has_the_same_arrays_under_shorter_names():
    whole = Parameters({"x.a": np.zeros(3), "x.y.a": np.ones(3), "a": np.ones(1)}, np.float32)
    part = whole.module("x", ["a"])
    assert list(part) == ["a"]
    assert part["a"] is whole["x.a"]
    with pytest.raises(KeyError):
        whole.module("x", ["b"])


def test_a_row_gradient_is_the_rows_that_are_not_zero():
    values = np.arange(6.0).reshape(3, 2)
    grad = RowGradient(np.array([0, 3, 5]), values, (2, 3, 2))
    assert grad.leading == (2, 3)
    expected = np.zeros((2, 3, 2))
    expected[0, 0], expected[1, 0], expected[1, 2] = values
    np.testing.assert_array_equal(grad.dense(), expected)
    assert RowGradient(np.array([1]), np.ones(1), (3,)).dense().tolist() == [0, 1, 0]
    assert RowGradient(np.empty(0, np.int64), np.ones((0, 2)), (4, 2)).dense().shape == (4, 2)


@pytest.mark.parametrize("rows", [([0, 3], [3, 5]), ([], [1]), ([2, 4], [2, 4]), ([], [])])
def test_row_gradients_add(rows):
    rng = np.random.default_rng(0)
    first, second = (
        RowGradient(np.array(own, np.int64), rng.normal(size=(len(own), 2)), (2, 3, 2))
        for own in rows
    )
    whole = first.plus(second)
    np.testing.assert_array_equal(whole.dense(), first.dense() + second.dense())
    assert whole.rows.tolist() == sorted({*rows[0], *rows[1]})


@pytest.mark.parametrize(
    ("rows", "values", "error", "named"),
    [
        ([0, 1], np.ones((2, 2)), ArgumentTypeError, "rows"),
        (np.zeros((1, 1), np.int64), np.ones((1, 2)), ArgumentTypeError, "rows"),
        (np.array([0.0]), np.ones((1, 2)), ArgumentTypeError, "rows"),
        (np.array([0]), [[1.0, 1.0]], ArgumentTypeError, "values"),
        (np.array([0]), np.ones((1, 2), int), ArgumentTypeError, "values"),
        (np.array([0]), np.ones((2, 2)), ShapeError, "values"),
        (np.array([0]), np.ones((1, 3)), ShapeError, "values"),
        (np.array([0]), np.ones((1, 3, 2, 1)), ShapeError, "values"),
        (np.array([6]), np.ones((1, 2)), ArgumentError, "rows"),
        (np.array([-1]), np.ones((1, 2)), ArgumentError, "rows"),
        (np.array([2, 1]), np.ones((2, 2)), ArgumentError, "rows"),
        (np.array([1, 1]), np.ones((2, 2)), ArgumentError, "rows"),
    ],
)
def test_refuses_a_row_gradient(rows, values, error, named):
    with pytest.raises(error, match=f"'{named}'"):
        RowGradient(rows, values, (2, 3, 2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 3, 5, 5], "'rows' must ascend, got 5 after 5 at index 3"),
        ([4, 1, 3, 2], "'rows' must ascend, got 1 after 4 at index 1"),
        ([0, 1, 2, 6], "'rows' must hold integers from 0 to 5, got 6 at index 3"),
        ([-2, -1, 2, 5], "'rows' must hold integers from 0 to 5, got -2 at index 0"),
    ],
)
def test_the_first_wrong_row_is_named(rows, message):
    with pytest.raises(ArgumentError, match=message):
        RowGradient(np.array(rows), np.ones((4, 2)), (2, 3, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flushing_keeps_all_but_what_is_below_the_smallest_normal_number(dtype):
    tiny = np.finfo(dtype).tiny
    below = np.nextafter(tiny, 0, dtype=dtype)
    numbers = np.array([tiny, below, -below, -tiny, 0.0, -0.0, np.inf, -np.inf, np.nan, 1], dtype)
    flush(numbers)
    ref = np.array([tiny, 0.0, -0.0, -tiny, 0.0, -0.0, np.inf, -np.inf, np.nan, 1], dtype)
    np.testing.assert_array_equal(numbers, ref)
    np.testing.assert_array_equal(np.signbit(numbers), np.signbit(ref))


@pytest.mark.parametrize("shape", [(1 << 17,), (3, 1 << 16), (1 << 16, 3)])
def test_flushing_reaches_every_number_of_a_large_array(shape):
    numbers = np.full(shape, 1e-40, np.float32)
    numbers[..., ::5] = 1
    for array in (numbers, numbers.T, numbers[::2]):
        one = array.copy()
        flush(one, array)
        assert one.sum() == (one == 1).sum() > 0
        np.testing.assert_array_equal(array, one)
