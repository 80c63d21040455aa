"""Both layers in plain PyTorch, for any device and any floating type; autograd differentiates them.

The mathematics is that of `fffcpu.layers`, with the same ties. Matrix products round differently,
so a row whose logit is nearly 0 may take another route than in kernels.

Logits at nodes, and sums of output weights, are computed in one of two ways, whichever takes less
memory. The numbers kept for backward, per row and tree, are::

    every      N (1 + S)     one product gives all logits; activations are spread over all nodes
    visited    L (I + O)     the weights of visited nodes are copied

At a width of 768, the first is smaller up to depth 12. It is also what GPUs are good at.

Shapes: B rows, I input width, O output width, T trees, N nodes in a tree, L levels, S sides, V
nodes that a row asks for in each tree; G gates, K leaves, H leaf width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fffcpu.layers.leaf_feed_forward import ENTROPY_CLIP

__all__ = ["Mixture", "fast_feed_forward", "leaf_inference", "mixture"]


class Mixture(NamedTuple):
    """What `fffcpu.torch.LeafFeedForward.mixture` returns."""

    y: Tensor
    """The mixture of the leaves' outputs (..., O)."""
    entropies: Tensor
    """Mean entropy of each gate's choice over the batch (G,), in nats; differentiable."""
    gate_usage: Tensor
    """Expected number of rows that reach each gate (G,)."""
    leaf_usage: Tensor
    """Expected number of rows that reach each leaf (K,)."""


def activate(s: Tensor, activation: str) -> Tensor:
    """Return the activation of every number."""
    if activation == "gelu":
        return functional.gelu(s)
    return functional.relu(s) if activation == "relu" else s


def _levels(count: int) -> int:
    """Return how many levels have so many nodes, in a way that PyTorch 2.4 compiles."""
    return round(math.log2(count + 1))


# --- FastFeedForward ------------------------------------------------------------------------------


