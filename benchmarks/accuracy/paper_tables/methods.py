"""Training methods that the library does not have, tried next to those that it has.

Each makes an untrained layer that trains in its own way, and infers as every layer of its kind::

    soft routes          a row goes both ways at every node, by shares that become hard in training
    load balancing       a loss for nodes, or leaves, that get more than their share of rows
    dropout of nodes     a visited node is left out of the sum
    decay by level       weight decay doubles, or halves, from a level to the next
    balanced routes      at first every node sends half of its rows each way
    master leaf          some neurons of a leaf are the same in all leaves
    pruning              after training, nodes without a training row contribute nothing

The layers are small. So all of their nodes are computed and then weighted, which is clear and slow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

import fffcpu
from fffcpu.kernels.backends.vectorized import activate, activate_gradient
from fffcpu.recipes.fitting import SCHEDULES, FitSettings, new_layer

Array = np.ndarray


@dataclasses.dataclass
class Routing:
    """The training of an `AllNodes` layer."""

    steps: int
    """Steps of the whole training."""
    soft: tuple[float, float] | None = None
    """First and last temperature of soft routes; None for hard routes."""
    balance: float = 0.0
    """Weight of the balancing loss."""
    dropout: float = 0.0
    """Probability that a node is left out."""
    decay: Callable[[float], Array] | None = None
    """The factors of the levels' weights, by the fraction of the training that is done."""
    rng: np.random.Generator = dataclasses.field(default_factory=np.random.default_rng)
    step: int = 0


class Everything(NamedTuple):
    """The cache of forward: arrays of shape (B, T, N), and the rows (B, I)."""

    rows: Array
    logits: Array
    active: Array
    kept: Array
    p: Array
    """Probability of going right."""
    right: Array
    """Share that goes right: p, or 0 and 1."""
    reach: Array
    temperature: float


