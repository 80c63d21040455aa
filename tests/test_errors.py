"""Every complaint has one grammar, and belongs to an error that Python knows."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fffcpu.errors import (
    ArgumentError,
    ArgumentTypeError,
    CheckpointError,
    DataError,
    MissingExtraError,
    NotEnoughMemoryError,
    ShapeError,
    describe,
    require_extra,
)


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ArgumentError, ValueError),
        (ShapeError, ArgumentError),
        (ArgumentTypeError, TypeError),
        (CheckpointError, ValueError),
        (DataError, ValueError),
        (MissingExtraError, ImportError),
        (NotEnoughMemoryError, MemoryError),
    ],
)
def test_each_error_is_one_that_callers_know(error, base):
    assert issubclass(error, base)


def test_errors_that_callers_may_tell_apart_are_not_of_each_others_kind():
    assert not issubclass(ArgumentTypeError, ValueError)
    assert not issubclass(ArgumentError, TypeError)
    assert not issubclass(CheckpointError, ArgumentError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (-1.5, "-1.5"),
        ("abc", "'abc'"),
        (True, "True"),
        (None, "None"),
        ([1, 2], "[1, 2] (list)"),
        ((), "() (tuple)"),
        (1j, "1j (complex)"),
        (b"abc", "b'abc' (bytes)"),
        (np.zeros((2, 3), np.float32), "an array of shape (2, 3) and dtype float32"),
        (np.zeros(0, np.complex128), "an array of shape (0,) and dtype complex128"),
        (np.array(["a"]), "an array of shape (1,) and dtype <U1"),
    ],
)
def test_description_is_short_and_says_the_kind(value, text):
    assert describe(value) == text


def test_anything_with_shape_and_dtype_is_described_as_an_array():
    foreign = SimpleNamespace(shape=(4, 5), dtype="torch.float32")
    assert describe(foreign) == "an array of shape (4, 5) and dtype torch.float32"


@pytest.mark.parametrize("kind", [np.float16, np.ndarray, np.dtype(np.int8), int])
def test_types_are_described_too(kind):
    # The class np.float16 has attributes called shape and dtype, which are not a shape and a dtype.
    assert describe(kind) == f"{kind!r} ({type(kind).__name__})"


@pytest.mark.parametrize("value", ["a" * 1000, list(range(1000)), {"a": "b" * 1000}, 10**1000])
def test_long_values_are_cut(value):
    text = describe(value)
    assert len(text) < 100
    assert "..." in text
    assert text[:15] == repr(value)[:15]


def test_value_of_80_characters_is_shown_whole():
    value = "a" * 78
    assert describe(value) == repr(value)


def test_extra_that_is_installed_is_imported():
    assert require_extra("json", "any") is json


def test_extra_that_is_missing_says_what_installs_it():
    message = r"module 'fffcpu_no_such' is not installed.*pip install 'fffcpu\[plot\]'"
    with pytest.raises(MissingExtraError, match=message) as caught:
        require_extra("fffcpu_no_such", "plot")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_extra_that_is_installed_but_broken_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "fffcpu_broken.py").write_text("raise RuntimeError('broken inside')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="broken inside"):
        require_extra("fffcpu_broken", "plot")
