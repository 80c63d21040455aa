"""Fast feedforward networks on CPUs: NumPy arrays in and out, Numba kernels between.

>>> import numpy as np
>>> from fffcpu import FastFeedForward
>>> layer = FastFeedForward(768, 768, depth=11, rng=0)  # 4095 neurons
>>> y = layer(np.zeros((4, 768)))                       # 12 of them for each row

``fffcpu.training`` has losses, optimizers and schedules; the command ``fffcpu demo`` shows it all.
"""

from __future__ import annotations

import logging

import fffcpu.system.blas  # noqa: F401  # before NumPy is imported
from fffcpu.inference.predictor import Predictor, Schema
from fffcpu.inference.warmup import warmup
from fffcpu.layers import (
    DenseFeedForward,
    FastFeedForward,
    LeafFeedForward,
    QuantizedDenseFeedForward,
    QuantizedFastFeedForward,
    QuantizedLeafFeedForward,
    cmm,
    load,
)
from fffcpu.system.threads import get_num_threads, set_num_threads

__all__ = [
    "DenseFeedForward",
    "FastFeedForward",
    "LeafFeedForward",
    "Predictor",
    "QuantizedDenseFeedForward",
    "QuantizedFastFeedForward",
    "QuantizedLeafFeedForward",
    "Schema",
    "__version__",
    "cmm",
    "get_num_threads",
    "load",
    "set_num_threads",
    "warmup",
]

__version__ = "0.2.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless logging is set up
