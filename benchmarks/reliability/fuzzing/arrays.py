"""Hostile arrays: any shape, layout, dtype and numbers, for every function that takes arrays.

An array is right if NumPy makes it an array of real numbers with the wanted last axis. Right ones
must be taken, and give what the oracle gives; all others must be refused.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from numpy.typing import NDArray

import fffcpu
from benchmarks.reliability.fuzzing.judging import OURS
from fffcpu.models import FastBertConfig, FastBertForMaskedLM
from fffcpu.testing import oracle
from fffcpu.training import mean_squared_error, sigmoid_cross_entropy, softmax_cross_entropy

__all__ = ["ARRAY_CASES", "check_arrays", "hostile"]

Array = NDArray[Any]

REAL = (*("f4", "f8", "f2", "g", ">f4", ">f8"), *("i1", "u1", "i2", "<u2", ">i4", "i8", "u8", "?"))
OTHER = ("c8", "c16", "O", "U3", "S2", "M8[s]", "m8[s]", "V4", "f4,i4")
LEADING: tuple[tuple[int, ...], ...] = (
    *((), (0,), (1,), (2,), (3,), (7,), (2, 3), (0, 4), (2, 0), (1, 1, 2), (1,) * 6),
)
MOST = 1e6
"""Largest absolute number of a row that is compared with the oracle."""


class Hostile(NamedTuple):
    """An argument, and the array of it if it is right."""

    value: Any
    right: Array | None


def hostile(rng: Random, width: int, leading: tuple[int, ...] | None = None) -> Hostile:
    """Return an argument that should have shape (..., width).

    Parameters
    ----------
    rng : Random
        Decides everything.
    width : int
        Length of the last axis of right arrays.
    leading : tuple of int, optional
        The only right leading shape; by default any is.
    """
    shape = (*(rng.choice(LEADING) if leading is None else leading), width)
    if rng.random() < 0.15:
        shape = rng.choice(
            ((), (0,), (width,), (width + 1,), (2, max(0, width - 1)), (width, 2), shape[1:])
        )
    if leading is None and rng.random() < 0.003:
        shape = (1100, width)
    value = _layout(rng, _numbers(rng, shape))
    value = _container(rng, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = np.asarray(value)
        except ValueError:
            return Hostile(value, None)
    fits = array.ndim > 0 and array.shape[-1] == width and array.dtype.kind in "fiub"
    fits = fits and (leading is None or array.shape[:-1] == leading)
    return Hostile(value, array if fits else None)


def _numbers(rng: Random, shape: tuple[int, ...]) -> Array:
    """Return an array of some dtype with ordinary, extreme or no finite numbers."""
    numbers = np.random.default_rng(rng.getrandbits(32)).standard_normal(shape)
    kind = rng.randrange(10)
    if kind == 0:
        numbers *= rng.choice((1e-310, 1e-45, 1e-30, 1e30, 1e300, 1e5))
    elif kind == 1:
        numbers = np.round(numbers)
    elif kind == 2 and numbers.size:
        special = (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 3.5e38, 1.8e308)
        numbers.reshape(-1)[rng.randrange(numbers.size)] = rng.choice(special)
    elif kind == 3:
        numbers = np.zeros(shape)
    dtype = np.dtype(rng.choice(REAL if rng.random() < 0.85 else OTHER))
    if rng.random() < 0.5:
        dtype = np.dtype(rng.choice(("f4", "f8")))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dtype.kind in "MmVSU":
            return np.zeros(shape, dtype)
        return np.asarray(numbers * (50 if dtype.kind in "iu" else 1)).astype(dtype)


def _layout(rng: Random, array: Array) -> Array:
    """Return equal numbers, or others of the same shape, in another layout."""
    if not array.ndim:
        return array
    kind = rng.randrange(12)
    axis = rng.randrange(array.ndim)
    if kind == 0:
        return np.flip(np.flip(array, axis).copy(), axis)
    if kind == 1:
        return np.asfortranarray(array)
    if kind == 2:  # the same numbers along an axis, with stride 0
        return np.broadcast_to(array[..., :1, :] if array.ndim > 1 else array, array.shape)
    if kind == 3:
        return np.repeat(array, 2, axis)[(*(slice(None),) * axis, slice(None, None, 2))]
    if kind == 4:  # not aligned
        buffer = np.empty(array.nbytes + 1, np.uint8)
        if array.dtype.hasobject:
            return array
        moved: Array = buffer[1:].view(array.dtype).reshape(array.shape)
        moved[...] = array
        return moved
    if kind == 5:
        array = array.copy()
        array.flags.writeable = False
    if kind == 6 and array.ndim == 2 and array.size and not array.dtype.hasobject:
        flat = np.resize(array.reshape(-1), array.shape[0] + array.shape[1] - 1)
        return sliding_window_view(flat, array.shape[1])
    if kind == 7:
        return np.moveaxis(np.moveaxis(array, axis, 0).copy(), 0, axis)
    return array


class _Subclass(np.ndarray):
    """An array of a class of its own."""


def _container(rng: Random, array: Array) -> Any:
    """Return the array, or something else that NumPy takes for one."""
    kind = rng.randrange(30)
    if kind == 0:
        return array.tolist()
    if kind == 1 and array.ndim:
        return tuple(array)
    if kind == 2:
        return array.view(_Subclass)
    if kind == 3:
        return np.ma.masked_array(array)
    if kind == 4 and array.ndim == 2 and array.dtype.kind in "fiu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asmatrix(array)
    if kind == 5:
        return rng.choice((None, 3.5, "text", [], [[]], [[1.0], [2.0, 3.0]], object(), {}, {1, 2}))
    if kind == 6 and array.size < 30:
        return array.astype(object)
    return array


# --- Layers ---------------------------------------------------------------------------------------


@functools.cache
def _layers() -> dict[str, Any]:
    """Return small layers by name."""
    fast = fffcpu.FastFeedForward(3, 2, depth=3, trees=2, rng=0)
    leaf = fffcpu.LeafFeedForward(4, 2, depth=2, leaf_width=3, rng=1)
    return {
        "fast": fast,
        "fast64": fffcpu.FastFeedForward(5, 3, depth=2, dtype=np.float64, rng=2),
        "wide": fffcpu.FastFeedForward(17, 9, depth=1, activation="relu", bias=False, rng=3),
        "root": fffcpu.FastFeedForward(1, 1, depth=0, activation="identity", rng=4),
        "leaf": leaf,
        "leaf64": fffcpu.LeafFeedForward(
            2, 3, depth=1, leaf_width=2, activation="gelu", dtype=np.float64, rng=5
        ),
        "dense": fffcpu.DenseFeedForward(3, 2, 4, rng=6),
        "bfloat16": fast.quantize("bfloat16"),
        "int8": fast.quantize("int8"),
        "leaf8": leaf.quantize("int8"),
        "leaf16": leaf.quantize("bfloat16"),
    }


@functools.cache
def _plain(name: str) -> tuple[str, dict[str, Array], str]:
    """Return a layer's kind, its parameters as the oracle takes them, and its activation."""
    layer = _layers()[name]
    plain = layer.dequantize() if hasattr(layer, "dequantize") else layer
    kind = type(plain).__name__
    return kind, dict(plain.params), str(plain.config.to_dict()["activation"])