class _Visited:
    """Trees whose visited nodes' weights are copied, and rows x (B, I)."""

    def __init__(
        self, x: Tensor, weights_in: Tensor, bias_in: Tensor | None, weights_out: Tensor
    ) -> None:
        self.x, self.weights_in, self.bias_in, self.weights_out = (
            x,
            weights_in,
            bias_in,
            weights_out,
        )
        self.trees, count, _ = weights_in.shape
        self.levels = _levels(count)
        self.sides = weights_out.ndim - 2
        first = torch.arange(self.trees, device=x.device).unsqueeze(1)
        self.first_node = first * count
        self.first_output = first * (count * self.sides)

    def logits(self, nodes: Tensor) -> Tensor:
        """Return the logits at nodes (B, T, V)."""
        places = nodes + self.first_node
        weights = self.weights_in.flatten(0, 1)[places]
        logits = torch.einsum("btvi,bi->btv", weights, self.x)
        return logits if self.bias_in is None else logits + self.bias_in.flatten()[places]

    def outputs(self, places: Tensor) -> Tensor:
        """Return output weights (B, T, V, O) at places (B, T, V) of a tree's N * S rows."""
        return self.weights_out.reshape(-1, self.weights_out.shape[-1])[places + self.first_output]

    def sum(self, active: Tensor, places: Tensor) -> Tensor:
        """Return the sum (B, O) of output weights at places, times active (B, T, V)."""
        return torch.einsum("btv,btvo->bo", active, self.outputs(places))

    def place(self, nodes: Tensor, logits: Tensor) -> Tensor:
        """Return the places of the output weights of nodes, at the side that logits choose."""
        return nodes if self.sides == 1 else 2 * nodes + (logits > 0)

    def active(self, logits: Tensor, activation: str) -> Tensor:
        """Return the activations of logits; those that are not finite become NaN."""
        finite = torch.where(torch.isfinite(logits), logits, math.nan)
        return activate(finite if self.sides == 1 else finite.abs(), activation)

    def visits(self, nodes: Tensor, levels: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield nodes (B, T, 1) and their logits, from these nodes on, for so many levels."""
        for _ in range(levels):
            logits = self.logits(nodes)
            yield nodes, logits
            nodes = 2 * nodes + 1 + (logits > 0)


class _Every(_Visited):
    """Trees whose logits are computed at every node."""

    def __init__(
        self, x: Tensor, weights_in: Tensor, bias_in: Tensor | None, weights_out: Tensor
    ) -> None:
        super().__init__(x, weights_in, bias_in, weights_out)
        bias = None if self.bias_in is None else self.bias_in.flatten()
        logits = functional.linear(x, self.weights_in.flatten(0, 1), bias)
        self.every = logits.unflatten(1, self.weights_in.shape[:2])

    def logits(self, nodes: Tensor) -> Tensor:
        return self.every.gather(2, nodes)

    def sum(self, active: Tensor, places: Tensor) -> Tensor:
        rows, trees, count = self.every.shape
        spread = active.new_zeros((rows, trees, count * self.sides)).scatter(2, places, active)
        return spread.flatten(1) @ self.weights_out.reshape(-1, self.weights_out.shape[-1])


def fast_feed_forward(
    tensors: tuple[Any, ...], activation: str, straight_through: bool, every: bool | None = None
) -> Tensor:
    """Return the output (B, O) of rows; see `fffcpu.torch.FastFeedForward`.

    Parameters
    ----------
    tensors : tuple of tensors
        Rows x (B, I), ``weights_in``, ``bias_in`` or None, ``weights_out``.
    activation : str
    straight_through : bool
    every : bool, optional
        Whether the logits of every node are computed; by default where that takes less memory.
    """
    x, weights_in, _, weights_out = tensors
    if every is None:
        every = every_is_smaller(weights_in, weights_out)
    tree = (_Every if every else _Visited)(*tensors)
    with torch.no_grad():
        root = torch.zeros((x.shape[0], tree.trees, 1), dtype=torch.int64, device=x.device)
        nodes = torch.cat([node for node, _ in tree.visits(root, tree.levels)], 2)
    logits = tree.logits(nodes)
    places = tree.place(nodes, logits.detach())
    active = tree.active(logits, activation)
    y = tree.sum(active, places)
    if straight_through and torch.is_grad_enabled():
        with torch.no_grad():
            values = _values_of_choices(tree, nodes, logits, activation)
        y = y + torch.einsum("btl,btlo->bo", _choices(logits), values)
    return y


def every_is_smaller(weights_in: Tensor, weights_out: Tensor) -> bool:
    """Whether logits of every node take less memory than copies of visited nodes' weights."""
    _, count, input_dim = weights_in.shape
    sides, levels = weights_out.ndim - 2, _levels(count)
    return bool(count * (1 + sides) <= levels * (input_dim + weights_out.shape[-1]))


def _choices(logits: Tensor) -> Tensor:
    """Return zeros whose derivative is the normal density at the logits."""
    smooth = 0.5 * torch.erf(logits * math.sqrt(0.5))
    return smooth - smooth.detach()


def _values_of_choices(tree: _Visited, nodes: Tensor, logits: Tensor, activation: str) -> Tensor:
    """Return what each choice on a path is worth (B, T, L, O).

    That is the right subtree's output less the left one's, along the hard routes within; at two
    sides with the node's own outputs. It is 0 if the output of the side not taken is not finite.
    """
    own = tree.active(logits, activation).unsqueeze(3)
    path = own * tree.outputs(tree.place(nodes, logits))
    taken = path.flip(2).cumsum(2).flip(2)  # the rest of the path, with the node itself
    if tree.sides == 1:
        taken = taken - path
    right = logits > 0
    others = []
    for level in range(tree.levels):
        aside = (2 * nodes + 2 - right.long())[:, :, level : level + 1]
        other = torch.zeros_like(path[:, :, level])
        for node, logit in tree.visits(aside, tree.levels - 1 - level):
            outputs = tree.outputs(tree.place(node, logit))
            other += (tree.active(logit, activation).unsqueeze(3) * outputs).squeeze(2)
        others.append(other)
    other = torch.stack(others, 2)
    if tree.sides == 2:
        other = other + own * tree.outputs(tree.place(nodes, -logits))
    finite = torch.isfinite(other).all(3, keepdim=True)
    better = torch.where(finite, taken - other, 0.0)
    return torch.where(right.unsqueeze(3), better, -better)


# --- LeafFeedForward ------------------------------------------------------------------------------


def mixture(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    activation: str,
    flips: Tensor | None = None,
    kept: Tensor | None = None,
    hardened: bool = False,
) -> Mixture:
    """Mix all leaves for rows x (B, I); see `fffcpu.torch.LeafFeedForward.mixture`.

    Parameters
    ----------
    x : tensor of shape (B, I)
    parameters : six tensors
        Those of the layer, in their order.
    activation : str
    flips : bool tensor of shape (B, G), optional
        Choices that the region leak inverts.
    kept : tensor of shape (B, K, H), optional
        Factors of the dropout.
    hardened : bool
        Whether choices are rounded.
    """
    gate_weights, gate_bias, weights_in, bias_in, weights_out, bias_out = parameters
    gate_logits = functional.linear(x, gate_weights, gate_bias)
    p = torch.sigmoid(gate_logits)
    right = (gate_logits >= 0).to(p.dtype) if hardened else p
    if flips is not None:
        p, right = (torch.where(flips, 1 - share, share) for share in (p, right))
    *gates, leaves = _reach(right)

    side_by_side = weights_in.transpose(0, 1).flatten(1)  # (I, K * H)
    active = activate((x @ side_by_side).unflatten(1, bias_in.shape) + bias_in, activation)
    if kept is not None:
        active = active * kept
    weighted = (active * leaves.unsqueeze(2)).flatten(1)
    y = weighted @ weights_out.flatten(0, 1) + leaves @ bias_out
    usage = torch.cat([*gates, leaves], 1).detach().sum(0)
    entropies = _entropy(p).sum(0) / max(1, x.shape[0])
    return Mixture(y, entropies, usage[: right.shape[1]], usage[right.shape[1] :])


def _reach(right: Tensor) -> list[Tensor]:
    """Return the share of each row that reaches each node, level by level, the leaves last."""
    rows, gates = right.shape
    levels = [right.new_ones((rows, 1))]
    for level in range(_levels(gates)):
        first = (1 << level) - 1
        sent_right = levels[-1] * right[:, first : 2 * first + 1]
        levels.append(torch.stack((levels[-1] - sent_right, sent_right), 2).flatten(1))
    return levels


def _entropy(p: Tensor) -> Tensor:
    """Return the entropy of a choice with probability p, in nats."""
    p = p.clamp(ENTROPY_CLIP, 1 - ENTROPY_CLIP)
    return -p * p.log() - (1 - p) * (1 - p).log()


def leaf_inference(
    x: Tensor, parameters: tuple[Tensor, ...], activation: str, every: bool | None = None
) -> Tensor:
    """Return the output (B, O) of rows x (B, I), each by the leaf that its hard choices reach.

    Parameters
    ----------
    x : tensor of shape (B, I)
    parameters : six tensors
        Those of the layer, in their order.
    activation : str
    every : bool, optional
        Whether all leaves are mixed, with the share 1 or 0, instead of copying the leaf of each
        row; by default where that takes less memory.
    """
    gate_weights, gate_bias, *leaf_parameters = parameters
    leaves, input_dim, _ = leaf_parameters[0].shape
    if every is None:
        every = leaves <= input_dim + leaf_parameters[2].shape[2]
    if every:
        return mixture(x, parameters, activation, hardened=True).y
    with torch.no_grad():
        gate = torch.zeros((x.shape[0], 1), dtype=torch.int64, device=x.device)
        logits = functional.linear(x, gate_weights, gate_bias)
        for _ in range(_levels(leaves - 1)):
            gate = 2 * gate + 1 + (logits.gather(1, gate) >= 0)
        leaf = gate.squeeze(1) - (leaves - 1)
    weights_in, bias_in, weights_out, bias_out = (each[leaf] for each in leaf_parameters)
    active = activate(torch.einsum("bi,bih->bh", x, weights_in) + bias_in, activation)
    return torch.einsum("bh,bho->bo", active, weights_out) + bias_out