class AllNodes(fffcpu.FastFeedForward):
    """FastFeedForward whose forward and backward compute every node, and train the routes."""

    routing: Routing

    def forward(self, x: Array) -> tuple[Array, Everything]:
        """Weight all nodes by the share of the row that reaches them."""
        own, done = self.routing, self.routing.step / self.routing.steps
        own.step += 1
        weights_in, bias_in, weights_out = self.params.values()
        logits = (x @ weights_in.reshape(-1, x.shape[1]).T).reshape(len(x), *bias_in.shape)
        logits += bias_in
        first, last = own.soft or (1.0, 1.0)
        temperature = first * (last / first) ** done
        p = ndtr(logits / temperature)
        right = p if own.soft else (logits > 0).astype(x.dtype)
        reach = np.ones_like(logits)
        for nodes, left, beyond in levels(self.config.depth):
            reach[:, :, beyond] = reach[:, :, nodes] * right[:, :, nodes]
            reach[:, :, left] = reach[:, :, nodes] * (1 - right[:, :, nodes])
        kept = (own.rng.random(logits.shape) >= own.dropout).astype(x.dtype) / (1 - own.dropout)
        active = activate(logits, self._activation) * kept
        y = (reach * active).reshape(len(x), -1) @ weights_out.reshape(-1, self.config.output_dim)
        return y, Everything(x, logits, active, kept, p, right, reach, temperature)

    def backward(self, dy: Array, cache: Everything, **_: Any) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the loss and of the balancing loss, routes included."""
        own = self.routing
        rows, logits, active, kept, p, right, reach, temperature = cache
        weights_in, bias_in, weights_out = self.params.values()
        share = (dy @ weights_out.reshape(-1, dy.shape[1]).T).reshape(logits.shape)
        d_logits = reach * share * kept * activate_gradient(logits, self._activation)
        value = share * active
        slope = np.exp(-0.5 * (logits / temperature) ** 2) / (np.sqrt(2 * np.pi) * temperature)
        for nodes, left, beyond in reversed(levels(self.config.depth)):
            better = value[:, :, beyond] - value[:, :, left]
            d_right = reach[:, :, nodes] * better
            if own.balance:
                arriving = reach[:, :, nodes]
                mean = (arriving * p[:, :, nodes]).sum(axis=0) / (arriving.sum(axis=0) + 1e-6)
                d_right += own.balance * 8 * (mean - 0.5) * arriving / len(rows)
            d_logits[:, :, nodes] += d_right * slope[:, :, nodes]
            value[:, :, nodes] += value[:, :, left] + right[:, :, nodes] * better
        flat = d_logits.reshape(len(rows), -1)
        grads = {
            "weights_in": (flat.T @ rows).reshape(weights_in.shape),
            "bias_in": d_logits.sum(axis=0),
            "weights_out": ((reach * active).reshape(len(rows), -1).T @ dy).reshape(
                weights_out.shape
            ),
        }
        dx = flat @ weights_in.reshape(flat.shape[1], -1)
        if own.decay is not None:
            factors = own.decay((own.step - 1) / own.steps)  # forward has counted this step
            depths = np.log2(np.arange(1, bias_in.shape[1] + 1)).astype(int)
            for weights in (weights_in, weights_out):
                weights *= factors[depths][:, np.newaxis].astype(weights.dtype)
        return dx, grads

    def usage(self, cache: Everything) -> dict[str, Array]:
        """Return the sum of the shares that reached each node."""
        return dict.fromkeys(self.params, cache.reach.sum(axis=0))


def levels(depth: int) -> list[tuple[slice, slice, slice]]:
    """Return the nodes of each level but the last, and their left and right children."""
    return [
        (
            slice(2**level - 1, 2 ** (level + 1) - 1),
            slice(2 ** (level + 1) - 1, 2 ** (level + 2) - 2, 2),
            slice(2 ** (level + 1), 2 ** (level + 2) - 1, 2),
        )
        for level in range(depth)
    ]


class BalancedLeaves(fffcpu.LeafFeedForward):
    """LeafFeedForward with a loss: leaves times the sum of their squared mean shares."""

    weight = 0.0

    def _gate_gradients(self, d_mixture: Array, cache: Any, hardening: Any) -> Array:
        leaves = d_mixture.shape[1]
        mean = cache.leaf_usage / len(cache.p)
        balanced = d_mixture + self.weight * 2 * leaves * mean / len(cache.p)
        return super()._gate_gradients(balanced, cache, hardening)


class MasterLeaf(fffcpu.LeafFeedForward):
    """LeafFeedForward with some neurons in common to all leaves, like a leaf of all rows."""

    shared = 0

    def share(self) -> None:
        """Make the neurons of all leaves equal to the first leaf's."""
        for name, shared in self._shared_slices():
            self.params[name][shared] = self.params[name][shared][:1]

    def backward(self, dy: Any, cache: Any, hardening: Any = 0.0) -> tuple[Array, dict[str, Array]]:
        """Return gradients that are equal for every copy of a shared neuron.

        Each is the sum over all copies, over the root of their number. So the norm, by which
        gradients are clipped, is that of one neuron. Adam's steps do not depend on that factor.
        """
        dx, grads = super().backward(dy, cache, hardening)
        for name, shared in self._shared_slices():
            copies = grads[name][shared]
            grads[name][shared] = copies.sum(axis=0, keepdims=True) / np.sqrt(len(copies))
        return dx, grads

    def _shared_slices(self) -> list[tuple[str, Any]]:
        every, some = slice(None), slice(self.shared)
        return [
            ("leaf_weights_in", (every, every, some)),
            ("leaf_bias_in", (every, some)),
            ("leaf_weights_out", (every, some)),
        ]


class Context(NamedTuple):
    """The data from which a method makes a layer."""

    rows: Array
    """Some of the training rows, scaled."""
    steps: int
    """Steps of the training."""
    decay: float
    """Weight decay of the other tables."""


