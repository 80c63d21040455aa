"""What users pass is checked: it becomes what the package works on, or an error that says why."""

from __future__ import annotations

import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checks import (
    as_class_labels,
    as_float_array,
    as_number_labels,
    as_probabilities,
    as_real_array,
    as_rows,
    check_elements,
    check_flag,
    check_indices,
    check_integer,
    check_nonnegative,
    check_number,
    check_out,
    first_wrong,
)
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
WIDTH = 6


def rows_of(value, dtype=F32, width=WIDTH):
    """Rows of a value that must have the right form, checked for what kernels rely on."""
    rows, leading = as_rows(value, "x", width, dtype)
    assert type(rows) is np.ndarray
    assert rows.dtype == dtype
    assert rows.dtype.isnative
    assert rows.flags.c_contiguous
    assert rows.ndim == 2
    assert rows.shape[1] == width
    assert len(rows) == int(np.prod(leading))
    assert type(leading) is tuple
    return rows, leading


def numbers(*shape, dtype=np.float32):
    """Small integers, which every dtype here can hold."""
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


# --- Integers and numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integers_of_any_kind_become_int(value):
    number = check_integer("depth", value, 0, 10)
    assert type(number) is int
    assert number == 3


@pytest.mark.parametrize("value", [0, 10])
def test_both_ends_of_a_range_are_allowed(value):
    assert check_integer("depth", value, 0, 10) == value
    assert check_number("rate", value, 0, 10) == value


@pytest.mark.parametrize(
    "value", [True, np.True_, 3.0, "3", None, 1j, [3], np.float32(3), np.array([3])]
)
def test_what_is_no_integer_is_an_error_of_kind(value):
    message = "argument 'depth' must be an integer from 0 to 10, got "
    with pytest.raises(ArgumentTypeError, match=message):
        check_integer("depth", value, 0, 10)


@pytest.mark.parametrize(
    ("low", "high", "value", "message"),
    [
        (0, 29, -1, "argument 'depth' must be an integer from 0 to 29, got -1"),
        (0, 29, 30, "argument 'depth' must be an integer from 0 to 29, got 30"),
        (1, None, 0, "argument 'depth' must be an integer of at least 1, got 0"),
        (1, None, np.int8(-5), "argument 'depth' must be an integer of at least 1, got -5"),
        (0, 29, 10**100, "argument 'depth' must be an integer from 0 to 29, got 1000"),
    ],
)
def test_integer_out_of_range_is_an_error_of_value(low, high, value, message):
    with pytest.raises(ArgumentError, match=message):
        check_integer("depth", value, low, high)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), Fraction(1)])
def test_real_numbers_of_any_kind_become_float(value):
    number = check_number("rate", value, 0)
    assert type(number) is float
    assert number == 1.0


@pytest.mark.parametrize("value", ["1", b"1", True, np.False_, None, 1j, [1.0], np.zeros(2)])
def test_what_is_no_number_is_an_error_of_kind(value):
    with pytest.raises(
        ArgumentTypeError, match="argument 'rate' must be a number from 0 to 1, got"
    ):
        check_number("rate", value, 0, 1)


@pytest.mark.parametrize(
    ("low", "high", "value", "message"),
    [
        (0, 1, 1.5, "argument 'rate' must be a number from 0 to 1, got 1.5"),
        (0, 1, -0.5, "argument 'rate' must be a number from 0 to 1, got -0.5"),
        (0, 1, float("nan"), "argument 'rate' must be a number from 0 to 1, got nan"),
        (0.25, None, 0, "argument 'rate' must be a number of at least 0.25, got 0"),
        (0, None, float("inf"), "argument 'rate' must be a number of at least 0, got inf"),
        (0, None, float("nan"), "argument 'rate' must be a number of at least 0, got nan"),
    ],
)
def test_number_out_of_range_is_an_error_of_value(low, high, value, message):
    with pytest.raises(ArgumentError, match=message):
        check_number("rate", value, low, high)


