r"""How a layer's tree is used: where rows go, what none reaches, how even and how firm choices are.

Both layers are read as the same tree. Its upper ``depth`` levels are gates that decide, the G nodes
from the root on; the K nodes of its deepest level are the leaves, which in a FastFeedForward are
neurons as well::

    visits of 8 rows     level 0          8           balance of its splits: (5, 3) of 8
                                        /   \
                         level 1       5     3        (5, 0) of 5 and (1, 2) of 3
                                      / \   / \
                         leaves      5   0 1   2      node 4 is dead: a subtree of size 1

docs/mathematics.md defines the measures. Shapes: B rows, I input width, T trees, G gates, K leaves,
N = G + K nodes of a tree.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fffcpu import kernels
from fffcpu.checks import as_real_array, as_rows, check_integer, check_number
from fffcpu.config import FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.errors import ArgumentError, ArgumentTypeError, ShapeError, describe
from fffcpu.kernels.weights import PathWeights
from fffcpu.tree import depth_of, gate_count, leaf_count, level_start, node_count

__all__ = [
    "DeadSubtree",
    "LevelUsage",
    "TreeUsage",
    "UsageReport",
    "diagnose",
    "leaf_means",
    "reached_leaves",
]

Array = NDArray[Any]

BLOCK_ROWS = 4096
"""Rows that are looked at together, which bounds the memory."""

SHOWN_TREES = 12
SHOWN_DEAD = 6
"""How many lines, and how many dead subtrees, a report for people has room for."""

PICTURE_WIDTH = 64
"""Characters across the picture of a tree; a level with more nodes is left out."""

NARROW = 8
"""Characters below which a node has a mark and no number."""

MARKS = ((0.25, "."), (1.0, "-"), (4.0, "+"), (math.inf, "#"))
"""Marks of narrow nodes: below so many times the even share of the level."""


class DeadSubtree(NamedTuple):
    """A subtree that no row enters, though its root's parent is visited."""

    tree: int
    """Number of the tree."""
    node: int
    """Its root, in heap order."""
    size: int
    """Its nodes."""


