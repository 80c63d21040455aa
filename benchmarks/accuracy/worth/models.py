"""The layers that are fitted, and the recipe that all of them share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.records import Record

QUICK_TOKENS = 512


class Model(NamedTuple):
    """A layer of a certain size."""

    family: str
    used: int
    """Number of neurons that a row uses."""
    sizes: dict[str, Any]
    """Fields of `fffcpu.recipes.fitting.FitSettings`."""
    origin: str = ""
    """The model whose weights are quantized; empty for a model that is fitted."""
    weights: str = "float32"


LINEAR, DENSE, LEAF = "linear map", "dense", "LeafFeedForward"
FAST, TWO_SIDED = "FastFeedForward", "FastFeedForward, two-sided"
TREES = (FAST, TWO_SIDED, LEAF)
"""Families whose worth and price are asked for."""

WIDTHS = (32, 64, 128, 256, 512)
TREE_SIZES = ((4, 5), (8, 5), (8, 7), (16, 7), (1, 11))
LEAF_SIZES = ((5, 16), (4, 32), (4, 64))


def fast(trees: int, depth: int, *, two_sided: bool) -> Model:
    """Return trees in which every node is a neuron."""
    sizes = {"layer": "fast", "trees": trees, "depth": depth, "two_sided": two_sided}
    return Model(TWO_SIDED if two_sided else FAST, trees * (depth + 1), sizes)


def leaf(depth: int, width: int) -> Model:
    """Return a tree over leaves of several neurons, with the activation of the other layers."""
    sizes = {"layer": "leaf", "depth": depth, "leaf_width": width, "activation": "gelu"}
    return Model(LEAF, width, sizes)


def dense(width: int) -> Model:
    """Return a layer whose neurons are all used."""
    return Model(DENSE, width, {"layer": "dense", "width": width})


FITTED = {
    "linear": Model(LINEAR, 0, {}),
    **{f"dense-{width}": dense(width) for width in WIDTHS},
    **{
        f"{name}-{trees}x{depth}": fast(trees, depth, two_sided=name == "two")
        for name in ("fff", "two")
        for trees, depth in TREE_SIZES
    },
    **{f"leaf-{depth}x{width}": leaf(depth, width) for depth, width in LEAF_SIZES},
}
"""The models that are fitted, by name."""


QUANTIZED = (
    *((f"dense-{width}", "int8") for width in WIDTHS),
    *(
        (f"two-{trees}x{depth}", weights)
        for trees, depth in TREE_SIZES
        for weights in ("bfloat16", "int8")
    ),
)
"""The fitted models that are also quantized, and the types of their weights."""

MODELS = FITTED | {
    f"{origin}-{weights}": FITTED[origin]._replace(origin=origin, weights=weights)
    for origin, weights in QUANTIZED
}
"""All models by name."""


def is_rival(name: str, other: str) -> bool:
    """Whether the first is a dense layer that another layer is compared with."""
    int8 = [MODELS[model].weights == "int8" for model in (name, other)]
    return MODELS[name].family == DENSE and int8[0] == int8[1]


def recipe_of(options: argparse.Namespace) -> Record:
    """Return the recipe: what all layers of a folder share."""
    names = ("tokens", "epochs", "batch_size", "lr", "weight_decay")
    recipe = {name: getattr(options, name) for name in names}
    return recipe | {"tokens": QUICK_TOKENS, "epochs": 1} if options.quick else recipe


def layer_path(out: Path, layer: int, model: str) -> Path:
    """Return the file of the layer of seed 0 that was fitted to a feedforward."""
    return out / "layers" / f"layer{layer}-{model}.safetensors"


def held_out_path(out: Path, layer: int) -> Path:
    """Return the file of the rows of a feedforward that are held out."""
    return out / "data" / f"layer{layer}.npz"