@pytest.mark.parametrize("high", [None, 1])
def test_number_too_large_for_a_float_is_an_error_of_value(high):
    with pytest.raises(ArgumentError, match=r"argument 'rate' must be a number .*, got "):
        check_number("rate", 10**400, 0, high)


def test_largest_number_is_a_number():
    largest = np.finfo(np.float64).max
    assert check_number("rate", largest, 0) == largest


# --- Layouts --------------------------------------------------------------------------------------


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    memory[...] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "lists": lambda x: x.tolist(),
    "tuple of rows": tuple,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "read-only": read_only,
    "read-only and strided": lambda x: read_only(np.repeat(x, 2, axis=1))[:, ::2],
    "misaligned": misaligned,
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
    "long double": lambda x: x.astype(np.longdouble),
    "little-endian": lambda x: x.astype("<f4"),
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian float64": lambda x: x.astype(">f8"),
    "int8": lambda x: x.astype(np.int8),
    "int64": lambda x: x.astype(np.int64),
    "uint16": lambda x: x.astype(np.uint16),
    "uint64": lambda x: x.astype(np.uint64),
    "big-endian integers": lambda x: x.astype(">i4"),
    "matrix": np.matrix,
    "subclass": lambda x: x.view(np.recarray),
    "array interface": lambda x: memoryview(x),
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_rows(layout, dtype):
    x = numbers(5, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix itself
        value = LAYOUTS[layout](x)
    rows, leading = rows_of(value, dtype)
    np.testing.assert_array_equal(rows, x.astype(dtype))
    assert leading == (5,)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_memory_mapped_file_becomes_rows(tmp_path, mode, dtype):
    x = numbers(5, WIDTH)
    np.save(tmp_path / "x.npy", x)
    rows, _ = rows_of(np.load(tmp_path / "x.npy", mmap_mode=mode), dtype)
    np.testing.assert_array_equal(rows, x.astype(dtype))


def test_broadcast_array_becomes_rows():
    row = numbers(WIDTH)
    rows, leading = rows_of(np.broadcast_to(row, (3, 4, WIDTH)))
    assert leading == (3, 4)
    np.testing.assert_array_equal(rows, np.tile(row, (12, 1)))
    column = np.broadcast_to(numbers(3, 1), (3, WIDTH))
    np.testing.assert_array_equal(rows_of(column)[0], column)


def test_booleans_become_0_and_1():
    x = numbers(4, WIDTH) > 50
    rows, _ = rows_of(x)
    np.testing.assert_array_equal(rows, np.where(x, np.float32(1), np.float32(0)))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 3, 4), (0,), (2, 0), (0, 3, 2)])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_leading_axes_are_flattened_and_told(shape, layout):
    x = np.array(numbers(*shape, WIDTH), order=layout)
    rows, leading = rows_of(x)
    assert leading == shape
    np.testing.assert_array_equal(rows.reshape(x.shape), x)


@given(
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(1, 5),
    st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.bool_]),
    st.sampled_from([F32, F64]),
    st.randoms(use_true_random=False),
)
def test_rows_hold_the_numbers_of_any_view(leading, width, source, dtype, random):
    shape = (*leading, width)
    steps = [random.choice([-2, -1, 1, 2]) for _ in shape]
    x = numbers(*(abs(step) * length for step, length in zip(steps, shape, strict=True)))
    x = x.astype(source)[tuple(slice(None, None, step) for step in steps)]
    if x.ndim > 2 and random.random() < 0.5:
        x = np.swapaxes(x, 0, 1)
    rows, told = rows_of(x, dtype, width)
    assert told == x.shape[:-1]
    np.testing.assert_array_equal(rows.reshape(x.shape), x.astype(dtype))


