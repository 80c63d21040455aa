"""Models with int8 weights: made, saved, opened, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu.errors import ArgumentError, ArgumentTypeError, CheckpointError
from fffcpu.models import (
    BertConfig,
    BertEncoder,
    BertForMaskedLM,
    BertForSequenceClassification,
    FastBertConfig,
    FastBertForMaskedLM,
    FastBertForSequenceClassification,
)
from fffcpu.models.folders import open_weights
from fffcpu.models.opening import open_model

SIZES = (40, 16, 2, 2)
TREES = {"feedforward": "fff", "feedforward_size": 2, "depth": 2, "positions": 9}
DENSE = {"feedforward": "ff", "feedforward_size": 24, "positions": 9}
MAKERS = {
    "bert": lambda: BertEncoder(BertConfig(*SIZES, **DENSE), rng=0),
    "bert of trees": lambda: BertEncoder(BertConfig(*SIZES, **TREES), rng=0),
    "bert with a pooler": lambda: BertEncoder(BertConfig(*SIZES, **DENSE, head="pooler"), rng=0),
    "masked bert": lambda: BertForMaskedLM(BertConfig(*SIZES, **DENSE), rng=0),
    "bert classifier": lambda: BertForSequenceClassification(
        BertConfig(*SIZES, **DENSE, classes=3), rng=0
    ),
    "masked": lambda: FastBertForMaskedLM(FastBertConfig(*SIZES, **DENSE), rng=0),
    "two-sided": lambda: FastBertForMaskedLM(
        FastBertConfig(*SIZES, **TREES, two_sided=True), rng=0
    ),
    "classifier": lambda: FastBertForSequenceClassification(
        FastBertConfig(*SIZES, **TREES, classes=3), rng=0
    ),
}
IDS = np.random.default_rng(0).integers(1, 40, (3, 9))
MASK = (np.arange(9) < [[9], [5], [1]]).astype(np.int64)


@pytest.fixture(params=MAKERS)
def model(request):
    return MAKERS[request.param]()


def test_outputs_are_near(model):
    small = model.quantize("int8")
    assert type(small) is type(model)
    assert small.config.weights == "int8"
    assert "int8 weights" in repr(small)
    y, expected = small(IDS, MASK), model(IDS, MASK)
    keep = ... if y.ndim == 2 else MASK == 1
    assert 0 < np.abs(y - expected)[keep].max() < 0.05 * np.abs(expected)[keep].max()


def test_attentions_and_feedforwards_are_int8(model):
    small = model.quantize("int8")
    kinds = {name: array.dtype for name, array in small.params.items()}
    narrow = [name for name, dtype in kinds.items() if dtype == np.int8]
    assert len(narrow) == 4 * 2  # two matrices of each attention and each feedforward
    assert all(".attention.weights_" in n or ".feedforward.weights_" in n for n in narrow)
    assert small.nbytes == small.config.nbytes < model.nbytes


def test_folders(model, tmp_path):
    small = model.quantize("int8")
    small.save_pretrained(tmp_path)
    again = open_model(tmp_path)
    assert type(again) is type(model)
    assert again.config == small.config
    for name, array in small.params.items():
        assert again.params[name].dtype == array.dtype
        np.testing.assert_array_equal(again.params[name], array)
    np.testing.assert_array_equal(again(IDS, MASK), small(IDS, MASK))


def test_a_widened_model_can_be_trained_and_rounded_again(model):
    small = model.quantize("int8")
    wide = small.dequantize()
    assert wide.config == model.config
    for name, array in wide.quantize("int8").params.items():
        np.testing.assert_array_equal(array, small.params[name])


def test_bits_depend_on_neither_batch_nor_padding():
    small = MAKERS["bert"]().quantize("int8")
    y = small(IDS)
    for k in range(3):
        np.testing.assert_array_equal(small(IDS[[k]])[0], y[k])


def test_what_is_refused(model):
    small = model.quantize("int8")
    with pytest.raises(ArgumentTypeError, match="must have float weights to be quantized"):
        small.quantize("int8")
    with pytest.raises(ArgumentTypeError, match="must have int8 weights to be widened"):
        model.dequantize()
    with pytest.raises(ArgumentError, match="'weights' must be one of 'int8', got 'bfloat16'"):
        model.quantize("bfloat16")
    with pytest.raises(ArgumentError, match="of a new model must have weights=None, got 'int8'"):
        type(model)(small.config)
    options = {} if isinstance(model, BertEncoder) else {"labels": IDS}
    if model.config.classes is not None:
        options = {"labels": np.zeros(3, np.int64)}
    with pytest.raises(ArgumentTypeError, match="must be a float32 or float64 layer, got a Quant"):
        small.forward(IDS, **options)


def test_weights_that_are_not_finite_are_named(model):
    model.params["encoder.layers.1.attention.weights_out"][0, 0] = np.nan
    with pytest.raises(ArgumentError, match=r"layers\.1\.attention': parameter 'weights_out'"):
        model.quantize("int8")


def test_files_with_other_types_are_refused(model, tmp_path):
    """Floats in place of int8 would be cut to integers, and int8 numbers lack their scales."""
    small = model.quantize("int8")
    small.save_pretrained(tmp_path)
    state = dict(open_weights(tmp_path))
    name = next(name for name, array in state.items() if array.dtype == np.int8)
    state[name] = state[name].astype(np.float32)
    own = name.removeprefix("bert.")
    with pytest.raises(CheckpointError, match=f"{own}' must be int8 .*, got float32 "):
        model._format.from_state_dict(small.config, state)
    with pytest.raises(CheckpointError, match="got int8 "):
        model._format.from_state_dict(model.config, dict(open_weights(tmp_path)))