def _compare(name: str, rows: Array, y: Array) -> None:
    """Raise unless an output agrees with the oracle, where rows and routes are not on the edge."""
    kind, params, activation = _plain(name)
    layer = _layers()[name]
    rows, y = rows[:6], np.asarray(y).reshape(-1, layer.config.output_dim)[:6]
    with np.errstate(all="ignore"):
        rows = rows.astype(layer.config.dtype).astype(np.float64)
    if kind == "DenseFeedForward" or not len(rows):
        return
    with np.errstate(all="ignore"):
        if kind == "FastFeedForward":
            given = params["weights_in"], params.get("bias_in"), params["weights_out"]
            wanted: Any = oracle.path(rows, *given, activation)
        else:
            wanted = oracle.leaf(rows, params, activation)
    finite = np.isfinite(rows).all(axis=1)
    if not np.isnan(y[~finite]).all():
        raise AssertionError(f"{name}: rows that are not finite gave {y[~finite]}")
    size = np.abs(np.where(np.isfinite(rows), rows, 0)).max(axis=1, initial=1.0)
    eps = 2e-5 if y.dtype == np.float32 else 1e-12
    compared = finite & (size < MOST) & (wanted.margin > eps * size)
    error = np.abs(y - wanted.y)[compared].max(axis=1, initial=0.0)
    if (error > 20 * eps * size[compared]).any() or np.isnan(error).any():
        raise AssertionError(f"{name}: {y[compared]} instead of {wanted.y[compared]}")


