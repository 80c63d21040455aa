"""The inference benchmark layer of UltraFastBERT: FastFeedForward, one tree, no bias.

Published with "Exponentially Faster Language Modelling" (Belcak and Wattenhofer, 2023,
arXiv:2311.10770), like the training layer, but with another rule for ties: it goes right if
``logit >= 0``. FastFeedForward goes right if ``logit > 0``. So a row whose logit is exactly 0 at a
visited node, such as a row of zeros, takes another route from there. Its activation is always GELU.

State dicts are mappings from published names to arrays; see docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike, NDArray

from fffcpu.checkpoints.keymap import Entry, KeyMap
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import CheckpointError
from fffcpu.tree import depth_of

__all__ = ["KEY_MAP", "TIE_RULE", "from_state_dict", "infer_config", "to_state_dict"]

TIE_RULE = ">="
"""Comparison of a logit with 0 by which the source goes right; FastFeedForward's is ``>``."""

KEY_MAP = KeyMap(
    source="an inference benchmark layer of UltraFastBERT",
    config_type=FastFeedForwardConfig,
    entries=(
        Entry("w1s", ("TN", "I"), "weights_in", "TNI"),
        Entry("w2s", ("TN", "O"), "weights_out", "TNO"),
    ),
    requires=(("trees", 1), ("bias", False), ("two_sided", False), ("activation", "gelu")),
)
"""Published names and axes, where T is 1."""


def from_state_dict(
    config: FastFeedForwardConfig, state: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return the parameters of FastFeedForward from a published state dict.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Config of the layer, with one tree, without bias, with GELU; see ``infer_config``.
    state : mapping of str to array
        ``w1s (N, I)`` and ``w2s (N, O)``.

    Returns
    -------
    dict of str to array
        Copies with ``config.shapes()`` and ``config.dtype``.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a layer, or this format cannot hold the config; the
        message lists all differences.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    return KEY_MAP.from_state_dict(config, state)


def to_state_dict(
    config: FastFeedForwardConfig, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return a published state dict, the inverse of ``from_state_dict``.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Config of the layer, with one tree, without bias, with GELU.
    arrays : mapping of str to array
        Parameters of the layer.

    Returns
    -------
    dict of str to array
        Copies, by published name.

    Raises
    ------
    CheckpointError
        If this format cannot hold such a layer, or the arrays do not fit the config.
    ArgumentTypeError
        If the config is that of another layer.
    """
    return KEY_MAP.to_state_dict(config, arrays)


def infer_config(
    state: Mapping[str, Any], *, dtype: DTypeLike | None = None
) -> FastFeedForwardConfig:
    """Return the config of the layer in a state dict.

    Parameters
    ----------
    state : mapping of str to array
        Same as for ``from_state_dict``.
    dtype : dtype, optional
        dtype of the config; None means float64 if the state dict's weights are float64, else
        float32.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a layer, or its nodes do not form a complete tree.
    """
    nodes, inputs, outputs = KEY_MAP.axis_lengths(state, ("TN", "I", "O"))
    try:
        depth = depth_of(nodes)
    except ValueError as error:
        raise CheckpointError(f"'w1s' of the state dict has {nodes} rows: {error}") from error
    config = FastFeedForwardConfig(
        inputs,
        outputs,
        depth,
        bias=False,
        dtype=KEY_MAP.precision(state, dtype),
    )
    KEY_MAP.check_state(config, state)
    return config
