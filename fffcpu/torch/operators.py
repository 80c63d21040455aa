"""The kernels as operators of PyTorch, with their gradients, on the CPU.

Each operator has a fake kernel, which gives the shapes of its outputs, so that ``torch.compile``
and ``torch.export`` see one opaque node. Tensors are not copied where they are contiguous::

    operator            returns
    path_infer          y (B, O)
    path_forward        y (B, O), logits (B, T, L), nodes (B, T, L)
    path_backward       dx (B, I), and the gradients of weights_in, bias_in, weights_out
    path_backward_x     dx (B, I)
    leaf_infer          y (B, O)
    leaf_backward       dx (B, I), and the gradients of the six parameters

The gradient of a bias that is absent has no elements. There are no second derivatives.

Shapes: B rows, I input width, O output width, T trees, N nodes in a tree, L levels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from fffcpu.config import FastFeedForwardConfig, LeafFeedForwardConfig
from fffcpu.errors import ShapeError, describe
from fffcpu.layers import FastFeedForward, Layer, LeafFeedForward, PathCache
from fffcpu.parameters import Parameters
from fffcpu.tree import depth_of

__all__ = [
    "as_array",
    "dispatch_modes",
    "is_transformed",
    "leaf_infer",
    "path_forward",
    "path_infer",
    "runs_kernels",
    "share",
    "tracing_state",
]

Function = TypeVar("Function", bound=Callable[..., Any])
SomeLayer = TypeVar("SomeLayer", bound=Layer[Any])

MOST_CONFIGS = 256
"""Configs of layers that are kept: those of a large model."""

# Private parts of PyTorch, which has no public ones for this.
dispatch_modes = torch._C._len_torch_dispatch_stack
"""Returns how many modes watch the operators of this thread."""
tracing_state = torch._C._get_tracing_state
"""Returns what ``torch.jit`` records, or None."""

_LIBRARY = torch.library.Library("fffcpu", "DEF")

_PATH = "Tensor weights_in, Tensor? bias_in, Tensor weights_out, str activation"

_LEAF = (
    "Tensor gate_weights, Tensor gate_bias, Tensor leaf_weights_in, Tensor leaf_bias_in, "
    "Tensor leaf_weights_out, Tensor leaf_bias_out, str activation"
)


def _operator(schema: str) -> Callable[[Function], Function]:
    """Define an operator that a function computes, with the function's name."""

    def define(function: Function) -> Function:
        name = function.__name__.removeprefix("_")
        _LIBRARY.define(f"{name}{schema}")
        _LIBRARY.impl(name, function, "CPU")
        return function

    return define


def runs_kernels(tensor: Tensor) -> bool:
    """Whether kernels take a tensor: on the CPU, in float32 or float64."""
    return bool(tensor.is_cpu) and tensor.dtype in (torch.float32, torch.float64)