def _expect(right: bool, call: Callable[[], Any]) -> Any:
    """Call; raise if something right is refused, or something wrong is taken."""
    try:
        result = call()
    except OURS as error:
        if right:
            raise AssertionError(f"a right argument was refused: {error}") from error
        raise
    if not right:
        raise AssertionError("a wrong argument was taken")
    return result


def _call(rng: Random) -> str | None:
    """Call a layer, with or without an array for the output."""
    name = rng.choice(sorted(_layers()))
    # Without compiled kernels NumPy computes a dense layer, and warns of numbers not finite.
    with np.errstate(invalid="ignore" if name == "dense" else "warn"):
        return _call_layer(rng, name)


def _call_layer(rng: Random, name: str) -> str | None:
    layer = _layers()[name]
    x = hostile(rng, layer.config.input_dim)
    if rng.random() < 0.6 or x.right is None:
        y = _expect(x.right is not None, lambda: layer(x.value))
    else:
        rows = x.right.copy()
        out, right = _output(rng, x.right, (*rows.shape[:-1], layer.config.output_dim), layer)
        y = _expect(right, lambda: layer(x.value, out))
        if y is not out:
            return "another array than out was returned"
        x = x._replace(right=rows)
    assert x.right is not None
    rows = x.right.reshape(-1, layer.config.input_dim)
    if y.shape != (*x.right.shape[:-1], layer.config.output_dim) or y.dtype != layer.config.dtype:
        return f"an output of shape {y.shape} and dtype {y.dtype}"
    _compare(name, rows, y)
    if len(rows) and type(layer).__name__ != "DenseFeedForward":
        at = rng.randrange(len(rows))
        alone = layer(rows[at : at + 1])[0]
        if not np.array_equal(alone, y.reshape(-1, y.shape[-1])[at], equal_nan=True):
            return "a row has other bits alone"
    return None


def _output(rng: Random, x: Array, shape: tuple[int, ...], layer: Any) -> tuple[Any, bool]:
    """Return an array for an output, and whether it is right."""
    dtype = np.dtype(layer.config.dtype)
    kind = rng.randrange(9)
    out: Any = np.zeros(shape, dtype)
    if kind == 0:
        return rng.choice((out.tolist(), 3, "out")), False
    if kind == 1:
        other = np.zeros(shape, rng.choice(("f2", "i4", "O", ">f4", "c8", "f8", "f4")))
        return other, other.dtype == dtype
    if kind == 2:
        wrong = rng.choice(((*shape, 1), shape[1:], (*shape[:-1], shape[-1] + 1), (0,)))
        return np.zeros(wrong, dtype), wrong == shape
    if kind == 3:
        out.flags.writeable = False
        return out, False
    if kind == 4:
        return np.zeros(shape[::-1], dtype).T, True
    if kind == 5:
        return np.zeros((*shape, 2), dtype)[..., 0], True
    if kind == 6 and x.flags.writeable and x.flags.c_contiguous and x.dtype == dtype and x.size:
        count = int(np.prod(shape))
        if count <= x.size:  # the memory of x
            return np.asarray(x).reshape(-1)[x.size - count :].reshape(shape), True
    if kind == 7:
        return out.view(_Subclass), True
    return out, True


def _forward(rng: Random) -> str | None:
    """Run forward and backward with hostile rows and gradients."""
    name = rng.choice(("fast", "fast64", "wide", "root", "leaf", "leaf64", "dense"))
    layer = _layers()[name]
    x = hostile(rng, layer.config.input_dim)
    with np.errstate(all="ignore"):
        y, cache = _expect(x.right is not None, lambda: layer.forward(x.value))
    assert x.right is not None
    if name not in ("leaf", "leaf64", "dense"):
        _compare(name, x.right.reshape(-1, layer.config.input_dim), y)
    dy = hostile(rng, layer.config.output_dim, rng.choice((y.shape[:-1], None)))
    right = dy.right is not None and dy.right.shape == y.shape
    options = {}
    if name in ("fast", "fast64", "wide", "root"):
        options = {"row_sparse": rng.random() < 0.5, "straight_through": rng.random() < 0.5}
    with np.errstate(all="ignore"):
        dx, grads = _expect(right, lambda: layer.backward(dy.value, cache, **options))
    if dx.shape != x.right.shape or set(grads) != set(layer.params):
        return f"gradients of shape {dx.shape} for {sorted(grads)}"
    return None