# --- Copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("shape", [(WIDTH,), (5, WIDTH), (2, 3, WIDTH)])
@pytest.mark.parametrize("writable", [True, False])
def test_right_form_is_not_copied(dtype, shape, writable):
    x = numbers(*shape, dtype=dtype)
    x.flags.writeable = writable
    rows, _ = rows_of(x, dtype)
    assert rows.ctypes.data == x.ctypes.data
    assert rows.flags.writeable is writable


def test_rows_of_the_right_form_are_the_very_same_memory():
    x = numbers(5, WIDTH)
    rows, _ = as_rows(x, "x", WIDTH, x.dtype)
    assert rows.__array_interface__ == x.__array_interface__


def test_equal_dtype_that_is_another_object_is_not_copied_either():
    x = numbers(5, WIDTH).view(np.dtype("f4", copy=True))
    rows, _ = rows_of(x)
    assert rows.ctypes.data == x.ctypes.data


def test_memory_mapped_rows_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", numbers(5, WIDTH))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows, _ = rows_of(x)
    assert np.shares_memory(rows, x)


def test_input_is_left_as_it_was():
    x = numbers(5, WIDTH, dtype=np.float64)
    before = x.copy()
    rows, _ = rows_of(x)
    rows[...] = -1
    np.testing.assert_array_equal(x, before)


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "source", "dtype"),
    [
        (1e300, np.float64, F32),
        (3.5e38, np.float64, F32),
        (np.finfo(np.longdouble).max, np.longdouble, F32),
        (np.finfo(np.longdouble).max, np.longdouble, F64),
    ],
)
def test_numbers_too_large_become_infinite_without_a_warning(value, source, dtype):
    x = np.zeros((2, WIDTH), source)
    x[0, 1], x[1, 2] = value, -x.dtype.type(value)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows, _ = rows_of(x, dtype)
    np.testing.assert_array_equal(rows, expected)
    if dtype == F32:  # a long double may be no longer than float64
        assert rows[0, 1] == np.inf
        assert rows[1, 2] == -np.inf


@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64, np.longdouble])
def test_infinities_and_nan_stay(source):
    x = np.zeros((1, WIDTH), source)
    x[0, :3] = np.inf, -np.inf, np.nan
    rows, _ = rows_of(x)
    np.testing.assert_array_equal(rows, x.astype(np.float32))


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        ((), r"got shape \(\)"),
        ((5,), r"got shape \(5,\)"),
        ((0,), r"got shape \(0,\)"),
        ((WIDTH, 5), r"got shape \(6, 5\)"),
        ((5, WIDTH + 1), r"got shape \(5, 7\)"),
        ((2, WIDTH, 1), r"got shape \(2, 6, 1\)"),
        ((0, 0), r"got shape \(0, 0\)"),
    ],
)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_wrong_shape_is_an_error_that_names_both(shape, pattern, dtype):
    with pytest.raises(ShapeError, match=r"argument 'x' must have shape \(\.\.\., 6\), " + pattern):
        as_rows(np.zeros(shape, np.float32), "x", WIDTH, dtype)


def test_a_number_and_no_numbers_have_the_wrong_shape():
    with pytest.raises(
        ShapeError, match=r"argument 'dy' must have shape \(\.\.\., 6\), got shape \(\)"
    ):
        as_rows(3.0, "dy", WIDTH, F32)
    with pytest.raises(ShapeError, match=r"got shape \(0,\)"):
        as_rows([], "x", WIDTH, F32)


NOT_REAL = {
    "complex64": np.zeros((2, WIDTH), np.complex64),
    "complex list": [[1j] * WIDTH],
    "strings": [["1"] * WIDTH],
    "a string": "abcdef",
    "bytes": np.zeros((2, WIDTH), "S1"),
    "None": None,
    "objects": np.zeros((2, WIDTH), object),
    "huge integers": [[10**30] * WIDTH],
    "dict": {"x": 1},
    "set": {1.0, 2.0},
    "generator": (x for x in range(WIDTH)),
    "times": np.zeros((2, WIDTH), "M8[s]"),
    "durations": np.zeros((2, WIDTH), "m8[s]"),
    "records": np.zeros((2, WIDTH), [("a", "f4")]),
}


