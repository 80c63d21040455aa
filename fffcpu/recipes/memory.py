"""Foresees the memory of a training, before any of it is taken.

A training holds at the same time the parameters, the moments of its optimizer, gradients, and what
a step keeps. The sums here are lower bounds: what they refuse could not have been done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from fffcpu.config import (
    DenseFeedForwardConfig,
    FastFeedForwardConfig,
    LayerConfig,
    LeafFeedForwardConfig,
)
from fffcpu.config.bert import BertConfig
from fffcpu.config.encoder import EncoderConfig
from fffcpu.config.memory import check_fits

__all__ = [
    "check_distillation",
    "check_fit",
    "check_text_training",
    "distillation_bytes",
    "distillation_disk",
    "fit_bytes",
    "layer_config",
    "takes_rows",
    "text_training_bytes",
]

MOMENTS: Mapping[str, int] = MappingProxyType(
    {"adamw": 2, "adam": 2, "sgd": 0, "local-adam": 3, "local-sgd": 1}
)
"""Arrays of an optimizer for each parameter, without the velocity of a momentum."""

_COUNT = np.dtype(np.int64).itemsize
"""Bytes of a node's usage, and of a row's last step."""


_ARRAYS = {"LeafFeedForward": 5, "DenseFeedForward": 3}
"""Numbers that a step holds for each row and neuron, by layer; a fast layer uses few neurons."""


class _Settings(Protocol):
    """The fields of `fffcpu.recipes.fitting.FitSettings` that memory depends on."""

    @property
    def layer(self) -> str: ...
    @property
    def activation(self) -> str | None: ...
    @property
    def depth(self) -> int: ...
    @property
    def trees(self) -> int: ...
    @property
    def two_sided(self) -> bool: ...
    @property
    def leaf_width(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def momentum(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def gradients(self) -> str: ...
    @property
    def max_norm(self) -> float | None: ...
    @property
    def patience(self) -> int | None: ...
    @property
    def mixes_momentum_and_decay(self) -> bool: ...


def layer_config(
    settings: _Settings, inputs: int, outputs: int, dtype: DTypeLike = np.float32
) -> LayerConfig:
    """Return the config of the layer that settings describe.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a size is out of range or has the wrong type.
    """
    options: dict[str, Any] = {"dtype": dtype}
    if settings.activation is not None:
        options["activation"] = settings.activation
    if settings.layer == "fast":
        options["two_sided"] = settings.two_sided
        return FastFeedForwardConfig(inputs, outputs, settings.depth, settings.trees, **options)
    if settings.layer == "leaf":
        options.setdefault("activation", "relu")  # the default of LeafFeedForward
        return LeafFeedForwardConfig(
            inputs, outputs, settings.depth, settings.leaf_width, **options
        )
    return DenseFeedForwardConfig(inputs, outputs, settings.width, **options)


def takes_rows(settings: _Settings, config: LayerConfig) -> bool:
    """Whether gradients hold only the nodes that a batch visited."""
    if not isinstance(config, FastFeedForwardConfig):
        return False
    if settings.gradients == "auto" and not settings.optimizer.startswith("local"):
        visits = settings.batch_size * (config.depth + 1)
        few = 2 * visits < config.neurons // config.trees
        return few and not settings.mixes_momentum_and_decay
    return settings.gradients == "rows"


def fit_bytes(config: LayerConfig, settings: _Settings, rows: int, copies: int = 0) -> int:
    """Return the bytes that a training of a layer needs, at least.

    Parameters
    ----------
    config : LayerConfig
        Config of the layer.
    settings : FitSettings
        Settings of the training.
    rows : int
        Number of rows to train on.
    copies : int
        Number of copies that are made of the trained layer while its optimizer is there.
    """
    params, fast = config.nbytes, isinstance(config, FastFeedForwardConfig)
    moments = MOMENTS[settings.optimizer] + ("sgd" in settings.optimizer and settings.momentum > 0)
    best = settings.patience is not None
    sparse = takes_rows(settings, config)
    held = params * (1 + moments + best)
    # Gradients of nodes without rows stay untouched memory, unless clipping multiplies them.
    step = params if not sparse and (settings.max_norm is not None or not fast) else 0
    if fast:
        counts = config.neurons * _COUNT
        held += counts  # usage, added up
        step += counts  # usage of the batch
        if sparse or settings.optimizer.startswith("local"):
            step += len(config.shapes()) * counts  # the last step, or the usage, of each row
    else:
        batch = min(rows, settings.batch_size)
        step += _ARRAYS[config.kind] * batch * config.neurons * config.itemsize
    # Scaling is absorbed in float64, then rounded.
    wide = np.dtype(np.float64).itemsize + config.itemsize
    end = copies * params + config.neurons * config.input_dim * wide
    return held + max(step, end)


def check_fit(
    settings: _Settings,
    inputs: int,
    outputs: int,
    rows: int,
    dtype: DTypeLike = np.float32,
    copies: int = 0,
) -> None:
    """Raise unless there is memory to train a new layer; see `fit_bytes`.

    Raises
    ------
    NotEnoughMemoryError
        If there is too little; the message has the deepest tree that fits.
    """
    config = layer_config(settings, inputs, outputs, dtype)
    check_fits(config, lambda other: fit_bytes(other, settings, rows, copies), "training ")


def text_training_bytes(
    config: EncoderConfig, batch: int, length: int, *, labelled: int, batches: int = 1
) -> int:
    """Return the bytes that a training of a model with AdamW needs, at least.

    Parameters
    ----------
    config : EncoderConfig
        Config of the model.
    batch, length : int
        Number of sequences that are computed together, and of their tokens.
    labelled : int
        Number of positions, or sequences, with a label.
    batches : int
        Number of such batches whose gradients are added up in a step.
    """
    gradients = config.nbytes if batches > 1 or not config.visits_few(batch * length) else 0
    outputs = config.vocabulary if config.classes is None else config.classes
    kept = config.kept_bytes(batch, length) + labelled * outputs * config.itemsize
    return 3 * config.nbytes + gradients + max(kept, gradients if batches > 1 else 0)


def check_text_training(
    config: EncoderConfig, batch: int, length: int, *, labelled: int, batches: int = 1
) -> None:
    """Raise unless there is memory to train a model; see `text_training_bytes`.

    Raises
    ------
    NotEnoughMemoryError
        If there is too little; the message has a size that fits.
    """

    def need(other: Any) -> int:
        return text_training_bytes(other, batch, length, labelled=labelled, batches=batches)

    check_fits(config, need, "training ")


def distillation_bytes(config: BertConfig, shapes: Collection[tuple[int, int]] = ()) -> int:
    """Return the bytes that a distillation needs besides its teacher and its texts, at least.

    The second stage needs the most: it trains all parameters of the student with AdamW.

    Parameters
    ----------
    config : BertConfig
        Config of the student.
    shapes : collection of (int, int)
        Numbers of sequences, and of their tokens, of the batches.
    """
    kept = max((config.kept_bytes(*shape) for shape in shapes), default=0)
    # Gradients of words that no text has stay untouched memory.
    words = config.vocabulary * config.width * config.itemsize
    return 4 * config.nbytes - words + kept


def check_distillation(config: BertConfig, shapes: Collection[tuple[int, int]] = ()) -> None:
    """Raise unless there is memory to distil a student; see `distillation_bytes`.

    Raises
    ------
    NotEnoughMemoryError
        If there is too little; the message has a size that fits.
    """
    check_fits(config, lambda other: distillation_bytes(other, shapes), "distilling ")


def distillation_disk(config: BertConfig, keep: int) -> int:
    """Return the bytes on the disk that a distillation needs.

    Each stage keeps checkpoints of its parameters and of their two moments. The second writes a
    further one before it removes an older one. The finished student comes on top.

    Parameters
    ----------
    config : BertConfig
        Config of the student.
    keep : int
        Number of checkpoints of a stage that are kept.
    """
    feedforwards = sum(
        own.nbytes for name, own in config.modules().items() if name.endswith(".feedforward")
    )
    return 3 * keep * feedforwards + 3 * (keep + 1) * config.nbytes + config.nbytes