def is_transformed() -> bool:
    """Whether ``torch.func`` or forward gradients transform what is computed.

    They differentiate and batch operators of PyTorch only.
    """
    return not is_compiling() and bool(
        torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor on the CPU as an array in the same memory, if it is contiguous."""
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array


def share(
    layer_type: type[SomeLayer], config: Any, arrays: Mapping[str, NDArray[Any]]
) -> SomeLayer:
    """Return a layer on the memory of arrays, which kernels trust.

    Raises
    ------
    ShapeError
        If an array does not have the shape and the dtype of the config.
    """
    for name, shape in config.shapes().items():
        array = arrays[name]
        if array.shape != shape or array.dtype != config.dtype:
            raise ShapeError(
                f"parameter '{name}' must have shape {shape} and dtype {config.dtype}, "
                f"got {describe(array)}"
            )
    return layer_type._sharing(config, Parameters.sharing(arrays))


def _as_tensors(*arrays: NDArray[Any]) -> tuple[Tensor, ...]:
    """Return arrays as tensors in the same memory."""
    return tuple(map(torch.from_numpy, arrays))


# --- FastFeedForward ------------------------------------------------------------------------------


@functools.lru_cache(MOST_CONFIGS)
def _path_config(
    shape: tuple[int, int, int], output_shape: tuple[int, ...], bias: bool, *options: Any
) -> FastFeedForwardConfig:
    """Return the config of parameters of these shapes; options are activation and dtype."""
    (trees, count, input_dim), (activation, dtype) = shape, options
    return FastFeedForwardConfig(
        input_dim,
        output_shape[-1],
        depth_of(count),
        trees,
        bias=bias,
        two_sided=len(output_shape) == 4,
        activation=activation,
        dtype=dtype,
    )


def _path_layer(
    weights_in: Tensor, bias_in: Tensor | None, weights_out: Tensor, activation: str
) -> FastFeedForward:
    """Return a layer on the memory of these tensors."""
    arrays = {"weights_in": as_array(weights_in)}
    if bias_in is not None:
        arrays["bias_in"] = as_array(bias_in)
    arrays["weights_out"] = as_array(weights_out)
    shapes = weights_in.shape, weights_out.shape
    config = _path_config(*shapes, bias_in is not None, activation, arrays["weights_in"].dtype)
    return share(FastFeedForward, config, arrays)


@_operator(f"(Tensor x, {_PATH}) -> Tensor")
def _path_infer(x: Tensor, *parameters: Any) -> Tensor:
    """Compute the output of rows."""
    return torch.from_numpy(_path_layer(*parameters)(as_array(x)))


@_operator(f"(Tensor x, {_PATH}, bool straight_through) -> (Tensor, Tensor, Tensor)")
def _path_forward(x: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
    """Compute the output of rows, with the logits and nodes of their paths."""
    y, cache = _path_layer(*parameters[:4]).forward(as_array(x))
    return _as_tensors(y, cache.logits, cache.nodes)


@_operator(
    f"(Tensor dy, Tensor x, Tensor logits, Tensor nodes, {_PATH}, bool straight_through)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
def _path_backward(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Compute the gradients of rows and parameters."""
    dx, grads = _path_gradients(dy, *arguments, row_sparse=False)
    bias = grads.get("bias_in", np.empty(0, dx.dtype))
    return _as_tensors(dx, grads["weights_in"], bias, grads["weights_out"])


@_operator(
    f"(Tensor dy, Tensor x, Tensor logits, Tensor nodes, {_PATH}, bool straight_through) -> Tensor"
)
def _path_backward_x(dy: Tensor, *arguments: Any) -> Tensor:
    """Compute the gradient of rows; those of parameters only of visited nodes, to be dropped."""
    dx, _ = _path_gradients(dy, *arguments, row_sparse=True)
    return torch.from_numpy(dx)


def _path_gradients(
    dy: Tensor, x: Tensor, logits: Tensor, nodes: Tensor, *arguments: Any, row_sparse: bool
) -> tuple[NDArray[Any], dict[str, Any]]:
    *parameters, straight_through = arguments
    cache = PathCache(as_array(x), as_array(logits), as_array(nodes), (len(x),))
    return _path_layer(*parameters).backward(
        as_array(dy), cache, row_sparse=row_sparse, straight_through=straight_through
    )


def _fake_path_infer(
    x: Tensor, weights_in: Any, bias_in: Any, weights_out: Tensor, activation: str
) -> Tensor:
    return x.new_empty((x.shape[0], weights_out.shape[-1]))


def _fake_path_forward(
    x: Tensor,
    weights_in: Tensor,
    bias_in: Any,
    weights_out: Tensor,
    activation: str,
    straight_through: bool,
) -> tuple[Tensor, ...]:
    trees, count = weights_in.shape[:2]
    path = (x.shape[0], trees, int(count).bit_length())
    y = x.new_empty((x.shape[0], weights_out.shape[-1]))
    return y, x.new_empty(path), x.new_empty(path, dtype=torch.int32)


def _fake_path_backward(
    dy: Tensor, x: Tensor, logits: Any, nodes: Any, *arguments: Any
) -> tuple[Tensor, ...]:
    weights_in, bias_in, weights_out, *_ = arguments
    bias = (0,) if bias_in is None else bias_in.shape
    shapes = (x.shape, weights_in.shape, bias, weights_out.shape)
    return tuple(map(x.new_empty, shapes))


def _fake_path_backward_x(dy: Tensor, x: Tensor, *arguments: Any) -> Tensor:
    return x.new_empty(x.shape)


def _keep_path(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters, ctx.activation, ctx.straight_through = inputs
    _, logits, nodes = output
    ctx.mark_non_differentiable(logits, nodes)
    ctx.save_for_backward(x, logits, nodes, *parameters)


def _path_derivative(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    needs, options = ctx.needs_input_grad, (ctx.activation, ctx.straight_through)
    arguments = (dy, *ctx.saved_tensors, *options)
    if any(needs[1:]):
        grads = torch.ops.fffcpu.path_backward(*arguments)
    else:
        grads = (torch.ops.fffcpu.path_backward_x(*arguments), None, None, None)
    return (*(g if need else None for g, need in zip(grads, needs, strict=False)), None, None)


# --- LeafFeedForward ------------------------------------------------------------------------------

_LEAF_NAMES = (
    "gate_weights",
    "gate_bias",
    "leaf_weights_in",
    "leaf_bias_in",
    "leaf_weights_out",
    "leaf_bias_out",
)


@functools.lru_cache(MOST_CONFIGS)
def _leaf_config(
    shape: tuple[int, int, int], output_dim: int, activation: str, dtype: Any
) -> LeafFeedForwardConfig:
    leaves, input_dim, width = shape
    depth = depth_of(2 * leaves - 1)
    return LeafFeedForwardConfig(
        input_dim, output_dim, depth, width, activation=activation, dtype=dtype
    )


def _leaf_layer(*arguments: Any) -> LeafFeedForward:
    """Return a layer on the memory of six tensors; the last argument is the activation."""
    *parameters, activation = arguments
    arrays = dict(zip(_LEAF_NAMES, map(as_array, parameters), strict=True))
    weights_in, bias_out = arrays["leaf_weights_in"], arrays["leaf_bias_out"]
    config = _leaf_config(weights_in.shape, bias_out.shape[1], activation, weights_in.dtype)
    return share(LeafFeedForward, config, arrays)


@_operator(f"(Tensor x, {_LEAF}) -> Tensor")
def _leaf_infer(x: Tensor, *arguments: Any) -> Tensor:
    """Compute the output of rows, each by one leaf."""
    return torch.from_numpy(_leaf_layer(*arguments)(as_array(x)))


@_operator(
    f"(Tensor dy, Tensor x, {_LEAF}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _leaf_backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Compute the gradients of rows and parameters, routes held constant."""
    layer = _leaf_layer(*arguments)
    _, cache = layer.forward(as_array(x), hardened=True)
    dx, grads = layer.backward(as_array(dy), cache)
    return _as_tensors(dx, *(grads[name] for name in _LEAF_NAMES))


def _fake_leaf_infer(x: Tensor, *arguments: Any) -> Tensor:
    bias_out = arguments[5]
    return x.new_empty((x.shape[0], bias_out.shape[1]))


def _fake_leaf_backward(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(tensor.shape) for tensor in (x, *arguments[:6]))


def _keep_leaf(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


def _leaf_derivative(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.fffcpu.leaf_backward(dy, *ctx.saved_tensors, ctx.activation)
    needs = ctx.needs_input_grad
    return (*(g if need else None for g, need in zip(grads, needs, strict=False)), None)


# --- Gradients ------------------------------------------------------------------------------------


def _no_derivative(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "kernels of fffcpu have first derivatives only, and what is compiled or exported without "
        "gradients has none; for more derivatives, call the module under torch.func"
    )


def _register() -> None:
    """Tell PyTorch the shapes of the operators' outputs, and autograd their derivatives."""
    fakes = {
        "path_infer": _fake_path_infer,
        "path_forward": _fake_path_forward,
        "path_backward": _fake_path_backward,
        "path_backward_x": _fake_path_backward_x,
        "leaf_infer": _fake_leaf_infer,
        "leaf_backward": _fake_leaf_backward,
    }
    derivatives = {
        "path_forward": (_path_derivative, _keep_path),
        "leaf_infer": (_leaf_derivative, _keep_leaf),
    }
    for name, fake in fakes.items():
        operator = f"fffcpu::{name}"
        derivative, keep = derivatives.get(name, (_no_derivative, None))
        torch.library.register_fake(operator, fake, lib=_LIBRARY)
        torch.library.register_autograd(operator, derivative, setup_context=keep, lib=_LIBRARY)


_register()

path_infer = torch.ops.fffcpu.path_infer
path_forward = torch.ops.fffcpu.path_forward
leaf_infer = torch.ops.fffcpu.leaf_infer
