"""The translation that key maps are read by, on a format made up for the purpose."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.checkpoints.keymap import Entry, KeyMap
from fffcpu.config import DenseFeedForwardConfig, FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.errors import ArgumentTypeError, CheckpointError

MADE_UP = KeyMap(
    source="a made-up layer",
    config_type=FastFeedForwardConfig,
    entries=(
        Entry("in", ("I", "", "NT"), "weights_in", "TNI"),
        Entry("bias", ("TN",), "bias_in", "TN"),
        Entry("out", ("OTN",), "weights_out", "TNO"),
    ),
    scalars=("depth",),
    ignored=("noise",),
    requires=(("activation", "relu"),),
)
CONFIG = FastFeedForwardConfig(3, 2, 1, 4, activation="relu")


def our_arrays(config: FastFeedForwardConfig = CONFIG) -> dict[str, np.ndarray]:
    shapes = config.shapes()
    return {
        name: np.arange(np.prod(shape), dtype=config.dtype).reshape(shape)
        for name, shape in shapes.items()
    }


def refusal(state: Any, config: FastFeedForwardConfig = CONFIG) -> str:
    with pytest.raises(CheckpointError) as caught:
        MADE_UP.from_state_dict(config, state)
    with pytest.raises(CheckpointError) as again:
        MADE_UP.check_state(config, state)
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_axes_are_split_and_permuted() -> None:
    arrays = our_arrays()
    state = MADE_UP.to_state_dict(CONFIG, arrays)
    assert {name: array.shape for name, array in state.items()} == {
        "depth": (),
        "in": (3, 1, 12),
        "bias": (12,),
        "out": (24,),
    }
    for t, n, i, o in np.ndindex(4, 3, 3, 2):
        assert state["in"][i, 0, n * 4 + t] == arrays["weights_in"][t, n, i]
        assert state["out"][(o * 4 + t) * 3 + n] == arrays["weights_out"][t, n, o]
    assert state["depth"] == 1


@given(
    shape=st.tuples(*[st.integers(0, 4)] * 3),
    axes=st.sampled_from([("ABC",), ("C", "AB"), ("", "B", "CA"), ("B", "", "C", "A", "")]),
)
def test_entries_are_reversible(shape: tuple[int, ...], axes: tuple[str, ...]) -> None:
    entry = Entry("theirs", axes, "ours", "ABC")
    array = np.arange(np.prod(shape)).reshape(shape)
    there = entry.to_theirs(array)
    assert there.shape == entry.their_shape(shape)
    np.testing.assert_array_equal(entry.to_ours(there, shape), array)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(bias: bool, dtype: str) -> None:
    config = FastFeedForwardConfig(3, 2, 1, 4, bias=bias, activation="relu", dtype=dtype)
    arrays = our_arrays(config)
    state = MADE_UP.to_state_dict(config, arrays)
    assert ("bias" in state) == bias
    back = MADE_UP.from_state_dict(config, MappingProxyType(state))
    assert list(back) == list(config.shapes())
    for name, array in back.items():
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        np.testing.assert_array_equal(array, arrays[name])


def test_results_are_copies() -> None:
    arrays = our_arrays()
    state = MADE_UP.to_state_dict(CONFIG, arrays)
    back = MADE_UP.from_state_dict(CONFIG, state)
    for array in (*state.values(), *back.values()):
        array[...] = -1
    assert all((array >= 0).all() for array in arrays.values())
    assert (MADE_UP.to_state_dict(CONFIG, arrays)["bias"] >= 0).all()


def test_scalars_may_be_absent_and_ignored_keys_hold_anything() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays()) | {"noise": object()}
    del state["depth"]
    np.testing.assert_array_equal(
        MADE_UP.from_state_dict(CONFIG, state)["bias_in"], our_arrays()["bias_in"]
    )


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (2, "'depth' must be 1, got 2"),
        (1.0, "'depth' must be 1, got () of dtype float64"),
        ([1], "'depth' must be 1, got (1,) of dtype int64"),
        ("1", "'depth' must be 1, got () of dtype <U1"),
    ],
)
def test_scalars_must_not_differ(depth: Any, words: str) -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    assert words in refusal(state | {"depth": depth})


def test_all_differences_are_listed() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    state["in"] = state["in"][:, 0]
    state["bias"] = state["bias"] * 1j
    state["output"] = state.pop("out")
    assert refusal(state) == (
        f"the state dict is not a made-up layer of {CONFIG}: missing 'out'; unexpected 'output'; "
        "'in' must be (3, 1, 12), got (3, 12); 'bias' must be (12,), got (12,) of dtype complex64"
    )


@pytest.mark.parametrize("value", [["x"] * 12, [None] * 12, np.zeros(12, "M8[s]"), None, "text"])
def test_values_that_are_no_numbers(value: Any) -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    assert "'bias' must be (12,), got" in refusal(state | {"bias": value})


def test_ragged_lists() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    assert "'bias' of the state dict is not an array" in refusal(state | {"bias": [[1], [1, 2]]})


@pytest.mark.parametrize("dtype", ["float16", ">f8", "int8", "bool"])
def test_any_real_dtype_becomes_the_configs(dtype: str) -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    state["bias"] = (state["bias"] % 2).astype(dtype)
    bias = MADE_UP.from_state_dict(CONFIG, state)["bias_in"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, our_arrays()["bias_in"] % 2)


def test_lists_and_any_layout() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    other = {
        "in": np.asfortranarray(state["in"]),
        "bias": state["bias"].tolist(),
        "out": state["out"][::-1].copy()[::-1],
    }
    for name, array in MADE_UP.from_state_dict(CONFIG, other).items():
        np.testing.assert_array_equal(array, our_arrays()[name])


def test_wrong_kinds_of_argument() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    for config in (None, LeafFeedForwardConfig(3, 2, 1, 4), DenseFeedForwardConfig(3, 2, 1)):
        with pytest.raises(ArgumentTypeError, match="'config' must be a FastFeedForwardConfig"):
            MADE_UP.from_state_dict(config, state)
        with pytest.raises(ArgumentTypeError, match="'config' must be a FastFeedForwardConfig"):
            MADE_UP.to_state_dict(config, our_arrays())
    for wrong in (None, [("in", 1)], "state"):
        with pytest.raises(ArgumentTypeError, match="'state' must be a mapping"):
            MADE_UP.from_state_dict(CONFIG, wrong)
        with pytest.raises(ArgumentTypeError, match="'state' must be a mapping"):
            MADE_UP.axis_lengths(wrong, ("I",))


def test_required_fields() -> None:
    config = FastFeedForwardConfig(3, 2, 1, 4)
    words = "cannot hold .*: 'activation' must be 'relu', got 'gelu'"
    with pytest.raises(CheckpointError, match=words):
        MADE_UP.to_state_dict(config, our_arrays(config))
    with pytest.raises(CheckpointError, match=words):
        MADE_UP.from_state_dict(config, {})


def test_arrays_must_fit() -> None:
    with pytest.raises(CheckpointError, match="missing 'bias_in'"):
        MADE_UP.to_state_dict(CONFIG, {"weights_in": np.zeros(3)})


def test_axis_lengths() -> None:
    state = MADE_UP.to_state_dict(CONFIG, our_arrays())
    assert MADE_UP.axis_lengths(state, ("TN", "I")) == (12, 3)
    assert MADE_UP.axis_lengths({"in": state["in"]}, ("NT", "I")) == (12, 3)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "missing 'in'; missing 'bias'; missing 'out'"),
        ({"in": np.zeros((3, 2))}, "'in' must be (I, , NT), got (3, 2)"),
        ({"in": np.zeros((0, 1, 3)), "bias": [1.0]}, "'in' must be (I, , NT), got (0, 1, 3)"),
        ({"other": 1}, "unexpected 'other'"),
    ],
)
def test_axes_that_are_not_there(state: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match="the state dict is not a made-up layer") as caught:
        MADE_UP.axis_lengths(state, ("TN", "I"))
    assert words in str(caught.value)


def test_precision() -> None:
    assert MADE_UP.precision({"in": np.zeros(1)}, None) == "float64"
    assert MADE_UP.precision({"bias": np.zeros(1, np.float16)}, None) == "float32"
    assert MADE_UP.precision({}, np.float64) is np.float64