@pytest.mark.parametrize("case", NOT_REAL)
def test_what_is_not_real_is_an_error_that_says_what_came(case):
    array = isinstance(NOT_REAL[case], np.ndarray)
    came = "an array of shape .* and dtype " if array else "."
    message = f"argument 'x' must hold real numbers, got {came}"
    with pytest.raises(ArgumentTypeError, match=message):
        as_rows(NOT_REAL[case], "x", WIDTH, F32)


@pytest.mark.parametrize("ragged", [[[1, 2], [3]], [[1.0] * 6, [1.0] * 5], [[1], 2]])
def test_ragged_lists_are_an_error_of_shape(ragged):
    with pytest.raises(
        ShapeError, match=r"argument 'x' must be rectangular, got .* differ in shape"
    ):
        as_rows(ragged, "x", WIDTH, F32)


def test_kind_is_looked_at_before_shape():
    with pytest.raises(ArgumentTypeError, match="complex128"):
        as_rows(np.zeros((2, WIDTH + 1), complex), "x", WIDTH, F32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble, np.int8, np.bool_, ">f4"])
def test_real_array_keeps_its_dtype(dtype):
    array = numbers(2, 3).astype(dtype)
    assert as_real_array(array, "x") is array


def test_real_array_of_a_subclass_is_a_plain_view():
    array = numbers(2, 3)
    plain = as_real_array(array.view(np.recarray), "x")
    assert type(plain) is np.ndarray
    assert np.shares_memory(plain, array)


# --- Output arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("shape", [(WIDTH,), (5, WIDTH), (0, WIDTH), (2, 3, WIDTH)])
def test_right_output_passes_in_any_layout(dtype, shape):
    check_out(np.zeros(shape, dtype), shape, dtype)
    check_out(np.asfortranarray(np.zeros(shape, dtype)), shape, dtype)
    check_out(np.zeros(shape, dtype)[::-1], shape, dtype)


@pytest.mark.parametrize(
    "out",
    [
        [[0.0] * WIDTH],
        None,
        3.0,
        np.zeros((5, WIDTH), np.float64),
        np.zeros((5, WIDTH), np.int32),
        np.zeros((5, WIDTH), np.dtype(np.float32).newbyteorder()),
    ],
    ids=["list", "None", "number", "float64", "int32", "swapped bytes"],
)
def test_output_of_another_kind_is_an_error(out):
    with pytest.raises(ArgumentTypeError, match="argument 'out' must be an array of float32, got "):
        check_out(out, (5, WIDTH), F32)


@pytest.mark.parametrize("shape", [(5, WIDTH + 1), (4, WIDTH), (WIDTH,), (1, 5, WIDTH), (WIDTH, 5)])
def test_output_of_another_shape_is_an_error_that_names_both(shape):
    message = f"argument 'out' must have shape (5, 6), got shape {shape}"
    with pytest.raises(ShapeError, match=re.escape(message)):
        check_out(np.zeros(shape, np.float32), (5, WIDTH), F32)


def test_output_that_is_read_only_is_an_error():
    with pytest.raises(ArgumentError, match="'out' must be writable, got a read-only array"):
        check_out(read_only(np.zeros((5, WIDTH), np.float32)), (5, WIDTH), F32)


# --- Elements and labels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "place"),
    [
        (np.float32(-1), ""),
        ([1, 2, -1, -1], " at index 2"),
        ([[1, 2], [3, -1]], " at index (1, 1)"),
    ],
)
def test_the_first_wrong_element_is_named_with_its_place(array, place):
    array = np.array(array)
    message = f"argument 'x' must hold numbers of at least 0, got {array.min()}{place}"
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        check_elements(array, "x", array >= 0, "numbers of at least 0")
    assert first_wrong(array, array >= 0) == f"{array.min()}{place}"