def _as(kind: Any, layer: Any) -> Any:
    """Return a layer of another class with the same parameters."""
    return kind.from_arrays(**layer.params, activation=layer.config.activation)


def routed(**options: Any) -> Callable[[FitSettings, int, int, Context], Any]:
    """Return a function that makes an `AllNodes` with this routing."""

    def make(settings: FitSettings, inputs: int, outputs: int, context: Context) -> Any:
        layer = _as(AllNodes, new_layer(settings, inputs, outputs))
        rng = np.random.default_rng(settings.seed)
        layer.routing = Routing(steps=context.steps, rng=rng, **options)
        return layer

    return make


def decayed(factor: float) -> Callable[[FitSettings, int, int, Context], Any]:
    """Return a function that makes a layer whose decay has a factor from level to level.

    The average decay on a path is that of the other tables. The optimizer's decay is off.
    """

    def make(settings: FitSettings, inputs: int, outputs: int, context: Context) -> Any:
        by_level = factor ** np.arange(settings.depth + 1)
        by_level *= settings.peak_rate * context.decay / by_level.mean()

        def left(done: float) -> Array:
            return 1 - SCHEDULES[settings.schedule](done) * by_level

        return routed(decay=left)(settings, inputs, outputs, context)

    return make


def balanced_routes(settings: FitSettings, inputs: int, outputs: int, context: Context) -> Any:
    """Make a layer whose nodes send half of their rows each way: biases are minus the medians."""
    layer = new_layer(settings, inputs, outputs)
    weights, bias = layer.params["weights_in"], layer.params["bias_in"]
    logits = np.einsum("bi,tni->btn", context.rows, weights, optimize=True)
    for tree in range(len(weights)):
        node = np.zeros(len(logits), int)
        for nodes, _, _ in levels(settings.depth):
            for here in range(nodes.start, nodes.stop):
                arrived = logits[node == here, tree, here]
                if len(arrived) > 1:
                    bias[tree, here] = -np.median(arrived)
            own = logits[np.arange(len(node)), tree, node] + bias[tree, node]
            node = 2 * node + 1 + (own > 0)
    return layer


def balanced_leaves(weight: float) -> Callable[[FitSettings, int, int, Context], Any]:
    """Return a function that makes a leaf layer with the balancing loss."""

    def make(settings: FitSettings, inputs: int, outputs: int, context: Context) -> Any:
        layer = _as(BalancedLeaves, new_layer(settings, inputs, outputs))
        layer.weight = weight
        return layer

    return make


def master_leaf(settings: FitSettings, inputs: int, outputs: int, context: Context) -> Any:
    """Make a leaf layer that shares half of its neurons."""
    layer = _as(MasterLeaf, new_layer(settings, inputs, outputs))
    layer.shared = settings.leaf_width // 2
    layer.share()
    return layer


MAKERS: dict[str, Callable[[FitSettings, int, int, Context], Any]] = {
    "soft routes, temperature 1 to 0.03": routed(soft=(1.0, 0.03)),
    "soft routes, temperature 0.3 to 0.03": routed(soft=(0.3, 0.03)),
    "load balancing 0.1": routed(balance=0.1),
    "dropout of nodes 0.1": routed(dropout=0.1),
    "decay doubles from level to level": decayed(2.0),
    "decay halves from level to level": decayed(0.5),
    "balanced routes": balanced_routes,
    "load balancing of leaves 0.1": balanced_leaves(0.1),
    "load balancing of leaves 1": balanced_leaves(1.0),
    "master leaf, half of the neurons": master_leaf,
}
"""Functions that make an untrained layer, by the name of the method."""


def prune(layer: Any, rows: Array) -> float:
    """Clear the output weights of the nodes that no row visits, and return their share."""
    nodes = layer.route(rows)
    unused = np.ones(layer.params["weights_in"].shape[:2], bool)
    for tree in range(len(unused)):
        unused[tree, nodes[:, tree]] = False
    layer.params["weights_out"][unused] = 0
    return float(unused.mean())
