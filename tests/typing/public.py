"""What a type checker sees of the public names. mypy checks this file; nothing runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fffcpu
from fffcpu import FastFeedForward, Predictor
from fffcpu.layers import AnyLayer, Layer
from fffcpu.pipelines import FillMask, Guess, TextClassifier, TextEmbedder
from fffcpu.text import read_texts

layer = fffcpu.load("layer.safetensors")
assert_type(layer, AnyLayer)
assert_type(layer(np.zeros((2, 3))), NDArray[Any])
assert_type(layer.config.input_dim, int)
assert_type(layer.nbytes, int)
assert_type(layer.copy(), AnyLayer)
layer.save("copy.safetensors")
print(layer.forwards)  # type: ignore[union-attr]  # a misspelt name is found
if isinstance(layer, FastFeedForward):
    assert_type(layer, FastFeedForward)
    assert_type(layer.config.depth, int)
base: Layer[Any] = layer
assert_type(FastFeedForward.load("layer.safetensors"), FastFeedForward)

predictor = Predictor.load("model.safetensors")
assert_type(predictor, Predictor)
assert_type(predictor.layer, AnyLayer)
assert_type(predictor.predict([[1.0]]), NDArray[Any])

fill_mask = FillMask.from_pretrained("bert")
assert_type(fill_mask.fill(["a [MASK]"]), list[list[list[Guess]]])
assert_type(next(fill_mask.stream(["a [MASK]"])), list[list[Guess]])
assert_type(fill_mask.stream(["a [MASK]"]).cut, int)
assert_type(next(TextClassifier.from_pretrained("judge").stream(["a"])), NDArray[Any])
assert_type(TextEmbedder.from_pretrained("bert").embed(["a"]), NDArray[Any])
assert_type(read_texts("a.txt"), Iterator[str])