@pytest.mark.parametrize("wrong", [-0.5, np.inf, -np.inf, np.nan])
def test_amounts_are_finite_and_at_least_0(wrong):
    check_nonnegative(np.array([0.0, 1e300]), "weights")
    check_nonnegative(np.array([0, 3], np.uint8), "weights")
    message = f"'weights' must hold finite numbers of at least 0, got {wrong} at index 1"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        check_nonnegative(np.array([0.0, wrong, wrong]), "weights")


@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0)])
def test_right_elements_pass(shape):
    check_elements(np.ones(shape), "x", np.ones(shape, bool), "anything")


def test_indices_name_things_that_exist():
    check_indices(np.array([0, 4], np.uint8), "ids", 5)
    check_indices(np.array([]), "ids", 5)
    check_indices(np.array([-1, 4]), "ids", 5, -1, "for none")
    with pytest.raises(ArgumentTypeError, match="'ids' must hold integers, got an array of shape"):
        check_indices(np.array([0.0]), "ids", 5)
    with pytest.raises(ArgumentError, match=r"from 0 to 4, or -1 for none, got 5 at index 0"):
        check_indices(np.array([5, -1]), "ids", 5, -1, "for none")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_stay_what_they_are(dtype):
    array = numbers(2, 3, dtype=dtype)
    assert as_float_array(array, "x") is array


@pytest.mark.parametrize("value", [[1, 2], np.array([True, False]), np.array([3], np.int8)])
def test_numbers_that_are_no_floats_become_float64(value):
    array = as_float_array(value, "x")
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_flags_become_bool(value):
    assert check_flag("bias", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, None, "True"])
def test_what_is_no_flag_is_an_error(value):
    with pytest.raises(ArgumentTypeError, match="argument 'bias' must be True or False, got "):
        check_flag("bias", value)


def test_labels_are_returned_as_arrays():
    labels = as_class_labels([[0, -100], [2, 1]], (2, 2), 3)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [[0, -100], [2, 1]])
    assert as_class_labels([], (0,), 3).dtype == np.int64
    numbers = as_number_labels([1, 2], (2,))
    assert numbers.dtype == np.float64


def test_what_is_no_label_is_an_error():
    with pytest.raises(ArgumentError, match=r"0 to 2, or -100 .*, got -1 at index 1"):
        as_class_labels([0, -1], (2,), 3)
    with pytest.raises(ArgumentError, match=r"from 0 to 2, got -100 at index 0"):
        as_class_labels([-100, 1], (2,), 3, may_miss=False)
    with pytest.raises(ArgumentTypeError, match="must hold integers"):
        as_class_labels([0.0, 1.0], (2,), 3)
    with pytest.raises(ArgumentTypeError, match="must hold real numbers"):
        as_class_labels(["a", "b"], (2,), 3)
    with pytest.raises(ShapeError, match=r"must have shape \(3,\), got shape \(2,\)"):
        as_number_labels([1.0, 2.0], (3,))
    with pytest.raises(ArgumentError, match="must hold finite numbers, got inf at index 0"):
        as_number_labels([np.inf], (1,))


def test_probabilities_are_labels():
    found = as_probabilities([[0.25, 0.75], [1, 0]], (2, 2))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[0.25, 0.75], [1.0, 0.0]])
    with pytest.raises(ShapeError, match=r"must have shape \(2, 3\)"):
        as_probabilities([[0.25, 0.75]], (2, 3))
    with pytest.raises(ArgumentError, match=r"numbers of at least 0, got -1.0"):
        as_probabilities([[2.0, -1.0]], (1, 2))
    with pytest.raises(
        ArgumentError, match=r"rows of probabilities with sum 1, got 1.1 at index 1"
    ):
        as_probabilities([[0.5, 0.5], [0.5, 0.6]], (2, 2))
    with pytest.raises(ArgumentError, match="finite numbers of at least 0, got nan"):
        as_probabilities([[np.nan, 0.5]], (1, 2))
