"""The shapes of the papers' layers."""

from __future__ import annotations

from benchmarks.speed import shapes
from fffcpu import FastFeedForward


def test_shapes_are_those_of_the_papers():
    held = {
        name: FastFeedForward(1, 1, shape.depth, shape.trees).config.neurons
        for name, shape in shapes.ULTRAFASTBERT.items()
    }
    assert held["1x11"] == 4095
    assert held["1536x1"] == 4608
    assert held["512x2"] == 3584
    assert shapes.BERT_BASE == (768, 768, 11, 1)
    for name, leaf in shapes.FAST_FEEDFORWARD.items():
        width = int(name.split("-")[1].removeprefix("w"))
        assert 2**leaf.depth * leaf.leaf_width == width, name