def _route(rng: Random) -> str | None:
    """Ask for routes, and for the logits along them."""
    name = rng.choice(("fast", "fast64", "wide", "root", "leaf", "leaf64", "int8", "leaf16"))
    layer = _layers()[name]
    x = hostile(rng, layer.config.input_dim)
    nodes = _expect(x.right is not None, lambda: layer.route(x.value))
    assert x.right is not None
    if nodes.dtype != np.int32 or nodes.shape[: x.right.ndim - 1] != x.right.shape[:-1]:
        return f"routes of shape {nodes.shape} and dtype {nodes.dtype}"
    if nodes.size and not 0 <= nodes.min() <= nodes.max() < layer.config.neurons:
        return f"nodes from {nodes.min()} to {nodes.max()}"
    if name in ("fast", "fast64", "wide", "root"):
        weights, bias = layer.params["weights_in"], layer.params.get("bias_in")
        logits, same = fffcpu.cmm(x.value, weights, bias)
        if not np.array_equal(nodes, same) or logits.shape != nodes.shape:
            return "cmm has other routes"
    return None


def _cmm(rng: Random) -> str | None:
    """Give cmm hostile weights."""
    width = rng.choice((1, 3))
    x = hostile(rng, width)
    weights = hostile(rng, width, (rng.choice((1, 2)), rng.choice((1, 3, 7, 2, 0))))
    bias = hostile(rng, 3, (1,)) if rng.random() < 0.4 else Hostile(None, None)
    logits, nodes = fffcpu.cmm(x.value, weights.value, bias.value)
    if x.right is None or weights.right is None or logits.shape != nodes.shape:
        return "wrong arguments were taken"
    if nodes.size and not 0 <= nodes.min() <= nodes.max() < weights.right.shape[1]:
        return f"nodes from {nodes.min()} to {nodes.max()}"
    return None


def _from_arrays(rng: Random) -> str | None:
    """Make layers from hostile arrays."""
    x = np.ones((2, 3))
    if rng.random() < 0.5:
        trees, nodes = rng.choice((1, 2)), rng.choice((1, 3, 7, 2))
        w_in = hostile(rng, 3, (trees, nodes))
        w_out = hostile(rng, 2, (trees, nodes))
        bias = hostile(rng, nodes, (trees,)) if rng.random() < 0.5 else Hostile(None, None)
        right = w_in.right is not None and w_out.right is not None and nodes != 2
        right = right and (bias.value is None or bias.right is not None)
        arguments = (w_in.value, w_out.value, bias.value)
        layer: Any = _made(right, fffcpu.FastFeedForward, arguments)
    else:
        leaves = rng.choice((1, 2, 4, 3))
        shapes = ((3, (leaves - 1,)), (leaves - 1, ()), (2, (leaves, 3)), (2, (leaves,)))
        shapes += ((2, (leaves, 2)), (2, (leaves,)))
        made = [hostile(rng, width, leading) for width, leading in shapes]
        right = leaves != 3 and all(one.right is not None for one in made)
        layer = _made(right, fffcpu.LeafFeedForward, tuple(one.value for one in made))
    with np.errstate(all="ignore"):
        y = layer(x)
    return None if y.shape == (2, 2) else f"an output of shape {y.shape}"