class LevelUsage(NamedTuple):
    """How one level is used; None where its nodes decide nothing."""

    nodes: int
    """Nodes of the level."""
    reached: int
    """Those that a row visits."""
    balance: float | None
    """Entropy of the splits over log 2, nodes weighted by visits: 1 is half to each side."""
    choice_entropy: float | None
    """LeafFeedForward: mean entropy of sigmoid(logit), in nats: 0 is hard, log 2 undecided."""
    near_ties: float | None
    """Share of the decisions whose logit is nearer to 0 than the margin."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeUsage:
    """How one tree is used."""

    tree: int
    """Its number in the layer."""
    visits: NDArray[np.int64]
    """Rows that visit each node (N,), in heap order: gates, then leaves from the left."""
    near_ties: NDArray[np.float64]
    """Share of rows whose logit is nearer to 0 than the margin, at each level of gates (depth,)."""
    choice_entropies: NDArray[np.float64] | None
    """LeafFeedForward: mean entropy of sigmoid(logit) at each gate (G,) over the rows that visit
    it, in nats; NaN where none does."""

    @property
    def depth(self) -> int:
        """Depth of the tree."""
        return depth_of(len(self.visits))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.visits[0])

    @property
    def gate_visits(self) -> NDArray[np.int64]:
        """Rows that visit each gate (G,)."""
        return self.visits[: gate_count(self.depth)]

    @property
    def leaf_visits(self) -> NDArray[np.int64]:
        """Rows that reach each leaf (K,)."""
        return self.visits[gate_count(self.depth) :]

    @property
    def unreached_nodes(self) -> float:
        """Share of the nodes, leaves included, that no row visits."""
        return float(np.mean(self.visits == 0))

    @property
    def unreached_leaves(self) -> float:
        """Share of the leaves that no row reaches."""
        return float(np.mean(self.leaf_visits == 0))

    @property
    def dead_subtrees(self) -> tuple[DeadSubtree, ...]:
        """The maximal subtrees that no row enters, in heap order and so the largest first."""
        visited = np.repeat(self.gate_visits > 0, 2)
        roots = 1 + np.flatnonzero(visited & (self.visits[1:] == 0))
        return tuple(DeadSubtree(self.tree, node, self._size(node)) for node in roots.tolist())

    def _size(self, node: int) -> int:
        """Return the number of nodes at and below a node."""
        level = (node + 1).bit_length() - 1
        return node_count(self.depth - level)

    @property
    def effective_leaves(self) -> float:
        """How many leaves would have the same entropy if all were reached equally often."""
        shares = self.leaf_visits[self.leaf_visits > 0] / self.rows
        return math.exp(-float(np.sum(shares * np.log(shares))))

    @property
    def balance(self) -> float:
        """Entropy of the leaves' visits over the largest possible, log K, from 0 to 1.

        It is the mean of the levels' balances; a single leaf has 1.
        """
        if self.depth == 0:
            return 1.0
        return _between_0_and_1(math.log(self.effective_leaves) / math.log(len(self.leaf_visits)))

    @property
    def largest_share(self) -> float:
        """Share of the rows that reach the most visited leaf."""
        return float(self.leaf_visits.max()) / self.rows

    @property
    def split_entropies(self) -> NDArray[np.float64]:
        """Entropy of each gate's split into left and right (G,), in nats; NaN without a visit."""
        visits, right = self.gate_visits, self.visits[2::2]
        safe = np.maximum(visits, 1)
        terms = [
            part / safe * np.log(safe / np.maximum(part, 1)) for part in (right, visits - right)
        ]
        return np.where(visits > 0, terms[0] + terms[1], np.nan)

    @property
    def levels(self) -> tuple[LevelUsage, ...]:
        """The levels, root first."""
        splits, choices = self.split_entropies, self.choice_entropies
        levels = []
        for level in range(self.depth + 1):
            span = slice(level_start(level), level_start(level + 1))
            visits = self.visits[span]
            decides = level < self.depth
            balance = self._mean(splits[span], visits) / math.log(2) if decides else None
            levels.append(
                LevelUsage(
                    nodes=len(visits),
                    reached=int(np.count_nonzero(visits)),
                    balance=balance if balance is None else _between_0_and_1(balance),
                    choice_entropy=(
                        None
                        if choices is None or not decides
                        else self._mean(choices[span], visits)
                    ),
                    near_ties=float(self.near_ties[level]) if decides else None,
                )
            )
        return tuple(levels)

    def _mean(self, values: Array, visits: Array) -> float:
        """Return the mean of the values of a level's nodes over all rows."""
        return float(np.sum(visits * np.where(visits > 0, values, 0)) / self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all measures as plain JSON values; NaN becomes None."""
        choices = self.choice_entropies
        return {
            "tree": self.tree,
            "visits": self.visits.tolist(),
            "unreached_nodes": self.unreached_nodes,
            "unreached_leaves": self.unreached_leaves,
            "dead_subtrees": [dead._asdict() for dead in self.dead_subtrees],
            "balance": self.balance,
            "effective_leaves": self.effective_leaves,
            "largest_share": self.largest_share,
            "split_entropies": _plain(self.split_entropies),
            "choice_entropies": None if choices is None else _plain(choices),
            "levels": [level._asdict() for level in self.levels],
        }

    def draw(self) -> str:
        """Return a picture of the upper levels: each node's share of the rows.

        A narrow node has a mark instead, which compares its share with an even one: ``x`` no row,
        ``.`` below a quarter, ``-`` below 1, ``+`` below 4 and ``#`` at least 4 times as much.
        """
        lines = []
        for level in range(min(self.depth, PICTURE_WIDTH.bit_length() - 1) + 1):
            shares = self.visits[level_start(level) : level_start(level + 1)] / self.rows
            cells = [_cell(share, len(shares)) for share in shares]
            lines.append(f"{level:>3} |{''.join(cells)}|")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class UsageReport:
    """How the trees of a layer are used; made by `diagnose`, and readable as ``str(report)``."""

    kind: str
    """Kind of the layer."""
    margin: float
    """Logits nearer to 0 are near ties."""
    trees: tuple[TreeUsage, ...]
    """The trees; a LeafFeedForward has one."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.trees[0].rows

    @property
    def visits(self) -> NDArray[np.int64]:
        """Rows that visit each node of each tree (T, N)."""
        return np.stack([tree.visits for tree in self.trees])

    @property
    def dead_subtrees(self) -> tuple[DeadSubtree, ...]:
        """The dead subtrees of all trees."""
        return tuple(dead for tree in self.trees for dead in tree.dead_subtrees)

    @property
    def levels(self) -> tuple[LevelUsage, ...]:
        """The levels of all trees together: nodes add up, shares and entropies are means."""
        together = zip(*(tree.levels for tree in self.trees), strict=True)
        return tuple(
            LevelUsage(
                nodes=sum(level.nodes for level in levels),
                reached=sum(level.reached for level in levels),
                balance=_mean_of([level.balance for level in levels]),
                choice_entropy=_mean_of([level.choice_entropy for level in levels]),
                near_ties=_mean_of([level.near_ties for level in levels]),
            )
            for levels in together
        )

    def of_tree(self, tree: int) -> UsageReport:
        """Return the report of one of the trees.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If there is no tree of that number.
        """
        number = check_integer("tree", tree, 0, len(self.trees) - 1)
        return dataclasses.replace(self, trees=(self.trees[number],))

    def to_dict(self) -> dict[str, Any]:
        """Return all measures as plain JSON values."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "margin": self.margin,
            "levels": [level._asdict() for level in self.levels],
            "trees": [tree.to_dict() for tree in self.trees],
        }

    def __str__(self) -> str:
        first, count = self.trees[0], len(self.trees)
        what = f"tree {first.tree}" if count == 1 else f"{count:,} trees"
        sizes = f"{what} of depth {first.depth}, {_count(len(first.leaf_visits), 'leaf', 'leaves')}"
        parts = [
            f"{self.kind}: {sizes}, {_count(self.rows, 'row', 'rows')}",
            self._format_trees(),
            self._format_levels(),
            self._format_dead(),
        ]
        if count == 1:
            parts.append(f"share of the rows, by level:\n{first.draw()}")
        return "\n\n".join(parts)

    def _format_trees(self) -> str:
        """Return a line for each of the first trees."""
        head = (
            f"{'tree':<8}{'leaves reached':>17}{'nodes reached':>17}{'balance':>9}"
            f"{'effective leaves':>18}{'largest share':>15}{'dead subtrees':>15}"
        )
        lines = [head]
        for tree in self.trees[:SHOWN_TREES]:
            leaves, nodes = (
                f"{np.count_nonzero(visits):,} of {len(visits):,}"
                for visits in (tree.leaf_visits, tree.visits)
            )
            lines.append(
                f"{tree.tree:<8}{leaves:>17}{nodes:>17}{tree.balance:>9.2f}"
                f"{tree.effective_leaves:>18,.1f}{tree.largest_share:>15.1%}"
                f"{len(tree.dead_subtrees):>15,}"
            )
        if len(self.trees) > SHOWN_TREES:
            lines.append(f"and {len(self.trees) - SHOWN_TREES:,} more")
        return "\n".join(lines)

    def _format_levels(self) -> str:
        """Return a line for each level, and what near ties are."""
        head = (
            f"{'level':<8}{'nodes reached':>17}{'balance of splits':>19}{'choice entropy':>16}"
            f"{'near ties':>11}"
        )
        lines = [head]
        for number, level in enumerate(self.levels):
            balance, entropy, ties = (
                "-" if value is None else format(value, form)
                for value, form in (
                    (level.balance, ".2f"),
                    (level.choice_entropy, ".3f"),
                    (level.near_ties, ".2%"),
                )
            )
            reached = f"{level.reached:,} of {level.nodes:,}"
            lines.append(f"{number:<8}{reached:>17}{balance:>19}{entropy:>16}{ties:>11}")
        lines.append(f"near ties are decisions with |logit| < {self.margin:g}")
        return "\n".join(lines)

    def _format_dead(self) -> str:
        """Return a line that names the largest dead subtrees."""
        dead = sorted(self.dead_subtrees, key=lambda one: -one.size)
        if not dead:
            return "no dead subtrees: every node is reached"
        shown = [
            f"tree {one.tree} node {one.node} ({_count(one.size, 'node', 'nodes')})"
            for one in dead[:SHOWN_DEAD]
        ]
        if len(dead) > SHOWN_DEAD:
            shown.append(f"and {len(dead) - SHOWN_DEAD:,} more")
        return f"dead subtrees: {', '.join(shown)}"


def diagnose(layer: Any, data: Any, *, margin: float = 0.01) -> UsageReport:
    """Count where rows go in a layer's trees, and measure how well the trees are used.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer, as it routes at inference.
    data : array_like of shape (..., I), or iterable of such blocks
        The rows. Blocks are looked at one after the other, and large arrays in parts, so that
        memory is bounded.
    margin : float
        Decisions with ``|logit| < margin`` are near ties: small changes of weights or input may
        turn them round.

    Returns
    -------
    UsageReport
        The same for the same rows in whatever blocks and, up to rounding, in any order.

    Raises
    ------
    ArgumentError
        If there is no row, or a logit is not finite.
    ShapeError, ArgumentTypeError
        If an argument is of the wrong kind, or rows are not as wide as the layer reads them.

    Examples
    --------
    >>> import numpy as np
    >>> from fffcpu import FastFeedForward
    >>> from fffcpu.diagnosis import diagnose
    >>> layer = FastFeedForward.from_arrays(np.ones((1, 3, 1)), np.ones((1, 3, 1)))
    >>> report = diagnose(layer, np.array([[-1.0], [1.0], [2.0], [3.0]]))
    >>> report.visits.tolist()
    [[4, 1, 3]]
    >>> report.trees[0].largest_share
    0.75
    """
    margin = check_number("margin", margin, 0)
    trees, depth = _check_layer(layer)
    soft = isinstance(layer.config, LeafFeedForwardConfig)
    leaf_visits = np.zeros((trees, leaf_count(depth)), np.int64)
    ties = np.zeros((trees, depth), np.int64)
    entropies = np.zeros(gate_count(depth)) if soft else None
    for rows in _blocks(layer, data):
        logits, leaves = _decisions(layer, rows)
        for tree in range(trees):
            leaf_visits[tree] += np.bincount(leaves[:, tree], minlength=leaf_visits.shape[1])
        ties += np.count_nonzero(np.abs(logits) < margin, axis=0)
        if entropies is not None:
            gates = _gates_above(leaves[:, 0], depth)
            entropy = _choice_entropy(logits[:, 0].astype(np.float64))
            entropies += np.bincount(gates.ravel(), entropy.ravel(), len(entropies))
    visits = _sum_upwards(leaf_visits)
    if not visits[0, 0]:
        raise ArgumentError("argument 'data' must have at least one row, got none")
    if entropies is not None:
        gate_visits = visits[0, : len(entropies)]
        entropies = np.where(gate_visits > 0, entropies / np.maximum(gate_visits, 1), np.nan)
    return UsageReport(
        kind=layer.config.kind,
        margin=margin,
        trees=tuple(
            TreeUsage(tree, visits[tree], ties[tree] / visits[tree, 0], entropies)
            for tree in range(trees)
        ),
    )


def reached_leaves(layer: Any, x: Any, tree: int = 0) -> Array:
    """Return the leaf that each row reaches in one tree.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer.
    x : array_like of shape (..., I)
        The rows.
    tree : int
        Number of the tree; 0 in a LeafFeedForward.

    Returns
    -------
    int32 array of shape (...,)
        Leaves, the nodes of the deepest level, from 0 at the left to K - 1 at the right.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.
    """
    trees, depth = _check_layer(layer)
    tree = check_integer("tree", tree, 0, trees - 1)
    route: Array = layer.route(x)
    if isinstance(layer.config, LeafFeedForwardConfig):
        return route
    return route[..., tree, depth] - np.int32(gate_count(depth))


def leaf_means(layer: Any, data: Any, leaves: Sequence[int], tree: int = 0) -> Array:
    """Return the mean of the rows that reach each of some leaves.

    Parameters
    ----------
    layer : FastFeedForward, LeafFeedForward or one of the quantized layers
        The layer.
    data : array_like of shape (..., I), or iterable of such blocks
        The rows, as for `diagnose`.
    leaves : sequence of int
        Leaves, from 0 at the left to K - 1 at the right.
    tree : int
        Number of the tree; 0 in a LeafFeedForward.

    Returns
    -------
    float64 array of shape (len(leaves), I)
        The means; NaN where no row reaches the leaf.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.
    """
    _, depth = _check_layer(layer)
    wanted = [check_integer("leaves", leaf, 0, leaf_count(depth) - 1) for leaf in leaves]
    sums = np.zeros((len(wanted), layer.config.input_dim))
    counts = np.zeros((len(wanted), 1))
    for rows in _blocks(layer, data):
        reached = reached_leaves(layer, rows, tree)
        for i, leaf in enumerate(wanted):
            chosen = rows[reached == leaf]
            sums[i] += chosen.sum(axis=0, dtype=np.float64)
            counts[i] += len(chosen)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _check_layer(layer: Any) -> tuple[int, int]:
    """Return number and depth of a layer's trees, or raise if it has none."""
    config = getattr(layer, "config", None)
    if isinstance(config, FastFeedForwardConfig):
        return config.trees, config.depth
    if isinstance(config, LeafFeedForwardConfig):
        return 1, config.depth
    raise ArgumentTypeError(
        f"argument 'layer' must be a FastFeedForward or a LeafFeedForward, got {describe(layer)}"
    )


def _blocks(layer: Any, data: Any) -> Iterator[Array]:
    """Yield the rows as the layer's kernels take them, so many at a time."""
    width, dtype = layer.config.input_dim, np.dtype(layer.config.dtype)
    blocks = [data] if hasattr(data, "__array__") else data
    if not isinstance(blocks, Iterable):
        raise ArgumentTypeError(
            f"argument 'data' must be an array of rows or an iterable of such, got {describe(data)}"
        )
    for block in blocks:
        array = as_real_array(block, "data")
        if array.ndim == 0 or array.shape[-1] != width:
            raise ShapeError(
                f"argument 'data' must hold rows of {width} numbers, got shape {array.shape}"
            )
        array = array.reshape(-1, width)
        for start in range(0, len(array), BLOCK_ROWS):
            rows, _ = as_rows(array[start : start + BLOCK_ROWS], "data", width, dtype)
            yield rows


def _decisions(layer: Any, rows: Array) -> tuple[Array, Array]:
    """Return the logits by which rows are sent on (B, T, depth), and the leaves reached (B, T)."""
    if isinstance(layer.config, LeafFeedForwardConfig):
        leaves = layer.route(rows)[:, np.newaxis]
        logits = _gate_logits(layer, rows, leaves[:, 0])[:, np.newaxis]
    else:
        logits, nodes = _path_logits(layer, rows)
        leaves = nodes[..., -1] - np.int32(gate_count(layer.config.depth))
    wrong = len(rows) - np.count_nonzero(np.isfinite(logits).all(axis=(1, 2)))
    if wrong:
        raise ArgumentError(
            f"argument 'data' must give finite logits on every path, got {wrong} of "
            f"{len(rows)} rows that do not"
        )
    return logits[..., : layer.config.depth], leaves


def _path_logits(layer: Any, rows: Array) -> tuple[Array, Array]:
    """Return logits and nodes (B, T, L) as the layer's own kernels compute them."""
    config, weights = layer.config, PathWeights.of(layer.params)
    shape = (len(rows), config.trees, config.depth + 1)
    logits, nodes = np.empty(shape, rows.dtype), np.empty(shape, np.int32)
    backend = kernels.choose(len(rows), weights)
    backend.path_logits(logits, nodes, rows, weights.weights_in, weights.bias_in, weights.scale_in)
    return logits, nodes


def _gate_logits(layer: Any, rows: Array, leaves: Array) -> Array:
    """Return the logits (B, depth) of the gates above each row's leaf."""
    weights, bias = layer.params["gate_weights"], layer.params["gate_bias"]
    logits = np.empty((len(rows), layer.config.depth), rows.dtype)
    for level, gates in enumerate(_gates_above(leaves, layer.config.depth).T):
        logits[:, level] = np.einsum("bi,bi->b", rows, weights[gates]) + bias[gates]
    return logits


def _gates_above(leaves: Array, depth: int) -> Array:
    """Return the gates on the way to leaves (B,), root first (B, depth)."""
    counted_from_1 = leaves[:, np.newaxis] + leaf_count(depth)
    return (counted_from_1 >> np.arange(depth, 0, -1)) - 1


def _sum_upwards(leaf_visits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the visits of all nodes (T, N): a gate has those of its children together."""
    levels = [leaf_visits]
    while levels[0].shape[1] > 1:
        levels.insert(0, levels[0][:, 0::2] + levels[0][:, 1::2])
    return np.concatenate(levels, axis=1)


def _choice_entropy(logits: Array) -> Array:
    """Return the entropy of a choice with probability sigmoid(logit), in nats.

    With a = |logit| it is ``log(1 + exp(-a)) + a / (1 + exp(a))``, which needs no clipping.
    """
    size = np.abs(logits)
    small = np.exp(-size)
    entropy: Array = np.log1p(small) + size * small / (1 + small)
    return entropy


def _between_0_and_1(value: float) -> float:
    """Return a value that only rounding can have taken out of its range."""
    return min(max(0.0, value), 1.0)


def _mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None where there is nothing to average."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _plain(values: Array) -> list[float | None]:
    """Return numbers for JSON, which has no NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def _cell(share: float, nodes: int) -> str:
    """Return one of a level's nodes as `TreeUsage.draw` shows it."""
    width = PICTURE_WIDTH // nodes
    if share == 0:
        mark = "x"
    elif width >= NARROW:
        return f"{share:.0%}".center(width)
    else:
        mark = next(mark for limit, mark in MARKS if share * nodes < limit)
    return mark.center(width) if width >= NARROW else mark * width


def _count(number: int, one: str, many: str) -> str:
    """Return a number and its noun."""
    return f"{number:,} {one if number == 1 else many}"
