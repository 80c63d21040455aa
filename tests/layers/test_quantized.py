"""Quantized layers: made, saved, run, taken back; what rounding costs layers that were trained."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fffcpu
from fffcpu import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    QuantizedDenseFeedForward,
    QuantizedFastFeedForward,
    QuantizedLeafFeedForward,
)
from fffcpu.checkpoints import ultrafastbert
from fffcpu.config import (
    QuantizedAttentionConfig,
    QuantizedDenseFeedForwardConfig,
    QuantizedFastFeedForwardConfig,
    QuantizedLeafFeedForwardConfig,
)
from fffcpu.data import load_digits
from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.layers import Attention
from fffcpu.training import AdamW, clip_gradients, one_cycle_triangle, softmax_cross_entropy

MAKERS = {
    "fast": lambda **kw: FastFeedForward(12, 5, 3, trees=2, rng=1, **kw),
    "fast without bias": lambda **kw: FastFeedForward(12, 5, 3, bias=False, rng=1, **kw),
    "leaf": lambda **kw: LeafFeedForward(12, 5, 3, 4, rng=1, **kw),
}
WEIGHTS = pytest.mark.parametrize("weights", ["bfloat16", "int8"])


@pytest.fixture(params=MAKERS, scope="module")
def make(request):
    """Maker of one kind of layer, 12 -> 5."""
    return MAKERS[request.param]


def rows(count=60):
    return np.random.default_rng(0).standard_normal((count, 12)).astype(np.float32)


def test_layer_of_a_type(make):
    for weights in ("bfloat16", "int8"):
        layer = make()
        small = layer.quantize(weights)
        kind = type(layer).__name__
        assert type(small).__name__ == small.config.kind == f"Quantized{kind}"
        assert small.config.weights == weights
        assert small.config.dtype == "float32"
        assert small.config.active_neurons == layer.config.active_neurons
        own = small.config.to_dict()
        assert own.pop("weights") == weights
        assert own == layer.config.to_dict()
        assert repr(small).startswith(f"<Quantized{kind}(input_dim=12, output_dim=5")
        assert f"weights='{weights}'" in repr(small)


@pytest.mark.parametrize("weights", ["float32", "bf16", "INT8", "int4", "", None, np.int8, 8])
def test_other_types_are_an_error(make, weights):
    with pytest.raises(ArgumentError, match="'weights' must be 'bfloat16' or 'int8', got "):
        make().quantize(weights)


@pytest.mark.parametrize(
    "make_config",
    [
        lambda **kw: QuantizedFastFeedForwardConfig(3, 2, 1, **kw),
        lambda **kw: QuantizedLeafFeedForwardConfig(3, 2, 1, 2, **kw),
    ],
)
def test_configs_check_themselves(make_config):
    config = make_config(weights="int8")
    assert type(config).from_dict(config.to_dict()) == config
    with pytest.raises(ArgumentError, match="'weights' must be 'bfloat16' or 'int8', got 'int4'"):
        make_config(weights="int4")
    with pytest.raises(ArgumentError, match=r"'dtype' of a Quantized\w* must be float32, got "):
        make_config(weights="int8", dtype="float64")


def test_bytes_of_a_path_layer():
    """Weights take a half and a quarter; biases and scales are float32."""
    layer = FastFeedForward(64, 32, 5, trees=2, rng=0)
    nodes, numbers = 2 * 63, 2 * 63 * (64 + 32)
    assert layer.nbytes == 4 * numbers + 4 * nodes
    assert layer.quantize("bfloat16").nbytes == 2 * numbers + 4 * nodes
    assert layer.quantize("int8").nbytes == numbers + 12 * nodes
    bare = FastFeedForward(64, 32, 5, trees=2, bias=False, rng=0)
    assert bare.quantize("bfloat16").nbytes == bare.nbytes / 2
    assert bare.quantize("int8").nbytes == bare.nbytes / 4 + 8 * nodes


def test_bytes_of_a_leaf_layer():
    layer = LeafFeedForward(64, 32, 3, 16, rng=0)
    gates, numbers, neurons, outputs = 7, 8 * 16 * (64 + 32), 8 * 16, 8 * 32
    rest = 4 * (65 * gates + outputs)
    assert layer.nbytes == rest + 4 * numbers + 4 * neurons
    assert layer.quantize("bfloat16").nbytes == rest + 2 * numbers + 4 * neurons
    assert layer.quantize("int8").nbytes == rest + numbers + 12 * neurons


def test_bytes_in_the_docstrings():
    layer = FastFeedForward(64, 64, depth=5, rng=0)
    assert (layer.nbytes, layer.quantize("int8").nbytes) == (32508, 8820)
    assert "(32508, 8820)" in QuantizedFastFeedForward.__doc__
    leaf = LeafFeedForward(64, 64, depth=2, leaf_width=32, rng=0)
    assert (leaf.nbytes, leaf.quantize("int8").nbytes) == (67852, 19724)
    assert "(67852, 19724)" in QuantizedLeafFeedForward.__doc__


@WEIGHTS
def test_output_is_near_and_that_of_the_widened_layer(make, weights):
    layer = make()
    small = layer.quantize(weights)
    wide = small.dequantize()
    assert type(wide) is type(layer)
    assert wide.config == layer.config
    y = small(rows())
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, wide(rows()), rtol=0, atol=1e-6)
    if weights == "bfloat16":
        np.testing.assert_array_equal(y, wide(rows()))
    np.testing.assert_array_equal(small.route(rows()), wide.route(rows()))
    same = (small.route(rows()) == layer.route(rows())).reshape(60, -1).all(axis=1)
    assert same.mean() > 0.9
    np.testing.assert_allclose(y[same], layer(rows())[same], rtol=0, atol=0.02)


@WEIGHTS
def test_rounding_again_changes_nothing(make, weights):
    small = make().quantize(weights)
    again = small.dequantize().quantize(weights)
    for name, array in small.params.items():
        np.testing.assert_array_equal(again.params[name], array)


@WEIGHTS
def test_weights_are_within_the_stated_bounds(make, weights):
    layer = make()
    wide = layer.quantize(weights).dequantize()
    for name, array in layer.params.items():
        error = np.abs(wide.params[name] - array)
        if "weights" not in name or name.startswith("gate"):
            assert not error.any()
        elif weights == "bfloat16":
            assert (error <= 2.0**-8 * np.abs(array)).all()
        else:
            axis = 1 if name == "leaf_weights_in" else 2
            largest = np.abs(array).max(axis=axis, keepdims=True)
            assert (error <= 0.50001 * largest / 127).all()


@WEIGHTS
def test_quantized_layers_do_not_train(make, weights):
    small = make().quantize(weights)
    for method, arguments in (("forward", (rows(),)), ("backward", (rows(), None))):
        with pytest.raises(ArgumentTypeError, match=f"layer of '{method}' must be a float32 or"):
            getattr(small, method)(*arguments)
    with pytest.raises(ArgumentTypeError, match="'params' must hold NumPy arrays of floats"):
        AdamW(small.params, lr=0.1)
    wide = small.dequantize()
    y, cache = wide.forward(rows())
    wide.backward(y, cache)


@WEIGHTS
def test_float64_layers_are_rounded_to_float32_first(make, weights):
    layer = make(dtype=np.float64)
    small = layer.quantize(weights)
    assert small(rows()).dtype == np.float32
    single = make()
    for name, array in single.params.items():
        array[...] = layer.params[name]
    np.testing.assert_array_equal(small(rows()), single.quantize(weights)(rows()))


@WEIGHTS
def test_copies_files_and_pickles(make, weights, tmp_path):
    small = make().quantize(weights)
    path = tmp_path / "small.safetensors"
    small.save(path)
    clones = [
        small.copy(),
        copy.deepcopy(small),
        pickle.loads(pickle.dumps(small)),
        fffcpu.load(path),
        type(small).load(path),
    ]
    for clone in clones:
        assert type(clone) is type(small)
        assert clone.config == small.config
        np.testing.assert_array_equal(clone(rows()), small(rows()))
        for name, array in clone.params.items():
            assert array.dtype == small.params[name].dtype
            assert array.flags.writeable
            assert array.ctypes.data % 64 == 0
            assert not np.shares_memory(array, small.params[name])
    floats = make()
    with pytest.raises(CheckpointError, match=f"must hold a {type(floats).__name__}, got a Quant"):
        type(floats).load(path)
    floats.save(path)
    with pytest.raises(CheckpointError, match=r"must hold a Quantized\w*, got a \w*Feed"):
        type(small).load(path)


def test_published_formats_do_not_take_quantized_layers():
    small = FastFeedForward(12, 12, 3, rng=0).quantize("bfloat16")
    with pytest.raises(ArgumentTypeError, match="'config' must be a FastFeedForwardConfig"):
        ultrafastbert.to_state_dict(small.config, small.params)


@WEIGHTS
def test_inputs_and_out_are_those_of_any_layer(make, weights):
    small = make().quantize(weights)
    y = small(rows(6))
    np.testing.assert_array_equal(small(rows(6).tolist()), y)
    np.testing.assert_array_equal(small(rows(6).reshape(2, 3, 12)).reshape(6, 5), y)
    np.testing.assert_array_equal(small(rows(6)[2]), y[2])
    out = np.empty((6, 5), np.float32)
    assert small(rows(6), out=out) is out
    np.testing.assert_array_equal(out, y)
    with pytest.raises(ArgumentTypeError, match="'out' must be an array of float32"):
        small(rows(6), out=np.empty((6, 5), np.int8))
    with pytest.raises(ValueError, match="'x' must have shape"):
        small(np.ones((3, 11)))


@WEIGHTS
def test_a_row_that_is_not_finite_spoils_only_itself(make, weights):
    small = make().quantize(weights)
    x = rows(6)
    y = small(x)
    x[2, 3], x[4, 0] = np.nan, np.inf
    bad = small(x)
    assert np.isnan(bad[[2, 4]]).all()
    np.testing.assert_array_equal(bad[[0, 1, 3, 5]], y[[0, 1, 3, 5]])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_int8_needs_finite_weights_and_bfloat16_does_not(make, number):
    layer = make()
    for name in layer.params:
        if not name.startswith("gate") and "weights" in name:
            broken = layer.copy()
            broken.params[name].reshape(-1)[[1, 5]] = number
            message = f"parameter '{name}' must hold finite float32 numbers to become int8, got 2 "
            with pytest.raises(ArgumentError, match=message):
                broken.quantize("int8")
            wide = broken.quantize("bfloat16").dequantize()
            np.testing.assert_array_equal(wide.params[name].reshape(-1)[[1, 5]], number)


def test_numbers_too_large_for_float32_are_not_finite(make):
    layer = make(dtype=np.float64)
    name = [name for name in layer.params if "weights" in name][-1]
    layer.params[name].reshape(-1)[0] = 1e300
    with pytest.raises(ArgumentError, match=f"parameter '{name}' must hold finite float32"):
        layer.quantize("int8")


def test_zeros_stay_zeros(make):
    layer = make()
    for array in layer.params.values():
        array[...] = 0
    for weights in ("bfloat16", "int8"):
        assert not layer.quantize(weights)(rows()).any()


# --- Trained layers -------------------------------------------------------------------------------

TRAINING_ROWS, STEPS = 1400, 300


def train(layer, **options):
    """Train a layer on the digits; options are those of its backward."""
    images, labels = load_digits()
    optimizer, rng = AdamW(layer.params, lr=0.01), np.random.default_rng(0)
    for step in range(STEPS):
        batch = rng.integers(0, TRAINING_ROWS, 64)
        logits, cache = layer.forward(images[batch])
        _, dlogits = softmax_cross_entropy(logits, labels[batch])
        _, grads = layer.backward(dlogits, cache, **options)
        clip_gradients(grads, 0.5)
        optimizer.step(grads, lr=optimizer.lr * one_cycle_triangle(step / STEPS))
    return layer


@pytest.fixture(scope="module")
def trained():
    """Both layers, trained on the digits."""
    return {
        "fast": train(FastFeedForward(64, 10, depth=4, trees=4, rng=0)),
        "leaf": train(LeafFeedForward(64, 10, depth=3, leaf_width=8, rng=0), hardening=0.3),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "weights", "error", "flips"),
    [
        ("fast", "bfloat16", 0.0025, 0.01),
        ("fast", "int8", 0.007, 0.03),
        ("leaf", "bfloat16", 0.0025, 0.0),
        ("leaf", "int8", 0.007, 0.0),
    ],
)
def test_what_rounding_costs_a_trained_layer(trained, kind, weights, error, flips):
    """Bounds are about 1.5 times what is measured; docs/benchmarks.md has the figures."""
    layer = trained[kind]
    small = layer.quantize(weights)
    images, labels = load_digits()
    y, rounded = layer(images), small(images)
    same = (small.route(images) == layer.route(images)).reshape(len(images), -1).all(axis=1)
    assert (~same).mean() <= flips
    assert np.abs(rounded - y)[same].max() <= error * np.abs(y).max()
    test_labels = labels[TRAINING_ROWS:]
    before, after = (
        (output[TRAINING_ROWS:].argmax(axis=1) == test_labels).mean() for output in (y, rounded)
    )
    assert before > 0.8
    assert abs(after - before) <= 0.01


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_sides_of_a_node_have_scales_of_their_own(weights, tmp_path):
    layer = FastFeedForward(9, 7, 3, 2, two_sided=True, rng=0)
    layer.params["weights_out"][:, :, 1] *= 1000  # with one scale, the left sides would be lost
    small = layer.quantize(weights)
    if weights == "int8":
        assert small.params["scale_out"].shape == (2, 15, 2)
    wide = small.dequantize()
    for name, array in layer.params.items():
        leading = np.abs(array).max(axis=-1, keepdims=True)
        assert (np.abs(wide.params[name] - array) <= 0.004 * leading + 1e-9).all()
    x = np.random.default_rng(1).standard_normal((50, 9)).astype(np.float32)
    np.testing.assert_allclose(small(x), wide(x), rtol=1e-4, atol=1e-4)
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(fffcpu.load(tmp_path / "small")(x), small(x))


# --- Dense products -------------------------------------------------------------------------------

DENSE = {
    "feedforward": lambda: DenseFeedForward(12, 5, 40, activation="relu", rng=1),
    "feedforward without bias": lambda: DenseFeedForward(12, 5, 40, bias=False, rng=1),
    "attention": lambda: Attention(12, 3, bias=True, rng=1),
    "attention without bias": lambda: Attention(12, 3, rng=1),
}


@pytest.fixture(params=DENSE, scope="module")
def dense(request):
    """A layer of dense products, with biases that are not 0."""
    layer = DENSE[request.param]()
    for name, array in layer.params.items():
        if name.startswith("bias"):
            array[...] = np.random.default_rng(2).standard_normal(array.shape)
    return layer


def sequences(count=20):
    return rows(3 * count).reshape(3, count, 12)


def test_dense_products_are_near_those_of_the_float_layer(dense):
    small = dense.quantize("int8")
    assert type(small).__name__ == f"Quantized{type(dense).__name__}"
    y, expected = small(sequences()), dense(sequences())
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=0, atol=0.04 * np.abs(expected).max())
    assert not np.array_equal(y, small.dequantize()(sequences()))  # rows are rounded too


def test_dense_weights_are_within_the_stated_bounds(dense):
    wide = dense.quantize("int8").dequantize()
    assert wide.config == dense.config
    for name, array in dense.params.items():
        error = np.abs(wide.params[name] - array)
        axis = 0 if name == "weights_out" and isinstance(dense, DenseFeedForward) else -1
        bound = 0.50001 * np.abs(array).max(axis=axis, keepdims=True) / 127
        assert (error <= (bound if name.startswith("weights") else 0)).all()
    again = wide.quantize("int8")
    for name, array in dense.quantize("int8").params.items():
        np.testing.assert_array_equal(again.params[name], array)


def test_dense_products_have_the_same_bits_in_any_batch(dense):
    small = dense.quantize("int8")
    y = small(sequences())
    for k in range(3):
        np.testing.assert_array_equal(small(sequences()[[k]])[0], y[k])


def test_a_row_that_is_not_finite_disturbs_no_other():
    small = DENSE["feedforward"]().quantize("int8")
    x, expected = rows(), small(rows())
    x[3, 2], x[7, 0] = np.nan, np.inf
    y = small(x)
    assert np.isnan(y[[3, 7]]).all()
    others = np.delete(np.arange(len(x)), [3, 7])
    np.testing.assert_array_equal(y[others], expected[others])


def test_copies_and_pickles_of_dense_layers(dense):
    small = dense.quantize("int8")
    small(sequences())  # its matrices are in the order of the kernels by now
    for clone in (small.copy(), copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert clone.config == small.config
        np.testing.assert_array_equal(clone(sequences()), small(sequences()))
    again = DENSE["feedforward"]().quantize("int8")
    assert again.nbytes == 40 * (12 + 5) + 4 * (40 + 40 + 5)


def test_dense_layers_in_files(tmp_path):
    small = DENSE["feedforward"]().quantize("int8")
    path = tmp_path / "small.safetensors"
    small.save(path)
    again = fffcpu.load(path)
    assert type(again) is QuantizedDenseFeedForward
    np.testing.assert_array_equal(again(rows()), small(rows()))


@pytest.mark.parametrize("kind", [*MAKERS, "feedforward"])
def test_quantized_layers_absorb_no_scaling(kind):
    small = {**MAKERS, **DENSE}[kind]().quantize("int8")
    for method, arguments in (("input", (0.0, 2.0)), ("output", (2.0,))):
        name = f"absorb_{method}_scaling"
        with pytest.raises(ArgumentTypeError, match=f"layer of '{name}' must be a float32 or"):
            getattr(small, name)(*arguments)


def test_dense_layers_refuse(dense):
    with pytest.raises(ArgumentError, match="'weights' must be 'int8' for dense products, got 'bf"):
        dense.quantize("bfloat16")
    small = dense.quantize("int8")
    for method, arguments in (("forward", (sequences(),)), ("backward", (sequences(), None))):
        with pytest.raises(ArgumentTypeError, match=f"layer of '{method}' must be a float32 or"):
            getattr(small, method)(*arguments)
    spoilt = dense.copy()
    spoilt.params["weights_out"][0, 0] = np.inf
    with pytest.raises(ArgumentError, match="'weights_out' must hold finite float32 numbers"):
        spoilt.quantize("int8")


def test_configs_of_dense_products_check_themselves():
    for make in (
        lambda **kw: QuantizedDenseFeedForwardConfig(3, 2, 4, **kw),
        lambda **kw: QuantizedAttentionConfig(6, 2, **kw),
    ):
        assert make(weights="int8").weights == "int8"
        with pytest.raises(
            ArgumentError, match="'weights' must be 'bfloat16' or 'int8', got 'int4"
        ):
            make(weights="int4")
        with pytest.raises(ArgumentError, match=r"'dtype' of a Quantized\w* must be float32, got "):
            make(weights="int8", dtype="float64")
    QuantizedDenseFeedForwardConfig(133_144, 1, 1, weights="int8")
    with pytest.raises(ArgumentError, match="more than 133,144 inputs"):
        QuantizedDenseFeedForwardConfig(133_145, 1, 1, weights="int8")
