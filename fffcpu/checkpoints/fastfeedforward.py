"""The layer of the fastfeedforward package: LeafFeedForward.

Published with "Fast Feedforward Networks" (Belcak and Wattenhofer, 2023, arXiv:2308.14711). At
inference it goes right if ``logit >= 0``, as LeafFeedForward does. Hard choices in its training
round sigmoid(logit), and a half to the even 0, so a tie goes left there; LeafFeedForward follows
the rule of inference. The published inference also omits the leaves' output biases, which its
training adds; LeafFeedForward always adds them.

The activation is not in a state dict. Dropout, region leak and the usage mode are not parameters
and not in a LeafFeedForward's config either; usage counts are ignored.

State dicts are mappings from published names to arrays; see docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike, NDArray

from fffcpu.checkpoints.keymap import Entry, KeyMap
from fffcpu.config import LeafFeedForwardConfig
from fffcpu.errors import CheckpointError
from fffcpu.tree import depth_of

__all__ = [
    "HARD_TRAINING_TIE_RULE",
    "KEY_MAP",
    "TIE_RULE",
    "from_state_dict",
    "infer_config",
    "to_state_dict",
]

TIE_RULE = ">="
"""Comparison of a logit with 0 by which the source's inference goes right; ours is the same."""

HARD_TRAINING_TIE_RULE = ">"
"""The same comparison for hard choices in the source's training; LeafFeedForward's is ``>=``."""

KEY_MAP = KeyMap(
    source="a layer of fastfeedforward",
    config_type=LeafFeedForwardConfig,
    entries=(
        Entry("node_weights", ("G", "I"), "gate_weights", "GI"),
        Entry("node_biases", ("G", ""), "gate_bias", "G"),
        Entry("w1s", ("K", "I", "H"), "leaf_weights_in", "KIH"),
        Entry("b1s", ("K", "H"), "leaf_bias_in", "KH"),
        Entry("w2s", ("K", "H", "O"), "leaf_weights_out", "KHO"),
        Entry("b2s", ("K", "O"), "leaf_bias_out", "KO"),
    ),
    scalars=("depth",),
    ignored=("node_usage", "leaf_usage"),
)
"""Published names and axes; at depth 0 there are no gates, and their keys may be absent."""


def from_state_dict(
    config: LeafFeedForwardConfig, state: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return the parameters of LeafFeedForward from a published state dict.

    Parameters
    ----------
    config : LeafFeedForwardConfig
        Config of the layer; see ``infer_config``.
    state : mapping of str to array
        ``node_weights (G, I)``, ``node_biases (G, 1)``, ``w1s (K, I, H)``, ``b1s (K, H)``,
        ``w2s (K, H, O)``, ``b2s (K, O)``; optionally ``depth``, an integer that must equal the
        config's, and ``node_usage`` and ``leaf_usage``, which are ignored. At depth 0 the first two
        may be absent.

    Returns
    -------
    dict of str to array
        Copies with ``config.shapes()`` and ``config.dtype``; gates of length 0 at depth 0.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a layer; the message lists all differences.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    return KEY_MAP.from_state_dict(config, state)


def to_state_dict(
    config: LeafFeedForwardConfig, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return a published state dict, the inverse of ``from_state_dict``.

    Parameters
    ----------
    config : LeafFeedForwardConfig
        Config of the layer.
    arrays : mapping of str to array
        Parameters of the layer.

    Returns
    -------
    dict of str to array
        Copies, by published name, and ``depth`` as an int64 scalar. At depth 0 the gates' arrays
        are included, with length 0, as in the published layer.

    Raises
    ------
    CheckpointError
        If the arrays do not fit the config.
    ArgumentTypeError
        If the config is that of another layer.
    """
    return KEY_MAP.to_state_dict(config, arrays)


def infer_config(
    state: Mapping[str, Any], *, activation: str = "relu", dtype: DTypeLike | None = None
) -> LeafFeedForwardConfig:
    """Return the config of the layer in a state dict.

    Parameters
    ----------
    state : mapping of str to array
        Same as for ``from_state_dict``.
    activation : str
        Activation, which a state dict does not contain; ReLU is the published default.
    dtype : dtype, optional
        dtype of the config; None means float64 if the state dict's weights are float64, else
        float32.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a layer, or its leaves do not form a complete tree.
    """
    leaves, inputs, width, outputs = KEY_MAP.axis_lengths(state, ("K", "I", "H", "O"))
    try:
        depth = depth_of(2 * leaves - 1)
    except ValueError as error:
        raise CheckpointError(
            f"'w1s' of the state dict has {leaves} leaves, which is not a power of two"
        ) from error
    config = LeafFeedForwardConfig(
        inputs,
        outputs,
        depth,
        width,
        activation=activation,
        dtype=KEY_MAP.precision(state, dtype),
    )
    KEY_MAP.check_state(config, state)
    return config
