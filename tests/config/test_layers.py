"""Configs check themselves, know their shapes, and survive the way through JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fffcpu.config import (
    Activation,
    AttentionConfig,
    DenseConfig,
    DenseFeedForwardConfig,
    EmbeddingConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LayerNormConfig,
    LeafFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError

WIDTHS = st.integers(1, 10**5)
COMMON = {
    "activation": st.sampled_from(["gelu", "relu", "identity"]),
    "dtype": st.sampled_from(["float32", "float64"]),
}
CONFIGS = st.one_of(
    st.builds(
        FastFeedForwardConfig,
        WIDTHS,
        WIDTHS,
        st.integers(0, 20),
        WIDTHS,
        bias=st.booleans(),
        two_sided=st.booleans(),
        **COMMON,
    ),
    st.builds(LeafFeedForwardConfig, WIDTHS, WIDTHS, st.integers(0, 20), WIDTHS, **COMMON),
    st.builds(DenseFeedForwardConfig, WIDTHS, WIDTHS, WIDTHS, bias=st.booleans(), **COMMON),
)
FAST = FastFeedForwardConfig(5, 4, 3, 2)
LEAF = LeafFeedForwardConfig(5, 4, 3, 2)
DENSE = DenseFeedForwardConfig(5, 4, 3)
EACH = pytest.mark.parametrize("config", [FAST, LEAF, DENSE], ids=lambda config: config.kind)


# --- Activation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gelu", "relu", "identity"])
def test_activation_is_found_in_any_case(name):
    member = Activation[name.upper()]
    for spelling in (name, name.upper(), name.title()):
        assert Activation.parse(spelling) is member


def test_codes_of_activations_are_those_that_kernels_compile_in():
    assert [int(Activation[name]) for name in ("GELU", "RELU", "IDENTITY")] == [0, 1, 2]


@pytest.mark.parametrize("name", ["swish", "", "gelu ", None, 0, b"gelu", ["gelu"], "parse"])
def test_unknown_activation_is_an_error_that_lists_the_known(name):
    message = "argument 'activation' must be one of 'gelu', 'relu', 'identity', got "
    with pytest.raises(ArgumentError, match=message):
        Activation.parse(name)


# --- Configs --------------------------------------------------------------------------------------


@given(CONFIGS)
def test_config_comes_back_from_json(config):
    values = json.loads(json.dumps(config.to_dict()))
    again = type(config).from_dict(values)
    assert again == config
    assert hash(again) == hash(config)
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (
            FastFeedForwardConfig(
                np.int64(8),
                np.uint8(4),
                np.array(3),
                np.int16(2),
                bias=np.False_,
                two_sided=np.True_,
                activation="ReLU",
                dtype=np.float64,
            ),
            {
                "input_dim": 8,
                "output_dim": 4,
                "depth": 3,
                "trees": 2,
                "bias": False,
                "two_sided": True,
                "activation": "relu",
                "dtype": "float64",
            },
        ),
        (
            LeafFeedForwardConfig(8, 4, np.int32(3), np.int32(2), dtype=np.dtype("f4")),
            {
                "input_dim": 8,
                "output_dim": 4,
                "depth": 3,
                "leaf_width": 2,
                "activation": "gelu",
                "dtype": "float32",
            },
        ),
        (
            DenseFeedForwardConfig(8, 4, np.int32(3), dtype="d"),
            {
                "input_dim": 8,
                "output_dim": 4,
                "width": 3,
                "bias": True,
                "activation": "gelu",
                "dtype": "float64",
            },
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_fields_are_plain_values_whatever_they_were_made_from(config, values):
    assert config.to_dict() == values
    assert {name: type(value) for name, value in config.to_dict().items()} == {
        name: type(value) for name, value in values.items()
    }


@EACH
def test_config_cannot_be_changed(config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.input_dim = 3


@EACH
def test_changed_copy_is_checked_again(config):
    assert dataclasses.replace(config, input_dim=9).input_dim == 9
    with pytest.raises(ArgumentError, match="argument 'input_dim'"):
        dataclasses.replace(config, input_dim=0)


@EACH
def test_configs_of_equal_fields_are_equal(config):
    assert config == dataclasses.replace(config)
    assert config != dataclasses.replace(config, input_dim=9)


def test_kinds_name_the_layers():
    assert [FAST.kind, LEAF.kind, DENSE.kind] == [
        "FastFeedForward",
        "LeafFeedForward",
        "DenseFeedForward",
    ]


@pytest.mark.parametrize(
    ("config", "field", "value", "error"),
    [
        (FAST, "input_dim", 0, ArgumentError),
        (FAST, "output_dim", -1, ArgumentError),
        (FAST, "depth", -1, ArgumentError),
        (FAST, "depth", 31, ArgumentError),
        (FAST, "depth", 2.0, ArgumentTypeError),
        (FAST, "trees", 0, ArgumentError),
        (FAST, "bias", "no", ArgumentTypeError),
        (FAST, "bias", 1, ArgumentTypeError),
        (FAST, "activation", "tanh", ArgumentError),
        (FAST, "dtype", "float16", ArgumentError),
        (LEAF, "depth", 31, ArgumentError),
        (LEAF, "depth", True, ArgumentTypeError),
        (LEAF, "leaf_width", 0, ArgumentError),
        (LEAF, "leaf_width", "2", ArgumentTypeError),
        (DENSE, "width", 0, ArgumentError),
        (DENSE, "width", None, ArgumentTypeError),
        (DENSE, "bias", None, ArgumentTypeError),
        (DENSE, "input_dim", 1.5, ArgumentTypeError),
    ],
)
def test_impossible_field_is_an_error_that_names_it(config, field, value, error):
    with pytest.raises(error, match=f"argument '{field}' must be .*, got "):
        dataclasses.replace(config, **{field: value})


@pytest.mark.parametrize("dtype", ["float32", "f4", "=f4", "f", np.float32, np.dtype(np.float32)])
def test_dtype_may_be_spelt_in_any_way(dtype):
    assert FastFeedForwardConfig(1, 1, 0, dtype=dtype).dtype == "float32"


@pytest.mark.parametrize(
    "dtype",
    [
        None,
        np.float16,
        "float16",
        np.longdouble,
        int,
        "complex64",
        "c8",
        "nonsense",
        "f4,f4",
        "f4,,",
    ],
)
def test_other_dtype_is_an_error(dtype):
    message = "argument 'dtype' must be float32 or float64, got "
    with pytest.raises(ArgumentError, match=message):
        FastFeedForwardConfig(1, 1, 0, dtype=dtype)


def test_base_class_is_no_config():
    with pytest.raises(NotImplementedError):
        LayerConfig(2, 3)


# --- Shapes and counts ----------------------------------------------------------------------------


def test_shapes_of_fast_feed_forward_are_those_of_the_design():
    shapes = FAST.shapes()
    assert list(shapes.items()) == [
        ("weights_in", (2, 15, 5)),
        ("bias_in", (2, 15)),
        ("weights_out", (2, 15, 4)),
    ]
    assert "bias_in" not in dataclasses.replace(FAST, bias=False).shapes()


def test_shapes_of_leaf_feed_forward_are_those_of_the_design():
    assert list(LEAF.shapes().items()) == [
        ("gate_weights", (7, 5)),
        ("gate_bias", (7,)),
        ("leaf_weights_in", (8, 5, 2)),
        ("leaf_bias_in", (8, 2)),
        ("leaf_weights_out", (8, 2, 4)),
        ("leaf_bias_out", (8, 4)),
    ]


def test_shapes_of_dense_feed_forward_are_those_of_one_hidden_layer():
    shapes = DENSE.shapes()
    assert list(shapes.items()) == [
        ("weights_in", (3, 5)),
        ("bias_in", (3,)),
        ("weights_out", (3, 4)),
    ]
    assert "bias_in" not in dataclasses.replace(DENSE, bias=False).shapes()


def test_a_leaf_layer_of_depth_0_has_one_leaf_and_no_gate():
    shapes = LeafFeedForwardConfig(5, 4, 0, 2).shapes()
    assert shapes["gate_weights"] == (0, 5)
    assert shapes["gate_bias"] == (0,)
    assert shapes["leaf_weights_in"] == (1, 5, 2)


def test_neurons_of_the_published_shape():
    config = FastFeedForwardConfig(768, 768, 11)
    assert (config.neurons, config.active_neurons) == (4095, 12)


@pytest.mark.parametrize(
    ("config", "neurons", "active"), [(FAST, 30, 8), (LEAF, 16, 2), (DENSE, 3, 3)]
)
def test_neurons_held_and_used(config, neurons, active):
    assert (config.neurons, config.active_neurons) == (neurons, active)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FAST, 8 * (5 + 4)),
        (FastFeedForwardConfig(9, 5, 3, 2), 2 * 4 * (9 + 5)),
        (LEAF, 3 * 5 + 2 * (5 + 4)),
        (LeafFeedForwardConfig(9, 5, 3, 6), 3 * 9 + 6 * (9 + 5)),
        (DENSE, 3 * (5 + 4)),
        (DenseFeedForwardConfig(9, 5, 21), 21 * (9 + 5)),
        (QuantizedFastFeedForwardConfig(5, 4, 3, 2, weights="int8"), 8 * (5 + 4)),
        (QuantizedLeafFeedForwardConfig(5, 4, 3, 2, weights="int8"), 3 * 5 + 2 * (5 + 4)),
    ],
)
def test_multiply_adds_are_those_of_the_neurons_and_gates_of_a_row(config, expected):
    assert config.multiply_adds == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "config", [FAST, LEAF, DENSE, DenseConfig(3, 2), LayerNormConfig(4), AttentionConfig(4, 2)]
)
def test_bytes_are_those_of_the_parameters(config, dtype):
    config = dataclasses.replace(config, dtype=dtype)
    size = np.dtype(dtype).itemsize
    assert config.itemsize == size
    assert config.nbytes == sum(size * math.prod(shape) for shape in config.shapes().values())


def test_bytes_of_narrow_weights_are_narrow():
    small = QuantizedFastFeedForwardConfig(5, 4, 3, 2, weights="bfloat16")
    assert small.nbytes == 2 * 30 * (5 + 4) + 4 * 30
    small = QuantizedFastFeedForwardConfig(5, 4, 3, 2, weights="int8")
    assert small.nbytes == 30 * (5 + 4) + 4 * 90
    assert small.itemsize == 4


# --- Configs of the layers that models are made of ------------------------------------------------


@pytest.mark.parametrize(
    ("config", "field", "value", "message"),
    [
        (DenseConfig(3, 2), "input_dim", 0, "must be an integer of at least 1, got 0"),
        (DenseConfig(3, 2), "output_dim", -1, "must be an integer of at least 1, got -1"),
        (LayerNormConfig(4), "width", 0, "must be an integer of at least 1, got 0"),
        (LayerNormConfig(4), "eps", -1.0, "must be a number of at least 0, got -1"),
        (EmbeddingConfig(9, 4, 8), "width", 5, "must be even, got 5"),
        (EmbeddingConfig(9, 4, 8), "padding_id", 9, "must be an integer from 0 to 8, got 9"),
        (EmbeddingConfig(9, 4, 8), "positions", 0, "must be an integer of at least 1, got 0"),
        (AttentionConfig(4, 2), "heads", 3, "must divide the width 4, got 3"),
        (AttentionConfig(4, 2), "dtype", "float16", "must be float32 or float64"),
    ],
)
def test_impossible_fields_of_a_models_layers_are_errors(config, field, value, message):
    with pytest.raises(ArgumentError, match=f"argument '{field}' {message}"):
        dataclasses.replace(config, **{field: value})


def test_shapes_of_a_models_layers():
    assert DenseConfig(3, 2).shapes() == {"weights": (2, 3), "bias": (2,)}
    assert DenseConfig(3, 2, False).shapes() == {"weights": (2, 3)}
    assert LayerNormConfig(4).shapes() == {"scale": (4,), "bias": (4,)}
    assert EmbeddingConfig(9, 4, 8).shapes() == {"words": (9, 4), "position_scale": (1,)}
    assert AttentionConfig(4, 2).shapes() == {"weights_qkv": (12, 4), "weights_out": (4, 4)}
    assert AttentionConfig(4, 2).head_width == 2


# --- from_dict ------------------------------------------------------------------------------------


@EACH
def test_missing_and_unknown_fields_are_all_named(config):
    values = config.to_dict()
    del values["input_dim"], values["activation"]
    values |= {"zeal": 1, "awe": 2}
    message = (
        f"config of {config.kind} does not fit: "
        "missing 'activation', missing 'input_dim', unknown 'awe', unknown 'zeal'"
    )
    with pytest.raises(CheckpointError, match=message):
        type(config).from_dict(values)


@EACH
@pytest.mark.parametrize("values", [None, [], "{}", 3, [("input_dim", 3)]])
def test_what_is_no_mapping_is_no_config(config, values):
    with pytest.raises(CheckpointError, match=f"config of {config.kind} must be a mapping, got "):
        type(config).from_dict(values)


@EACH
def test_keys_that_are_no_names_are_unknown_fields(config):
    with pytest.raises(CheckpointError, match="unknown '3', unknown 'None'"):
        type(config).from_dict({**config.to_dict(), 3: 1, None: 2})


@EACH
def test_bad_value_from_a_file_names_its_field(config):
    with pytest.raises(ArgumentError, match=r"argument 'output_dim' must be .*, got -4"):
        type(config).from_dict({**config.to_dict(), "output_dim": -4})


def test_config_of_another_kind_does_not_fit():
    with pytest.raises(CheckpointError, match=r"missing 'leaf_width', unknown 'bias', .* 'trees'"):
        LeafFeedForwardConfig.from_dict(FAST.to_dict())


def test_from_dict_leaves_its_argument_alone():
    values = FAST.to_dict()
    FastFeedForwardConfig.from_dict(values)
    assert values == FAST.to_dict()
