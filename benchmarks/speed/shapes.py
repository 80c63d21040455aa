"""Shapes of the layers in the two papers, by name.

`ULTRAFASTBERT` holds the feedforward layers of the models in "Exponentially Faster Language
Modelling" (arXiv 2311.10770). UltraFastBERT-TxD has T trees of depth D in a BERT of width 768, with
about 4,000 neurons in all. The deeper the trees, the fewer of them each row uses::

    3072x0    1536x1    512x2    256x3    ...    4x9    2x10    1x11
    3072      3072      1536     1024     ...    40     22      12        neurons used
    3072      4608      3584     3840     ...    4092   4094    4095      neurons held

`FAST_FEEDFORWARD` holds layers of "Fast Feedforward Networks" (arXiv 2308.14711): trees of depth D
over leaves of width H, with the training width ``2**D * H``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["BERT_BASE", "FAST_FEEDFORWARD", "ULTRAFASTBERT", "LeafShape", "PathShape"]


class PathShape(NamedTuple):
    """Sizes of a FastFeedForward layer, in the order of its constructor."""

    input_dim: int
    output_dim: int
    depth: int
    trees: int

    def __str__(self) -> str:
        return (
            f"FastFeedForward {self.input_dim} -> {self.output_dim}, depth {self.depth}, "
            f"trees {self.trees}"
        )


class LeafShape(NamedTuple):
    """Sizes of a LeafFeedForward layer, in the order of its constructor."""

    input_dim: int
    output_dim: int
    depth: int
    leaf_width: int


def _leaf_shapes(
    name: str, input_dim: int, output_dim: int, widths: tuple[int, ...], leaves: tuple[int, ...]
) -> dict[str, LeafShape]:
    """Return the shapes of each training width and each leaf width that is smaller."""
    return {
        f"{name}-w{width}-l{leaf}": LeafShape(
            input_dim, output_dim, round(math.log2(width / leaf)), leaf
        )
        for width in widths
        for leaf in leaves
        if leaf < width
    }


ULTRAFASTBERT = {
    f"{trees}x{depth}": PathShape(768, 768, depth, trees)
    for trees, depth in (
        (3072, 0),
        (1536, 1),
        (512, 2),
        (256, 3),
        (128, 4),
        (64, 5),
        (32, 6),
        (16, 7),
        (8, 8),
        (4, 9),
        (2, 10),
        (1, 11),
    )
}
"""The models' layers by their published names."""

BERT_BASE = ULTRAFASTBERT["1x11"]
"""The layer whose speed both the paper and this project quote: 12 of 4,095 neurons."""

FAST_FEEDFORWARD = {
    **_leaf_shapes("usps", 256, 10, (16, 32, 64, 128), (8, 4, 2, 1)),
    **_leaf_shapes("mnist", 784, 10, (16, 32, 64, 128), (8, 4, 2, 1)),
    **_leaf_shapes("cifar10", 3072, 10, (64, 128, 256, 512, 1024), (32,)),
    **_leaf_shapes("vit", 128, 128, (128,), (32, 16, 8, 4, 2, 1)),
    **_leaf_shapes("bert", 768, 768, tuple(32 * 2**depth for depth in range(1, 11)), (32,)),
}
"""Networks on images, the feedforward of a vision transformer, BERT's widths in blocks of 32."""