def _made(right: bool, kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Make a layer. Wrong arrays may fit by chance, so only what is right is judged."""
    with np.errstate(all="ignore"):
        if right:
            return _expect(True, lambda: kind.from_arrays(*arguments))
        return kind.from_arrays(*arguments)


@functools.cache
def _predictors() -> tuple[fffcpu.Predictor, ...]:
    layers = _layers()
    return (
        fffcpu.Predictor(layers["fast"], fffcpu.Schema("classification", ("a", "b"))),
        fffcpu.Predictor(layers["leaf"], fffcpu.Schema("multilabel", (0, 1))),
        fffcpu.Predictor(layers["root"], fffcpu.Schema("regression", offset=(1.5,))),
        fffcpu.Predictor(layers["fast64"], fffcpu.Schema("regression", offset=(0.0, 1.0, 2.0))),
    )


def _predict(rng: Random) -> str | None:
    """Predict hostile rows."""
    predictor = rng.choice(_predictors())
    x = hostile(rng, predictor.layer.config.input_dim)
    with np.errstate(all="ignore"):
        # Numbers that give no finite outputs are refused, too.
        right = x.right is not None and bool(np.isfinite(predictor.layer(x.right)).all())
        y = _expect(right, lambda: predictor.predict(x.value))
        assert x.right is not None
        if y.shape[: x.right.ndim - 1] != x.right.shape[:-1]:
            return f"predictions of shape {y.shape}"
        if predictor.schema.task != "regression":
            p = predictor.probabilities(x.value)
            if not ((p >= 0) & (p <= 1)).all():
                return f"probabilities of {p}"
    return None


def _losses(rng: Random) -> str | None:
    """Compute losses of hostile outputs, labels and weights."""
    loss = rng.choice((softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error))
    leading = rng.choice(LEADING)
    outputs = hostile(rng, 3, leading)
    weights = None
    if rng.random() < 0.3 and leading:
        weights = hostile(rng, leading[-1], leading[:-1]).value
    labels: Any
    if loss is softmax_cross_entropy and rng.random() < 0.7:
        drawn = np.random.default_rng(rng.getrandbits(32)).integers(0, 3, leading)
        if drawn.size and rng.random() < 0.4:
            wrong = rng.choice((-100, -1, 3, 2**31, -(2**63), 2**62))
            drawn.reshape(-1)[rng.randrange(drawn.size)] = wrong
        labels = _container(rng, _layout(rng, drawn))
    else:
        labels = hostile(rng, 3, leading).value
    with np.errstate(all="ignore"):
        value, gradient = loss(outputs.value, labels, weights)
    if not isinstance(value, float) or gradient.shape != np.shape(outputs.value):
        return f"a loss of {value!r} and a gradient of shape {gradient.shape}"
    return None


@functools.cache
def _bert() -> FastBertForMaskedLM:
    config = FastBertConfig(20, 8, 1, 2, feedforward_size=1, depth=1, positions=6)
    return FastBertForMaskedLM(config, rng=0)


def _tokens(rng: Random) -> str | None:
    """Give a model hostile tokens and masks."""
    leading = rng.choice(((1,), (2,), (0,), ()))
    length = rng.choice((1, 4, 6, 7, 0))
    ids: Any = hostile(rng, length, leading).value
    if rng.random() < 0.7:
        drawn = np.random.default_rng(rng.getrandbits(32)).integers(0, 20, (*leading, length))
        if drawn.size and rng.random() < 0.4:
            drawn.reshape(-1)[rng.randrange(drawn.size)] = rng.choice((-1, 20, 2**31, -(2**63)))
        ids = _container(rng, _layout(rng, drawn))
    mask: Any = None
    if rng.random() < 0.5:
        mask = hostile(rng, length, leading).value
        if rng.random() < 0.5:
            mask = np.random.default_rng(rng.getrandbits(32)).integers(0, 2, (*leading, length))
    with np.errstate(all="ignore"):
        y = _bert()(ids, mask)
    if y.shape != (*np.shape(ids), 20):
        return f"logits of shape {y.shape}"
    return None


def _overlaps(rng: Random) -> str | None:
    """Give a layer rows and an output in the same memory, in any position."""
    layer = _layers()["fast"]
    memory = np.random.default_rng(rng.getrandbits(32)).standard_normal(64).astype("f4")
    x = as_strided(
        memory[rng.randrange(8) :], (3, 3), (4 * rng.randrange(8), 4 * rng.choice((1, 2)))
    )
    start, step = rng.randrange(8), rng.choice((2, 3, 7))
    out = as_strided(memory[start:], (3, 2), (4 * step, 4))
    wanted = layer(x.copy())
    result = layer(x, out)
    return None if np.array_equal(result, wanted) else "an output that overlaps the rows is wrong"


ARRAY_CASES = (
    *(_call, _call, _call, _forward, _route, _cmm, _from_arrays, _predict, _losses, _tokens),
    _overlaps,
)
"""Functions that draw arguments, call, and return what is wrong, or None."""


def check_arrays(rng: Random, function: Callable[[Random], str | None] | None = None) -> str | None:
    """Draw a case and return what is wrong, or None; the error of a refusal is raised."""
    function = rng.choice(ARRAY_CASES) if function is None else function
    try:
        return function(rng)
    except AssertionError as error:
        raise AssertionError(f"{function.__name__.strip('_')}: {error}") from error
