"""The training layer of UltraFastBERT: FastFeedForward as two linear layers.

Published with "Exponentially Faster Language Modelling" (Belcak and Wattenhofer, 2023,
arXiv:2311.10770). One linear layer holds the input weights of all nodes of all trees, with the
nodes of a tree next to each other. Another holds the output weights, with one column per node. The
format cannot distinguish two trees of depth 3 from 30 of depth 0. It goes right if ``logit > 0``,
as FastFeedForward does. Its GELU is not in the state dict.

State dicts are mappings from published names to arrays; see docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike, NDArray

from fffcpu.checkpoints.keymap import Entry, KeyMap
from fffcpu.checks import check_integer
from fffcpu.config import FastFeedForwardConfig
from fffcpu.errors import ArgumentError, CheckpointError
from fffcpu.tree import MAX_DEPTH, node_count

__all__ = ["KEY_MAP", "TIE_RULE", "from_state_dict", "infer_config", "to_state_dict"]

TIE_RULE = ">"
"""Comparison of a logit with 0 by which the source goes right; FastFeedForward's is the same."""

KEY_MAP = KeyMap(
    source="a training layer of UltraFastBERT",
    config_type=FastFeedForwardConfig,
    entries=(
        Entry("linear_in.weight", ("TN", "I"), "weights_in", "TNI"),
        Entry("linear_in.bias", ("TN",), "bias_in", "TN"),
        Entry("linear_out.weight", ("O", "TN"), "weights_out", "TNO"),
    ),
    requires=(("two_sided", False),),
)
"""Published names and axes; without a bias there is no ``linear_in.bias``."""


def from_state_dict(
    config: FastFeedForwardConfig, state: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return the parameters of FastFeedForward from a published state dict.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Config of the layer; see ``infer_config``.
    state : mapping of str to array
        ``linear_in.weight (T*N, I)``, ``linear_in.bias (T*N,)``, ``linear_out.weight (O, T*N)``.

    Returns
    -------
    dict of str to array
        Copies with ``config.shapes()`` and ``config.dtype``.

    Raises
    ------
    CheckpointError
        If the state dict is not that of such a layer; the message lists all differences.
    ArgumentTypeError
        If an argument has the wrong type.
    """
    return KEY_MAP.from_state_dict(config, state)


def to_state_dict(
    config: FastFeedForwardConfig, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return a published state dict, the inverse of ``from_state_dict``.

    The published layer always has a bias, and runs only if input and output widths are equal.

    Parameters
    ----------
    config : FastFeedForwardConfig
        Config of the layer.
    arrays : mapping of str to array
        Parameters of the layer.

    Returns
    -------
    dict of str to array
        Copies, by published name.

    Raises
    ------
    CheckpointError
        If the arrays do not fit the config.
    ArgumentTypeError
        If the config is that of another layer.
    """
    return KEY_MAP.to_state_dict(config, arrays)


def infer_config(
    state: Mapping[str, Any],
    *,
    depth: int | None = None,
    trees: int | None = None,
    activation: str = "gelu",
    dtype: DTypeLike | None = None,
) -> FastFeedForwardConfig:
    """Return the config of the layer in a state dict.

    Parameters
    ----------
    state : mapping of str to array
        Same as for ``from_state_dict``.
    depth, trees : int, optional
        Depth or number of trees, or both: the shapes give only the total number of nodes.
    activation : str
        Activation, which a state dict does not contain; published models use GELU.
    dtype : dtype, optional
        dtype of the config; None means float64 if the state dict's weights are float64, else
        float32.

    Raises
    ------
    ArgumentError
        If neither ``depth`` nor ``trees`` is given; the message lists the possible values.
    CheckpointError
        If the state dict is not that of such a layer, or its nodes do not form such trees.
    """
    rows, inputs, outputs = KEY_MAP.axis_lengths(state, ("TN", "I", "O"))
    depth, trees = _divide(rows, depth, trees)
    config = FastFeedForwardConfig(
        inputs,
        outputs,
        depth,
        trees,
        bias="linear_in.bias" in state,
        activation=activation,
        dtype=KEY_MAP.precision(state, dtype),
    )
    KEY_MAP.check_state(config, state)
    return config


def _divide(rows: int, depth: int | None, trees: int | None) -> tuple[int, int]:
    """Return depth and number of the trees that have ``rows`` nodes in total."""
    if depth is not None:
        depth = check_integer("depth", depth, 0, MAX_DEPTH)
        wanted = f"trees of depth {depth}, {node_count(depth)} nodes each"
    if trees is not None:
        trees = check_integer("trees", trees, 1)
        wanted = f"{trees} equal trees" if depth is None else f"{trees} {wanted}"
    choices = _possible_trees(rows)
    fitting = [(d, t) for d, t in choices if depth in (None, d) and trees in (None, t)]
    if depth is None and trees is None:
        listed = ", ".join(f"depth={d} (trees={t})" for d, t in choices)
        raise ArgumentError(
            f"argument 'depth' or 'trees' must be given, since {rows} nodes may be any of {listed}"
        )
    if not fitting:
        raise CheckpointError(f"the {rows} nodes of 'linear_in.weight' are not {wanted}")
    return fitting[0]


def _possible_trees(rows: int) -> list[tuple[int, int]]:
    """Return every (depth, trees) with ``rows`` nodes in total."""
    depths = [depth for depth in range(MAX_DEPTH + 1) if rows % node_count(depth) == 0]
    return [(depth, rows // node_count(depth)) for depth in depths]
