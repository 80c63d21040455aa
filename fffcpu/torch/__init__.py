"""The layers as modules of PyTorch: trained there, served without it (extra: torch).

`FastFeedForward` and `LeafFeedForward` are ``torch.nn.Module``. On the CPU, in float32 and float64,
they run the kernels of `fffcpu.layers` on the memory of the tensors; elsewhere they compute the
same in plain PyTorch. ``to_layer`` and ``from_layer`` lead to the layers and back without a copy.
"""

from __future__ import annotations

import fffcpu.errors

fffcpu.errors.require_extra("torch", "torch")

from fffcpu.torch.fast_feed_forward import FastFeedForward  # noqa: E402
from fffcpu.torch.leaf_feed_forward import LeafFeedForward  # noqa: E402
from fffcpu.torch.plain import Mixture  # noqa: E402

__all__ = ["FastFeedForward", "LeafFeedForward", "Mixture"]
