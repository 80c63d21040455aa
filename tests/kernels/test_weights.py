"""What kernels take of a layer: views of its arrays, by name and in their order."""

from __future__ import annotations

import numpy as np
import pytest

from fffcpu import FastFeedForward, LeafFeedForward
from fffcpu.kernels.weights import LeafWeights, PathWeights, no_bias


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
def test_path_weights_are_views_of_the_parameters(bias, weights):
    layer = FastFeedForward(5, 4, 2, 3, bias=bias, rng=0)
    layer = layer.quantize(weights) if weights else layer
    found = PathWeights.of(layer.params)
    for name in PathWeights._fields:
        array = getattr(found, name)
        if name in layer.params:
            assert np.shares_memory(array, layer.params[name])
        elif name == "bias_in":
            assert array.dtype == np.float32
            assert array.tolist() == np.zeros((3, 7)).tolist()
        else:
            assert array is None
    assert found.trained == found[:3]


@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
def test_leaf_weights_are_views_of_the_parameters(weights):
    layer = LeafFeedForward(5, 4, 2, 3, rng=0)
    layer = layer.quantize(weights) if weights else layer
    found = LeafWeights.of(layer.params)
    assert {name for name in LeafWeights._fields if getattr(found, name) is not None} == set(
        layer.params
    )
    for name, array in layer.params.items():
        assert np.shares_memory(getattr(found, name), array)


def test_views_stay_writable():
    layer = FastFeedForward(5, 4, 2, rng=0)
    found = PathWeights.of(layer.params)
    layer.params["weights_in"].flags.writeable = False
    assert found.weights_in.flags.writeable


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16])
def test_zeros_stand_for_no_bias(dtype):
    zeros = no_bias(np.ones((2, 3, 4), dtype))
    assert zeros.shape == (2, 3)
    assert zeros.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert not zeros.any()
